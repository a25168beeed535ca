"""Demonstrations: each starts real parts on loopback, plays a story, and checks what it tells."""

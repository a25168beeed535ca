"""The one exception that ends a command with a message instead of a traceback."""


class UserError(Exception):
    """Something the caller can fix; the message says what and how."""

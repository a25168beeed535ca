"""Retraining: from the newest window of labelled rows to a decision about the champion.

    ingest ─► validate ─► train ─► compare ─► promote        one module per stage, in this order
       │          │                              │
       └──────────┴──────────────────────────────┴─► decision.json

Stages talk through files in a work directory (`work.py`) and nothing else, so that a scheduler can
run them one by one and repeat any of them; `run.py` strings them together. `options.py` says what
a run may be told. `fraud_training.promotion` holds the rule, `fraud_training.validation` says which
rows are fit to learn from, `fraud_training.lock` lets one run at a time publish.
"""

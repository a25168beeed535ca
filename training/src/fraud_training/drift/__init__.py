"""Batch drift report: what was scored in a window against what the model was trained on.

    topics: verdicts + their source rows ─┐
    archive of verdicts                   ├─► sample (bounded) ─┐
    archive of rows                      ─┘                     ├─► Evidently ─► report.html
    bundle: bins, shares, profile; or an archive of rows ───────┘       └─► summary, Pushgateway

Modules, in the order of the data:

    window         which event times
    sample         a bounded, repeatable choice of rows (pure)
    archives       rows of a folder or a bucket
    topics         rows of Kafka: verdicts joined with the records they were made from
    bins           the worker's bins, index and threshold (pure)
    reference      what the model was trained on
    evidently_run  the comparison and its HTML; the only module that imports Evidently
    result         what came out, for programs and for people (pure)
    gateway        the result as metrics, for a Pushgateway
    run            the stages, one after the other
"""

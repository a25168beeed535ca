"""Stage 2: which rows may be learnt from.

rows.parquet ─► validation.check ─► mature, labelled rows ─► accepted.parquet, validation.json
"""

from typing import Any

from fraud_training import FEATURES, validation
from fraud_training.report import validation_page
from fraud_training.retrain.options import Options
from fraud_training.retrain.work import Work
from fraud_training.rows import UNKNOWN, as_text, labelled_until, mature_until, to_dataset
from fraud_training.split import temporal_split
from fraud_training.validation import Limits


def validate(options: Options, work: Work, ingested: dict[str, Any]) -> dict[str, Any] | None:
    """Writes accepted rows and the report; a decision where too little is left."""
    identity = ingested["fingerprint"]
    checked = validation.check(
        work.read_frame("rows.parquet", "ingest"), ingested["problems"], options.limits
    )
    until = mature_until(checked.accepted)
    accepted = labelled_until(checked.accepted, until)
    labelled = int((checked.accepted["label"] != UNKNOWN).sum())
    work.write_frame("accepted.parquet", accepted)
    lacking = shortage(accepted, options.limits)
    bad_days = checked.report.quarantined
    decision = None
    if lacking:
        decision = {
            "decision": "quarantined" if bad_days else "nothing-new",
            "reasons": [lacking, *_reasons(checked.report)],
            "version": None,
            "run_id": None,
            "model_name": options.model_name,
            "fingerprint": identity,
        }
    work.write_text("validation.html", validation_page(checked.report, lacking))
    work.write(
        "validation",
        {
            "fingerprint": identity,
            **checked.report.to_json(),
            "labels_mature_until": as_text(until),
            "immature_rows": labelled - len(accepted),
            "rows": len(accepted),
            "frauds": int((accepted["label"] == 1).sum()),
        },
    )
    return decision


def shortage(accepted: Any, limits: Limits) -> str | None:
    """What is missing for folds, thresholds and a test, or None."""
    frauds = int((accepted["label"] == 1).sum())
    genuine = len(accepted) - frauds
    if frauds < limits.minimum_frauds or genuine < 10 * len(FEATURES):
        return (
            f"{frauds} frauds and {genuine} genuine rows are labelled and accepted: at least "
            f"{limits.minimum_frauds} and {10 * len(FEATURES)} are needed (a longer --window?)"
        )
    data = to_dataset(accepted, "", "")
    split = temporal_split(data)
    first = split.validation[0].training(data.time)
    learnt = split.test.training(data.time)
    for rows, needed, where in (
        (first, limits.minimum_first_frauds, "before the first validation window"),
        (learnt & ~first, limits.minimum_window_frauds, "in the validation windows"),
        (learnt, limits.minimum_learnt_frauds, "before the out-of-time window"),
        (~learnt, limits.minimum_test_frauds, "in the out-of-time window"),
    ):
        found = int((data.label[rows] == 1).sum())
        if found < needed:
            return f"{found} frauds {where}: at least {needed} are needed"
        if found == int(rows.sum()):
            return f"no genuine rows {where}"
    return None


def _reasons(report: validation.Report) -> list[str]:
    return [f"{day.day}: {'; '.join(day.reasons)}" for day in report.days if day.reasons]

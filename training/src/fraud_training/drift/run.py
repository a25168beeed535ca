"""One drift report, stage by stage.

    bundle ─► window's rows ─► reference ─► comparison ─► report.html, summary.json ─► Pushgateway

With too few rows the run ends with a message before anything is written or pushed: an old report
that says its time is better than a new one that says nothing.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd

from fraud_training.drift import reference as references
from fraud_training.drift.archives import Found, read_archive
from fraud_training.drift.evidently_run import compare
from fraud_training.drift.gateway import push
from fraud_training.drift.reference import SCORE, Bundle, Reference
from fraud_training.drift.result import Summary
from fraud_training.drift.sample import unweighted
from fraud_training.drift.topics import Topics, read_topics
from fraud_training.drift.window import Wanted
from fraud_training.errors import UsageError, UserError

REGISTRY = "mlflow:"


@dataclass(frozen=True)
class Options:
    source: str
    model: str
    output: Path
    wanted: Wanted
    reference: str | None
    reference_window: int
    """Milliseconds of event time."""
    verdicts_topic: str
    property_file: Path | None
    most_rows: int
    least_rows: int
    alarm_share: float
    pushgateway: str | None
    seed: int
    now: int
    """Epoch milliseconds."""


def report(options: Options) -> Summary:
    with tempfile.TemporaryDirectory() as scratch:
        bundle = find_bundle(options.model, Path(scratch))
        found = read(options, bundle)
        current, remarks = usable(found, bundle, options)
        reference = reference_of(options, bundle)
    bins = {name: one for name, one in reference.bins.items() if name in current.columns}
    summary = Summary(
        model=bundle.name,
        version=bundle.version,
        source=options.source,
        window=found.window,
        rows_seen=found.chosen.seen,
        rows=len(current),
        reference=reference.origin,
        reference_rows=len(reference.frame),
        comparison=compare(current, reference.frame, bins, options.alarm_share),
        alarm_share=options.alarm_share,
        remarks=tuple(remarks),
        made_at=options.now,
    )
    write(options.output, summary)
    if options.pushgateway is not None:
        push(options.pushgateway, summary)
    return summary


def find_bundle(model: str, scratch: Path) -> Bundle:
    """A bundle's directory, or `mlflow:NAME@ALIAS` or `mlflow:NAME/VERSION`, as the worker's."""
    if not model.startswith(REGISTRY):
        return references.open_bundle(Path(model))
    # Imported where it is needed: MLflow takes seconds.
    from fraud_training import registry, tracking

    tracking.use_store()
    version, directory = registry.fetch(model.removeprefix(REGISTRY), scratch)
    return references.open_bundle(directory, version.version)


def read(options: Options, bundle: Bundle) -> Found:
    url = urlparse(options.source)
    if url.scheme != "kafka":
        return read_archive(options.source, options.wanted, bundle.columns, options.most_rows)
    if not url.netloc:
        raise UsageError(f"--source {options.source}: expected kafka://host:port")
    topics = Topics(url.netloc, options.verdicts_topic, options.property_file)
    return read_topics(topics, options.wanted, bundle.columns, options.most_rows)


def usable(found: Found, bundle: Bundle, options: Options) -> tuple[pd.DataFrame, list[str]]:
    """The rows to compare, with `score` where enough of them were scored by this model."""
    remarks = [f"{count:,} {what} left out" for what, count in found.left_out.items()]
    remarks += found.problems
    sample = unweighted(found.chosen.frame, options.seed)
    if sample.empty:
        raise too_few(0, found, options, remarks)
    rows = references.with_defaults(sample, bundle.features)
    if len(rows) < len(sample):
        remarks.append(f"{len(sample) - len(rows):,} rows without all features left out")
    if len(rows) < options.least_rows:
        raise too_few(len(rows), found, options, remarks)
    columns = bundle.columns
    if SCORE in rows.columns:
        # Another model's scores have another distribution; the features are everyone's.
        own = (rows["model_name"] == bundle.name) & (rows["model_version"] == bundle.version)
        rows[SCORE] = rows[SCORE].where(own)
        scored = int(rows[SCORE].notna().sum())
        if scored < len(rows):
            remarks.append(
                f"scores: {scored:,} of {len(rows):,} rows were scored by "
                f"{bundle.name}@{bundle.version}"
            )
        if scored >= options.least_rows:
            columns = [*columns, SCORE]
        else:
            remarks.append("scores are not compared: too few")
    else:
        remarks.append("scores are not compared: the source has none")
    return rows[columns], remarks


def too_few(rows: int, found: Found, options: Options, remarks: list[str]) -> UserError:
    because = f" ({'; '.join(remarks[:5])})" if remarks else ""
    return UserError(
        f"{rows} usable rows in the window {found.window}, at least {options.least_rows} are "
        f"needed to tell drift from chance: no report was made, nothing was pushed{because}"
    )


def reference_of(options: Options, bundle: Bundle) -> Reference:
    if options.reference is None:
        return references.from_bundle(bundle, options.seed)
    return references.from_archive(
        bundle, options.reference, options.reference_window, options.seed
    )


def write(folder: Path, summary: Summary) -> None:
    """Both files, each in one step: a reader never sees half of one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / "report.html", summary.comparison.html)
        replace(folder / "summary.json", json.dumps(summary.to_json(), indent=1) + "\n")
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {error.strerror}") from error


def replace(path: Path, text: str) -> None:
    building = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        building.write_text(text, encoding="utf-8")
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)

"""Stage 1: the newest window of rows, with the labels known at one moment.

folder, s3:// or kafka:// ─► rows of the window ─► labels as of then ─► rows.parquet, ingest.json
"""

from typing import Any
from urllib.parse import urlparse

from mlflow import MlflowClient

from fraud_training import registry
from fraud_training.archive import Collected, read_archive
from fraud_training.errors import UsageError
from fraud_training.retrain.options import Options
from fraud_training.retrain.work import Work
from fraud_training.rows import UNKNOWN, as_known, as_text, fingerprint


def ingest(options: Options, work: Work, client: MlflowClient) -> dict[str, Any] | None:
    """Writes the rows; a decision where a version was made of just these already."""
    collected = collect(options)
    known = as_known(collected.frame, collected.as_of, options.window)
    frame = known.frame
    identity = fingerprint(frame, options.settings() + repr(sorted(collected.problems.items())))
    work.begin(identity)
    work.write_frame("rows.parquet", frame)
    work.write(
        "ingest",
        {
            "fingerprint": identity,
            "settings": options.settings(),
            "source": shown_source(options.source),
            "as_of": collected.as_of,
            "as_of_text": as_text(collected.as_of),
            "window_milliseconds": options.window,
            "rows": len(frame),
            "labelled": int((frame["label"] != UNKNOWN).sum()),
            "unlabelled": int((frame["label"] == UNKNOWN).sum()),
            "labels_not_yet_known": known.labels_not_yet_known,
            "duplicates": known.duplicates,
            "later_than_as_of": known.later_than_as_of,
            "files": collected.files,
            "skipped": collected.skipped,
            "problems": collected.problems,
        },
    )
    earlier = registry.find_by_fingerprint(client, options.model_name, identity)
    if earlier is not None and earlier.settled:
        return nothing_new(earlier, identity)
    return None


def nothing_new(earlier: registry.Version, identity: str) -> dict[str, Any]:
    """The decision where the same data, code and settings were dealt with before."""
    return {
        "decision": "nothing-new",
        "reasons": [
            f"version {earlier.version} was made of the same rows, code and settings "
            f"({earlier.tags.get('decision', 'undecided')})"
        ],
        "version": earlier.version,
        "run_id": earlier.run_id,
        "model_name": earlier.name,
        "fingerprint": identity,
    }


def collect(options: Options) -> Collected:
    url = urlparse(options.source)
    if url.scheme != "kafka":
        return read_archive(options.source, options.as_of, options.window)
    if not url.netloc or "@" in url.netloc or url.path.strip("/"):
        raise UsageError(
            "--source kafka://: expected kafka://host:port[,host:port]; topics are named by "
            "--transactions-topic and --labels-topic, credentials stand in --property-file or in "
            "the variable FRAUD_TRAINING_PROPERTY"
        )
    from fraud_training.kafka_source import Topics, read_topics

    topics = Topics(
        url.netloc, options.transactions_topic, options.labels_topic, options.property_file
    )
    return read_topics(topics, options.as_of, options.window)


def shown_source(source: str) -> str:
    """The source without the folders of a machine: it ends up in cards and tags."""
    url = urlparse(source)
    if url.scheme in ("", "file"):
        return f"archive {url.path.rstrip('/').rpartition('/')[2]}"
    return source

"""Rows of a folder or `s3://bucket/prefix`, in either of two layouts.

    date=2026-03-01/hour=13/….parquet    verdicts with their features (`fraud-scorer archive`)
    day=2026-03-01/part-….parquet, .csv  transactions (`fraud-producer --archive`): no scores

Only the folders that the window touches are opened, and files are read in pieces; what is kept at
once is bounded by the sample. A file that cannot be read is left out and named.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as arrow
from pyarrow import csv as arrow_csv
from pyarrow import fs, parquet

from fraud_training.archive import MAX_FILE_BYTES, open_store
from fraud_training.drift.sample import Chosen, Sample
from fraud_training.drift.window import Wanted, Window
from fraud_training.errors import UserError

PIECE_ROWS = 65_536

VERDICT_COLUMNS = ("score", "model_name", "model_version")
"""What an archive of verdicts holds besides the features; absent from an archive of rows."""

_VERDICTS = re.compile(
    r"date=(\d{4}-\d{2}-\d{2})/hour=([01]\d|2[0-3])/([^/._][^/]*\.parquet)$", re.ASCII
)
_ROWS = re.compile(r"day=(\d{4}-\d{2}-\d{2})/([^/._][^/]*\.(?:parquet|csv))$", re.ASCII)
_HOUR = 3_600_000


@dataclass(frozen=True)
class Part:
    """One file, and the event times its folder says it holds: [start, end)."""

    path: str
    start: int
    end: int


@dataclass
class Found:
    """What a source gave: the sample, the window it is of, and what was left out of it."""

    window: Window
    chosen: Chosen
    left_out: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_archive(
    source: str, wanted: Wanted, features: Sequence[str], most: int, flag: str = "--source"
) -> Found:
    """A sample of at most `most` rows of the window."""
    store, root = open_store(source)
    parts = list_parts(store, root, source, flag)
    newest = wanted.end if wanted.end is not None else newest_time(store, parts, source, flag)
    window = wanted.window(newest)
    sample = Sample(window, most)
    problems: list[str] = []
    for part in parts:
        if part.end <= window.start or part.start > window.end:
            continue
        try:
            for piece in read_part(store, part.path, features):
                sample.add(piece)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, ValueError, OSError) as error:
            if isinstance(error, OSError) and not _is_there(store, part.path):
                # Not this file, but the store: another try may help, a partial report would not.
                raise UserError(f"{flag} {source}: cannot read {part.path}: {error}") from error
            problems.append(f"{part.path.removeprefix(f'{root}/')}: {_first_line(error)}")
    return Found(window, sample.finish(), {"files": len(problems)} if problems else {}, problems)


def list_parts(store: fs.FileSystem, root: str, source: str, flag: str) -> list[Part]:
    """The archive's files in the order of their event times."""
    parts: list[Part] = []
    try:
        listing = store.get_file_info(fs.FileSelector(root, recursive=True))
    except OSError as error:
        raise UserError(
            f"{flag} {source}: cannot be listed: {_first_line(error)} (check that it exists, and "
            f"for S3 the variables AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        ) from error
    for info in listing:
        name = info.path.removeprefix(root)
        if info.type != fs.FileType.File:
            continue
        if match := _VERDICTS.search(name):
            start = _midnight(match.group(1)) + int(match.group(2)) * _HOUR
            parts.append(Part(info.path, start, start + _HOUR))
        elif match := _ROWS.search(name):
            start = _midnight(match.group(1))
            parts.append(Part(info.path, start, start + 24 * _HOUR))
    if not parts:
        raise UserError(
            f"{flag} {source}: holds neither date=…/hour=…/*.parquet (fraud-scorer archive) "
            f"nor day=…/*.parquet or *.csv (fraud-producer --archive)"
        )
    return sorted(parts, key=lambda part: (part.start, part.path))


def newest_time(store: fs.FileSystem, parts: list[Part], source: str, flag: str) -> int:
    """The newest event time that lies in its own folder: one absurd time must not move the window.

    The newest folder with a readable row decides.
    """
    newest: int | None = None
    for part in reversed(parts):
        if newest is not None and part.end <= newest:
            break
        try:
            for piece in read_part(store, part.path, ()):
                time = piece["event_time"].to_numpy(dtype=np.int64)
                placed = time[(time >= part.start) & (time < part.end)]
                if len(placed):
                    newest = max(int(placed.max()), newest or 0)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, ValueError, OSError):
            continue  # told of when the window is read
    if newest is None:
        raise UserError(f"{flag} {source}: no file holds a row with an event time of its folder")
    return newest


def read_part(store: fs.FileSystem, path: str, features: Sequence[str]) -> Iterator[pd.DataFrame]:
    """One file's rows in pieces; ValueError (or an Arrow error) says what is wrong with it."""
    size = store.get_file_info(path).size
    if size is not None and size > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES >> 30} GiB")
    required = ("transaction_id", "event_time", *features)
    with store.open_input_file(path) as file:
        if path.endswith(".parquet"):
            content = parquet.ParquetFile(file)
            columns = wanted_columns(content.schema_arrow.names, required)
            for batch in content.iter_batches(batch_size=PIECE_ROWS, columns=columns):
                yield typed(batch.to_pandas(), features)
        else:
            options = arrow_csv.ConvertOptions(column_types={"transaction_id": arrow.string()})
            with arrow_csv.open_csv(file, convert_options=options) as reader:
                columns = wanted_columns(reader.schema.names, required)
                for batch in reader:
                    yield typed(batch.to_pandas()[columns], features)


def wanted_columns(there: Sequence[str], required: Sequence[str]) -> list[str]:
    missing = [name for name in required if name not in there]
    if missing:
        raise ValueError(f"column {missing[0]!r} is missing ({len(missing)} missing in all)")
    return [name for name in there if name in (*required, *VERDICT_COLUMNS, "weight")]


def typed(frame: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
    """The columns in the types that the rest works on; what is no number becomes NaN."""
    frame = frame[frame["event_time"].notna()].copy()
    frame["event_time"] = frame["event_time"].astype(np.int64)
    frame["transaction_id"] = frame["transaction_id"].astype(str).astype(object)
    for name in (*features, "score", "weight"):
        if name in frame.columns:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(np.float64)
    for name in ("model_name", "model_version"):
        if name in frame.columns:
            frame[name] = frame[name].astype(str).astype(object)
    return frame


def _midnight(day: str) -> int:
    try:
        return int(np.datetime64(day, "ms").astype(np.int64))
    except ValueError:
        return -(1 << 62)  # no day of any calendar, so in no window


def _is_there(store: fs.FileSystem, path: str) -> bool:
    try:
        return bool(store.get_file_info(path).type == fs.FileType.File)
    except OSError:
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

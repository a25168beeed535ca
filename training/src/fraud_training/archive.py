"""Reads the archive of rows: a folder or `s3://bucket/prefix`, one sub-folder per UTC day.

    day=2026-03-01/part-7-0.parquet   newest day first, until the window is full;
    day=2026-03-01/part-7-1.csv       a file that cannot be read condemns its day, not the run

S3 takes endpoint, region and credentials from the standard variables (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN). Memory is bounded by `MAX_ROWS`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pyarrow as arrow
from pyarrow import csv as arrow_csv
from pyarrow import fs, parquet

from fraud_training.errors import UsageError, UserError
from fraud_training.rows import COLUMNS, REQUIRED, days_of, normalise

MAX_ROWS = 5_000_000
"""About 1.5 GB as float64; a longer window is trained on with `--engine spark` or thinned rows."""

MAX_FILE_BYTES = 2 << 30

_PART = re.compile(r"day=(\d{4}-\d{2}-\d{2})/([^/._][^/]*\.(?:parquet|csv))$")


@dataclass
class Collected:
    """Rows of a source, and what could not be read, by day."""

    frame: pd.DataFrame
    as_of: int
    problems: dict[str, list[str]] = field(default_factory=dict)
    files: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


def open_store(source: str) -> tuple[fs.FileSystem, str]:
    """The file system of a source and the path of the archive in it."""
    url = urlparse(source)
    if url.scheme in ("", "file"):
        folder = Path(url.path if url.scheme else source)
        if not folder.is_dir():
            raise UserError(f"--source {source}: no such folder")
        return fs.LocalFileSystem(), str(folder.resolve())
    if url.scheme != "s3":
        raise UsageError(
            f"--source {source}: expected a folder, s3://bucket/prefix or kafka://host:port"
        )
    if not url.netloc:
        raise UsageError(f"--source {source}: names no bucket, expected s3://bucket/prefix")
    return s3_from_environment(), f"{url.netloc}/{url.path.strip('/')}".rstrip("/")


def s3_from_environment() -> fs.S3FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    target = urlparse(endpoint) if endpoint else None
    if target is not None and (target.scheme not in ("http", "https") or not target.netloc):
        raise UsageError("AWS_ENDPOINT_URL must be an http:// or https:// address of an S3 service")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        region=region or "us-east-1",
        endpoint_override=target.netloc + target.path.rstrip("/") if target else None,
        scheme=target.scheme if target else "https",
        connect_timeout=10,
        request_timeout=60,
    )


def read_archive(source: str, as_of: int | None, window: int) -> Collected:
    """Rows of the days that the window touches; `as_of` None means the newest event time."""
    store, root = open_store(source)
    days = list_days(store, root, source)
    collected = Collected(pd.DataFrame(columns=list(COLUMNS)), as_of or 0)
    frames: list[pd.DataFrame] = []
    total = 0
    for day in sorted(days, reverse=True):
        if as_of is not None:
            first, last = days_of(np.array([as_of - window, as_of]))
            if day > last:
                continue
            if day < first:
                break
        parts: list[pd.DataFrame] = []
        for path in sorted(days[day]):
            try:
                part = read_file(store, path, day)
            except (arrow.ArrowInvalid, arrow.ArrowTypeError, ValueError) as error:
                name = path.removeprefix(f"{root}/")
                collected.problems.setdefault(day, []).append(f"{name}: {_first_line(error)}")
                continue
            except OSError as error:
                # Parquet reports a broken file as OSError too; a store that is down is another
                # matter, and a retry may help.
                if _store_is_down(store, path):
                    raise UserError(f"--source {source}: cannot read {path}: {error}") from error
                name = path.removeprefix(f"{root}/")
                collected.problems.setdefault(day, []).append(f"{name}: {_first_line(error)}")
                continue
            collected.files += 1
            total += len(part)
            if total > MAX_ROWS:
                raise UserError(
                    f"--source {source}: more than {MAX_ROWS:,} rows in the window: "
                    f"shorten --window, or thin genuine rows and give them a weight"
                )
            parts.append(part)
        if as_of is None:
            as_of = newest(parts, day)
        frames.extend(parts)
    if as_of is None:
        as_of = 0
    collected.as_of = as_of
    if frames:
        collected.frame = pd.concat(frames, ignore_index=True)
    return collected


def newest(parts: list[pd.DataFrame], day: str) -> int | None:
    """The newest time that lies in its own day: one absurd time must not move the window."""
    times = np.concatenate([part["event_time"].to_numpy() for part in parts] or [np.empty(0, int)])
    placed = times[days_of(times) == day] if len(times) else times
    return int(placed.max()) if len(placed) else None


def list_days(store: fs.FileSystem, root: str, source: str) -> dict[str, list[str]]:
    """Files of each day."""
    days: dict[str, list[str]] = {}
    try:
        for path in _files(store, root):
            if match := _PART.search(path.removeprefix(root)):
                days.setdefault(match.group(1), []).append(path)
    except OSError as error:
        raise UserError(
            f"--source {source}: cannot be listed: {_first_line(error)} (check that it exists, "
            f"and for S3 the variables AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        ) from error
    if not days:
        raise UserError(
            f"--source {source}: no day=YYYY-MM-DD/*.parquet or *.csv in it "
            f"(fraud-producer --archive writes such a folder)"
        )
    return days


def _files(store: fs.FileSystem, root: str) -> Iterator[str]:
    for info in store.get_file_info(fs.FileSelector(root, recursive=True)):
        if info.type == fs.FileType.File:
            yield info.path


def _store_is_down(store: fs.FileSystem, path: str) -> bool:
    try:
        return bool(store.get_file_info(path).type != fs.FileType.File)
    except OSError:
        return True


def read_file(store: fs.FileSystem, path: str, day: str) -> pd.DataFrame:
    """One file's rows; ValueError (or an Arrow error) says what is wrong with it."""
    size = store.get_file_info(path).size
    if size is not None and size > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES >> 30} GiB")
    with store.open_input_file(path) as file:
        if path.endswith(".parquet"):
            content = parquet.ParquetFile(file)
            if content.metadata.num_rows > MAX_ROWS:
                raise ValueError(f"more than {MAX_ROWS:,} rows")
            check_columns(content.schema_arrow.names)
            columns = [n for n in content.schema_arrow.names if n in (*REQUIRED, "weight")]
            table = content.read(columns=columns)
        else:
            text = arrow_csv.ConvertOptions(
                column_types={"transaction_id": arrow.string()}, strings_can_be_null=False
            )
            table = arrow_csv.read_csv(file, convert_options=text)
            check_columns(table.column_names)
    return normalise(table.to_pandas(), day)


def check_columns(names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ValueError(f"column {missing[0]!r} is missing ({len(missing)} missing in all)")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]

"""The archive's days are read alike from folders and S3, newest first, and bad files are named."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import archives
import boto3
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from fraud_training import archive
from fraud_training.archive import Collected, read_archive
from fraud_training.errors import UsageError, UserError
from fraud_training.rows import as_known, normalise

WEEKS = 14 * archives.DAY
NEWEST = archives.START + 10 * archives.DAY


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return archives.draw(genuine=500, frauds=30)


def known(collected: Collected, window: int = WEEKS) -> pd.DataFrame:
    return as_known(collected.frame, collected.as_of, window).frame


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_what_was_written_is_read(suffix: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    archives.write(tmp_path, rows, suffix)
    collected = read_archive(str(tmp_path), None, WEEKS)
    assert collected.files == 10
    assert collected.problems == {}
    assert collected.as_of == rows["event_time"].max()
    expected = normalise(rows, None).sort_values(["event_time", "transaction_id"])
    pd.testing.assert_frame_equal(known(collected), expected.reset_index(drop=True))


def test_only_days_of_the_window_are_opened(rows: pd.DataFrame, tmp_path: Path) -> None:
    archives.write(tmp_path, rows)
    (tmp_path / "day=2026-01-02" / "part-5-0.parquet").write_bytes(b"torn")
    collected = read_archive(str(tmp_path), None, 3 * archives.DAY)
    assert collected.files == 4
    assert collected.problems == {}
    past = archives.START + 5 * archives.DAY
    collected = read_archive(str(tmp_path), past, 2 * archives.DAY)
    frame = known(collected, 2 * archives.DAY)
    assert collected.files == 3
    assert frame["event_time"].between(past - 2 * archives.DAY + 1, past).all()


def test_a_bad_file_condemns_its_day_and_is_named(rows: pd.DataFrame, tmp_path: Path) -> None:
    archives.write(tmp_path, rows)
    (tmp_path / "day=2026-01-02" / "part-5-0.parquet").write_bytes(b"PAR1 torn PAR1")
    third = tmp_path / "day=2026-01-03" / "part-5-0.parquet"
    pd.read_parquet(third).drop(columns="V9").to_parquet(third)
    (tmp_path / "day=2026-01-04" / "part-9-0.csv").write_text("a,b\n1\n", "utf-8")
    collected = read_archive(str(tmp_path), None, WEEKS)
    assert collected.files == 8
    assert set(collected.problems) == {"2026-01-02", "2026-01-03", "2026-01-04"}
    assert "column 'V9' is missing" in collected.problems["2026-01-03"][0]
    for day, (problem,) in collected.problems.items():
        assert problem.startswith(f"day={day}/part-")
        assert str(tmp_path) not in problem


def test_unfinished_and_foreign_files_are_not_rows(rows: pd.DataFrame, tmp_path: Path) -> None:
    archives.write(tmp_path, rows)
    (tmp_path / "day=2026-01-02" / ".part-6-0.parquet.tmp").write_bytes(b"half")
    (tmp_path / "day=2026-01-02" / "_SUCCESS").write_bytes(b"")
    (tmp_path / "day=2026-01-02" / "notes.txt").write_text("hello", "utf-8")
    (tmp_path / "readme.csv").write_text("a,b\n", "utf-8")
    assert read_archive(str(tmp_path), None, WEEKS).files == 10


def test_one_absurd_time_does_not_move_the_window(rows: pd.DataFrame, tmp_path: Path) -> None:
    changed = rows.copy()
    archives.write(tmp_path, changed)
    last = tmp_path / "day=2026-01-10" / "part-5-0.parquet"
    table = pd.read_parquet(last)
    newest = table["event_time"].max()
    table.loc[0, "event_time"] = NEWEST + 900 * archives.DAY
    table.to_parquet(last)
    collected = read_archive(str(tmp_path), None, WEEKS)
    assert collected.as_of == newest
    assert len(known(collected)) == len(rows)


def test_memory_is_bounded(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives.write(tmp_path, rows)
    monkeypatch.setattr(archive, "MAX_ROWS", 400)
    with pytest.raises(UserError, match="more than 400 rows in the window: shorten --window"):
        read_archive(str(tmp_path), None, WEEKS)
    assert read_archive(str(tmp_path), None, archives.DAY).files == 2


@pytest.mark.parametrize(
    ("source", "said", "kind"),
    [
        ("/nowhere/at/all", "no such folder", UserError),
        ("ftp://host/x", "expected a folder, s3://bucket/prefix or kafka://", UsageError),
        ("s3:///prefix", "names no bucket", UsageError),
    ],
)
def test_a_source_that_cannot_be_is_refused(source: str, said: str, kind: type[UserError]) -> None:
    with pytest.raises(kind, match=said):
        read_archive(source, None, WEEKS)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no day=YYYY-MM-DD"):
        read_archive(str(tmp_path), None, WEEKS)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 service at an address of its own; the standard variables point to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield address
    server.stop()


def upload(folder: Path, bucket: str, prefix: str) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    for path in folder.rglob("*.*"):
        client.upload_file(str(path), bucket, f"{prefix}{path.relative_to(folder)}")


@pytest.mark.parametrize("prefix", ["", "some/where"])
def test_s3_gives_what_a_folder_gives(
    prefix: str, rows: pd.DataFrame, s3: str, tmp_path: Path
) -> None:
    assert urlparse(s3).port
    archives.write(tmp_path, rows)
    (tmp_path / "day=2026-01-02" / "part-6-0.parquet").write_bytes(b"torn")
    upload(tmp_path, "rows", f"{prefix}/" if prefix else "")
    local = read_archive(str(tmp_path), None, 8 * archives.DAY)
    remote = read_archive(f"s3://rows/{prefix}", None, 8 * archives.DAY)
    pd.testing.assert_frame_equal(remote.frame, local.frame)
    assert (remote.files, remote.as_of) == (local.files, local.as_of)
    assert set(remote.problems) == set(local.problems)


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_a_failure_that_names_what_to_check() -> None:
    with pytest.raises(UserError, match=r"s3://absent/rows: .*AWS_ENDPOINT_URL"):
        read_archive("s3://absent/rows", None, WEEKS)


def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "storage:9000")
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL must be an http"):
        read_archive("s3://rows", None, WEEKS)

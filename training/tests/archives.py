"""Small archives for the tests: rows drawn from the committed profile, spread over days."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from fraud_training import FEATURES, paths
from fraud_training.bundle_pyfunc import BundleModel
from fraud_training.profile import Profile

DAY = 86_400_000
START = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def draw(
    days: int = 10,
    genuine: int = 2_000,
    frauds: int = 110,
    seed: int = 5,
    start: int = START,
    delay: int = 0,
    moved: float = 0.0,
    prefix: str = "t",
) -> pd.DataFrame:
    """Rows of the archive's columns. `moved` shifts frauds so that an older model misses them."""
    content = json.loads(paths.PROFILE.read_text("utf-8"))
    profile = Profile.from_json(content["profile"])
    random = np.random.default_rng(seed)
    rows = np.vstack([profile.draw(random, genuine, 0), profile.draw(random, frauds, 1)])
    rows = rows.astype(np.float64)
    label = np.repeat(np.array([0, 1], dtype=np.int8), [genuine, frauds])
    if moved:
        # What told frauds apart turns genuine; other features tell them apart instead.
        rows[genuine:, :18] = rows[:frauds, :18] if frauds <= genuine else 0.0
        rows[genuine:, 20:24] += moved
    frame = pd.DataFrame(rows, columns=list(FEATURES))
    frame["Amount"] = frame["Amount"].clip(lower=0.0)
    time = start + random.integers(0, days * DAY, len(frame))
    frame.insert(0, "event_time", time)
    frame["label"], frame["known_at"] = label, time + delay
    frame = frame.sort_values("event_time", ignore_index=True)
    frame.insert(0, "transaction_id", [f"{prefix}-{n:06}" for n in range(len(frame))])
    return frame


def write(folder: Path, frame: pd.DataFrame, suffix: str = "parquet", part: str = "part-5") -> None:
    """One file per day."""
    day = pd.to_datetime(frame["event_time"], unit="ms", utc=True).dt.strftime("%Y-%m-%d")
    for name, rows in frame.groupby(day):
        path = folder / f"day={name}" / f"{part}-0.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "parquet":
            rows.to_parquet(path, index=False)
        else:
            rows.to_csv(path, index=False)


def score(frame: pd.DataFrame, bundle: Path, version: str | None = None) -> pd.DataFrame:
    """Rows as an archive of verdicts has them: what a bundle says of each."""
    manifest = tomllib.loads((bundle / "manifest.toml").read_text("utf-8"))
    said = BundleModel(bundle).predict(frame)
    table = frame[["transaction_id", "event_time", *FEATURES]].copy()
    table["score"] = said["score"].astype(np.float32)
    table["decision"] = said["decision"]
    table["label"] = (said["decision"] == "decline").astype(np.int8)
    table["model_name"] = manifest["name"]
    table["model_version"] = version or manifest["version"]
    table["verdict_partition"] = np.int32(0)
    table["verdict_offset"] = np.arange(len(table), dtype=np.int64)
    table["source_partition"] = np.int32(0)
    table["source_offset"] = np.arange(len(table), dtype=np.int64)
    return table


def write_verdicts(folder: Path, table: pd.DataFrame) -> None:
    """One file per hour of event time, named as `fraud-scorer archive` names them."""
    time = pd.to_datetime(table["event_time"], unit="ms", utc=True)
    for name, rows in table.groupby(time.dt.strftime("date=%Y-%m-%d/hour=%H")):
        first = int(rows["verdict_offset"].min())
        path = folder / str(name) / f"verdicts-00000-{first:020}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path, index=False)

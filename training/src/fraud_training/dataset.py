"""Rows to learn from: reads a Kaggle `creditcard.csv`, refuses bad ones, weights each row.

    CSV (plain or gzip) ─► columns checked ─► Dataset(features, time, label, weight)
    reference.json      ─► draws           ─► Dataset, marked synthetic

Weights. A full `creditcard.csv` needs none (1 each). A thinned file carries a column `sampling`
that says how each row was picked; all frauds were kept, so only genuine rows stand for others:

- up to the last `head` row the file is complete, whatever the label of a row: weight 1;
- after 81,841 s only `random` rows exist, drawn uniformly, each standing for 27.08 rows;
- between the two there are `random` rows and the extra `random_t_le_81841` rows. The span holds
  about 27.08 × (number of its `random` rows) genuine transactions, and together they represent
  them: each of the n_random + n_extra rows weighs 27.08 × n_random / (n_random + n_extra).
"""

import gzip
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fraud_training import FEATURES
from fraud_training.errors import UserError
from fraud_training.profile import Profile

RANDOM_WEIGHT = 27.08
"""Genuine rows per `random` row: 284,315 genuine rows in the original, 10,500 of them drawn."""

EXTRA_UNTIL = 81_841.0
"""End of the span in which `random_t_le_81841` adds rows, in seconds."""

MINIMUM_FRAUDS = 50
"""Below this, five validation windows and a test window hold too few frauds to choose by."""

KAGGLE = "https://www.kaggle.com/datasets/mlg-ulb/creditcardfraud"

SYNTHETIC_GENUINE = 20_000
SYNTHETIC_FRAUDS = 420
SYNTHETIC_SPAN = 145_248.0


@dataclass(frozen=True)
class Dataset:
    """Rows in time order. `weight` is the number of real transactions a row stands for."""

    features: NDArray[np.float32]
    time: NDArray[np.float64]
    label: NDArray[np.int8]
    weight: NDArray[np.float64]
    source: str
    fingerprint: str
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.label)

    @property
    def fraud_share(self) -> float:
        return float(self.weight[self.label == 1].sum() / self.weight.sum())

    def where(self, mask: NDArray[np.bool_]) -> "Dataset":
        """The rows that `mask` selects."""
        return replace(
            self,
            features=self.features[mask],
            time=self.time[mask],
            label=self.label[mask],
            weight=self.weight[mask],
        )


def load_csv(path: Path) -> Dataset:
    """Reads and checks a Kaggle `creditcard.csv`, optionally thinned (column `sampling`)."""
    if not path.is_file():
        raise UserError(
            f"no such data file: {path} (get creditcard.csv from {KAGGLE} and pass --data)"
        )
    frame = read_frame(path)
    wanted = ["Time", *FEATURES, "Class"]
    for column in wanted:
        if column not in frame.columns:
            raise UserError(
                f"column {column!r} is missing from {path.name}: "
                f"expected Kaggle's creditcard.csv with Time, V1…V28, Amount and Class ({KAGGLE})"
            )
    for column in wanted:
        numbers = pd.to_numeric(frame[column], errors="coerce")
        bad = ~np.isfinite(numbers.to_numpy(dtype=np.float64))
        if bad.any():
            raise UserError(
                f"column {column!r} of {path.name} holds {int(bad.sum())} value(s) that are not "
                f"finite numbers, the first in data row {int(np.argmax(bad)) + 1}: "
                f"remove or repair these rows"
            )
        frame[column] = numbers
    wrong = ~frame["Class"].isin([0, 1]).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"column 'Class' of {path.name} must be 0 (genuine) or 1 (fraud), "
            f"but data row {row + 1} has {frame['Class'].iloc[row]}"
        )
    frauds = int((frame["Class"] == 1).sum())
    if frauds < MINIMUM_FRAUDS:
        raise UserError(
            f"too few frauds in {path.name}: {frauds} rows with 'Class' 1, "
            f"at least {MINIMUM_FRAUDS} are needed to train and to measure"
        )
    if frauds == len(frame):
        raise UserError(f"column 'Class' of {path.name} has no genuine rows (0)")
    frame = frame.sort_values("Time", kind="stable", ignore_index=True)
    time = frame["Time"].to_numpy(dtype=np.float64)
    label = frame["Class"].to_numpy(dtype=np.int8)
    weight = (
        sampling_weights(time, label, frame["sampling"].to_numpy(dtype=str))
        if "sampling" in frame.columns
        else np.ones(len(frame))
    )
    return Dataset(
        features=frame[list(FEATURES)].to_numpy(dtype=np.float32),
        time=time,
        label=label,
        weight=weight,
        source=path.name,
        fingerprint=fingerprint(path),
    )


def read_frame(path: Path) -> pd.DataFrame:
    """The CSV as it stands; gzip is told by content, so that a renamed file still reads."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        frame: pd.DataFrame = pd.read_csv(
            path, compression="gzip" if compressed else None, low_memory=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as CSV: {error}") from error
    return frame


def fingerprint(path: Path) -> str:
    """SHA-256 of the data: of the decompressed text, so that recompression changes nothing."""
    digest = hashlib.sha256()
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if compressed else path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sampling_weights(
    time: NDArray[np.float64], label: NDArray[np.int8], sampling: NDArray[np.str_]
) -> NDArray[np.float64]:
    """What each row of a thinned file stands for; see the module's text for the derivation."""
    known = ("head", "random", "random_t_le_81841", "fraud_all")
    strange = sorted(set(sampling.tolist()) - set(known))
    if strange:
        raise UserError(
            f"column 'sampling' holds {strange[0]!r}: expected one of {', '.join(known)}, "
            f"or drop the column if the file is complete"
        )
    genuine = label == 0
    head = sampling == "head"
    head_end = float(time[head].max()) if head.any() else -np.inf
    weight = np.ones(len(time))
    weight[genuine & (time > EXTRA_UNTIL)] = RANDOM_WEIGHT
    middle = genuine & (time > head_end) & (time <= EXTRA_UNTIL)
    if middle.any():
        drawn = int((middle & (sampling == "random")).sum())
        weight[middle] = RANDOM_WEIGHT * drawn / int(middle.sum())
    return weight


def draw_synthetic(
    reference: Path,
    seed: int,
    genuine: int = SYNTHETIC_GENUINE,
    frauds: int = SYNTHETIC_FRAUDS,
) -> Dataset:
    """Rows drawn from a bundle's profile, for machines without the original data.

    Frauds are over-drawn so that there are enough to learn from; the weight of genuine rows puts
    the share right again, as in the thinned real file.
    """
    if not reference.is_file():
        raise UserError(
            f"neither data nor a profile to draw from: {reference} is missing. "
            f"Get creditcard.csv from {KAGGLE} and pass --data"
        )
    text = reference.read_text(encoding="utf-8")
    profile = Profile.from_json(json.loads(text)["profile"])
    random = np.random.default_rng(seed)
    features = np.vstack(
        [profile.draw(random, genuine, label=0), profile.draw(random, frauds, label=1)]
    )
    label = np.concatenate([np.zeros(genuine, np.int8), np.ones(frauds, np.int8)])
    time = random.uniform(0.0, SYNTHETIC_SPAN, len(label)).round()
    share = profile.share_of(1)
    weight = np.where(label == 0, frauds * (1.0 - share) / share / genuine, 1.0)
    order = np.argsort(time, kind="stable")
    return Dataset(
        features=features[order],
        time=time[order],
        label=label[order],
        weight=weight[order],
        source=f"synthetic rows drawn from the profile of {reference.parent.name}",
        fingerprint=hashlib.sha256(f"{seed}:{genuine}:{frauds}:{text}".encode()).hexdigest(),
        synthetic=True,
    )

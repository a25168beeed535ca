"""Input is checked before anything is learnt from it, and thinned rows are weighted back."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fraud_training import FEATURES, paths
from fraud_training.dataset import (
    RANDOM_WEIGHT,
    Dataset,
    draw_synthetic,
    load_csv,
    sampling_weights,
)
from fraud_training.errors import UserError


def written(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "creditcard.csv"
    frame.to_csv(path, index=False)
    return path


def test_complete_file_weighs_one_per_row(frame: pd.DataFrame, tmp_path: Path) -> None:
    data = load_csv(written(frame, tmp_path))
    assert data.weight.tolist() == [1.0] * len(frame)
    assert data.features.dtype == np.float32
    assert np.array_equal(data.features, frame[list(FEATURES)].to_numpy(np.float32))


def test_rows_come_in_time_order_whatever_the_file_order(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    shuffled = frame.sample(frac=1.0, random_state=5)
    data = load_csv(written(shuffled, tmp_path))
    assert np.array_equal(data.features, frame[list(FEATURES)].to_numpy(np.float32))
    assert data.label.tolist() == frame["Class"].tolist()


def test_gzip_and_plain_are_the_same_data(frame: pd.DataFrame, tmp_path: Path) -> None:
    plain = written(frame, tmp_path)
    packed = tmp_path / "packed.csv"  # told by content, not by name
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load_csv(plain).fingerprint == load_csv(packed).fingerprint
    assert np.array_equal(load_csv(plain).features, load_csv(packed).features)


def break_column(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="V7")


def break_number(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"V3": object}).assign(V3=lambda t: t["V3"].where(t.index != 4, "oops"))


def break_nan(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(Amount=frame["Amount"].where(frame.index != 9))


def break_class(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(Class=frame["Class"].where(frame.index != 2, 2))


def break_frauds(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(Class=frame["Class"].where(frame.index < 20, 0))


def break_genuine(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(Class=1)


def break_sampling(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(sampling="guessed")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_column, r"column 'V7' is missing"),
        (break_number, r"column 'V3' .* 1 value\(s\) .* data row 5"),
        (break_nan, r"column 'Amount' .* data row 10"),
        (break_class, r"'Class' .* data row 3 has 2"),
        (break_frauds, r"too few frauds .* 3 rows"),
        (break_genuine, r"'Class' .* no genuine rows"),
        (break_sampling, r"'sampling' holds 'guessed'"),
    ],
)
def test_bad_input_is_refused_by_name(
    damage: Callable[[pd.DataFrame], pd.DataFrame], said: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        load_csv(written(damage(frame), tmp_path))


def test_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv .*kaggle"):
        load_csv(tmp_path / "nowhere.csv")


def test_sampling_weights_restore_the_population() -> None:
    """Thins a known population as the sample was thinned and counts what the weights add up to."""
    random = np.random.default_rng(1)
    time = np.sort(random.uniform(0, 145_000, 200_000)).round()
    label = (random.random(len(time)) < 0.002).astype(np.int8)
    head = time <= 10_000
    picked = random.random(len(time)) < 1 / RANDOM_WEIGHT
    extra = ~picked & (time <= 81_841) & (random.random(len(time)) < 0.05)
    sampling = np.select(
        [label == 1, picked, head, extra],
        ["fraud_all", "random", "head", "random_t_le_81841"],
        "dropped",
    )
    kept = sampling != "dropped"
    weight = sampling_weights(time[kept], label[kept], sampling[kept])
    for start, end, tolerance in ((-1, 10_000, 0.0), (10_001, 81_841, 0.05), (81_842, 2e5, 0.05)):
        population = int(((time >= start) & (time <= end) & (label == 0)).sum())
        inside = (time[kept] >= start) & (time[kept] <= end) & (label[kept] == 0)
        assert weight[inside].sum() == pytest.approx(population, rel=tolerance)
    assert (weight[label[kept] == 1] == 1.0).all()


def test_synthetic_rows_keep_the_real_fraud_share(drawn: Dataset) -> None:
    assert drawn.synthetic
    assert 0.0015 < drawn.fraud_share < 0.0021
    assert (np.diff(drawn.time) >= 0).all()
    again = draw_synthetic(paths.PROFILE, seed=3, genuine=3_000, frauds=150)
    assert np.array_equal(again.features, drawn.features)
    other = draw_synthetic(paths.PROFILE, seed=4, genuine=3_000, frauds=150)
    assert not np.array_equal(other.features, drawn.features)


def test_real_sample_weighs_what_the_original_holds() -> None:
    if not paths.SAMPLE.is_file():
        pytest.skip(f"the original data's sample is not here ({paths.SAMPLE.name})")
    data = load_csv(paths.SAMPLE)
    # 145,248 s is where 80 % of the original's 284,807 rows have passed.
    assert data.weight.sum() == pytest.approx(0.8 * 284_807, rel=0.01)

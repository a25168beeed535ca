"""Drawn rows look like the data, and the stored statistics give no row away."""

import json

import numpy as np
import pytest
from scipy.special import ndtr

from fraud_training import FEATURES
from fraud_training.profile import (
    MINIMUM_COMPONENT_ROWS,
    Profile,
    fit_profile,
    group_rows,
    histogram,
    quantile_cuts,
    smooth_quantiles,
)

ROWS = 4_000


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Correlated, skewed columns; the last is an amount."""
    random = np.random.default_rng(2)
    values = random.normal(size=(ROWS, len(FEATURES)))
    values[:, 1] = 0.8 * values[:, 0] + 0.6 * values[:, 1]
    values[:, 2] = np.exp(values[:, 2])
    values[:, -1] = np.exp(values[:, -1] + 3).round(2)
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def profile(rows: np.ndarray) -> Profile:
    label = (np.arange(ROWS) % 10 == 0).astype(np.int8)
    weight = np.where(label == 1, 1.0, 20.0)
    return fit_profile(rows, label, weight, label.astype(np.int64))


def test_draws_keep_margins_and_correlation(rows: np.ndarray, profile: Profile) -> None:
    drawn = profile.draw(np.random.default_rng(0), 40_000, label=0)
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        real = np.quantile(rows, level, axis=0)
        assert np.quantile(drawn, level, axis=0) == pytest.approx(real, abs=0.1, rel=0.12)
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(0.8, abs=0.04)
    assert np.corrcoef(drawn[:, 0], drawn[:, 5])[0, 1] == pytest.approx(0.0, abs=0.05)


def test_drawing_is_what_the_format_says(profile: Profile) -> None:
    """The recipe in the module's text, step by step, against the class."""
    stored = profile.to_json()
    component = stored["components"][0]
    normal = np.random.default_rng(9).standard_normal((5, len(FEATURES)))
    lower = np.zeros((len(FEATURES), len(FEATURES)))
    for j, line in enumerate(component["correlation_cholesky"]):
        assert len(line) == j + 1
        lower[j, : j + 1] = line
    uniform = ndtr(normal @ lower.T)
    expected = [
        [
            np.interp(u, stored["levels"], feature["quantiles"])
            for u, feature in zip(row, component["features"], strict=True)
        ]
        for row in uniform
    ]
    again = Profile.from_json(json.loads(json.dumps(stored)))
    got = again.components[0].draw(np.random.default_rng(9), 5, again.levels)
    assert got == pytest.approx(np.array(expected), rel=1e-9)


def test_amounts_are_rounded_to_cents(profile: Profile) -> None:
    amounts = profile.draw(np.random.default_rng(1), 500)[:, -1].astype(np.float64)
    assert amounts == pytest.approx(amounts.round(2), rel=1e-6)


def test_components_are_picked_by_share(profile: Profile) -> None:
    assert sum(c.share for c in profile.components) == pytest.approx(1.0)
    _, labels = profile.draw_labelled(np.random.default_rng(1), 50_000)
    assert labels.mean() == pytest.approx(profile.share_of(1), rel=0.15)


def test_correlation_is_one_on_the_diagonal(profile: Profile) -> None:
    for component in profile.components:
        assert np.diag(component.cholesky @ component.cholesky.T) == pytest.approx(1.0)
        assert (np.diag(component.cholesky) > 0).all()


def test_no_quantile_is_the_extreme_of_a_row(rows: np.ndarray) -> None:
    column = rows[:, 2].astype(np.float64)
    ends = smooth_quantiles(column, np.ones(ROWS), (0.0, 1.0))
    highest = np.sort(column)[-5:]
    assert ends[1] == pytest.approx(highest.mean())
    assert ends[1] < column.max()
    assert ends[0] > column.min()


def test_small_groups_are_not_published(rows: np.ndarray) -> None:
    groups = np.zeros(ROWS, np.int64)
    groups[: MINIMUM_COMPONENT_ROWS - 1] = 1
    with pytest.raises(ValueError, match="too few"):
        fit_profile(rows, np.zeros(ROWS, np.int8), np.ones(ROWS), groups)


@pytest.mark.parametrize("seed", range(8))
def test_grouping_never_makes_a_small_or_mixed_group(seed: int) -> None:
    random = np.random.default_rng(seed)
    label = (random.random(600) < 0.3).astype(np.int8)
    score = random.beta(0.2, 0.2 + seed, 600)
    groups = group_rows(label, score, (0.01, 0.1, 0.7))
    for group in np.unique(groups):
        inside = groups == group
        assert inside.sum() >= MINIMUM_COMPONENT_ROWS
        assert len(np.unique(label[inside])) == 1


def test_histogram_bins_include_their_upper_cut() -> None:
    shares = histogram(
        np.array([0.0, 1.0, 1.5, 2.0, 9.0]),
        np.array([1.0, 1.0, 1.0, 1.0, 6.0]),
        np.array([1.0, 2.0]),
    )
    assert shares == pytest.approx([0.2, 0.2, 0.6])


def test_quantile_cuts_follow_weights_and_merge_ties() -> None:
    values = np.arange(1_000.0)
    weight = np.where(values < 500, 1.0, 3.0)
    cuts = quantile_cuts(values, weight, bins=4)
    assert histogram(values, weight, cuts) == pytest.approx([0.25] * 4, abs=0.01)
    assert len(quantile_cuts(np.zeros(50), np.ones(50))) == 1

"""Fits are repeatable, calibrated, and export to what they are."""

import numpy as np
import pytest

from fraud_training.dataset import Dataset
from fraud_training.export import run_onnx, to_graph
from fraud_training.models import (
    BASELINES,
    XGBOOST_DEFAULT,
    Candidate,
    fit,
    monotone_directions,
    xgboost_candidates,
)

SMALL = Candidate("xgboost", {**XGBOOST_DEFAULT, "n_estimators": 20})


@pytest.mark.parametrize("candidate", [SMALL, BASELINES[0]], ids=lambda c: c.family)
def test_same_data_and_seed_give_the_same_bytes(candidate: Candidate, drawn: Dataset) -> None:
    first, second = (
        to_graph(fit(candidate, drawn, 7), "m").SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_another_seed_gives_other_trees(drawn: Dataset) -> None:
    rows = drawn.features[:500]
    assert not np.array_equal(
        fit(SMALL, drawn, 7).predict(rows), fit(SMALL, drawn, 8).predict(rows)
    )


@pytest.mark.parametrize("candidate", [SMALL, BASELINES[0]], ids=lambda c: c.family)
def test_export_says_what_the_model_says(candidate: Candidate, drawn: Dataset) -> None:
    fitted = fit(candidate, drawn, 7)
    exported = run_onnx(to_graph(fitted, "m").SerializeToString(), drawn.features)
    assert np.abs(exported - fitted.predict(drawn.features)).max() <= 1e-5


@pytest.mark.parametrize(
    "candidate", [Candidate("xgboost", XGBOOST_DEFAULT), BASELINES[-1]], ids=lambda c: c.family
)
def test_mean_score_is_the_weighted_fraud_share(candidate: Candidate, drawn: Dataset) -> None:
    mean = np.average(fit(candidate, drawn, 7).predict(drawn.features), weights=drawn.weight)
    assert 0.5 < mean / drawn.fraud_share < 2.0


def test_monotone_features_push_one_way(drawn: Dataset) -> None:
    directions = np.array(monotone_directions(drawn, above=0.3))
    assert (directions != 0).any()
    assert (directions == 0).any()
    fitted = fit(SMALL, drawn, 7)
    row = drawn.features[drawn.label == 1][:1]
    for feature in np.flatnonzero(directions):
        sweep = np.repeat(row, 60, axis=0)
        sweep[:, feature] = np.linspace(-30, 30, 60)
        steps = np.diff(fitted.predict(sweep)) * directions[feature]
        assert (steps >= -1e-7).all()


def test_unknown_family_is_an_error(drawn: Dataset) -> None:
    with pytest.raises(ValueError, match="unknown model family 'oracle'"):
        fit(Candidate("oracle"), drawn, 7)


def test_search_starts_at_the_default_and_repeats() -> None:
    assert xgboost_candidates(1, 7) == [Candidate("xgboost", XGBOOST_DEFAULT)]
    assert xgboost_candidates(5, 7) == xgboost_candidates(5, 7)
    assert len(xgboost_candidates(5, 7)) == 5

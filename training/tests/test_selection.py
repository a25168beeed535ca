"""The champion is chosen by its written rule, on validation alone."""

import numpy as np

from fraud_training.dataset import Dataset
from fraud_training.evaluate import Scored
from fraud_training.models import BASELINES, Candidate
from fraud_training.split import temporal_split
from fraud_training.train import Trial, best, validate

NOTHING = Scored(np.empty(0), np.empty(0, np.int8), np.empty(0))


def trial(name: str, average_precision: float, log_loss: float) -> Trial:
    return Trial(Candidate(name), NOTHING, average_precision, log_loss)


def test_log_loss_decides_between_equals() -> None:
    trials = [trial("a", 0.850, 0.004), trial("b", 0.848, 0.003), trial("c", 0.840, 0.001)]
    assert best(trials).candidate.family == "b"


def test_a_clear_lead_in_average_precision_wins() -> None:
    trials = [trial("a", 0.850, 0.004), trial("b", 0.844, 0.001)]
    assert best(trials).candidate.family == "a"


def test_validation_does_not_read_the_test_window(drawn: Dataset) -> None:
    """Turning every label of the test window round changes nothing in a trial."""
    split = temporal_split(drawn)
    late = split.test.scored(drawn.time)
    turned = Dataset(
        features=np.where(late[:, None], -drawn.features, drawn.features).astype(np.float32),
        time=drawn.time,
        label=np.where(late, 1 - drawn.label, drawn.label).astype(np.int8),
        weight=drawn.weight,
        source=drawn.source,
        fingerprint="",
    )
    one = validate(BASELINES[0], drawn, split, seed=7)
    two = validate(BASELINES[0], turned, split, seed=7)
    assert np.array_equal(one.validation.score, two.validation.score)
    assert one.average_precision == two.average_precision

"""The model card of a candidate made by retraining: what it is, how good, and where not."""

from dataclasses import dataclass

from fraud_training.card import METRIC_NAMES
from fraud_training.dataset import Dataset
from fraud_training.evaluate import DECLINE_FLOOR, DECLINE_PRECISION, Estimate, Thresholds
from fraud_training.models import Candidate


@dataclass(frozen=True)
class CardFacts:
    """Everything the card tells."""

    name: str
    version: str
    engine: str
    candidate: Candidate
    data: Dataset
    learnt: Dataset
    test_frauds: int
    test_rows: int
    as_of: str
    trained_until: str
    thresholds: Thresholds
    review_budget: float
    figures: dict[str, Estimate]
    complaints: list[str]
    seed: int
    trials: int


def candidate_card(facts: CardFacts) -> str:
    """The whole card."""
    return "\n".join(part(facts) for part in (_head, _figures, _data, _thresholds, _end))


def _head(facts: CardFacts) -> str:
    return f"""\
# {facts.name}, {facts.version}

Probability that a card transaction is fraudulent: {facts.candidate.family} by the engine
`{facts.engine}`, made by `fraud-training retrain`. Input: V1…V28 and Amount, in that order, raw;
scaling, where needed, is inside `model.onnx`. The number of the registered version, and what it was
compared with, stand in the model registry and in the run's `report.html`.
"""


def _figures(facts: CardFacts) -> str:
    lines = [
        "## Figures on the out-of-time window",
        "",
        f"From {facts.trained_until}: {facts.test_rows:,} rows with {facts.test_frauds} frauds "
        "that this model has not learnt from. With 95 % bootstrap intervals, rows resampled within "
        "each class.",
        "",
        "| measure | value |",
        "|---|---|",
    ]
    lines += [f"| {METRIC_NAMES[key]} | {one} |" for key, one in facts.figures.items()]
    return "\n".join(lines) + "\n"


def _data(facts: CardFacts) -> str:
    return f"""\
## Data

{facts.data.source}: {len(facts.data):,} labelled rows, {int(facts.data.label.sum())} of them
frauds, with the labels that were known as of {facts.as_of}. Rows and settings have the fingerprint
`{facts.data.fingerprint}`.

The model was fitted on the {len(facts.learnt):,} rows ({int(facts.learnt.label.sum())} frauds)
before {facts.trained_until}. It is the one the figures above are of: it was not fitted again on
the newest rows. Parameters ({facts.trials} settings tried) and thresholds come from five
forward-chained windows before that time. Chosen: {facts.candidate.describe()}. Seed {facts.seed}.
"""


def _thresholds(facts: CardFacts) -> str:
    return f"""\
## Thresholds

- **review ≥ {facts.thresholds.review:g}**: the lowest score with at most
  {facts.review_budget:.2%} of genuine transactions at or above it;
- **decline ≥ {facts.thresholds.decline:g}**: the lowest score of at least {DECLINE_FLOOR} from
  which the precision is at least {DECLINE_PRECISION:.0%}.
"""


def _end(facts: CardFacts) -> str:
    lines = [
        "## Limits",
        "",
        "- Labels are those known at the time above; a fraud reported later counts as it was "
        "labelled then, or is missing.",
        "- No card, merchant or time features, so no velocity and no history.",
        "- Bias towards groups of people cannot be checked: the data names none.",
    ]
    lines += [f"- Profile: {complaint}." for complaint in facts.complaints]
    return "\n".join(lines) + "\n"

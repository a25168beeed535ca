"""The pages of a retraining run: what validation found, and champion against candidate.

One HTML file each, with its pictures inside, so that it can be read wherever it ends up: as an
artefact in MLflow, in a work directory, in a mail. Text from data or settings is always escaped.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from fraud_training.evaluate import Scored, calibration_bins
from fraud_training.promotion import Difference, Evidence, Proposal, Side
from fraud_training.validation import Report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #d5dbe3; padding: .3rem .8rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: #17703a; } .bad { color: #a3211d; }
img { max-width: 100%; margin: .5rem 0; }
"""

_COLOURS = {"candidate": "#d9541e", "champion": "#2a5d9f"}


@dataclass(frozen=True)
class Comparison:
    """All that the comparison's page tells."""

    title: str
    facts: dict[str, str]
    evidence: Evidence
    proposal: Proposal
    candidate: Scored
    champion: Scored | None
    draws: NDArray[np.float64] | None


def validation_page(report: Report, decision: str | None) -> str:
    """Days, their counts, and why the bad ones are bad."""
    rows = []
    for day in report.days:
        verdict = (
            f'<span class="bad">quarantined: {escape("; ".join(day.reasons))}</span>'
            if day.reasons
            else '<span class="good">accepted</span>'
        )
        broken = ", ".join(f"{escape(name)}: {count}" for name, count in day.broken.items())
        rows.append(
            f"<tr><td>{escape(day.day)}</td>{_number(day.rows)}{_number(day.labelled)}"
            f"{_number(day.frauds)}<td class=number>{day.fraud_share:.3%}</td>"
            f"<td>{broken or 'none'}</td><td>{verdict}</td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("day", "rows", "labelled", "frauds", "fraud share", "broken rows", "verdict")
    )
    ending = f"<p>{escape(decision)}</p>" if decision else ""
    return _page(
        "Validation of the training data",
        f"<p>{len(report.quarantined)} of {len(report.days)} days quarantined, "
        f"{report.dropped_rows} broken rows left out.</p>{ending}"
        f"<table><tr>{head}</tr>{''.join(rows)}</table>",
    )


def comparison_page(comparison: Comparison) -> str:
    """Figures, checks and pictures."""
    proposal, evidence = comparison.proposal, comparison.evidence
    outcome = (
        "promote" if proposal.promote else "challenge" if proposal.challenge else "do not promote"
    )
    colour = "good" if proposal.promote else "bad"
    parts = [
        f'<p>The rule says: <strong class="{colour}">{outcome}</strong>.</p>',
        _table(["", ""], [[escape(k), escape(v)] for k, v in comparison.facts.items()]),
        "<h2>Checks</h2>",
        _table(
            ["check", "", "what was found"],
            [
                [
                    escape(check.name),
                    '<span class="good">passed</span>'
                    if check.passed
                    else '<span class="bad">failed</span>',
                    escape(check.text),
                ]
                for check in proposal.checks
            ],
        ),
        "<h2>Figures on the same out-of-time rows</h2>",
        _figures(evidence),
        "<h2>Precision and recall</h2>",
        _image(_curves(comparison), "precision against recall"),
        "<h2>Calibration</h2>",
        _image(_calibration(comparison), "observed fraud share against mean score"),
        "<h2>Scores</h2>",
        _image(_scores(comparison), "distribution of scores"),
    ]
    if comparison.draws is not None:
        parts += [
            "<h2>Paired bootstrap</h2>",
            f"<p>{len(comparison.draws)} resamples of rows within each class, the same rows for "
            f"both models: candidate minus champion.</p>",
            _image(_bootstrap(comparison.draws), "differences of the average precision"),
        ]
    return _page(comparison.title, "".join(parts))


def _figures(evidence: Evidence) -> str:
    def column(side: Side | None) -> list[str]:
        if side is None:
            return ["none"] * 6
        return [
            f"{side.average_precision:.4f}",
            f"{side.recall_at_1pct_fpr:.4f}",
            f"{side.brier:.6f}",
            f"{side.calibration_ratio:.3f}",
            f"{side.latency_microseconds:.0f} µs",
            f"{side.golden_difference:.2g}",
        ]

    def change(difference: Difference | None) -> str:
        if difference is None:
            return ""
        return f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"

    names = [
        "average precision (PR-AUC)",
        "recall at 1 % false positives",
        "Brier score",
        "expected / observed frauds",
        "one row alone",
        "golden records, largest difference",
    ]
    changes = [change(evidence.average_precision), change(evidence.recall), "", "", "", ""]
    return _table(
        ["", "champion", "candidate", "difference, 95 %"],
        [
            list(row)
            for row in zip(
                names, column(evidence.champion), column(evidence.candidate), changes, strict=True
            )
        ],
    )


def _sides(comparison: Comparison) -> list[tuple[str, Scored]]:
    sides = [("candidate", comparison.candidate)]
    if comparison.champion is not None:
        sides.insert(0, ("champion", comparison.champion))
    return sides


def _curves(comparison: Comparison) -> Figure:
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, scored in _sides(comparison):
        precision, recall, _ = precision_recall_curve(
            scored.label, scored.score, sample_weight=scored.weight
        )
        axes.step(recall, precision, where="post", label=name, color=_COLOURS[name])
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return figure


def _calibration(comparison: Comparison) -> Figure:
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    axes.plot([1e-5, 1], [1e-5, 1], color="grey", linestyle="--", label="perfect")
    for name, scored in _sides(comparison):
        bins = calibration_bins(scored)
        axes.plot(
            [max(b["mean_score"], 1e-5) for b in bins],
            [max(b["fraud_share"], 1e-5) for b in bins],
            "o-",
            label=name,
            color=_COLOURS[name],
        )
    axes.set(xlabel="mean score", ylabel="observed fraud share", xscale="log", yscale="log")
    axes.legend()
    return figure


def _scores(comparison: Comparison) -> Figure:
    sides = _sides(comparison)
    figure, panels = pyplot.subplots(1, len(sides), figsize=(7, 3.6), sharey=True, squeeze=False)
    edges = np.linspace(-7, 7, 57).tolist()
    for axes, (name, scored) in zip(panels[0], sides, strict=True):
        clipped = np.clip(scored.score, 1e-3, 1 - 1e-3)
        logit = np.log(clipped / (1 - clipped))
        for value, label in ((0, "genuine"), (1, "fraud")):
            rows = scored.label == value
            axes.hist(logit[rows], edges, weights=scored.weight[rows], alpha=0.6, label=label)
        axes.set(title=name, xlabel="log-odds of the score", yscale="log")
    panels[0][0].legend()
    return figure


def _bootstrap(draws: NDArray[np.float64]) -> Figure:
    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    axes.hist(draws, bins=40, color=_COLOURS["candidate"], alpha=0.7)
    axes.axvline(0.0, color="grey", linestyle="--")
    axes.set(xlabel="average precision, candidate minus champion", ylabel="resamples")
    return figure


def _image(figure: Figure, description: str) -> str:
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    pyplot.close(figure)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{content}">'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _number(value: int) -> str:
    return f"<td class=number>{value:,}</td>"


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>\n"
    )

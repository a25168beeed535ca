"""What came out of a run, as JSON for programs and as a line for people. Pure."""

from dataclasses import asdict, dataclass
from typing import Any

from fraud_training.drift.window import Window
from fraud_training.rows import as_text

METHOD = "psi_of_training_bins"
METHOD_TITLE = "PSI in the bins of the training data"


@dataclass(frozen=True)
class Column:
    """What the comparison says of one column."""

    name: str
    index: float
    threshold: float
    drifted: bool
    rows: int


@dataclass(frozen=True)
class Comparison:
    columns: tuple[Column, ...]
    drifted_columns: int
    share_of_drifted_columns: float
    html: str


@dataclass(frozen=True)
class Summary:
    model: str
    version: str
    source: str
    window: Window
    rows_seen: int
    """Rows of the window; `rows` of them were compared."""
    rows: int
    reference: str
    reference_rows: int
    comparison: Comparison
    alarm_share: float
    remarks: tuple[str, ...]
    made_at: int
    """Epoch milliseconds."""

    @property
    def drifted(self) -> bool:
        return self.comparison.share_of_drifted_columns > self.alarm_share

    def to_json(self) -> dict[str, Any]:
        found = self.comparison
        return {
            "schema": 1,
            "made_at": as_text(self.made_at),
            "model": {"name": self.model, "version": self.version},
            "source": self.source,
            "window": {"after": as_text(self.window.start), "until": as_text(self.window.end)},
            "rows_in_window": self.rows_seen,
            "rows_compared": self.rows,
            "reference": {"from": self.reference, "rows_drawn": self.reference_rows},
            "method": METHOD,
            "drift": self.drifted,
            "drift_from_share": self.alarm_share,
            "share_of_drifted_columns": found.share_of_drifted_columns,
            "drifted_columns": found.drifted_columns,
            "columns": [asdict(column) for column in found.columns],
            "remarks": list(self.remarks),
        }

    def text(self) -> str:
        """The last line of the command's output."""
        found = self.comparison
        worst = max(found.columns, key=lambda column: column.index / column.threshold)
        return (
            f"{'drift' if self.drifted else 'no drift'}: {found.drifted_columns} of "
            f"{len(found.columns)} columns drifted, the furthest {worst.name} with "
            f"{worst.index:.3f} (threshold {worst.threshold:.3f}); {self.rows:,} of "
            f"{self.rows_seen:,} rows, {self.window}"
        )

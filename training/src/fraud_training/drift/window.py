"""The stretch of event time that is looked at. Pure: `now` is an argument."""

from dataclasses import dataclass

from fraud_training.errors import UsageError
from fraud_training.rows import as_text


@dataclass(frozen=True)
class Window:
    """Event times in (start, end], epoch milliseconds."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"{as_text(self.start)} to {as_text(self.end)}"


@dataclass(frozen=True)
class Wanted:
    """What was asked for: the end may be left to the data."""

    end: int | None
    """Epoch milliseconds; None: the newest event time of the source."""
    start: int | None
    length: int
    """Milliseconds before the end, where there is no start."""

    def window(self, newest: int) -> Window:
        end = newest if self.end is None else self.end
        start = end - self.length if self.start is None else self.start
        if start >= end:
            raise UsageError(
                f"--from {as_text(start)} is not before the end of the window, {as_text(end)}"
            )
        return Window(start, end)

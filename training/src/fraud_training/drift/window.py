"""The stretch of event time that is looked at. Pure: `now` is an argument."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from fraud_training.errors import UsageError
from fraud_training.rows import as_text

LATEST = "latest"


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


def parse_time(text: str, flag: str, now: int, latest: bool) -> int | None:
    """Epoch milliseconds of `now`, RFC 3339 or epoch milliseconds; `latest` is None."""
    if latest and text == LATEST:
        return None
    if text == "now":
        return now
    if re.fullmatch(r"\d{1,15}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        choices = "latest, now, or a time" if latest else "now, or a time"
        raise UsageError(
            f"{flag} {text}: expected {choices} such as 2026-03-01T00:00:00Z"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000)

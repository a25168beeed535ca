"""Times and durations as the command line has them. Pure: `now` is an argument."""

import re
from datetime import UTC, datetime

from fraud_training.errors import UsageError

LATEST = "latest"

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_duration(text: str, flag: str) -> int:
    """Milliseconds of `14d`, `36h`, `90m`, `30s`, `2w`."""
    match = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d|w)", text.strip())
    if match is None:
        raise UsageError(f"{flag} {text}: expected a number with a unit, such as 14d, 36h or 90m")
    return int(match.group(1)) * _UNITS[match.group(2)]


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

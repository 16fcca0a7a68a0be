"""Times and durations as the API takes them: milliseconds, ISO 8601, or relative such as ``-1h``."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["parse_duration", "parse_time"]

UNITS = {"ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9}
MAX_NS = (1 << 63) - 1
_duration = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d|w)", re.ASCII).fullmatch
_digits = re.compile(r"\d{1,16}", re.ASCII).fullmatch


def parse_duration(text: str) -> int:
    """Nanoseconds of ``500ms``, ``10s``, ``1m``, ``2h``, ``7d``, ``1w``; raises ``ValueError``."""
    match = _duration(text)
    if match is None:
        raise ValueError("not a duration such as 500ms, 10s, 1m, 2h or 7d")
    ns = round(float(match[1]) * UNITS[match[2]])
    if not 0 < ns <= MAX_NS:
        raise ValueError("a duration is above zero and below 292 years")
    return ns


def parse_time(text: str, now: int) -> int:
    """Nanoseconds since the epoch of a time relative to ``now`` (nanoseconds); raises ``ValueError``.

    ISO 8601 without an offset is UTC.
    """
    if text == "now":
        return now
    if text.startswith("-"):
        return max(0, now - parse_duration(text[1:]))
    if _digits(text):
        return min(int(text) * 1_000_000, MAX_NS)
    try:
        # A plus sign of an offset that was not escaped in a query arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise ValueError("not milliseconds, ISO 8601 or relative such as -1h") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return min(max(0, (elapsed.days * 86_400 + elapsed.seconds) * 10**9 + elapsed.microseconds * 1000), MAX_NS)

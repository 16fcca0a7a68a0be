"""Times and durations of the API."""

import pytest

from gateway.server.times import parse_duration, parse_time

NOW = 1_764_000_000 * 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1764000000123", 1_764_000_000_123_000_000),
        ("now", NOW),
        ("-1h", NOW - 3600 * 10**9),
        ("-500ms", NOW - 500_000_000),
        ("2025-11-24T16:00:00Z", 1_764_000_000 * 10**9),
        ("2025-11-24T17:00:00+01:00", 1_764_000_000 * 10**9),
        ("2025-11-24T17:00:00 01:00", 1_764_000_000 * 10**9),
        ("2025-11-24T16:00:00.5", 1_764_000_000_500_000_000),
        ("2025-11-24", 1_763_942_400 * 10**9),
        ("-99999d", 0),
    ],
)
def test_times(text, ns):
    """Milliseconds, ISO 8601 and relative times."""
    assert parse_time(text, NOW) == ns


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "--1h", "1h", "-1y", "12e3", "١٢", "2025-13-01"])
def test_bad_times(text):
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"not a|not milli"):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("10s", 10**10), ("1m", 6 * 10**10), ("1.5h", 5400 * 10**9), ("7d", 604_800 * 10**9), ("250ms", 250_000_000)],
)
def test_durations(text, ns):
    """A number and a unit."""
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["0s", "1", "s", "1 s", "999999999999w", "-1s"])
def test_bad_durations(text):
    """Anything else is refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)

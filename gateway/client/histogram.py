"""Durations counted in buckets of a relative width, so that any percentile of any number of them costs a few
kilobytes.

Pure.  Durations are seconds.  Layout: whole microseconds below ``2 * STEPS`` have a bucket each; above, every
power of two is cut into ``STEPS`` equal buckets, so that a bucket is at most 1/STEPS (3 %) wide.  The last
bucket takes all beyond.
"""

from __future__ import annotations

__all__ = ["Histogram"]

BITS = 5
STEPS = 1 << BITS
BUCKETS = STEPS * 36  # up to 2^40 microseconds: 12 days


class Histogram:
    """Counts of durations; ``count``, ``total`` and ``max`` are exact, percentiles within 3 %."""

    __slots__ = ("_buckets", "count", "max", "total")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self.count = 0
        self.total = 0.0
        self.max = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration; a negative one counts as zero."""
        micros = int(seconds * 1e6)
        if micros < 2 * STEPS:
            index = micros if micros > 0 else 0
        else:
            shift = micros.bit_length() - BITS - 1
            index = (shift << BITS) + (micros >> shift)
            if index >= BUCKETS:
                index = BUCKETS - 1
        self._buckets[index] += 1
        self.count += 1
        self.total += seconds
        if seconds > self.max:
            self.max = seconds

    def percentile(self, percent: float) -> float:
        """The duration that ``percent`` (0 to 100) of all do not exceed: its bucket's upper end, at most
        ``max``.

        0.0 where nothing was counted.
        """
        wanted = max(1.0, self.count * percent / 100)
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= wanted:
                return min(self.max, _upper(index) / 1e6)
        return 0.0

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` counted."""
        mine = self._buckets
        for index, count in enumerate(other._buckets):
            if count:
                mine[index] += count
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    def summary(self) -> dict[str, float]:
        """``count``, and ``mean``, ``p50``, ``p90``, ``p99``, ``max`` in milliseconds."""
        mean = self.total / self.count if self.count else 0.0
        values = {"mean": mean, "max": self.max}
        for percent in (50, 90, 99):
            values[f"p{percent}"] = self.percentile(percent)
        return {"count": self.count} | {name: round(value * 1000, 3) for name, value in values.items()}


def _upper(index: int) -> int:
    """The first whole microsecond above bucket ``index``."""
    if index < 2 * STEPS:
        return index + 1
    shift = (index >> BITS) - 1
    return ((index & (STEPS - 1)) + STEPS + 1) << shift

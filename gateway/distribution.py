"""How values are distributed, as Prometheus' histograms count them: values at or below each of a few bounds.

Pure, and cheap enough for something that happens some thousand times a second: an observation is a search among the
bounds and two additions.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

__all__ = ["LATENCIES_S", "Distribution"]

# From what a good disk or network takes to an hour in which a far side was away (seconds).
LATENCIES_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)


class Distribution:
    """Counts of values by ``bounds`` (ascending), and their sum."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCIES_S) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float, weight: int = 1) -> None:
        """A value came ``weight`` times; what is below 0 (a clock was set) counts as 0."""
        if value < 0.0:
            value = 0.0
        self._counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[float, int]]:
        """Each bound, infinity at the end, and how many values are at or below it."""
        return list(zip((*self.bounds, float("inf")), accumulate(self._counts), strict=True))

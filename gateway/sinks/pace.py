"""A ceiling: how soon the next readings may be given away, so that a backlog spares the far side.

Pure: the time is given, in seconds of any clock that does not jump (the monotonic one).  Each reading takes its share
of a second, and nothing is saved up while idle: below the ceiling nothing is ever delayed, and in any second at most
one batch more than the ceiling goes out.
"""

from __future__ import annotations

import math

__all__ = ["Pace"]

# A batch under a ceiling is what it allows in this time, so that a second is not one batch and then silence.
SHARE_S = 0.25


class Pace:
    """At most ``per_s`` readings a second; None: no ceiling."""

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._free_at = -math.inf

    def most(self, readings: int) -> int:
        """How many readings a batch may have where ``readings`` would be asked for."""
        return readings if self._per_s is None else max(1, min(readings, int(self._per_s * SHARE_S)))

    def wait(self, now: float) -> float:
        """Seconds until the next may go; 0 for at once."""
        return max(0.0, self._free_at - now)

    def take(self, readings: int, now: float) -> None:
        """They go now."""
        if self._per_s is not None:
            self._free_at = max(self._free_at, now) + readings / self._per_s

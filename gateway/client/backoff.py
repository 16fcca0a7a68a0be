"""How long to wait before the next attempt: full jitter.

Pure.  The wait is uniform between zero and a ceiling that doubles with each attempt, so that a thousand
devices which lost the same gateway do not come back in step ("Exponential Backoff And Jitter", AWS
Architecture Blog, 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["Backoff"]


class Backoff:
    """Waits in seconds: uniform in ``[0, min(cap, base * 2**attempt))``."""

    def __init__(self, base: float, cap: float, rng: random.Random) -> None:
        self.base = base
        self.cap = cap
        self.attempt = 0
        self._rng = rng

    def next(self, at_least: float = 0.0) -> float:
        """The next wait.  What the other side asked for (``at_least``) is kept, and the jitter comes on
        top.
        """
        # 2**32 is beyond every cap; the exponent is bounded so that years of attempts stay a float.
        ceiling = min(self.cap, self.base * 2.0 ** min(self.attempt, 32))
        self.attempt += 1
        return at_least + self._rng.random() * ceiling

    def reset(self) -> None:
        """The connection proved good: the next wait is short again."""
        self.attempt = 0

"""How long to wait before the next try: decorrelated jitter (M. Brooker, "Exponential Backoff And Jitter").

Pure: the source of chance is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["Backoff"]


class Backoff:
    """Delays in seconds between ``least`` and ``most``, each drawn from up to three times the one before.

    A far side's own wish (``Retry-After``) goes instead, believed up to ``most_asked``.
    """

    def __init__(self, least: float, most: float, most_asked: float, rng: random.Random) -> None:
        self._least, self._most, self._most_asked = least, most, most_asked
        self._rng = rng
        self._last = least

    def next(self, asked: float | None = None) -> float:
        """The delay before the next try; ``asked`` is what the far side asked for."""
        if asked is None or not asked > 0:
            self._last = min(self._most, self._rng.uniform(self._least, self._last * 3))
            return self._last
        # It knows better than we do; those who were asked to wait alike do not come back alike.
        return max(self._least, min(asked, self._most_asked)) + self._rng.uniform(0, self._least)

    def reset(self) -> None:
        """It worked: the next delay is short again."""
        self._last = self._least

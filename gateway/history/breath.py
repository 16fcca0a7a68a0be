"""Threads that compute beside an event loop."""

from __future__ import annotations

import select
import time

__all__ = ["Breath"]


class Breath:
    """Lets other threads have the interpreter: ``take()`` often; it sleeps a little when some work was done.

    A thread that computes keeps the interpreter's lock for five milliseconds at a time, and a loop that waits for it
    serves nobody.
    """

    def __init__(self, work: float = 0.001, pause: float = 0.0001) -> None:
        self._work, self._pause = work, pause
        self._since = time.perf_counter()

    def take(self) -> None:
        """Sleep ``pause`` seconds if ``work`` seconds have passed since the last time."""
        if time.perf_counter() - self._since >= self._work:
            # Not time.sleep: it asks a clock, where something else may stand in for it (libfaketime).
            select.select((), (), (), self._pause)
            self._since = time.perf_counter()

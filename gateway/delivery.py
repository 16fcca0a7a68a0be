"""Acks of the level ``delivered``: what every sink has taken.

A connection that asked for it gets, for each commit, a checkpoint: the journal's durable end and the sequence number
decided by then.  When all sinks have passed the offset, the number may be acked.  Acks are cumulative, so the newest
checkpoint that was passed says it all.

Bound: :data:`CHECKPOINTS` a connection; at the bound every second one is left out, which makes acks coarser, never
wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["CHECKPOINTS", "Delivery", "Waiting"]

CHECKPOINTS = 64


class Waiting(Protocol):
    """A connection that waits for word from the far sides; hashable by identity."""

    def delivered(self, seq: int) -> None:
        """Everything up to ``seq`` was confirmed or dead-lettered by every sink."""


class Delivery:
    """All connections that wait.  ``durable`` gives the journal's durable end, ``taken`` what all sinks have passed."""

    def __init__(self, durable: Callable[[], int], taken: Callable[[], int]) -> None:
        self._durable = durable
        self._taken = taken
        self._waiting: dict[Waiting, deque[tuple[int, int]]] = {}

    def add(self, waiting: Waiting, seq: int) -> None:
        """``seq`` is durably decided: tell ``waiting`` when it is delivered as well, at once if it is already."""
        checkpoints = self._waiting.setdefault(waiting, deque())
        if len(checkpoints) >= CHECKPOINTS:
            self._waiting[waiting] = checkpoints = deque(list(checkpoints)[1::2])
        checkpoints.append((self._durable(), seq))
        self._tell(waiting, checkpoints, self._taken())

    def discard(self, waiting: Waiting) -> None:
        """The connection ended."""
        self._waiting.pop(waiting, None)

    def advance(self) -> None:
        """A sink has taken something."""
        if self._waiting:
            taken = self._taken()
            for waiting, checkpoints in list(self._waiting.items()):
                self._tell(waiting, checkpoints, taken)

    @staticmethod
    def _tell(waiting: Waiting, checkpoints: deque[tuple[int, int]], taken: int) -> None:
        seq = 0
        while checkpoints and checkpoints[0][0] <= taken:
            seq = checkpoints.popleft()[1]
        if seq:
            waiting.delivered(seq)

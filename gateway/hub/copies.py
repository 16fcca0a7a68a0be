"""Frames for those that differ from their group in the same way.  Pure.

After a moment in which nobody was served, or nobody read, very many subscribers lack the same.  What the first of them
is sent is remembered for the others: a *piece* of readings by the first one in it, a set of changes by all that it
depends on.  So the number of encodings is that of different things to be sent, whatever the number of those who lack
them.

Bounds: the last :data:`PIECES` frames of readings and :data:`CHANGES` of changes, each of about ``PIECE_BYTES``; those
of changes hold for one offset, and all are let go of when none has been of use for :data:`IDLE` ticks.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple

from .accumulator import Changes, Every
from .group import Frame
from .selection import Subscription

__all__ = ["Copies"]

PIECES, CHANGES = 8, 4
IDLE = 20


class _Piece(NamedTuple, Generic[Frame]):
    subscription: Subscription
    first: int  # offset of its first reading
    last: int
    taken: int  # readings
    length: int
    frame: Frame


class _Changed(NamedTuple, Generic[Frame]):
    subscription: Subscription
    offset: int  # of the hub
    passed: int  # of the group
    before: Changes
    after: Changes
    frame: Frame | None


class Copies(Generic[Frame]):
    """What was sent lately to those that differ."""

    def __init__(self) -> None:
        self._pieces: deque[_Piece[Frame]] = deque(maxlen=PIECES)
        self._changes: deque[_Changed[Frame]] = deque(maxlen=CHANGES)
        self._idle = 0

    def tick(self) -> None:
        """Let go of what is of no use."""
        self._idle += 1
        if self._idle > IDLE:
            self._pieces.clear()
            self._changes.clear()

    def piece(self, subscription: Subscription, own: Every) -> Frame | None:
        """The frame of the next piece of ``own``, which is taken from it; None where there is none yet."""
        entries = own.entries
        if own.holes or not entries:
            return None
        first = entries[0][0]
        for one in self._pieces:
            # Both have all that the subscription covers from the first reading on: the same up to the same last one.
            if (
                one.first == first
                and len(entries) >= one.taken
                and entries[one.taken - 1][0] == one.last
                and one.subscription == subscription
            ):
                own.drop(one.taken, one.length)
                self._idle = 0
                return one.frame
        return None

    def add_piece(self, subscription: Subscription, own: Every, first: int, frame: Frame) -> None:
        """``frame`` holds what ``own`` has just given, from offset ``first`` on."""
        if not own.holes:
            taken, length, last = own.given
            self._pieces.append(_Piece(subscription, first, last, taken, length, frame))
            self._idle = 0

    def changes(
        self, subscription: Subscription, offset: int, passed: int, behind: Changes
    ) -> tuple[Frame | None, bool]:
        """The frame of the next piece of ``behind``, which is moved on; and whether there was one (with nothing in it
        there is no frame)."""
        while self._changes and self._changes[0].offset != offset:
            self._changes.popleft()
        for one in self._changes:
            if one.passed == passed and one.subscription == subscription and one.before.like(behind):
                behind.become(one.after)
                self._idle = 0
                return one.frame, True
        return None, False

    def add_changes(
        self, subscription: Subscription, offset: int, passed: int, before: Changes, after: Changes, frame: Frame | None
    ) -> None:
        """``frame`` has led from ``before`` to ``after``."""
        self._changes.append(_Changed(subscription, offset, passed, before, after.copy_all(), frame))
        self._idle = 0

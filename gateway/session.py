"""The device protocol's state: sequence, duplicates, what is held back, what is decided.

Pure: no clock, no I/O.  One :class:`Session` a boot of a device; it outlives connections.

The sequence of a session is cut by two numbers.  Readings up to ``highest`` were taken (or refused for good); those up
to ``durable`` are decided, and ``ack`` may say so.  ``durable <= highest`` always.  After a reading at ``held`` could
not be kept, nothing behind it is taken until it comes again, so that a cumulative ack never covers a hole.  ``judge``
is asked of every number that comes, in the order in which they come:

    seq <= highest                 DUPLICATE
    held and seq > held            HELD, until GIVE_UP_S have passed since it was last sent: then it is given up
    else                           NEW
"""

from __future__ import annotations

import enum

__all__ = ["GIVE_UP_S", "MAX_SESSION", "Session", "Verdict"]

GIVE_UP_S = 10.0
MAX_GAPS = 64  # remembered above what was taken; further ones are not counted as missing
MAX_SESSION = 64  # characters of a session's name


class Verdict(enum.Enum):
    """What is to become of a sequence number."""

    NEW = enum.auto()
    DUPLICATE = enum.auto()
    HELD = enum.auto()


NEW, DUPLICATE, HELD = Verdict.NEW, Verdict.DUPLICATE, Verdict.HELD


class Session:
    """One boot of a device.

    ``resumable`` is false for a session that only lives as long as its connection.
    """

    __slots__ = ("durable", "gaps", "heard", "held", "held_full", "held_since", "highest", "id", "resumable")

    def __init__(self, id: str, *, resumable: bool = True, highest: int = 0) -> None:
        self.id = id
        self.resumable = resumable
        self.highest = highest
        self.durable = highest
        self.heard = highest  # the greatest number that came, kept or not
        self.gaps: list[tuple[int, int]] = []  # above ``highest``, first and last number of what never came
        self.held = 0
        self.held_since = 0.0
        self.held_full = False  # held for want of room, not for the rate

    def judge(self, seq: int, now: float) -> Verdict:
        """What ``seq`` is, which came at monotonic time ``now`` (seconds); ends a hold that has run out."""
        if seq <= self.highest:
            return DUPLICATE
        heard = self.heard
        if seq > heard:
            if heard and seq > heard + 1 and len(self.gaps) < MAX_GAPS:
                self.gaps.append((heard + 1, seq - 1))
            self.heard = seq
        elif self.gaps:
            self._fill(seq)
        if self.held and seq > self.held:
            if now - self.held_since < GIVE_UP_S:
                return HELD
            self.held = 0
        return NEW

    def _fill(self, seq: int) -> None:
        """A number that had been left out came late."""
        for index, (first, last) in enumerate(self.gaps):
            if first <= seq <= last:
                parts = [(first, seq - 1), (seq + 1, last)]
                self.gaps[index : index + 1] = [(a, b) for a, b in parts if a <= b]
                return

    def accept(self, seq: int) -> int:
        """``seq`` was taken, or refused for good: the sequence moves on; returns how many before it never came.

        One that came and was held back is not missing, also when it was given up later.
        """
        self.highest = seq
        if seq > self.heard:
            self.heard = seq
        missing = 0
        while self.gaps and self.gaps[0][0] < seq:
            first, last = self.gaps.pop(0)
            missing += min(last, seq - 1) - first + 1
            if last > seq:
                self.gaps.insert(0, (seq + 1, last))
        if self.held <= seq:
            self.held = 0
        return missing

    def hold(self, seq: int, now: float, *, full: bool = False) -> None:
        """``seq`` came and could not be kept, ``full`` for want of room: nothing behind it is, until it comes again."""
        self.held = seq
        self.held_since = now
        self.held_full = full

    def decided(self, seq: int) -> bool:
        """Everything up to ``seq`` is durably decided; returns whether that is news."""
        if seq <= self.durable:
            return False
        self.durable = seq
        return True

"""What became of one message's readings."""

from __future__ import annotations

__all__ = ["Outcome"]


class Outcome:
    """What became of one message's readings, to be said once."""

    __slots__ = ("beyond_rate", "blocked", "debt", "duplicate", "from_seq", "held", "overloaded", "wait")

    def __init__(self) -> None:
        self.duplicate = False  # some were there already
        self.held = 0  # not kept for the rate, or behind one that was not kept
        self.blocked = False  # one could not be kept; from_seq and wait say which and for how long
        self.overloaded = False  # .. because the journal had no room
        self.beyond_rate = False  # .. because of the rate
        self.from_seq = 0
        self.wait = 0.0
        self.debt = 0.0  # seconds to read nothing (policy delay)

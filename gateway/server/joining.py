"""Where a subscription's history ends and its updates begin, so that they join without a hole or a repeat.

In one step of the loop the hub lets a subscription's updates begin behind what is shown by then, and the store's moment
is taken (what lies below its end): :class:`Join`.  What lies between the two, the *tail*, is in the hub's memory or in
the journal.  One that resumes is sent all that it missed as updates: those readings are left out of the history.

By offsets: the store's answer, the tail, updates.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..hub import Entry

__all__ = ["Join"]

AHEAD_NS = 3600 * 10**9  # readings of clocks that run ahead by less than this are part of the history


class Join(msgspec.Struct, frozen=True):
    """Times in nanoseconds, ``end`` is that of the join.

    ``at`` is the store's moment; it has all below offset ``stored`` then.
    """

    start: int
    end: int
    stored: int = 0
    begin: int = -1  # updates begin behind this offset
    floor: int = 0  # from here on the hub remembers all
    missed: list[Entry] = []  # maybe in the store's answer, and in updates
    older: bool = False  # so is all behind `begin`, also what is in the journal alone
    at: Any = None

    @property
    def tail(self) -> range:
        """Offsets of what was shown and is neither in the store's answer nor in updates."""
        return range(self.stored, self.begin + 1)

    @property
    def lacks(self) -> range:
        """Those of the tail that the hub does not remember."""
        return range(self.stored, min(self.floor, self.begin + 1))

    @property
    def until(self) -> int:
        """The time before which readings are part of the history."""
        return self.end + AHEAD_NS

    def covers(self, time: int) -> bool:
        """Whether readings of this time are part of the history."""
        return self.start <= time < self.until

"""The cursors of a journal: who is open, which places are kept on disk, what they still hold.

Owned by the loop; what is written goes to the writer.  Only open cursors hold segments: the place of a name that is not
open is remembered (bound: ``places.MAX_PLACES``, the one closed longest goes first) and found again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.errors import JournalError
from gateway.journal import places
from gateway.journal.places import Gone, Place, Places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.journal.cursor import Cursor, Position

__all__ = ["Roster"]

log = logging.getLogger(__name__)


class Roster:
    """Cursors by name, and the places last read from or written to disk."""

    def __init__(self, kept: dict[str, Place]) -> None:
        self._kept = dict(kept)
        self._open: dict[str, Cursor] = {}
        self._storing: dict[Cursor, int] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Cursor]:
        return iter(self._open.values())

    def check(self, name: str) -> None:
        """Raises ``ValueError`` for a name that is open or none, :class:`JournalError` when there are too many."""
        if name in self._open or not 0 < len(name.encode()) <= places.MAX_NAME:
            raise ValueError(f"cursor {name!r} is open, or no name for a cursor")
        if len(self._open) >= places.MAX_PLACES:
            raise JournalError(f"more than {places.MAX_PLACES} cursors")

    def kept(self, name: str) -> Place | None:
        """Where the cursor of that name stood."""
        return self._kept.get(name)

    def add(self, cursor: Cursor) -> None:
        """A cursor is open."""
        self._open[cursor.name] = cursor

    def remove(self, cursor: Cursor) -> bool:
        """A cursor is closed; whether it was open."""
        if self._open.get(cursor.name) is not cursor:
            return False
        self._keep(cursor)
        del self._open[cursor.name]
        return True

    def drop_below(self, position: Position) -> None:
        """Nothing below ``position`` is held any more."""
        for cursor in self._open.values():
            cursor.drop_below(position)

    @property
    def floor(self) -> int | None:
        """The offset below which no open cursor holds anything; ``None`` without cursors: nothing may go."""
        return min((cursor.persisted for cursor in self._open.values()), default=None)

    def state(self, epoch: bytes, end: int, stored: int, gone: Gone) -> Places:
        """All places as they are now."""
        for cursor in self._open.values():
            self._keep(cursor)
        while len(self._kept) > places.MAX_PLACES:
            del self._kept[next(iter(self._kept))]
        return Places(places.VERSION, epoch, end, stored, dict(self._kept), gone)

    def begin_store(self) -> bool:
        """The places as they are now are to be written to disk; False while those before are not."""
        if self._storing is not None:
            return False
        self._storing = {cursor: cursor.position.offset for cursor in self._open.values()}
        return True

    def end_store(self, *, done: bool) -> None:
        """It was written, or not."""
        storing, self._storing = self._storing or {}, None
        if done:
            for cursor, offset in storing.items():
                cursor.persisted = max(cursor.persisted, offset)

    def _keep(self, cursor: Cursor) -> None:
        self._kept.pop(cursor.name, None)  # the order tells who was open last
        self._kept[cursor.name] = cursor.place

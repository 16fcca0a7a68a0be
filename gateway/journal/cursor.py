"""A cursor: one reader's place in the journal.

A cursor reads what is durable, in order, as often as it likes, and confirms what is safe on the far side; only then may
segments go.  One that is caught up is served from the ring of committed batches in memory, the very objects that were
appended; one that is behind reads from disk in a reader thread, a batch at a time.

Everything here runs on the loop.  For each cursor at all times, over restarts, with ``delivered`` the readings it
handed over and its reader confirmed as safe on the far side::

    journal.stored = began + delivered + dead_lettered + overflowed + lost + pending
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import JournalError
from gateway.journal.handed import Handed
from gateway.journal.places import Place
from gateway.journal.reader import Reader, Taken

if TYPE_CHECKING:
    from gateway.journal.journal import Journal
    from gateway.reading import Batch

__all__ = ["Cursor", "Position"]

READ_AGAIN_S = 1.0

log = logging.getLogger(__name__)


class Position(msgspec.Struct, frozen=True):
    """A place in the journal; ``readings`` is how many readings were ever stored below ``offset``."""

    offset: int
    readings: int


class Cursor:
    """Made by :meth:`Journal.cursor`."""

    def __init__(self, journal: Journal, name: str, place: Place, *, own_place: bool) -> None:
        self.name = name
        self.position = Position(place.offset, place.readings)
        """What is confirmed, or was dropped to make room."""
        self.overflowed = place.overflowed
        """Readings dropped to make room before this cursor confirmed them."""
        self.lost = place.lost
        """Readings below the position that could not be read from disk."""
        self.began = place.began
        """Readings stored before this cursor was."""
        self.dead_lettered = place.dead_lettered
        """Readings its reader put aside, and never delivered since."""
        self.own_place = own_place
        """Whether the reader keeps its place itself: what it confirms is durable at once."""
        self.persisted = place.offset
        """The offset below which this cursor holds nothing."""
        self._journal = journal
        self._handed = Handed()
        self._dropped_from: Position | None = None
        # Nothing from the first offset up to the second can be read; and the readings ever stored below that.
        self._void = (0, 0, 0)
        self._reader: Reader | None = None
        self._reading: asyncio.Future[Taken] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._wake_at = 0

    @property
    def pending(self) -> int:
        """Readings stored and not yet confirmed."""
        return self._journal.stored - self.position.readings

    @property
    def delivered(self) -> int:
        """Readings confirmed as safe on the far side, since the cursor began."""
        return self.position.readings - self.began - self.dead_lettered - self.overflowed - self.lost

    @property
    def place(self) -> Place:
        """What is kept on disk of this cursor."""
        return Place(
            self.position.offset, self.position.readings, self.overflowed, self.lost, self.began, self.dead_lettered
        )

    async def read(self, offset: int, *, max_readings: int = 1000, max_delay: float = 0.25) -> Batch:
        """At most ``max_readings`` consecutive items, the first at ``offset`` or, past a gap, at the next one held.

        Waits until an item at or behind ``offset`` is durable, and then at most ``max_delay`` seconds for the batch to
        fill.  What was read from ``offset`` on before counts as given up.  One call at a time.  A disk that cannot be
        read is asked again.  Raises :class:`JournalError` when the journal or the cursor is closed.
        """
        journal = self._journal
        loop = asyncio.get_running_loop()
        max_readings = max(1, max_readings)
        self._handed.forget(offset)
        while True:
            journal.check_open()
            asked, offset = offset, journal.next_held(offset)
            durable = journal.durable_offset
            if offset >= durable:
                self._void = (asked, durable, journal.stored)
                self._pass_void()
                await self._wait(offset + 1, None)
                continue
            found = journal.ring.find(offset)
            if found is not None:
                deadline = found.at + max_delay
                if durable - offset < max_readings and loop.time() < deadline:
                    await self._wait(offset + max_readings, deadline)
                    continue
                batch, before = journal.ring.take(offset, max_readings)
            else:
                taken = await self._from_disk(offset, max_readings)
                if taken is None:
                    if journal.next_held(offset) == offset:  # the disk gives nothing now
                        await self._wait(durable + 1, loop.time() + READ_AGAIN_S)
                    offset = asked
                    continue
                batch, before = taken
            self._handed.add(batch, before)
            return batch

    def confirm(self, offset: int, *, dead_lettered: int = 0) -> None:
        """Everything below ``offset`` is safe on the far side, or is not wanted.  Never moves back.

        ``dead_lettered`` more readings below ``offset`` were put aside instead; negative: so many put aside earlier
        were delivered after all.  The count is kept with the place, in one write.  Raises ``ValueError`` for an offset
        that is not durable yet.
        """
        position = self.position
        if offset > self._journal.durable_offset:
            raise ValueError(f"cursor {self.name!r}: nothing at offset {offset} was handed out yet")
        self.dead_lettered += dead_lettered
        if offset <= position.offset:
            self._take_back(offset)
            if dead_lettered:
                self._journal.moved(self)
            return
        self._take_back(position.offset)
        readings, missing = self._handed.take(offset, position.readings)
        self.lost += missing
        if offset > self._handed.end:  # passed over unread
            readings = max(readings, self._journal.readings_below(offset))
        self.position = Position(offset, readings)
        self._pass_void()
        self._journal.moved(self)

    def is_drained(self, offset: int) -> bool:
        """Whether nothing durable is left to read from ``offset`` on."""
        return self._journal.next_held(offset) >= self._journal.durable_offset

    def close(self) -> None:
        """It no longer holds segments; its place is kept and found again by name."""
        self._journal.forget(self)
        self.stop(JournalError(f"cursor {self.name!r} is closed"))

    def stats(self) -> dict[str, float]:
        """Counts and gauges; readings, except ``offset``."""
        return {
            "offset": self.position.offset,
            "pending": self.pending,
            "delivered": self.delivered,
            "dead_lettered": self.dead_lettered,
            "overflowed": self.overflowed,
            "lost": self.lost,
        }

    # -- for the journal -------------------------------------------------------------------------------------------

    def wake(self, durable: int) -> None:
        """Tell a waiting read that items below ``durable`` can be read."""
        if self._wake is not None and durable >= self._wake_at and not self._wake.done():
            self._wake.set_result(None)

    def stop(self, error: JournalError) -> None:
        """End a waiting read with ``error``, and let go of the file."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_exception(error)
        self._close_file()

    def drop_below(self, position: Position) -> None:
        """What lies below ``position`` is gone to make room."""
        if not self._is_behind(position):
            return
        if self._dropped_from is None:
            self._dropped_from = self.position
        self.overflowed += position.readings - self.position.readings
        self.position = position
        self._close_file()  # an open file would keep its space

    def lose_below(self, position: Position) -> None:
        """What lies below ``position`` has vanished."""
        if self._is_behind(position):
            self.lost += position.readings - self.position.readings
            self.position = position

    def release(self) -> None:
        """Let go of the file; no thread reads any more."""
        if self._reader is not None:
            self._reader.close()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _is_behind(self, position: Position) -> bool:
        """Whether anything lies below ``position`` that is not confirmed.

        The place of a reader that keeps its own does not move over gaps: the next start compares the two.
        """
        if self.own_place and position.readings == self.position.readings:
            return False
        return position.offset > self.position.offset

    def _pass_void(self) -> None:
        """What cannot be read behind the last item handed out is lost, once that item is confirmed.

        The offset stays: a reader of its own place knows no later one, and none below it comes again.
        """
        start, end, stored = self._void
        position = self.position
        if start <= position.offset < end and stored > position.readings:
            lost = stored - position.readings
            extra = {"event": "journal_damaged", "sink": self.name, "offset": start, "count": lost}
            log.warning("cursor %r: %d readings from offset %d on are lost", self.name, lost, start, extra=extra)
            self.lost += lost
            self.position = Position(position.offset, stored)
            self._journal.moved(self)

    def _take_back(self, offset: int) -> None:
        """Items dropped while their delivery was under way turned out to be delivered up to ``offset``."""
        start = self._dropped_from
        if start is None or offset <= start.offset:
            return
        readings, missing = self._handed.take(offset, start.readings)
        readings = min(readings, self.position.readings)
        self.overflowed -= max(0, readings - start.readings - missing)
        self._dropped_from = None if offset >= self.position.offset else Position(offset, readings)

    def _close_file(self) -> None:
        if self._reader is not None and (self._reading is None or self._reading.done()):
            self._reader.close()

    async def _wait(self, wanted: int, deadline: float | None) -> None:
        """Until items below ``wanted`` are durable, or the loop's clock shows ``deadline``."""
        loop = asyncio.get_running_loop()
        if self._journal.durable_offset >= wanted:
            return
        if self._wake is not None:
            raise RuntimeError(f"cursor {self.name!r} is being read already")
        self._wake_at = wanted
        self._wake = future = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, self.wake, wanted)
        try:
            await future
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    async def _from_disk(self, offset: int, max_items: int) -> tuple[Batch, int] | None:
        """A batch from disk with the readings below it; ``None`` when nothing from ``offset`` on can be read."""
        if self._reading is not None and not self._reading.done():
            # The read before was cancelled; its thread still has the reader.
            await asyncio.wait([self._reading])
        if self._reader is None:
            self._reader = Reader(self._journal.seed)
        self._reading = self._journal.start_reading(self._reader, offset, max_items)
        try:
            taken = await asyncio.shield(self._reading)
        except OSError as error:
            log.warning("reading for cursor %r at offset %d: %s", self.name, offset, error)
            return None
        return (taken.batch, taken.before) if taken.batch is not None else None

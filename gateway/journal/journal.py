"""The journal: appended to on the loop, made durable in groups by one writer thread, read through cursors.

Constraints
-----------
- ``append`` is on the way of every reading: a list append and a dictionary entry, no system call, no encoding.
- What was appended is handed to the writer ``commit_ms`` after the first item of the group, or when the group before is
  done, whichever is later.  Waiters are told once a group, after its sync, never before.
- The loop owns everything here; the writer's results arrive through ``call_soon_threadsafe``.

Bounds, and what happens there
------------------------------
======================  =========================================================================================
``max_pending`` items   appended and not durable (fewer when they are large): ``append`` raises ``Overloaded``
``max_bytes`` on disk   ``refuse``: ``append`` raises ``Overloaded`` until cursors move on; ``drop_oldest``: whole
                        segments go, and each cursor that had not confirmed them counts ``overflowed`` readings
``keep_free_bytes``     of the file system: as ``max_bytes``
a failed write or sync  ``append`` raises ``Overloaded`` until a retry succeeds; what was appended before is kept
``ring_bytes``          of memory: cursors that are further behind read from disk
======================  =========================================================================================

``max_bytes`` may be passed by one group; files set aside as damaged (at most eight) are not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Literal

from gateway.distribution import Distribution
from gateway.errors import JournalError, Overloaded
from gateway.journal import record
from gateway.journal.bounds import Bounds
from gateway.journal.counters import Counters, counted, title
from gateway.journal.cursor import Cursor, Position
from gateway.journal.flushes import Flushes
from gateway.journal.holdings import Holdings
from gateway.journal.opening import Opened, take
from gateway.journal.places import Gone, Place, Places, moved
from gateway.journal.reader import Reader, SpareReaders, Taken, seek_readings
from gateway.journal.recovery import JUMP
from gateway.journal.ring import Ring
from gateway.journal.roster import Roster
from gateway.journal.segment import FULL
from gateway.journal.waiter import Waiter, tell
from gateway.journal.writer import Committed, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from gateway.journal.segment import Segment
    from gateway.reading import Batch, Item

__all__ = ["Journal"]

PERSIST_S = 1.0  # at most one write of the cursors' places in this time
PROBE_S = 0.5  # between two looks at the free space while appends are refused for it
PENDING_BYTES = 32 << 20  # of encoded items appended and not durable, judged by the size of those before
MIN_SEGMENT_BYTES = 64 << 10

log = logging.getLogger(__name__)


class Journal:
    """See the module.  ``directory`` is made when missing; sizes in bytes, ``commit_ms`` in milliseconds."""

    def __init__(
        self,
        directory: Path,
        *,
        commit_ms: float = 50,
        segment_bytes: int = 8 << 20,
        max_bytes: int = 1 << 30,
        on_full: Literal["refuse", "drop_oldest"] = "refuse",
        ring_bytes: int = 4 << 20,
        max_pending: int = 65_536,
        keep_free_bytes: int = 64 << 20,
    ) -> None:
        if not 0 < max_pending <= JUMP:
            raise ValueError(f"max_pending must be from 1 to {JUMP}")
        self.directory = directory
        self.epoch = ""  # identity of the directory, 32 hexadecimal digits
        self.durable_offset = 0  # items below it are synced
        self.stored = 0  # readings ever made durable, over all starts
        self.seed = 0
        self.ring = Ring(ring_bytes)
        self._commit_s = commit_ms / 1000
        # Room is given back by whole segments: a bound must hold several.
        self._segment_bytes = max(MIN_SEGMENT_BYTES, min(segment_bytes, max_bytes // 8))
        self._bounds = Bounds(max_bytes, keep_free_bytes)
        self._drop_oldest = on_full == "drop_oldest"
        self._max_pending = max_pending
        # Appended and not handed to the writer: the first has offset _pending_base.
        self._pending: list[Item] = []
        self._pending_base = 0
        self._waiters: dict[Waiter, object] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = False  # the pending group's time has come
        self._pending_since = 0.0  # the loop's time of the first append
        self._in_flight_since = 0.0
        self._in_flight = 0  # items the writer has
        self._in_flight_waiters: dict[Waiter, object] = {}
        self._limit = max_pending
        self._room = 0  # how long _pending may grow; 0 refuses
        self._state: Literal["new", "open", "closing", "closed"] = "new"
        self._places_timer: asyncio.TimerHandle | None = None
        self._stored: asyncio.Future[None] | None = None  # while closing: the next word of the places
        self._probe_timer: asyncio.TimerHandle | None = None
        self._probing = False
        self._flushes = Flushes()
        self._spare = SpareReaders()
        self._counts = Counters()
        self.ack_latency = Distribution()  # from a group's first append until all of it were told; by readings

    # -- opening and closing ---------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Recover what is held, begin a segment, start the writer.

        On a full disk nothing is taken until there is room for that segment: :attr:`reason` says so.  Raises
        :class:`JournalError` when the directory cannot be used, :class:`StateLocked` when another has it.
        """
        if self._state != "new":
            raise JournalError("a journal is opened once")
        loop = self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="journal-reader")
        try:
            opened = await loop.run_in_executor(self._executor, take, self.directory)
        except JournalError:
            self._executor.shutdown(wait=False)
            raise
        self._take(opened)
        self._state = "open"
        self._writer.start()
        if isinstance(opened.tail, OSError):
            self.on_failed(opened.tail)
            self._writer.begin(self._pending_base, epoch_due=opened.recovered.epoch_due)
        self._check_bytes()

    def _take(self, opened: Opened) -> None:
        recovered = opened.recovered
        self._bounds.free = opened.free
        self.epoch = recovered.epoch.hex()
        self.seed = record.seed_of(recovered.epoch)
        self.durable_offset = self._pending_base = recovered.base
        self.stored = recovered.stored
        self._holdings = Holdings([*recovered.segments, opened.segment])
        self._cursors = Roster(recovered.places)
        self._gone, self._problems = recovered.gone, recovered.problems
        self._counts.opened(recovered)
        self._writer = Writer(
            self.directory,
            opened.home,
            recovered.epoch,
            None if isinstance(opened.tail, OSError) else opened.tail,
            opened.segment,
            opened.places,
            end=recovered.end,
            stored=recovered.stored,
            free=opened.free,
            segment_bytes=self._segment_bytes,
            events=self,
            post=self._post,
        )

    async def close(self) -> None:
        """Make what was appended durable, keep the cursors' places, end the threads.

        On a disk that fails the last group is tried once more and then given up; nobody was told it was safe.
        """
        if self._state in ("closing", "closed"):
            return
        if self._state == "new":
            self._state = "closed"
            return
        self._state = "closing"
        self._update_room()
        if not self._bounds.failure:
            with contextlib.suppress(JournalError):
                await self.flush()
        for timer in filter(None, (self._timer, self._places_timer, self._probe_timer)):
            timer.cancel()
        await self._store_last()
        self._writer.stop()
        await self._loop.run_in_executor(self._executor, self._writer.join)
        self._state = "closed"
        error = JournalError("the journal is closed")
        self._flushes.fail(error)
        for cursor in self._cursors:
            cursor.stop(error)
        self._executor.shutdown(wait=True)
        for cursor in self._cursors:
            cursor.release()
        self._spare.close()

    def check_open(self) -> None:
        """Raises :class:`JournalError` when the journal is not open."""
        if self._state in ("new", "closed"):
            raise JournalError("the journal is closed")

    # -- appending -------------------------------------------------------------------------------------------------

    @property
    def next_offset(self) -> int:
        """The offset the next item gets."""
        return self._pending_base + len(self._pending)

    def append(self, item: Item, waiter: Waiter | None = None, token: object = 0) -> int:
        """Take an item and return its offset; ``waiter.committed(token)`` follows when it is durable.

        Raises :class:`Overloaded` at the bounds: the item is not taken.
        """
        pending = self._pending
        count = len(pending)
        if count >= self._room:
            raise self._overloaded()
        if not count:
            self._arm()
        pending.append(item)
        if waiter is not None:
            self._waiters[waiter] = token
        return self._pending_base + count

    async def flush(self) -> None:
        """Wait until everything appended so far is durable.

        Raises :class:`JournalError` when the journal is closed on a disk that fails.
        """
        self.check_open()
        target = self.next_offset
        if self.durable_offset >= target:
            return
        future = self._loop.create_future()
        self._flushes.add(target, future)
        self._hand_over()
        await future

    @property
    def reason(self) -> str:
        """Why nothing can be appended now, in words; empty when all is well."""
        return self._bounds.reason if self._state == "open" else "the journal is not open"

    def _overloaded(self) -> Overloaded:
        self._counts.refused += 1
        reason = self.reason
        if reason:
            return Overloaded(reason, retry_after_ms=1000)
        return Overloaded("too much is waiting for the disk", retry_after_ms=250)

    def _arm(self) -> None:
        self._pending_since = self._loop.time()
        self._timer = self._loop.call_later(self._commit_s, self._hand_over)

    def _hand_over(self) -> None:
        """The pending group's time has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._in_flight:
            self._due = True
            return
        self._due = False
        items = self._pending
        if not items:
            return
        self._in_flight = len(items)
        self._in_flight_waiters = self._waiters
        self._in_flight_since = self._pending_since
        base = self._pending_base
        self._pending = []
        self._waiters = {}
        self._pending_base = base + len(items)
        self._update_room()
        self._writer.commit(base, items)

    def _update_room(self) -> None:
        self._room = 0 if self.reason else max(0, self._limit - self._in_flight)

    # -- what the writer tells -------------------------------------------------------------------------------------

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, *arguments)

    def on_committed(self, committed: Committed) -> None:
        """The group in flight is durable."""
        now, since, stored = self._loop.time(), self._in_flight_since, self.stored
        size = 0
        for written in committed.records:
            self.ring.add(written, now)
            self.stored += written.batch.readings
            size += written.size
        self.durable_offset = committed.records[-1].batch.end
        self._counts.committed(committed, size, now - since)
        self._limit = max(1, min(self._max_pending, PENDING_BYTES * self._in_flight // size))
        self._in_flight = 0
        waiters, self._in_flight_waiters = self._in_flight_waiters, {}
        if self._bounds.failure:
            log.info("the journal's disk works again", extra={"event": "journal_works"})
            self._bounds.failure = ""
        if committed.segments:
            self._holdings.add(committed.segments)
        if not self._probing:
            self._bounds.free = committed.free_bytes
        self._check_bytes()
        self._flushes.reach(self.durable_offset)
        if self._due or self._flushes:
            self._hand_over()
        tell(self._loop, iter(waiters.items()))
        self.ack_latency.observe(self._loop.time() - since, self.stored - stored)
        for cursor in self._cursors:
            cursor.wake(self.durable_offset)

    def on_begun(self, segment: Segment, free_bytes: int) -> None:
        """The first segment, which had no room at the start, is durable."""
        log.info("the journal's disk has room again", extra={"event": "journal_works"})
        self._bounds.failure = ""
        self._holdings.add([segment])
        if not self._probing:
            self._bounds.free = free_bytes
        self._check_bytes()

    def on_failed(self, error: OSError) -> None:
        """A try of the group in flight failed; the next follows by itself."""
        self._counts.failures += 1
        failure = error.strerror or str(error)
        if failure != self._bounds.failure:
            log.error(
                "the journal cannot be written: %s", failure, extra={"event": "journal_failed", "reason": failure}
            )
        self._bounds.failure = failure
        self._update_room()
        if self._drop_oldest and error.errno in FULL and len(self._holdings) > 1:
            self._drop(1)
        if self._state == "closing":
            self._flushes.fail(JournalError(f"the journal cannot be written: {failure}"))

    def on_places(self, error: OSError | None) -> None:
        """The cursors' places are durable, or not."""
        self._cursors.end_store(done=error is None)
        if error is None:
            self._trim()
        else:
            self._counts.places_failures += 1
            log.warning("the cursors' places cannot be written: %s", error)
            self._arm_places()
        if self._stored is not None and not self._stored.done():
            self._stored.set_result(None)

    def on_removed(self, kept_aside: int, errors: int) -> None:
        """Segments are gone from the directory."""
        self._counts.set_aside += kept_aside
        self._counts.failures += errors

    def on_probed(self, free_bytes: int) -> None:
        """The file system's free bytes."""
        self._probing = False
        self._bounds.free = free_bytes
        self._check_bytes()

    # -- bounds on disk --------------------------------------------------------------------------------------------

    def _check_bytes(self) -> None:
        """Judge the bounds on disk, make room where that is wanted, and keep looking while space is short."""
        bounds = self._bounds
        # The free space is not judged again before it was looked at after the last removal.
        if self._drop_oldest and (need := bounds.need(self._holdings.bytes, look_at_free=not self._probing)) > 0:
            self._drop(self._holdings.covering(need))
        bounds.judge(self._holdings.bytes)
        self._update_room()
        if bounds.low and self._probe_timer is None and self._state == "open":
            self._probe_timer = self._loop.call_later(PROBE_S, self._probe_again)

    def bound(self, *, max_bytes: int, keep_free_bytes: int) -> None:
        """Other bounds on disk from now on.  Segments keep the size that went with the first."""
        self._bounds.max_bytes, self._bounds.keep_free = max_bytes, keep_free_bytes
        if self._state == "open":
            self._check_bytes()

    def _probe_again(self) -> None:
        self._probe_timer = None
        self._probe()

    def _probe(self) -> None:
        if not self._probing:
            self._probing = True
            self._writer.probe()

    def pressing(self, names: Collection[str]) -> list[str]:
        """Which of these cursors hold alone what the journal should let go, since it comes near its bounds.

        That is: half of ``max_bytes``, or anything once three quarters are taken or the disk is short of space.  Their
        readers are then to make safe what they have, ahead of their time.
        """
        others = [cursor.persisted for cursor in self._cursors if cursor.name not in names]
        count = self._holdings.passed(min(others, default=self.durable_offset))
        if not count or not self._bounds.presses(self._holdings.bytes_of(count), self._holdings.bytes):
            return []
        mine = [cursor for cursor in self._cursors if cursor.name in names]
        return [cursor.name for cursor in mine if self._holdings.passed(cursor.persisted) < count]

    def _drop(self, count: int) -> None:
        """Let the ``count`` oldest segments go, whoever has not read them."""
        if not count:
            return
        dropped = self._holdings.take_oldest(count)
        first = self._holdings.oldest
        self._gone = Gone(first.base, first.before)
        self._cursors.drop_below(Position(first.base, first.before))
        self._counts.dropped_segments += count
        unread = ", ".join(cursor.name for cursor in self._cursors if cursor.position.offset == first.base)
        some = counted(count, "segment")
        extra = {"event": "journal_dropped", "offset": first.base, "sink": unread}
        log.warning("dropped %s below offset %d to make room, unread by: %s", some, first.base, unread, extra=extra)
        self._writer.remove(dropped, self._places())
        self._probe()
        self._arm_places()

    def _trim(self) -> None:
        """Let the segments go that every cursor has passed durably."""
        count = self._holdings.passed(self._cursors.floor)
        if count:
            self._counts.removed_segments += count
            removed = self._holdings.take_oldest(count)
            self._gone = Gone(self._holdings.oldest.base, self._holdings.oldest.before)
            self._writer.remove(removed, self._places())
            self._check_bytes()

    # -- cursors ---------------------------------------------------------------------------------------------------

    @property
    def oldest_offset(self) -> int:
        """Nothing below it is held."""
        return self._holdings.oldest.base

    def cursor(self, name: str, start: Position | int | None = None) -> Cursor:
        """Open a cursor: at ``start`` where its reader keeps its own place, else where it stood or at the oldest item.

        Open all cursors before the first of them confirms: only open ones hold segments.  With an ``int`` one segment
        may be read from disk to count the readings below it.  Raises ``ValueError`` for a name that is open or too
        long, :class:`JournalError` when the journal is closed or too many cursors are open.
        """
        self.check_open()
        self._cursors.check(name)
        oldest = self._holdings.oldest
        kept = self._cursors.kept(name)
        place = kept or Place(oldest.base, oldest.before, began=oldest.before)
        if start is not None:
            offset = start if isinstance(start, int) else start.offset
            self.go_on_behind(offset)
            if kept is not None and offset < min(kept.offset, self._gone.offset):
                self._problems.append(
                    f"The {title(name)} has lost what it once had: part of that is no longer in the journal"
                )
                kept = None
            readings = start.readings if isinstance(start, Position) else self._readings_below(offset)
            place = moved(kept, offset, min(readings, self.stored))
        cursor = Cursor(self, name, place, own_place=start is not None)
        # What was let go while the cursor was not open counts as dropped.
        cursor.drop_below(Position(self._gone.offset, self._gone.readings))
        cursor.lose_below(Position(oldest.base, oldest.before))
        self._cursors.add(cursor)
        self._arm_places()
        return cursor

    def go_on_behind(self, offset: int) -> None:
        """See to it that all offsets given out from now on lie behind ``offset``; before the first append.

        A reader that knows offsets which this journal has forgotten would skip them as old.
        """
        if offset <= self.next_offset:
            return
        if self._pending or self._in_flight:
            raise JournalError("a cursor beyond the journal's end is opened before the first append, or not at all")
        base = offset + JUMP
        log.warning("a cursor stands beyond the journal's end: offsets go on at %d", base)
        self._pending_base = self.durable_offset = base
        self._writer.anchor(base)

    def _readings_below(self, offset: int) -> int:
        """How many readings were stored below ``offset``, exactly; may read a segment."""
        if self.next_held(offset) >= self.durable_offset:
            return self._holdings.readings_below(offset)
        try:
            return seek_readings(self._holdings.segments, self.seed, offset, self.durable_offset)
        except OSError as error:
            raise JournalError(f"cannot read the journal at offset {offset}: {error}") from error

    def readings_below(self, offset: int) -> int:
        """How many readings were stored below ``offset``, from memory: exact where the ring reaches, else at least."""
        if offset >= self.durable_offset:
            return self.stored
        if self.ring.find(offset) is not None:
            return self.ring.take(offset, 1)[1]
        return self._holdings.readings_below(offset)

    def next_held(self, offset: int) -> int:
        """The least offset from ``offset`` on that can be read, past gaps; else ``durable_offset``, or ``offset`` if
        that lies behind it."""
        held = self._holdings.next_held(offset)
        # The writer's segment grows before its commit is told.
        return max(offset, self.durable_offset) if held is None or held >= self.durable_offset else held

    def moved(self, cursor: Cursor) -> None:
        """A cursor confirmed something."""
        if cursor.own_place:
            cursor.persisted = cursor.position.offset
            if self.reason:
                self._trim()
        self._arm_places()

    def forget(self, cursor: Cursor) -> None:
        """A cursor is closed."""
        if self._cursors.remove(cursor):
            self._arm_places()

    def _arm_places(self) -> None:
        if self._places_timer is None and self._state == "open":
            self._places_timer = self._loop.call_later(PERSIST_S, self._store_places)

    def _places(self) -> Places:
        return self._cursors.state(bytes.fromhex(self.epoch), self.durable_offset, self.stored, self._gone)

    def _store_places(self) -> None:
        self._places_timer = None
        if not self._begin_store():
            self._arm_places()

    def _begin_store(self) -> bool:
        begun = self._cursors.begin_store()
        if begun:
            # What had vanished at the start is by now in the counts of all cursors.
            self._gone = Gone(self._holdings.oldest.base, self._holdings.oldest.before)
            self._writer.store(self._places())
        return begun

    async def _store_last(self) -> None:
        """Write the places as they are now, behind what may be under way, and let go what they free."""
        begun = False
        while not begun:
            begun = self._begin_store()
            self._stored = self._loop.create_future()
            await self._stored

    # -- reading ---------------------------------------------------------------------------------------------------

    async def read_from(self, offset: int, max_readings: int = 1000) -> Batch | None:
        """At most ``max_readings`` consecutive durable items, the first at ``offset`` or at the next one held.

        ``None`` when there is none.  Raises :class:`JournalError` when the disk cannot be read.
        """
        self.check_open()
        max_items = max(1, max_readings)
        start = self.next_held(offset)
        if start >= self.durable_offset:
            return None
        if self.ring.find(start) is not None:
            return self.ring.take(start, max_items)[0]
        reader = self._spare.take(offset) or Reader(self.seed)
        reading = self.start_reading(reader, start, max_items)
        try:
            taken = await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(lambda _: reader.close())  # the thread has its file open still
            raise
        except OSError as error:
            reader.close()
            raise JournalError(f"cannot read the journal at offset {offset}: {error}") from error
        if taken.batch is None:
            reader.close()
            return None
        self._spare.put(taken.batch.end, reader)
        return taken.batch

    def start_reading(self, reader: Reader, offset: int, max_items: int) -> asyncio.Future[Taken]:
        """Read what is not in memory, in a reader thread."""
        limit = self.ring.start_behind(offset, self.durable_offset)
        future = self._loop.run_in_executor(
            self._executor, reader.read, self._holdings.segments, offset, limit, max_items
        )
        future.add_done_callback(partial(self._read_done, offset, limit))
        return future

    def _read_done(self, offset: int, limit: int, future: asyncio.Future[Taken]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        taken = future.result()
        if taken.barren:
            self._holdings.give_up(offset, limit)
        for damage in taken.damages:
            self._counts.noted(damage, *self._holdings.note(damage))

    def problems(self) -> list[str]:
        """What was found wrong with the files since the start, in words."""
        return [*self._problems, *self._counts.problems()]

    def stats(self) -> dict[str, float]:
        """Counts of this start and gauges; in bytes, seconds, items, or as named.

        ``ack_ms_p50`` and ``_p99`` are those of the last commits; ``failing`` is 1 while nothing can be appended.
        """
        if self._state == "new":
            return {}
        since = self._in_flight_since if self._in_flight else self._pending_since
        pending = len(self._pending) + self._in_flight
        return {
            **self._counts.as_dict(),
            "next_offset": self.next_offset,
            "durable_offset": self.durable_offset,
            "oldest_offset": self.oldest_offset,
            "stored": self.stored,
            "pending": pending,
            "oldest_pending_s": self._loop.time() - since if pending else 0.0,
            "segments": len(self._holdings),
            "bytes": self._holdings.bytes,
            "max_bytes": self._bounds.max_bytes,
            "free_bytes": self._bounds.free,
            "ring_bytes": self.ring.cost,
            "ring_batches": len(self.ring),
            "cursors": len(self._cursors),
            "failing": float(bool(self.reason)),
            "unencodable": self._writer.unencodable,
            "writer_step_s": self._writer.step_s(),
        }

"""The journal's one writer thread: encodes, appends, syncs, retries; keeps the cursors' file; unlinks.

Constraints
-----------
- The loop never waits for the disk and never encodes: it hands a job over and is told by ``post`` when it is done.
- One commit is under way at a time.  It is told as done when every record of it was synced, and never before.
- After a failed write or sync the file is abandoned (see :mod:`gateway.journal.segment`); the same record goes to a new
  one, after a pause that grows to :data:`RETRY_MAX_S`.  Meanwhile the other jobs go on: they may make room.
- The queue of jobs is bounded by its one producer: one commit, one state of the cursors and one probe at a time, and
  removals of segments, each once.
- Where a full disk kept the first segment from being made, that is done before anything else is written.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.aside import remove, set_aside
from gateway.journal import identity, record
from gateway.journal.home import Home
from gateway.journal.places import Places, PlacesFile
from gateway.journal.segment import KIND, Segment, Tail
from gateway.reading import Batch, Item, Mark

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Committed", "Events", "Writer", "Written", "free_bytes"]

RECORD_ITEMS = 4096  # a larger group becomes several records, each synced before the next
RECORD_BYTES = 1 << 20  # of payload, likewise; a single larger item still is one record
RETRY_MIN_S = 0.05
RETRY_MAX_S = 0.5
PROBE_S = 1.0  # between two looks at the free space while records are written
LOOK_S = 0.5  # between two looks whether the segment is where it was, likewise

log = logging.getLogger(__name__)


class Written(msgspec.Struct, frozen=True):
    """One durable record: ``before`` readings lie below it, ``size`` is its bytes on disk."""

    batch: Batch
    before: int
    size: int


class Committed(msgspec.Struct, frozen=True):
    """A group that is durable; ``segments`` are the files born for it, ``sync_s`` the seconds its syncs took."""

    records: list[Written]
    segments: list[Segment]
    free_bytes: int
    seconds: float
    sync_s: float


class Events(Protocol):
    """What the writer tells; each is called on the loop."""

    def on_committed(self, committed: Committed) -> None:
        """The group handed over is durable."""

    def on_begun(self, segment: Segment, free_bytes: int) -> None:
        """The first segment is durable."""

    def on_failed(self, error: OSError) -> None:
        """A try failed; the next follows by itself."""

    def on_places(self, error: OSError | None) -> None:
        """The cursors' places are durable, or not."""

    def on_removed(self, kept_aside: int, errors: int) -> None:
        """Segments are gone from the directory; ``kept_aside`` of them were renamed."""

    def on_probed(self, free_bytes: int) -> None:
        """The bytes that are free on the file system."""


class _Commit(msgspec.Struct):
    base: int
    items: list[Item]


class _Store(msgspec.Struct):
    places: Places


class _Anchor(msgspec.Struct):
    base: int


class _Begin(msgspec.Struct):
    base: int
    epoch_due: bool


class _Remove(msgspec.Struct):
    segments: list[Segment]
    places: Places


class _Probe(msgspec.Struct):
    pass


class _Stop(msgspec.Struct):
    pass


_Job = _Commit | _Store | _Anchor | _Begin | _Remove | _Probe | _Stop


def free_bytes(directory: Path) -> int:
    """Bytes free for us on the file system of ``directory``.  Raises ``OSError``."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


class Writer:
    """The thread and its queue.  Methods are called on the loop; ``post`` calls a function there, from any thread."""

    def __init__(
        self,
        directory: Path,
        home: Home,
        epoch: bytes,
        tail: Tail | None,
        last: Segment,
        places: PlacesFile,
        *,
        end: int,
        stored: int,
        free: int,
        segment_bytes: int,
        events: Events,
        post: Callable[..., None],
    ) -> None:
        self._directory = directory
        self._home = home
        self._epoch = epoch
        self._seed = record.seed_of(epoch)
        self._tail = tail
        self._last = last
        self._to_begin: tuple[int, bool] | None = None  # where the first segment begins, and whether the epoch is due
        self._places = places
        self._end = end
        self._stored = stored
        self._segment_bytes = segment_bytes
        self._events = events
        self._post = post
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        # The commit under way.
        self._waiting: deque[tuple[int, list[Item]]] = deque()
        self._packed: tuple[record.Head, list[bytes], list[Item]] | None = None
        self._records: list[Written] = []
        self._born: list[Segment] = []
        self._pause = 0.0
        self._began = 0.0
        self._sync_s = 0.0
        self._free = free
        self._probed = self._looked = time.monotonic()
        self._step_since = 0.0  # monotonic; 0: it waits for something to do
        self._stopped = False
        self.unencodable = 0
        """Items that could not be encoded and were replaced by a mark."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def commit(self, base: int, items: list[Item]) -> None:
        """Make ``items`` durable, the first at offset ``base``; not before the last commit is told as done."""
        self._jobs.put(_Commit(base, items))

    def store(self, places: Places) -> None:
        """Make the cursors' places durable."""
        self._jobs.put(_Store(places))

    def begin(self, base: int, *, epoch_due: bool) -> None:
        """Make the first segment, which the disk had no room for at the start; before any commit, until it succeeds."""
        self._jobs.put(_Begin(base, epoch_due))

    def anchor(self, base: int) -> None:
        """Go on at offset ``base``: a segment that begins there is made durable now."""
        self._jobs.put(_Anchor(base))

    def remove(self, segments: list[Segment], places: Places) -> None:
        """Unlink segments, set aside those with damage; ``places``, made durable before, say that they are gone."""
        self._jobs.put(_Remove(segments, places))

    def probe(self) -> None:
        """Ask for the free space."""
        self._jobs.put(_Probe())

    def stop(self) -> None:
        """End the thread when the jobs before this one are done, with one last try for a commit that fails."""
        self._jobs.put(_Stop())

    def join(self) -> None:
        """Wait for the thread's end; blocks."""
        self._thread.join()

    def step_s(self) -> float:
        """For how long it has been at one step (a record, the cursors' places, ..), in seconds; 0 while it waits.

        Infinite where the thread has ended without being told to.
        """
        since = self._step_since
        if self._thread.ident is not None and not self._thread.is_alive() and not self._stopped:
            return math.inf
        return time.monotonic() - since if since else 0.0

    def _run(self) -> None:
        next_try = 0.0
        while True:
            timeout = max(0.0, next_try - time.monotonic()) if self._busy else None
            try:
                job = self._jobs.get(timeout=timeout)
            except queue.Empty:
                self._step_since = time.monotonic()
                next_try = self._attempt()
                self._step_since = 0.0
                continue
            self._step_since = time.monotonic()
            match job:
                case _Commit(base, items):
                    self._began = time.monotonic()
                    self._sync_s = 0.0
                    self._waiting.append((base, items))
                    next_try = self._attempt()
                case _Store(places):
                    self._store(places)
                case _Begin(base, epoch_due):
                    self._to_begin = base, epoch_due
                    next_try = self._attempt()
                case _Anchor(base):
                    if self._to_begin is not None:
                        self._to_begin = base, self._to_begin[1]
                    else:
                        self._anchor(base)
                case _Remove(segments, places):
                    self._remove(segments, places)
                case _Probe():
                    self._probe()
                    self._post(self._events.on_probed, self._free)
                case _Stop():
                    if self._waiting or self._packed is not None:
                        self._attempt()
                    break
            self._step_since = 0.0
        self._close()
        self._stopped = True
        self._step_since = 0.0

    @property
    def _busy(self) -> bool:
        return bool(self._waiting) or self._packed is not None or self._to_begin is not None

    def _close(self) -> None:
        try:
            if self._tail is not None:
                self._tail.close()
            self._places.close()
            self._home.close()
        except OSError as error:
            log.warning("closing the journal: %s", error)

    # -- commits ---------------------------------------------------------------------------------------------------

    def _attempt(self) -> float:
        """Go on with the commit; the monotonic time of the next try if this one failed."""
        try:
            if self._to_begin is not None:
                self._begin_first(*self._to_begin)
                return 0.0
            while self._busy:
                if self._packed is None:
                    self._packed = self._pack()
                self._write(*self._packed)
                self._packed = None
                self._step_since = time.monotonic()
        except OSError as error:
            return self._failed(error)
        except Exception as error:  # want of memory, a fault of ours: the thread must not end, nor be silent
            log.exception("the journal's writer: fault")
            return self._failed(OSError(0, f"fault in the writer: {error!r}"))
        self._pause = 0.0
        now = time.monotonic()
        if now - self._probed >= PROBE_S:
            self._probe()
        done = Committed(self._records, self._born, self._free, now - self._began, self._sync_s)
        self._records, self._born = [], []
        self._post(self._events.on_committed, done)
        return 0.0

    def _begin_first(self, base: int, epoch_due: bool) -> None:
        """Make the first segment, and the epoch's file after it."""
        try:
            tail = self._roll(base)
            tail.sync()
            if epoch_due:
                identity.write(self._directory / identity.FILE_NAME, self._epoch)
        except OSError:
            if self._tail is not None:
                self._tail.discard()
                self._tail = None
            raise
        self._to_begin = None
        self._pause = 0.0
        self._last = tail.segment
        self._probe()
        self._post(self._events.on_begun, tail.segment, self._free)

    def _failed(self, error: OSError) -> float:
        """Tell of a try that failed; the monotonic time of the next."""
        self._pause = min(RETRY_MAX_S, self._pause * 2 or RETRY_MIN_S)
        self._post(self._events.on_failed, error)
        return time.monotonic() + self._pause

    def _pack(self) -> tuple[record.Head, list[bytes], list[Item]]:
        """Encode the next record."""
        base, items = self._waiting[0]
        left: list[tuple[int, list[Item]]] = []
        if len(items) > RECORD_ITEMS:
            left.append((base + RECORD_ITEMS, items[RECORD_ITEMS:]))
            items = items[:RECORD_ITEMS]
        try:
            payload = record.encode(items)
        except (TypeError, ValueError, OverflowError):
            items = [self._encodable(item) for item in items]
            payload = record.encode(items)
        while len(payload) > RECORD_BYTES and len(items) > 1:
            half = len(items) // 2
            left.append((base + half, items[half:]))
            items = items[:half]
            payload = record.encode(items)
        start, head = record.pack_record(
            self._seed, base, self._stored, len(items), record.count_readings(items), payload
        )
        # Taken off only now: whatever goes wrong before, the items are there for the next try.
        self._waiting.popleft()
        self._waiting.extendleft(left)
        return head, [start, payload], items

    def _encodable(self, item: Item) -> Item:
        """The item, or a mark in its place: one item that nobody checked must not stop all others."""
        try:
            record.encode(item)
        except (TypeError, ValueError, OverflowError) as error:
            extra = {"event": "fault", "device": item.device, "reason": error}
            log.error("an item of device %r cannot be stored: %s", item.device, error, extra=extra)
            self.unencodable += 1
            return Mark(item.device, getattr(item, "session", ""), getattr(item, "seq", 0))
        return item

    def _write(self, head: record.Head, parts: list[bytes], items: list[Item]) -> None:
        size = record.HEAD_SIZE + head.size
        tail = self._tail
        try:
            if tail is not None and time.monotonic() - self._looked >= LOOK_S:
                tail.check_place()
                self._looked = time.monotonic()
            if tail is None or tail.segment.end != head.base or self._is_full(tail, size):
                tail = self._roll(head.base)
            began = time.monotonic()
            tail.append(head, parts)
            self._sync_s += time.monotonic() - began
        except Exception:  # the file is in an unknown state, whatever went wrong
            if self._tail is not None:
                self._tail.abandon()
                self._tail = None
            raise
        self._note_birth(tail.segment)
        self._end = head.end
        self._stored += head.readings
        self._records.append(Written(Batch(head.base, items, head.readings), head.before, size))

    def _is_full(self, tail: Tail, size: int) -> bool:
        return tail.segment.end > tail.segment.base and tail.used + size > self._segment_bytes

    def _roll(self, base: int) -> Tail:
        """Close the tail, if there is one, and begin a segment at ``base``, which is not durable yet."""
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()
        self._home.enter(self._epoch)
        generation = self._last.generation + 1 if self._last.base == base else 0
        while True:
            try:
                tail = Tail(self._directory, self._epoch, base, generation, self._end, self._stored)
            except FileExistsError:  # left by an earlier try that could not be unlinked
                generation += 1
            else:
                self._tail = tail
                return tail

    def _note_birth(self, segment: Segment) -> None:
        if segment is not self._last:
            self._last = segment
            self._born.append(segment)

    def _anchor(self, base: int) -> None:
        try:
            tail = self._roll(base)
            tail.sync()
        except OSError as error:
            if self._tail is not None:
                self._tail.abandon()
                self._tail = None
            log.warning("beginning a segment at offset %d: %s", base, error)
            return
        self._note_birth(tail.segment)

    # -- other jobs ------------------------------------------------------------------------------------------------

    def _store(self, places: Places) -> None:
        problem: OSError | None = None
        try:
            self._places.write(places)
        except OSError as error:
            problem = error
        self._post(self._events.on_places, problem)

    def _remove(self, segments: list[Segment], places: Places) -> None:
        aside = errors = 0
        try:
            self._places.write(places)
        except OSError as error:
            # They go all the same: room is wanted.  A crash right now would count as lost what was dropped.
            log.warning("the cursors' places cannot be written: %s", error)
        for segment in segments:
            try:
                if segment.damaged_at:
                    aside += set_aside(segment.path, "damaged", kind=KIND) is not None
                else:
                    remove(segment.path)
            except OSError as error:
                errors += 1
                log.warning("removing %s: %s", segment.path, error)
        self._post(self._events.on_removed, aside, errors)

    def _probe(self) -> None:
        self._probed = time.monotonic()
        try:
            self._free = free_bytes(self._directory)
        except OSError as error:
            log.warning("asking for the free space of %s: %s", self._directory, error)

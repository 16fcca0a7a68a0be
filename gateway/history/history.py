"""The embedded time-series store.

Readings land in a memtable of typed columns; when it is full, or old, it is frozen and flushed: packed into chunks in
an SQLite file by one thread, together with the offset of the journal up to which all is there.  The journal is the
write-ahead log: what was not flushed is read from it again after a crash, from ``position``.  So every reading gets
into a chunk exactly once.

======================  ==================================================================================
column, frame, codec    pure: values of one series; rows of one device; a chunk's body
memtable, regroup       pure: what is not on disk yet, and its way into chunks
runs, downsample,       pure: the parts of an answer
collector
levels, rollup, rolled  pure: what a minute and an hour amount to, and when that answers
schema, chunks, merge,  the file and its writing side (one thread)
roller, store,
retention
readers, query, shared  the reading side (two threads, a connection each)
salvage, rescue         what becomes of a damaged file
history                 this: the one owner of all, on the event loop
======================  ==================================================================================
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import apsw

from gateway.errors import HistoryError, Overloaded
from gateway.history.catalogue import Catalogue, Snapshot
from gateway.history.collector import Row
from gateway.history.later import Later
from gateway.history.memtable import Memtable
from gateway.history.query import (
    Answer,
    Cancelled,
    Extent,
    Latest,
    asked,
    latest,
    run_extents,
    run_names,
    run_query,
)
from gateway.history.readers import Readers
from gateway.history.rescue import is_damage, open_store, rescue
from gateway.history.retention import EXPIRE_S, Retention
from gateway.history.schema import translated
from gateway.history.store import Store
from gateway.reading import Batch

__all__ = ["Answer", "Extent", "History", "Latest", "Row", "Snapshot"]

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS: Final = 2
# Queries that run or wait; one more is refused (Overloaded).
MAX_QUERIES: Final = 512
RETRY_S: Final = (1.0, 60.0)  # first and longest pause after a flush that failed
REST: Final = 4  # background work rests so many times as long as it worked


class History:
    """The store in the file ``path``.  All methods belong to one event loop.

    ``retention_days``: chunks whose every row is older, and was received longer ago, are deleted (0: kept for ever);
    ``minutes_days``, ``hours_days``: so are rollups, none sooner than what is finer.
    ``memtable_bytes``: how much is held in memory before it is flushed; there may be twice as much while a flush is
    under way.  ``flush_s``: how old a reading in memory may become.
    ``clock`` gives seconds since the epoch, for the retention; of what a clock that jumps ahead makes too old, a day
    goes in an hour.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention_days: float = 30,
        minutes_days: float = 180,
        hours_days: float = 3650,
        memtable_bytes: int = 4 << 20,
        flush_s: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.position = 0
        self.end = 0
        self._path = path
        self._age = Retention((retention_days, minutes_days, hours_days), clock)
        self._retention = self._age.kept[0]
        self._limit = memtable_bytes
        self._flush_s = flush_s
        self._stage = max(16, min(2048, memtable_bytes // 2048))
        self._store: Store | None = None
        self._catalogue = Catalogue()
        self._live = Memtable(0)
        self._frozen: Memtable | None = None
        self._frozen_end = 0
        self._shift = 0
        self._due: float | None = None  # when the live memtable becomes too old, on the loop's clock
        self._failure: HistoryError | None = None
        self._suspicion: Exception | None = None  # why the file is to be made anew
        self._problems: list[str] = []
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()  # in use
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self._broken = False  # the keeper has ended before its time
        self._wake = asyncio.Event()
        self._attempt = asyncio.Event()  # set, and replaced by a new one, after each flush that was tried
        self._connections = Readers(path, READERS)
        self._running: set[threading.Event] = set()
        counted = "queries query_seconds queries_refused flushes flush_seconds flush_failures damaged rescued"
        self._counts: dict[str, float] = dict.fromkeys(counted.split(), 0)

    async def open(self, epoch: str = "") -> None:
        """Open or make the file; ``position`` and ``end`` are then those of its chunks.

        ``epoch`` is the journal's: with another one than before ``position`` is 0 again, since offsets of two journals
        cannot be compared.  Raises :class:`HistoryError`: no file that we can use, or one of a later version.
        """
        self._writer = ThreadPoolExecutor(1, "history-writer")
        self._readers = ThreadPoolExecutor(READERS, "history-reader")
        try:
            self._store = store = await self._in_writer(partial(self._open, epoch))
        except BaseException:
            self._writer.shutdown()
            self._readers.shutdown()
            raise
        self.position = self.end = store.position
        self._shift = store.shift
        self._catalogue = store.catalogue
        if store.had_another_journal:
            self._problems.append("The history was written from another journal: what only that one held is not in it")
            log.warning("%s", self._problems[-1])
        self._begin()
        self._keeper = asyncio.create_task(self._keep(store), name="history")

    def _open(self, epoch: str) -> Store:
        with translated(f"cannot open {self._path}"):
            return open_store(self._path, self._rescued, epoch=epoch, span=self._retention // 30)

    def _rescued(self, name: str, error: Exception) -> None:
        text = f"The history's file could not be used ({error}) and is made anew from what can be read of it"
        self._problems = [*self._problems[-7:], f"{text}: kept as {name}" if name else text]
        self._counts["rescued"] += 1
        extra = {"event": "history_damaged", "reason": error, "path": name}
        log.error("%s", self._problems[-1], extra=extra)

    def _rescue(self, old: Store, error: Exception) -> Store:
        """Make the file anew; waits for queries that read the old one.  After an error it can be called again."""
        span = self._retention // 30
        with translated(f"cannot make {self._path} anew"):
            if not old.closed:
                self._rescued(rescue(self._path, old, span=span), error)
            self._connections.close()
            store = open_store(self._path, self._rescued, epoch=old.epoch, span=span)
            try:
                if (store.position, store.shift) != (old.position, old.shift):
                    store.stand(old.position, old.epoch, old.shift)
            except BaseException:
                store.close()
                raise
            return store

    def problems(self) -> list[str]:
        """What was found wrong with the file since the start, in words."""
        problems = list(self._problems)
        counts = self.stats()
        if lost := int(counts["damaged"] + counts.get("chunks_left_out", 0)):
            problems.append(f"{lost:,} chunk{'' if lost == 1 else 's'} of the history cannot be read")
        if problem := self._age.problem():
            problems.append(problem)
        return problems

    def _close_all(self, store: Store) -> None:
        self._connections.close()
        store.close()

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    def _begin(self) -> None:
        """A new live memtable behind the frozen one, if there is one."""
        self._live = Memtable(self.end + self._shift, self._stage)
        self._due = None

    def _snapshot(self) -> Snapshot:
        if self._frozen is None:
            snapshot = Snapshot((self._live.view(),), self._live.base)
        else:
            snapshot = Snapshot((self._frozen.view(), self._live.view()), self._frozen.base)
        self._snapshots.add(snapshot)
        return snapshot

    def _seen(self) -> int:
        """All rows with orders below this are in chunks for every snapshot in use, and every one to come."""
        now = self._live if self._frozen is None else self._frozen
        return min((snapshot.bound for snapshot in self._snapshots), default=now.base)

    async def write(self, batch: Batch) -> int:
        """Add the batch, without what lies below ``end``; returns ``position``.

        Waits while the live memtable is full and the frozen one is not on disk yet.  Raises :class:`HistoryError`
        instead while the disk refuses to take it.  One call at a time.
        """
        while self._frozen is not None and self._live.size >= self._limit:
            self._raise_failure()
            await self._attempt.wait()
        self._check_open()
        if batch.end > self.end:
            seen = self.end - batch.base
            items, base, readings = batch.items, batch.base, batch.readings
            if seen > 0:
                items, base = items[seen:], self.end
                readings = min(readings, len(items))
            self._live.add(base + self._shift, items, readings)
            self.end = batch.end
            if self._due is None:
                self._due = asyncio.get_running_loop().time() + self._flush_s
                self._wake.set()
            if self._frozen is None and self._live.size >= self._limit:
                self._freeze()
        return self.position

    def _freeze(self) -> None:
        self._frozen, self._frozen_end = self._live, self.end
        self._begin()
        self._wake.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise HistoryError(str(self._failure), hint=self._failure.hint)

    def _check_open(self) -> None:
        if self._store is None or self._closing:
            raise HistoryError("the history is closed")
        if self._broken:
            self._raise_failure()

    async def _keep(self, store: Store) -> None:
        try:
            await self._keep_up(store)
        except Exception as error:
            log.exception("the history's writer has failed")
            self._failure = HistoryError(f"the history's writer has failed: {error}")
            self._broken = True
            self._tell()

    async def _keep_up(self, store: Store) -> None:
        """Flush what is frozen, freeze what is old, and in between the background work, one step after the other."""
        loop = asyncio.get_running_loop()
        retry, expire_at, work_at = RETRY_S[0], loop.time(), loop.time()
        expired: int | None = None  # the last device that was looked at, while that is going on
        sorted_out = True  # what is too old comes out of shared chunks first
        opened_at, before = loop.time(), [0, 0, 0]
        while True:
            now = loop.time()
            if self._suspicion is not None:
                try:
                    store = self._store = await self._in_writer(partial(self._rescue, store, self._suspicion))
                except HistoryError as error:
                    log.warning("%s", error, extra={"event": "history_failed", "reason": error})
                    self._failure = error
                    self._tell()
                    if self._closing:
                        return
                    self._wake.clear()
                    await self._sleep(retry)
                    retry = min(2 * retry, RETRY_S[1])
                else:
                    self._catalogue = store.catalogue
                    self._suspicion = self._failure = expired = None
                    sorted_out = True
                    retry, work_at = RETRY_S[0], loop.time()
                continue
            if self._frozen is None and self._due is not None and (self._closing or self._due <= now):
                self._freeze()
            if self._frozen is not None:
                if await self._flush_frozen(store):
                    retry = RETRY_S[0]
                    continue
                if self._closing:
                    return
                if self._suspicion is None:
                    self._wake.clear()
                    await self._sleep(retry)
                    retry = min(2 * retry, RETRY_S[1])
                continue
            if self._closing:
                return
            # Names that nothing has may be those of chunks to come, and the oldest may be among these.
            may_expire = bool(self._retention) and not store.salvaging
            if not sorted_out and may_expire and not store.merger.sorting:
                expired, sorted_out = 0, True
                continue
            if expired is None and may_expire and now >= expire_at:
                try:
                    before = await self._in_writer(partial(self._age.limits, store, now - opened_at))
                except HistoryError as error:
                    log.warning("%s", error, extra={"event": "history_failed", "reason": error})
                    self._suspect(error)
                else:
                    sorted_out = False
                expire_at = now + (EXPIRE_S if self._age.behind else min(EXPIRE_S, self._retention / 50e9))
                continue
            if now >= work_at and (expired is not None or store.busy or self._may_shrink):
                began = now
                try:
                    expired = await self._in_writer(partial(self._work, store, expired, before, self._seen()))
                except HistoryError as error:
                    log.warning("%s", error, extra={"event": "history_failed", "reason": error})
                    self._suspect(error)
                    work_at = loop.time() + RETRY_S[1]
                else:
                    work_at = loop.time() + REST * (loop.time() - began)
                continue
            self._wake.clear()
            times = [at for at in (self._due, expire_at if may_expire else None) if at is not None]
            if expired is not None or store.busy or self._may_shrink:
                times.append(work_at)
            await self._sleep(min(times) - loop.time() if times else None)

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass

    _may_shrink = False

    def _work(self, store: Store, expired: int | None, before: list[int], seen: int) -> int | None:
        """One step of the background work; returns the device up to which old chunks are deleted, None: of all.

        ``seen``: rows with orders at or above it do not get into rollups.
        """
        with translated("cannot tidy the history"):
            if expired is not None:
                expired = store.expire(before, expired, below=seen)
                if expired is None:
                    store.forget()
                    store.roller.ready = True
                    self._may_shrink = True
            elif store.salvaging:
                store.salvage_step()
            elif store.merger.ready:
                store.merger.step()
                store.roller.ready = True
                self._may_shrink = True
            elif store.roller.ready:
                store.roller.step(seen)
            else:
                self._may_shrink = store.shrink()
        return expired

    async def _flush_frozen(self, store: Store) -> bool:
        assert self._frozen is not None
        memtable, end = self._frozen, self._frozen_end
        began = time.perf_counter()
        try:
            await self._in_writer(partial(self._flush, store, memtable, end))
        except HistoryError as error:
            log.warning("%s", error)
            self._failure = error
            self._suspect(error)
            self._counts["flush_failures"] += 1
        else:
            self._failure = None
            self._frozen = None
            self.position = end
            self._counts["flushes"] += 1
            self._counts["flush_seconds"] += time.perf_counter() - began
        if self._frozen is None and self._live.size >= self._limit:
            self._freeze()
        self._tell()
        return self._failure is None

    def _suspect(self, error: HistoryError) -> None:
        """Where that was damage, the file is to be made anew."""
        if (cause := is_damage(error.__cause__)) is not None:
            self._suspicion = cause
            self._wake.set()

    def _tell(self) -> None:
        self._attempt.set()
        self._attempt = asyncio.Event()

    def _flush(self, store: Store, memtable: Memtable, end: int) -> None:
        with translated("cannot write to the history"):
            store.flush(memtable, end)

    def query(
        self,
        *,
        devices: str | Iterable[str] = "*",
        metrics: str | Iterable[str] = "*",
        start: int,
        end: int,
        step: int | None = None,
        agg: str = "mean",
        limit: int = 100_000,
        within: tuple[str, ...] = ("*",),
        at: Snapshot | None = None,
    ) -> Awaitable[tuple[list[Row], bool]]:
        """As :meth:`ask`, but for the rows, and whether there are more, alone."""
        later = self.ask(
            devices=devices,
            metrics=metrics,
            start=start,
            end=end,
            step=step,
            agg=agg,
            limit=limit,
            within=within,
            at=at,
        )

        async def answer() -> tuple[list[Row], bool]:
            return (await later)[:2]

        return Later(answer)

    def ask(
        self,
        *,
        devices: str | Iterable[str] = "*",
        metrics: str | Iterable[str] = "*",
        start: int,
        end: int,
        step: int | None = None,
        agg: str = "mean",
        limit: int = 100_000,
        within: tuple[str, ...] = ("*",),
        at: Snapshot | None = None,
    ) -> Awaitable[Answer]:
        """Rows ``(time, device, metric, value)`` with ``start`` <= time < ``end``, whether the answer was cut, and
        whether something of what was asked for is not kept any more (:class:`Answer`).

        The answer holds what was written before the call, whenever it is awaited: offsets below ``end``, as it is then,
        and no others.  ``at``: as if it were called at that moment (see :meth:`now`).

        Times are nanoseconds; ``devices`` and ``metrics`` are globs (``*``, ``?``), or several; of the devices those
        alone count that one of ``within`` matches, too.  Rows ascend by time;
        those of one time by device and metric, then as they came.  Of more than ``limit`` rows the earliest come.

        With ``step`` one row a bucket of so many nanoseconds: its time is the bucket's start, a multiple of ``step``
        (which may lie before ``start``), its value the ``agg`` (``mean``, ``min``, ``max``, ``last``, ``count``) of the
        rows asked for.  Rollups are made use of where that gives the same; where readings are not kept any more they
        answer as well as they can.

        Raises ``ValueError`` for a bad ``step``, ``agg`` or ``limit``, :class:`Overloaded` when too many queries wait,
        and :class:`HistoryError` when the file cannot be read.
        """
        snapshot = self._snapshot() if at is None else at
        question = asked(devices, metrics, start, end, step, agg, limit, within)

        def ask(connection: apsw.Connection, stop: threading.Event) -> tuple[Answer, int]:
            return run_query(connection, self._catalogue, snapshot, question, stop)

        async def answer() -> Answer:
            found, damaged = await self._read(ask)
            self._counts["damaged"] += damaged
            return found

        return Later(answer)

    def now(self) -> Snapshot:
        """This moment, for several questions about it.

        Whoever holds it keeps the memtables of that moment in memory: those that are asked at about the same time
        share them.
        """
        return self._snapshot()

    async def extents(
        self,
        *,
        at: Snapshot,
        devices: str | Iterable[str] = "*",
        metrics: str | Iterable[str] = "*",
        start: int,
        end: int,
        within: tuple[str, ...] = ("*",),
    ) -> list[Extent]:
        """How much there is of each series, without reading most of it; arguments and errors as of :meth:`query`."""
        question = asked(devices, metrics, start, end, within=within)
        found, damaged = await self._read(
            lambda connection, stop: run_extents(connection, self._catalogue, at, question, stop)
        )
        self._counts["damaged"] += damaged
        return found

    async def names(
        self, *, at: Snapshot, devices: str | Iterable[str] = "*", within: tuple[str, ...] = ("*",)
    ) -> list[str]:
        """The devices of which there is, or was, something; arguments and errors as of :meth:`query`."""
        question = asked(devices, "*", 0, 0, within=within)
        return await self._read(lambda connection, stop: run_names(connection, self._catalogue, at, question, stop))

    async def latest(self) -> list[Latest]:
        """``(device, metric, time, received, value)`` of the newest row of each series, sorted by device and metric.

        Newest: of the greatest time, and of those the last that came.  Raises as :meth:`query`.
        """
        snapshot = self._snapshot()
        return await self._read(lambda connection, stop: latest(connection, self._catalogue, snapshot))

    async def _read(self, work: Callable[[apsw.Connection, threading.Event], T]) -> T:
        self._check_open()
        if len(self._running) >= MAX_QUERIES:
            self._counts["queries_refused"] += 1
            raise Overloaded("too many queries of the history at once")
        stop = threading.Event()
        generations: list[int] = []

        def run() -> T:
            if stop.is_set():
                raise Cancelled
            with translated("cannot read the history"), self._connections.lend(generations) as connection:
                return work(connection, stop)

        began = time.perf_counter()
        self._running.add(stop)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        except Cancelled:
            raise HistoryError("the history is closed") from None
        except HistoryError as error:
            if generations == [self._connections.generation]:
                self._suspect(error)
            raise
        finally:
            stop.set()
            self._running.discard(stop)
            self._counts["queries"] += 1
            self._counts["query_seconds"] += time.perf_counter() - began

    async def flush(self) -> None:
        """All that was written so far is in chunks on return.  Raises :class:`HistoryError` if the disk refuses."""
        self._check_open()
        target = self.end
        while self.position < target:
            if self._frozen is None:
                self._freeze()
            self._wake.set()
            await self._attempt.wait()
            self._raise_failure()

    async def close(self) -> None:
        """Flush, stop the threads, close the file.

        What cannot be flushed is in the journal still; that is logged, not raised.  Calling it again does nothing.
        """
        if self._store is None or self._closing:
            return
        self._closing = True
        for stop in self._running:
            stop.set()
        self._wake.set()
        if self._keeper is not None:
            await self._keeper
        if self.position < self.end:
            log.warning("history: offsets %d to %d are left to the journal", self.position, self.end)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._readers.shutdown)
        await self._in_writer(partial(self._close_all, self._store))
        self._writer.shutdown()

    def stats(self) -> dict[str, float]:
        """Numbers for metrics: bytes, seconds, counts since the start."""
        store = self._store
        counts = dict(self._counts)
        counts["memtable_bytes"] = self._live.size + (self._frozen.size if self._frozen else 0)
        counts["memtable_readings"] = self._live.readings + (self._frozen.readings if self._frozen else 0)
        counts["position"] = self.position
        counts["end"] = self.end
        counts["queries_running"] = len(self._running)
        if store is not None:
            counts["damaged"] += store.counts.damaged
            counts |= {
                "chunks_written": store.counts.chunks,
                "rows_written": store.counts.rows,
                "values_written": store.counts.values,
                "chunk_bytes_written": store.counts.bytes,
                "chunks_merged": store.counts.merged,
                "chunks_rolled": store.counts.rolled,
                "chunks_expired": store.counts.expired,
                "chunks_salvaged": store.counts.salvaged,
                "chunks_left_out": store.counts.left_out,
                "file_bytes": store.size,
                "devices": len(store.catalogue.devices),
            }
        return counts

"""Answers from chunks and memtables together.

A query takes a *snapshot* first, then begins a read transaction.  The snapshot holds the memtables and a bound: all
rows with an order below it are in chunks, all others in the memtables.  A chunk that was flushed between the two steps,
or merged with such a one, has rows at or above the bound: they are left out, since the memtables hold them.  So there
is neither a hole nor a repeat, without a lock.

Runs in a reader's thread, one query a connection at a time.
"""

from __future__ import annotations

import logging
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import Final, NamedTuple

import apsw
import msgspec

from gateway.globs import any_of, is_pattern
from gateway.history.breath import Breath
from gateway.history.catalogue import Catalogue, Snapshot
from gateway.history.codec import DamagedChunk, decode
from gateway.history.collector import Collector, Row
from gateway.history.column import pick, values
from gateway.history.downsample import Buckets, Run, order_at
from gateway.history.frame import Frame, Orders, sort_rows
from gateway.history.memtable import Shape
from gateway.history.schema import fetch
from gateway.reading import Value

__all__ = ["Cancelled", "Latest", "Query", "latest", "run_query"]

log = logging.getLogger(__name__)

Latest = tuple[str, str, int, int, Value]

_decode_row = msgspec.msgpack.Decoder(list[float | int | bool | str]).decode
_FAR: Final = (1 << 63) - 1

_CHUNKS: Final = "SELECT id, shape, first, last, high, rows FROM chunk WHERE device = ? AND last >= ? AND first < ?"
_BODY: Final = "SELECT body FROM chunk WHERE id = ?"


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Query(NamedTuple):
    """Globs, any of which may match; times in nanoseconds, ``start`` included, ``end`` not; ``step`` None for raw rows."""

    devices: tuple[str, ...]
    metrics: tuple[str, ...]
    start: int
    end: int
    step: int | None
    aggregate: str
    limit: int


@dataclass(slots=True)
class _Piece:
    """Rows of a device from ``first`` to ``last``: a chunk's, not loaded yet, or a memtable's."""

    first: int
    last: int
    rows: int
    shape: Shape
    chunk: int = 0
    high: int = 0
    frame: Frame | None = None
    alone: bool = True  # no other piece has rows of the same times: orders are of no interest


class _Reader:
    def __init__(
        self, connection: apsw.Connection, catalogue: Catalogue, snapshot: Snapshot, query: Query, stop: threading.Event
    ) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._snapshot = snapshot
        self._query = query
        self._stop = stop
        self._breath = Breath()
        self._metric = any_of(query.metrics)
        self._wanted: dict[Shape, list[int]] = {}
        self.damaged: set[int] = set()

    def run(self) -> tuple[list[Row], bool]:
        query = self._query
        collector = Collector(query.limit)
        memory = self._memory()
        for name in self._names(memory):
            pieces = self._pieces(name, memory.get(name, []), collector.horizon)
            if not pieces:
                continue
            series = self._downsample(pieces, collector) if query.step else self._raw(pieces)
            for metric in sorted(series):
                collector.add(name, metric, series[metric])
            self._pause()
        return collector.rows(self._pause), collector.truncated

    def _pause(self) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._breath.take()

    def _columns(self, shape: Shape) -> list[int]:
        """The indices of the metrics that are asked for."""
        wanted = self._wanted.get(shape)
        if wanted is None:
            wanted = self._wanted[shape] = [index for index, name in enumerate(shape) if self._metric(name)]
        return wanted

    def _memory(self) -> dict[str, list[tuple[Shape, Frame]]]:
        match = any_of(self._query.devices)
        found: dict[str, list[tuple[Shape, Frame]]] = {}
        for memtable in self._snapshot.memtables:
            for name, frames in memtable.find(match).items():
                found.setdefault(name, []).extend(frames)
            self._pause()
        return found

    def _names(self, memory: dict[str, list[tuple[Shape, Frame]]]) -> list[str]:
        globs = self._query.devices
        if not any(map(is_pattern, globs)):
            return sorted(set(globs))
        match = any_of(globs)
        return sorted({*filter(match, list(self._catalogue.devices)), *memory})

    def _pieces(self, name: str, frames: list[tuple[Shape, Frame]], horizon: int | None) -> list[_Piece]:
        """What may hold rows of this device, sorted by first time."""
        start, end = self._query.start, self._query.end
        if horizon is not None:
            end = min(end, horizon + (self._query.step or 1))
        pieces: list[_Piece] = []
        number = self._catalogue.devices.get(name)
        if number is not None:
            for chunk, kind, first, last, high, rows in fetch(self._connection, _CHUNKS, (number, start, end)):
                # A shape that is gone had nothing but chunks that are too old.
                shape = self._catalogue.shape_of.get(kind, ())
                if self._columns(shape):
                    pieces.append(_Piece(first, last, rows, shape, chunk, high))
        for shape, frame in frames:
            if self._columns(shape):
                frame = sort_rows(frame)
                if frame.times[0] < end and frame.times[-1] >= start:
                    pieces.append(_Piece(frame.times[0], frame.times[-1], len(frame), shape, frame=frame))
        pieces.sort(key=lambda piece: piece.first)
        before: _Piece | None = None  # the one of the latest time so far
        for piece in pieces:
            if before is not None and piece.first <= before.last:
                piece.alone = before.alone = False
            if before is None or piece.last > before.last:
                before = piece
        return pieces

    def _load(self, piece: _Piece) -> dict[str, Run]:
        """The runs of a piece by metric."""
        wanted = self._columns(piece.shape)
        frame = piece.frame
        if frame is None:
            body = self._connection.execute(_BODY, (piece.chunk,)).get
            bound = self._snapshot.bound
            try:
                frame = decode(body, wanted, orders=piece.high >= bound or not piece.alone)
            except DamagedChunk as error:
                log.warning("history: chunk %d cannot be read: %s", piece.chunk, error)
                self.damaged.add(piece.chunk)
                return {}
            if piece.high >= bound:
                frame = _below(frame, bound)
        else:
            frame = Frame(frame.times, frame.received, frame.orders, [frame.columns[index] for index in wanted])
        times = frame.times
        lo, hi = bisect_left(times, self._query.start), bisect_left(times, self._query.end)
        return {
            piece.shape[index]: Run(times, frame.orders, column, lo, hi)
            for index, column in zip(wanted, frame.columns, strict=True)
        }

    def _loaded(self, pieces: list[_Piece]) -> Iterator[tuple[dict[str, Run], int]]:
        """The runs of each piece, and the time before which no later piece has rows."""
        for index, piece in enumerate(pieces):
            yield self._load(piece), pieces[index + 1].first if index + 1 < len(pieces) else _FAR
            self._pause()

    def _raw(self, pieces: list[_Piece]) -> dict[str, list[Run]]:
        series: dict[str, list[Run]] = {}
        # Rows of each metric that are before all rows to come: more than the limit of one are enough.
        sure: dict[str, int] = {}
        for runs, following in self._loaded(pieces):
            for metric, run in runs.items():
                if len(run):
                    series.setdefault(metric, []).append(run)
                    if run.times[run.hi - 1] < following:
                        sure[metric] = sure.get(metric, 0) + len(run)
            if sum(sure.values()) > self._query.limit:
                break
        for found in series.values():
            found.sort(key=lambda run: order_at(run.orders, run.lo))
        return series

    def _downsample(self, pieces: list[_Piece], collector: Collector) -> dict[str, list[Run]]:
        query = self._query
        assert query.step is not None
        series: dict[str, Buckets] = {}
        for runs, following in self._loaded(pieces):
            for metric, run in runs.items():
                buckets = series.get(metric)
                if buckets is None:
                    buckets = series[metric] = Buckets(query.step, query.aggregate)
                buckets.add(run)
            for buckets in series.values():
                buckets.seal(following)
            if sum(map(len, series.values())) > query.limit:
                break
        else:
            for buckets in series.values():
                buckets.seal()
        return {metric: [buckets.run()] for metric, buckets in series.items()}


def _below(frame: Frame, bound: int) -> Frame:
    """The rows with orders below ``bound``."""
    orders = frame.orders
    if isinstance(orders, int):
        keep = range(len(frame)) if orders < bound else range(0)
    else:
        keep = list(compress(range(len(frame)), map(bound.__gt__, orders)))  # type: ignore[assignment]
    kept: Orders = orders if isinstance(orders, int) else array("q", map(orders.__getitem__, keep))
    times = array("q", map(frame.times.__getitem__, keep))
    return Frame(times, frame.received, kept, [pick(column, keep) for column in frame.columns])


def run_query(
    connection: apsw.Connection, catalogue: Catalogue, view: Callable[[], Snapshot], query: Query, stop: threading.Event
) -> tuple[list[Row], bool, int]:
    """The rows in ascending time, whether there are more than the limit, and how many chunks could not be read.

    Raises :class:`Cancelled` once ``stop`` is set, and ``apsw.Error``.
    """
    snapshot = view()
    # The first statement of the transaction is what fixes what it sees: it comes after the view.
    with connection:
        reader = _Reader(connection, catalogue, snapshot, query, stop)
        rows, truncated = reader.run()
    return rows, truncated, len(reader.damaged)


def latest(connection: apsw.Connection, catalogue: Catalogue, view: Callable[[], Snapshot]) -> list[Latest]:
    """Device, metric, time, time of receipt and value of each series' newest row: greatest time, then last come."""
    snapshot = view()
    newest: dict[tuple[str, str], tuple[int, int, int, Value]] = {}
    breath = Breath()

    def offer(device: str, metric: str, row: tuple[int, int, int, Value]) -> None:
        known = newest.get((device, metric))
        if known is None or row[:2] >= known[:2]:
            newest[device, metric] = row

    with connection:
        stored: list[tuple[int, int, int, int, int, bytes]] = fetch(
            connection, "SELECT device, shape, time, position, received, row FROM latest"
        )
    name_of = {number: name for name, number in list(catalogue.devices.items())}
    for number, kind, time, position, received, packed in stored:
        if position < snapshot.bound and number in name_of and kind in catalogue.shape_of:
            for metric, value in zip(catalogue.shape_of[kind], _decode_row(packed), strict=True):
                offer(name_of[number], metric, (time, position, received, value))
        breath.take()
    for memtable in snapshot.memtables:
        for device, frames in memtable.find(lambda name: True).items():
            for shape, frame in frames:
                row = max(range(len(frame)), key=lambda row: (frame.times[row], order_at(frame.orders, row), row))
                for index, metric in enumerate(shape):
                    (value,) = values(frame.columns[index], row, row + 1)
                    offer(device, metric, (frame.times[row], order_at(frame.orders, row), frame.received[row], value))
            breath.take()
    rows = [(*key, time, received, value) for key, (time, _, received, value) in newest.items()]
    rows.sort(key=itemgetter(0, 1))
    return rows

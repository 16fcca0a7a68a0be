"""Answers from chunks and memtables together.

A query begins with a *snapshot*, taken on the loop, then there is a read transaction in a reader's thread.  The
snapshot holds views of the memtables and a bound: all rows with an order below it are in chunks, all others in the
views.  A chunk that was flushed between the two steps, or merged with such a one, has rows at or above the bound: they
are left out, since the views hold them, or since they came later.  So there is neither a hole nor a repeat, without a
lock: the answer holds what was written before the question, and nothing else.

A question with a step takes rollups where they give the same answer (``levels``).  Chunks that are in them are left
out there; all others, and what is in memory, come to it.  A rollup holds no row at or above the bound of a snapshot in
use, since none is put there (``History``).  In place of one that cannot be read chunks are.

Runs in a reader's thread, one query a connection at a time.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple

import apsw
import msgspec

from gateway.globs import any_of, is_pattern
from gateway.history.breath import Breath
from gateway.history.catalogue import Catalogue, Snapshot
from gateway.history.chunks import read_chunk
from gateway.history.codec import DamagedChunk, decode, decode_within
from gateway.history.collector import Collector, Row
from gateway.history.column import values
from gateway.history.downsample import AGGREGATES, Buckets
from gateway.history.frame import Frame, sort_rows
from gateway.history.levels import HOURS, LENGTH, RAW, Segment, Span, parted, plan
from gateway.history.memtable import Shape
from gateway.history.rolled import RolledRun
from gateway.history.roller import read_rollup
from gateway.history.rollup import LEVELS, rolled_runs
from gateway.history.runs import Run, join_runs, order_at
from gateway.history.schema import ROLLED, fetch, whole
from gateway.history.seal import checksum, unseal
from gateway.history.shared import SharedChunks, below
from gateway.reading import Value

__all__ = [
    "Answer",
    "Cancelled",
    "Extent",
    "Latest",
    "Query",
    "asked",
    "latest",
    "run_extents",
    "run_names",
    "run_query",
]

log = logging.getLogger(__name__)

Latest = tuple[str, str, int, int, Value]

_decode_row = msgspec.msgpack.Decoder(list[float | int | bool | str]).decode
_FAR: Final = (1 << 63) - 1
_NEVER: Final = -(1 << 63)

_CHUNKS: Final = "SELECT id, shape, first, last, high, rows FROM chunk WHERE device = ? AND last >= ? AND first < ?"
_UNROLLED: Final = f"{_CHUNKS} AND level <> {ROLLED}"
_ROLLED: Final = f"{_CHUNKS} AND level = {ROLLED}"
_ROLLUPS: Final = (
    "SELECT id, shape, first, last, rows FROM rollup WHERE device = ? AND level = ? AND last >= ? AND first < ?"
)
# With fewer rows to a bucket than that, readings are the shorter way to a step that divides buckets.
_WORTH_A_BUCKET: Final = 16


def _divides(step: int, chunks: Sequence[tuple[int, ...]], rollups: Sequence[tuple[int, ...]]) -> bool:
    """Whether readings are asked for in the buckets alone that a ``step`` divides.

    Not where that leaves few of them out, and not where there are more steps than rows: one reading of a wrong clock,
    and a chunk spans half a century.
    """
    if not step or sum(row[-1] for row in chunks) < _WORTH_A_BUCKET * sum(row[-1] for row in rollups):
        return False
    return all((last - first) // step <= rest[-1] for _, _, first, last, *rest in (*chunks, *rollups))


class Extent(NamedTuple):
    """How much there is of a series: how many rows, their least and greatest time."""

    device: str
    metric: str
    rows: int
    first: int
    last: int


class Answer(NamedTuple):
    """Rows in ascending time; whether there are more than the limit (``truncated``).

    ``whole_from``: before that time it is not what was asked for, since that is not kept any more: with a step there
    are the buckets of a minute or an hour, where they begin, and without one nothing of what those still tell.
    ``None``: nothing like that.
    """

    rows: list[Row]
    truncated: bool
    whole_from: int | None


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Query(NamedTuple):
    """Globs, any of which may match; times in nanoseconds, ``start`` included, ``end`` not; ``step`` None: raw rows.

    ``within``: of the devices, those alone that one of these globs matches, too.
    """

    devices: tuple[str, ...]
    metrics: tuple[str, ...]
    start: int
    end: int
    step: int | None
    aggregate: str
    limit: int
    within: tuple[str, ...] = ("*",)


def asked(
    devices: str | Iterable[str],
    metrics: str | Iterable[str],
    start: int,
    end: int,
    step: int | None = None,
    agg: str = "count",
    limit: int = 1,
    within: tuple[str, ...] = ("*",),
) -> Query:
    """The question, as :meth:`History.query` takes it; raises ``ValueError`` where it is none."""
    if step is not None and step < 1:
        raise ValueError("step below 1")
    if agg not in AGGREGATES:
        raise ValueError(f"agg is none of {', '.join(AGGREGATES)}")
    if limit < 1:
        raise ValueError("limit below 1")
    # SQLite and the columns hold 64 bits.
    start = min(max(start, -(1 << 63)), (1 << 63) - 1)
    end = min(max(end, start), (1 << 63) - 1)
    devices, metrics = ((globs,) if isinstance(globs, str) else tuple(globs) for globs in (devices, metrics))
    return Query(devices, metrics, start, end, step, agg, limit, within)


@dataclass(slots=True)
class _Piece:
    """Rows of a device from ``first`` to ``last``: a chunk's, or a rollup's, not loaded yet, or a frame of the columns
    asked for.  Of it those are asked for that lie within ``spans``, each a start and an end."""

    first: int
    last: int
    shape: Shape
    spans: list[Span] = field(default_factory=list)
    segment: Segment | None = None  # of a rollup
    chunk: int = 0  # or the rollup's number
    device: int = 0
    high: int = 0
    rows: int = 0
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
        self._gone = _gone(connection)
        self._plan = plan(query.start, query.end, query.step, self._gone)
        self.damaged = 0
        self.whole_from: int | None = None

    def extents(self) -> list[Extent]:
        query = self._query
        memory = self._memory()
        names = self._names(memory)
        shared = self._shared(names)
        found: list[Extent] = []
        for number, name in names:
            series: dict[str, Extent] = {}
            for piece in self._pieces(number, query.end, shared, memory.get(name, [])):
                for metric, rows, first, last in self._counted(piece):
                    known = series.get(metric)
                    if known is not None:
                        rows, first, last = known.rows + rows, min(known.first, first), max(known.last, last)
                    series[metric] = Extent(name, metric, rows, first, last)
                self._pause()
            found += [series[metric] for metric in sorted(series)]
        self.damaged += shared.damaged
        return found

    def _counted(self, piece: _Piece) -> list[tuple[str, int, int, int]]:
        """Metric, rows, first and last time; a chunk that is asked for whole is not unpacked for it."""
        query = self._query
        inside = query.start <= piece.first and piece.last < query.end
        if piece.frame is None and inside and piece.high < self._snapshot.bound:
            columns = self._columns(piece.shape)
            return [(piece.shape[index], piece.rows, piece.first, piece.last) for index in columns]
        runs = self._load(piece)
        return [(name, len(run), run.times[run.lo], run.times[run.hi - 1]) for name, run in runs if len(run)]

    def _shared(self, names: list[tuple[int, str]]) -> SharedChunks:
        numbers = [number for number, _ in names if number]
        return SharedChunks(
            self._connection,
            self._catalogue,
            self._columns,
            start=self._query.start,
            end=self._query.end,
            lowest=min(numbers, default=0),
            highest=max(numbers, default=0),
            bound=self._snapshot.bound,
        )

    def names(self) -> list[str]:
        memory = self._memory()
        return [name for number, name in self._names(memory) if number or name in memory]

    def run(self) -> tuple[list[Row], bool]:
        query = self._query
        collector = Collector(query.limit)
        memory = self._memory()
        names = self._names(memory)
        shared = self._shared(names)
        for number, name in names:
            end = query.end
            if collector.horizon is not None:
                end = min(end, collector.horizon + (query.step or 1))
            pieces = self._pieces(number, end, shared, memory.get(name, []))
            if number and not query.step and query.start < self._gone[RAW]:
                self._look_for_older(number, end)
            if not pieces:
                continue
            series = self._downsample(pieces) if query.step else self._raw(pieces)
            for metric in sorted(series):
                collector.add(name, metric, series[metric])
            self._pause()
        self.damaged += shared.damaged
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
        asked, within = any_of(self._query.devices), any_of(self._query.within)
        found: dict[str, list[tuple[Shape, Frame]]] = {}
        for view in self._snapshot.views:
            for name, frames in view.find(lambda name: asked(name) and within(name)).items():
                found.setdefault(name, []).extend(frames)
            self._pause()
        return found

    def _names(self, memory: dict[str, list[tuple[Shape, Frame]]]) -> list[tuple[int, str]]:
        """The devices asked for, with their numbers, ascending; 0: it is in memory only."""
        globs, known = self._query.devices, self._catalogue.devices
        names = set(globs)
        if any(map(is_pattern, globs)):
            names = {*filter(any_of(globs), list(known)), *memory}
        return sorted((known.get(name, 0), name) for name in filter(any_of(self._query.within), names))

    def _pieces(self, number: int, end: int, shared: SharedChunks, frames: list[tuple[Shape, Frame]]) -> list[_Piece]:
        """What may hold rows of this device before ``end``, sorted by first time."""
        start = self._query.start
        pieces: list[_Piece] = []
        ready: list[tuple[Shape, Frame]] = []
        if number:
            self._find(pieces, number, end)
            ready = shared.of(number, end)
        for shape, frame in frames:
            wanted = self._columns(shape)
            if wanted:
                columns = [frame.columns[index] for index in wanted]
                ready.append((shape, sort_rows(Frame(frame.times, frame.times, frame.orders, columns))))
        for shape, frame in ready:
            if frame.times[0] < end and frame.times[-1] >= start:
                pieces.append(_Piece(frame.times[0], frame.times[-1], shape, [(start, self._query.end)], frame=frame))
        pieces.sort(key=lambda piece: piece.first)
        before: _Piece | None = None  # the one of the latest time so far
        for piece in pieces:
            if before is not None and piece.first <= before.last:
                piece.alone = before.alone = False
            if before is None or piece.last > before.last:
                before = piece
        return pieces

    def _find(self, pieces: list[_Piece], device: int, end: int) -> None:
        """Add what the file has of a device, as it is planned."""
        start, whole_span = self._query.start, [(self._query.start, self._query.end)]
        if all(segment.level == RAW for segment in self._plan):
            for row in self._chunks(_CHUNKS, device, start, end):
                self._add_chunk(pieces, device, row, whole_span)
            return
        for row in self._chunks(_UNROLLED, device, start, end):
            self._add_chunk(pieces, device, row, whole_span)
        parts: dict[int, tuple[tuple[int, ...], list[Span]]] = {}
        for segment in self._plan:
            stop, span = min(segment.end, end), [(segment.start, segment.end)]
            rollups: list[tuple[int, ...]] = []
            chunks: list[tuple[int, ...]] = []
            if segment.level != RAW:
                found = fetch(self._connection, _ROLLUPS, (device, segment.level, segment.start, stop))
                rollups = self._sound(found)
            if segment.level == RAW or segment.step:
                chunks = self._chunks(_ROLLED, device, segment.start, stop)
            divided = _divides(segment.step, chunks, rollups)
            if segment.step and not divided:
                rollups = []
            for row in chunks:
                spans = parted(segment, row[2], row[3])[1] if divided else span
                if spans:
                    parts.setdefault(row[0], (row, []))[1].extend(spans)
            for number, kind, first, last, _ in rollups:
                shape = self._catalogue.shape_of.get(kind, ())
                if self._columns(shape):
                    bounds = max(first, segment.start), last + LENGTH[segment.level] - 1
                    spans = parted(segment, first, last)[0] if divided else span
                    pieces.append(_Piece(*bounds, shape, spans, segment, number, device))
        for row, spans in parts.values():
            self._add_chunk(pieces, device, row, spans)

    def _chunks(self, statement: str, device: int, start: int, end: int) -> list[tuple[int, ...]]:
        return self._sound(fetch(self._connection, statement, (device, start, end)))

    def _sound(self, found: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        sound: list[tuple[int, ...]] = whole(found)
        self.damaged += len(found) - len(sound)
        return sound

    def _add_chunk(self, pieces: list[_Piece], device: int, row: tuple[int, ...], spans: list[Span]) -> None:
        number, kind, first, last, high, rows = row
        # A shape that is gone had nothing but chunks that are too old.
        shape = self._catalogue.shape_of.get(kind, ())
        if self._columns(shape):
            pieces.append(_Piece(first, last, shape, spans, chunk=number, device=device, high=high, rows=rows))

    def _look_for_older(self, device: int, end: int) -> None:
        """Whether there are rollups of what is not kept as it came any more."""
        start, end = self._query.start, min(end, self._gone[RAW])
        found = fetch(self._connection, _ROLLUPS, (device, HOURS, start - LENGTH[HOURS] + 1, end))
        if any(self._columns(self._catalogue.shape_of.get(kind, ())) for _, kind, _, _, _ in found):
            self._note_older(end)

    def _note_older(self, end: int) -> None:
        self.whole_from = end if self.whole_from is None else max(end, self.whole_from)

    def _load(self, piece: _Piece) -> list[tuple[str, Run | RolledRun]]:
        """The runs of a piece, each with its metric."""
        if piece.segment is not None:
            return self._load_rollup(piece, piece.segment)
        wanted = self._columns(piece.shape)
        if piece.frame is None:
            bound = self._snapshot.bound
            try:
                body = read_chunk(self._connection, piece.chunk, piece.device)
                orders = piece.high >= bound or not piece.alone
                if len(piece.spans) == 1 and piece.spans[0][0] <= piece.first and piece.last < piece.spans[0][1]:
                    frames = [decode(body, wanted, orders=orders)]
                else:
                    frames = decode_within(body, piece.spans, wanted, orders=orders)
            except DamagedChunk as error:
                log.warning("history: chunk %d cannot be read: %s", piece.chunk, error)
                self.damaged += 1
                return []
            if piece.high >= bound:
                frames = [below(frame, bound) for frame in frames if len(frame)]
            parts = [(frame, 0, len(frame)) for frame in frames]
        else:
            frame, times = piece.frame, piece.frame.times
            parts = [(frame, bisect_left(times, start), bisect_left(times, end)) for start, end in piece.spans]
        runs: list[tuple[str, Run | RolledRun]] = []
        for frame, lo, hi in parts:
            for index, column in zip(wanted, frame.columns, strict=True):
                runs.append((piece.shape[index], Run(frame.times, frame.orders, column, lo, hi)))
        return runs

    def _load_rollup(self, piece: _Piece, segment: Segment) -> list[tuple[str, Run | RolledRun]]:
        wanted = self._columns(piece.shape)
        try:
            body = read_rollup(self._connection, piece.chunk, piece.device)
            found = rolled_runs(body, wanted, self._query.aggregate, piece.spans)
        except DamagedChunk as error:
            log.warning("history: rollup %d cannot be read: %s", piece.chunk, error)
            self.damaged += 1
            return self._instead(piece)
        if not segment.exact and any(len(run) for _, run in found):
            self._note_older(segment.end)
        return [(piece.shape[index], run) for index, run in found]

    def _instead(self, piece: _Piece) -> list[tuple[str, Run | RolledRun]]:
        """The rows from which a rollup was made, as far as they are there."""
        clipped = [(max(piece.first, start), min(piece.last + 1, end)) for start, end in piece.spans]
        spans = [(start, end) for start, end in clipped if start < end]
        runs: list[tuple[str, Run | RolledRun]] = []
        if not spans:
            return runs
        for number, kind, first, last, high, _ in self._chunks(_ROLLED, piece.device, spans[0][0], spans[-1][1]):
            if self._catalogue.shape_of.get(kind) == piece.shape:
                chunk = _Piece(first, last, piece.shape, spans, chunk=number, device=piece.device, high=high)
                chunk.alone = False
                runs += self._load(chunk)
            self._pause()
        return runs

    def _loaded(self, pieces: list[_Piece]) -> Iterator[tuple[list[tuple[str, Run | RolledRun]], int]]:
        """The runs of each piece, and the time before which no later piece has rows."""
        for index, piece in enumerate(pieces):
            yield self._load(piece), pieces[index + 1].first if index + 1 < len(pieces) else _FAR
            self._pause()

    def _raw(self, pieces: list[_Piece]) -> dict[str, list[Run]]:
        series: dict[str, list[Run]] = {}
        # Rows of each metric that are before all rows to come: more than the limit of one are enough.
        sure: dict[str, int] = {}
        for runs, following in self._loaded(pieces):
            for metric, run in runs:
                if len(run) and isinstance(run, Run):  # a question without a step has no others
                    series.setdefault(metric, []).append(run)
                    if run.times[run.hi - 1] < following:
                        sure[metric] = sure.get(metric, 0) + len(run)
            if sum(sure.values()) > self._query.limit:
                break
        return {metric: join_runs(found) for metric, found in series.items()}

    def _downsample(self, pieces: list[_Piece]) -> dict[str, list[Run]]:
        query = self._query
        assert query.step is not None
        series: dict[str, Buckets] = {}
        for runs, following in self._loaded(pieces):
            for metric, run in runs:
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


def _gone(connection: apsw.Connection) -> tuple[int, int, int]:
    """Of each level the time before which something may have been deleted."""
    rows = whole(fetch(connection, "SELECT level, before, crc FROM gone"))
    known = {level: before for level, before, crc in rows if crc == checksum((level, before), b"")}
    raw, minutes, hours = (known.get(level, _NEVER) for level in (RAW, *LEVELS))
    return raw, minutes, hours


def run_query(
    connection: apsw.Connection, catalogue: Catalogue, snapshot: Snapshot, query: Query, stop: threading.Event
) -> tuple[Answer, int]:
    """The answer, and how many chunks could not be read.

    Raises :class:`Cancelled` once ``stop`` is set, and ``apsw.Error``.
    """
    with connection:
        reader = _Reader(connection, catalogue, snapshot, query, stop)
        rows, truncated = reader.run()
    return Answer(rows, truncated, reader.whole_from), reader.damaged


def run_names(
    connection: apsw.Connection, catalogue: Catalogue, snapshot: Snapshot, query: Query, stop: threading.Event
) -> list[str]:
    """The devices asked for, by name.  Raises as :func:`run_query`."""
    return sorted(_Reader(connection, catalogue, snapshot, query, stop).names())


def run_extents(
    connection: apsw.Connection, catalogue: Catalogue, snapshot: Snapshot, query: Query, stop: threading.Event
) -> tuple[list[Extent], int]:
    """How much there is of each series, by devices in the order in which they are kept, and how many chunks could not
    be read; ``step``, ``aggregate`` and ``limit`` do not matter.  Raises as :func:`run_query`.
    """
    with connection:
        reader = _Reader(connection, catalogue, snapshot, query, stop)
        found = reader.extents()
    return found, reader.damaged


def latest(connection: apsw.Connection, catalogue: Catalogue, snapshot: Snapshot) -> list[Latest]:
    """Device, metric, time, time of receipt and value of each series' newest row: greatest time, then last come."""
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
        # One that was flushed after the snapshot is taken too: it has replaced the one before it.
        if number in name_of and kind in catalogue.shape_of:
            try:
                row = _decode_row(unseal((number, kind, time, position, received), packed))
            except (DamagedChunk, msgspec.MsgspecError) as error:
                log.warning("history: the latest row of %r cannot be read: %s", name_of[number], error)
                continue
            for metric, value in zip(catalogue.shape_of[kind], row, strict=False):
                offer(name_of[number], metric, (time, position, received, value))
        breath.take()
    for view in snapshot.views:
        for device, frames in view.find(lambda name: True).items():
            for shape, frame in frames:
                last = max(range(len(frame)), key=lambda row: (frame.times[row], order_at(frame.orders, row), row))
                for index, metric in enumerate(shape):
                    (value,) = values(frame.columns[index], last, last + 1)
                    newest_row = (frame.times[last], order_at(frame.orders, last), frame.received[last], value)
                    offer(device, metric, newest_row)
            breath.take()
    rows = [(*key, time, received, value) for key, (time, _, received, value) in newest.items()]
    rows.sort(key=itemgetter(0, 1))
    return rows

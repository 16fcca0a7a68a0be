"""History for a subscription, so that it joins the stream of updates without a hole or a repeat.

In one step of the loop the hub takes a subscription, the store is asked (its answer is what lies below its end at that
moment, whenever it is read), and what the hub remembers above that end is put beside it: :class:`Join`.  Updates begin
where that ends.  What the hub does not remember of it is read from the journal, see ``stretch``.  One that resumes is
sent all that it missed as updates: those readings are left out of the history.

Many rows are put together in pieces, each of some milliseconds, since the loop has others to serve.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Self, TypeVar

import msgspec

from ..history import History, Row
from ..history.column import column
from ..history.downsample import Buckets
from ..history.runs import Run
from ..hub import Entry, Hub, Selection, Subscription, text_weight, wire_value
from ..reading import Value

__all__ = ["Join", "Points", "Question", "history_frames", "in_time_order", "thin"]

POINTS_RAW = 10_000  # a series; beyond it is downsampled
POINTS_DOWNSAMPLED = 2_000
ROWS_MAX = 200_000  # an answer; beyond it all is downsampled. Bounds the memory of one subscribe
BUCKETS = (
    POINTS_DOWNSAMPLED,
    200,
    20,
)  # of the time asked for; the first that gives few enough rows, as far as can be seen
SAMPLE = 20_000  # rows that tell how many series there are
AHEAD_NS = 3600 * 10**9  # readings of clocks that run ahead by less than this are part of the history
FRAME_BYTES = 200_000  # estimated from above; a frame has to stay below 512 KiB, and is built in one step
ROWS = 4_096  # rows or points looked at in a step
ENTRIES = 256  # readings, which have to be matched with the subscription's globs

T = TypeVar("T")
Point = tuple[int, Value]  # ms, value
Points = dict[tuple[str, str], list[Point]]  # by device and metric
Frame = dict[str, dict[str, list[list[Value]]]]

_time = itemgetter(0)


class Join(msgspec.Struct, frozen=True):
    """Where history ends and updates begin; times in nanoseconds.

    By offsets: the store's answer, ``lacks``, ``above``, updates.
    """

    start: int
    end: int
    above: list[Entry]  # shown, not in the store's answer, and not in updates
    lacks: range = range(0)  # offsets of what was shown as well, but is not in `above`
    missed: list[Entry] = []  # maybe in the store's answer, and in updates
    begin: int = -1  # updates begin behind this offset

    @classmethod
    def now(cls, hub: Hub[Any], stored: int, start: int, end: int, begin: int | None) -> Self:
        """That of this moment, where the store has all below offset ``stored``.

        Updates begin behind offset ``begin``; None: behind what was shown by now.
        """
        if begin is None:
            begin = hub.offset
        return cls(
            start,
            end,
            above=[entry for entry in hub.since(stored - 1) if entry[0] <= begin],
            lacks=range(stored, min(hub.floor, begin + 1)),
            missed=[entry for entry in hub.since(begin) if entry[0] < stored],
            begin=begin,
        )

    def later(self, hub: Hub[Any], stored: int) -> Self | None:
        """One with the same updates in place of this one; None where the hub has not all that this takes."""
        if hub.floor > min(stored, self.begin + 1):
            return None
        return self.now(hub, stored, self.start, self.end, self.begin)

    def covers(self, time: int) -> bool:
        """Whether readings of this time are part of the history."""
        return self.start <= time < self.end + AHEAD_NS


class Answer(msgspec.Struct, frozen=True):
    """The store's rows; those of ``texts`` that are no text, or of a series with other rows, do not count."""

    rows: list[Row]
    texts: list[Row]
    raw: bool
    complete: bool


class Question:
    """What the store is asked in the step of the join: the rows, and in case they are too many, coarser ones."""

    def __init__(self, history: History, subscription: Subscription, join: Join) -> None:
        ask = partial(
            history.query,
            devices=subscription.devices or ("*",),
            metrics=subscription.metrics or ("*",),
            start=join.start,
            end=join.end + AHEAD_NS,
            limit=ROWS_MAX,
            within=subscription.allowed,
        )
        self._raw = ask()
        # Each holds a view of the same moment, and costs nothing until it is awaited.
        self._coarser = []
        for buckets in BUCKETS:
            step = max(1_000_000, (join.end - join.start) // buckets)
            self._coarser.append((buckets, ask(step=step), ask(step=step, agg="last")))

    async def answer(self) -> Answer:
        """Ask; raises :class:`~gateway.errors.HistoryError` and :class:`~gateway.errors.Overloaded`."""
        rows, cut = await self._raw
        if not cut:
            return Answer(rows, [], True, True)
        series = len({row[1:3] for row in rows[:SAMPLE]})
        texts: list[Row] = []
        for buckets, means, last in self._coarser:
            if series * buckets <= ROWS_MAX or buckets == BUCKETS[-1]:
                rows, cut = await means
                texts, also_cut = await last
                cut = cut or also_cut
                if not cut:
                    break
        return Answer(rows, texts, False, not cut)


def history_frames(
    subscription: Subscription,
    join: Join,
    rows: list[Row],
    complete: bool,
    texts: list[Row] | None = None,
    between: Points | None = None,
) -> Iterator[dict[str, object] | None]:
    """The ``history`` messages of a subscription; None after each step that has not led to one.

    ``between`` is what the join lacks.  All that is given is used up.
    """
    selection = Selection(subscription)
    exact = selection.exact
    series: Points = {}
    missed: Counter[Row] = Counter()
    for entries in _steps(join.missed, ENTRIES):
        missed.update(_rows(entries, join, selection))
        yield None
    for piece in _steps(rows, ROWS):
        for row in piece:
            time, device, metric, value = row
            if missed and missed.get(row, 0) > 0:
                missed[row] -= 1
            elif selection.metric(metric):
                points = series.get((device, metric))
                if points is None:
                    points = series[device, metric] = []
                points.append((time // 1_000_000, value))
        yield None
    numbers = set(series)
    for piece in _steps(texts or [], ROWS):
        for time, device, metric, value in piece:
            if type(value) is str and (device, metric) not in numbers and selection.metric(metric):
                series.setdefault((device, metric), []).append((time // 1_000_000, value))
        yield None
    between = between or {}
    mixed = set(between)
    for key in list(between):
        points = between.pop(key)
        if key in series:
            series[key] += points
        else:
            series[key] = points
    yield None
    for entries in _steps(join.above, ENTRIES):
        for time, device, metric, value in _rows(entries, join, selection):
            mixed.add((device, metric))
            series.setdefault((device, metric), []).append((time // 1_000_000, value))
        yield None
    frame: Frame = {}
    room = FRAME_BYTES
    for key in list(series):
        points = series.pop(key)
        if key in mixed:
            in_time_order(points)
        if len(points) > POINTS_RAW:
            points = yield from thin(points)
        device, metric = key
        room -= 16 + len(device) + len(metric)
        shown: list[list[Value]] = []
        for time, value in points:
            shown.append([time, value if exact else wire_value(value)])
            room -= 40 + (text_weight(value) if type(value) is str else 0)
            if room <= 0:
                frame.setdefault(device, {})[metric] = shown
                yield None
                yield {"type": "history", "id": subscription.id, "data": frame, "last": False}
                frame, room, shown = {}, FRAME_BYTES, []
        if shown:
            frame.setdefault(device, {})[metric] = shown
    last: dict[str, object] = {"type": "history", "id": subscription.id, "data": frame, "last": True}
    if not complete:
        last["complete"] = False
    yield last


def _steps(items: list[T], size: int) -> Iterator[list[T]]:
    """All in pieces, and let go of them: very many at once take long to free."""
    while items:
        yield items[:size]
        del items[:size]


def _rows(entries: Sequence[Entry], join: Join, selection: Selection) -> Iterator[Row]:
    for _, reading in entries:
        if join.covers(reading.time) and selection.device(reading.device):
            for metric in selection.metrics(reading.values):
                yield reading.time, reading.device, metric, reading.values[metric]


def in_time_order(points: list[Point]) -> None:
    """Sort late ones in; those of equal times keep their order."""
    points.sort(key=_time)


def thin(points: list[Point], most: int = POINTS_DOWNSAMPLED) -> Generator[None, None, list[Point]]:
    """About ``most`` (2 or more), as the store would downsample: means of numbers, the last of texts.

    Yields after each step; the list is used up.
    """
    first, last = points[0][0], points[-1][0]
    texts = any(type(value) is str for _, value in points)
    buckets = Buckets((last - first) // (most - 1) + 1, "last" if texts else "mean")
    for order, piece in enumerate(_steps(points, ROWS)):
        yield
        times = array("q", [time for time, _ in piece])
        buckets.add(Run(times, order, column([value for _, value in piece]), 0, len(piece)))
    buckets.seal()
    run = buckets.run()
    return list(zip(run.times, run.column.data, strict=True))

"""A history in pages, each small enough to be asked for, told and let go of.  Pure.

All series that are asked for, with their numbers of rows, make a plan: pages of whole series, of about
:data:`PAGE_ROWS` rows each.  A page's rows and what joins them become messages; what they make more than
:data:`PAGE_BYTES` of (long texts) is put back and asked for once more, from the point where it stopped.  So a dashboard
that does not read costs a page's messages and the rest of its plan, whatever it asked for.

Points of a series ascend in time over all its messages; those of equal times keep their order.  The steps between two
yields are of some milliseconds, since the loop has others to serve.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

from ..history import Extent, Row
from ..history.column import column
from ..history.downsample import Buckets
from ..history.levels import fitting
from ..history.runs import Run
from ..hub import Names, Selection, Subscription, text_weight, wire_value
from ..reading import Value
from .joining import Join

__all__ = ["Key", "Page", "Pages", "Point", "Points", "in_time_order", "thin"]

POINTS_RAW = 10_000  # a series; beyond it is downsampled
POINTS_DOWNSAMPLED = 2_000
ROWS_MAX = 200_000  # an answer; beyond it all is downsampled
BUCKETS = (  # of the time asked for; the first that gives few enough rows, else the rest is left out
    POINTS_DOWNSAMPLED,
    200,
    20,
)
PAGE_ROWS = POINTS_RAW  # asked for at once
PAGE_BYTES = 400_000  # of a page's messages, estimated from above
FRAME_BYTES = 200_000  # of a message's, which has to stay below 512 KiB and is built in one step
ROWS = 4_096  # rows or points looked at in a step

T = TypeVar("T")
Key = tuple[str, str]  # device, metric
Point = tuple[int, Value]  # ms, value
Points = dict[Key, list[Point]]
Frame = dict[str, dict[str, list[list[Value]]]]

_time = itemgetter(0)


class Page(NamedTuple):
    """Series to be asked for: of these ``devices``, and ``metrics`` (none: all that are subscribed).

    ``step``: in buckets of so many nanoseconds (0: as they are).  Of the points those count that are at ``start``
    (milliseconds; None: at all times) or later, but for the first ``skip``.
    """

    devices: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    step: int = 0
    start: int | None = None
    skip: int = 0


class Pages:
    """The plan of one history, and its messages.

    ``complete``: whether nothing had to be left out so far.
    """

    def __init__(self, subscription: Subscription, join: Join, names: Names | None = None) -> None:
        self.todo: deque[Page] = deque()
        self.complete = True
        self.selection = Selection(subscription, names)
        self._id = subscription.id
        self._join = join

    def plan(self, extents: Iterable[Extent]) -> None:
        """Make it; there may be several extents of a series."""
        devices: dict[str, dict[str, Extent]] = {}
        for one in extents:
            if self.selection.device(one.device) and self.selection.metric(one.metric):
                series = devices.setdefault(one.device, {})
                known = series.get(one.metric)
                if known is not None:
                    first, last = min(known.first, one.first), max(known.last, one.last)
                    one = Extent(one.device, one.metric, known.rows + one.rows, first, last)
                series[one.metric] = one
        if sum(one.rows for series in devices.values() for one in series.values()) <= ROWS_MAX:
            self._pack(devices)
            return
        if self._join.missed or self._join.older:
            self.complete = False  # what is in updates can be taken out of rows, not out of their means
        length = self._join.end - self._join.start
        for buckets in BUCKETS:
            step = fitting(max(1_000_000, length // buckets))
            if sum(_buckets(one, step) for series in devices.values() for one in series.values()) <= ROWS_MAX:
                break
        self._pack(devices, step)

    def _pack(self, devices: dict[str, dict[str, Extent]], step: int = 0) -> None:
        names: list[str] = []
        room, left = PAGE_ROWS, ROWS_MAX
        for device, series in devices.items():
            costs = {one.metric: _buckets(one, step) if step else one.rows for one in series.values()}
            rows = sum(costs.values())
            left -= rows
            if left < 0:
                self.complete = False
                break
            if rows > room and names:
                self.todo.append(Page(tuple(names), (), step))
                names, room = [], PAGE_ROWS
            if rows <= room:
                names.append(device)
                room -= rows
                continue
            metrics: list[str] = []
            for metric, cost in costs.items():
                if cost > POINTS_RAW:
                    self._plan_long(series[metric])
                    continue
                if cost > room and metrics:
                    self.todo.append(Page((device,), tuple(metrics), step))
                    metrics, room = [], PAGE_ROWS
                metrics.append(metric)
                room -= cost
            if metrics:
                self.todo.append(Page((device,), tuple(metrics), step))
            room = PAGE_ROWS
        if names:
            self.todo.append(Page(tuple(names), (), step))

    def _plan_long(self, one: Extent) -> None:
        missed = self._join.missed
        if self._join.older or any(
            reading.device == one.device and one.metric in reading.values for _, reading in missed
        ):
            self.complete = False
        step = (one.last - one.first) // (POINTS_DOWNSAMPLED - 1) + 1
        self.todo.append(Page((one.device,), (one.metric,), fitting(max(1_000_000, step))))

    def told(
        self, page: Page, rows: list[Row], texts: list[Row], tail: Points, missed: Counter[Row]
    ) -> Iterator[dict[str, object] | None]:
        """The messages of a page, which is no longer in the plan; None after each step that has not led to one.

        ``texts``: the last rows of the buckets, of which the texts count where a series has nothing else.  ``tail``:
        what follows the rows of these series.  All that is given is used up.
        """
        series: Points = {}
        for piece in _steps(rows, ROWS):
            for row in piece:
                time, device, metric, value = row
                if missed and missed.get(row, 0) > 0:
                    missed[row] -= 1
                    continue
                points = series.get((device, metric))
                if points is None:
                    points = series[device, metric] = []
                points.append((time // 1_000_000, value))
            yield None
        numbers = set(series)
        for piece in _steps(texts, ROWS):
            for time, device, metric, value in piece:
                if type(value) is str and (device, metric) not in numbers:
                    series.setdefault((device, metric), []).append((time // 1_000_000, value))
            yield None
        metrics = frozenset(page.metrics)
        for key in list(tail):
            points = tail.pop(key)
            if not metrics or key[1] in metrics:
                if key in series:
                    series[key] += points
                else:
                    series[key] = points
                in_time_order(series[key])
        yield None
        yield from self._told(page, series)

    def _told(self, page: Page, series: Points) -> Iterator[dict[str, object] | None]:
        place = {device: n for n, device in enumerate(page.devices)}
        keys = sorted(series, key=lambda key: (place.get(key[0], 0), key[1]))
        exact = self.selection.exact
        frame: Frame = {}
        room, left = FRAME_BYTES, PAGE_BYTES
        for number, key in enumerate(keys):
            points = series.pop(key)
            if page.start is not None:
                points = [one for one in points if one[0] >= page.start][page.skip :]
            elif len(points) > POINTS_RAW:
                points = yield from thin(points)
            device, metric = key
            cost = 16 + len(device) + len(metric)
            room, left = room - cost, left - cost
            shown: list[list[Value]] = []
            told = 0
            for time, value in points:
                if left <= 0:
                    break
                if room <= 0:
                    if shown:
                        frame.setdefault(device, {})[metric] = shown
                    yield None
                    yield self._message(frame, False)
                    frame, room, shown = {}, FRAME_BYTES, []
                shown.append([time, value if exact else wire_value(value)])
                cost = 40 + (text_weight(value) if type(value) is str else 0)
                room, left, told = room - cost, left - cost, told + 1
            if shown:
                frame.setdefault(device, {})[metric] = shown
            if told < len(points):
                self._put_back(page, key, points, told, keys[number + 1 :])
                break
        if frame or not self.todo:
            yield self._message(frame, not self.todo)

    def _put_back(self, page: Page, key: Key, points: Sequence[Point], told: int, later: Sequence[Key]) -> None:
        """A series of which so many points were told, and those ``later`` than it."""
        start = points[told][0]
        skip = sum(time == start for time, _ in points[:told])
        if start == page.start:
            skip += page.skip
        rest = [Page((key[0],), (key[1],), page.step, start, skip)]
        if more := tuple(metric for device, metric in later if device == key[0]):
            rest.append(Page((key[0],), more, page.step))
        if devices := tuple(dict.fromkeys(device for device, _ in later if device != key[0])):
            rest.append(Page(devices, page.metrics, page.step))
        self.todo.extendleft(reversed(rest))

    def _message(self, frame: Frame, last: bool) -> dict[str, object]:
        message: dict[str, object] = {"type": "history", "id": self._id, "data": frame, "last": last}
        if last and not self.complete:
            message["complete"] = False
        return message


def _buckets(one: Extent, step: int) -> int:
    """How many buckets of so many nanoseconds a series has at most."""
    return min(one.rows, (one.last - one.first) // step + 2)


def _steps(items: list[T], size: int) -> Iterator[list[T]]:
    """All in pieces, and let go of them: very many at once take long to free."""
    while items:
        yield items[:size]
        del items[:size]


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

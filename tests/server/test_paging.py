"""A history in pages: what is in each, in what steps it is told, and what it may cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.devices import DeviceBook
from gateway.history import Extent, History, Row
from gateway.hub import Hub, Subscription
from gateway.reading import Batch, Reading
from gateway.server import paging
from gateway.server.answering import Answer, Reserve
from gateway.server.joining import Join
from gateway.server.paging import Pages, Points
from tests.server.test_stretch import Journal, Member

MS = 1_000_000
ALL = Subscription("main", (), (), "every", 1, "json")
EVER = Join(0, 1 << 62)

Series = dict[tuple[str, str], list[list[Any]]]


def reading(ms: int, device: str = "a", **values: Any) -> Reading:
    """A reading of a device."""
    return Reading(device, "s", 0, ms * MS, ms * MS, values)


def extents(rows: list[Row], tail: Points) -> list[Extent]:
    """Those of rows and what follows them."""
    times: dict[tuple[str, str], list[int]] = {}
    for time, device, metric, _ in rows:
        times.setdefault((device, metric), []).append(time)
    found = [Extent(*key, len(all), min(all), max(all)) for key, all in times.items()]
    return found + [Extent(*key, len(points), 0, 1 << 60) for key, points in tail.items()]


def told(
    rows: list[Row],
    tail: Points | None = None,
    *,
    texts: list[Row] | None = None,
    missed: Counter[Row] | None = None,
    subscription: Subscription = ALL,
) -> Iterator[dict[str, Any] | None]:
    """All messages, and the steps between; each page is given its rows, as the store would."""
    tail = tail or {}
    pages = Pages(subscription, EVER)
    pages.plan(extents(rows, tail))
    while True:
        page = pages.todo.popleft() if pages.todo else paging.Page(())
        mine = [row for row in rows if row[1] in page.devices and (not page.metrics or row[2] in page.metrics)]
        mine = [row for row in mine if page.start is None or row[0] >= page.start * MS]
        assert len(mine) <= 2 * paging.PAGE_ROWS
        follows = {key: list(points) for key, points in tail.items() if key[0] in page.devices}
        yield from pages.told(page, mine, list(texts or []), follows, Counter(missed or ()))
        if not pages.todo:
            return


def frames(rows: list[Row], tail: Points | None = None, **more: Any) -> list[dict[str, Any]]:
    """The messages alone."""
    return [frame for frame in told(rows, tail, **more) if frame is not None]


def points(rows: list[Row], tail: Points | None = None, **more: Any) -> Series:
    """The points of each series of all messages."""
    return joined(frames(rows, tail, **more))


def joined(messages: list[dict[str, Any]]) -> Series:
    """The points of each series."""
    found: Series = {}
    for frame in messages:
        for device, series in frame["data"].items():
            for metric, part in series.items():
                found.setdefault((device, metric), []).extend(part)
    return found


def test_very_many_rows_are_told_in_pages_and_steps() -> None:
    """No message is large, nor does a page come to much more than its bound; nothing is left out, nothing twice."""
    rows: list[Row] = [(n * MS, f"d{n % 50}", f"m{n % 2}", "x" * (n % 20)) for n in range(100_000)]
    tail: Points = {("b", "v"): [(n, n) for n in range(5000)], ("d1", "m1"): [(7, "y")]}
    messages = frames(list(rows), tail)
    assert all(len(msgspec.json.encode(frame)) < 250_000 for frame in messages)
    assert [frame["last"] for frame in messages] == [False] * (len(messages) - 1) + [True]
    found = joined(messages)
    assert found["b", "v"] == [[n, n] for n in range(5000)]
    assert [7, "y"] in found["d1", "m1"]
    assert sum(map(len, found.values())) == 105_001
    assert all(series == sorted(series, key=lambda one: one[0]) for series in found.values())


@pytest.mark.parametrize("times", ["ascending", "the same"])
def test_long_texts(times: str) -> None:
    """What a page comes to is bounded in bytes as well; the rest of it is asked for again, from where it stopped."""
    rows: list[Row] = [(n * MS if times == "ascending" else 5 * MS, "a", "t", f"{n:0>1000}") for n in range(3000)]
    pages = Pages(ALL, EVER)
    pages.plan(extents(rows, {}))
    first = [frame for frame in pages.told(pages.todo.popleft(), list(rows), [], {}, Counter()) if frame is not None]
    assert sum(len(msgspec.json.encode(frame)) for frame in first) < 500_000
    (rest,) = pages.todo
    assert (rest.start, rest.skip) == ((197, 0) if times == "ascending" else (5, 197))
    assert [value for _, value in points(rows)["a", "t"]] == [f"{n:0>1000}" for n in range(3000)]


def test_what_was_not_told_of_a_page_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a page stops at, all of it comes, each once, in order."""
    rows: list[Row] = [(n * MS, f"d{n % 3}", f"m{n % 2}", n) for n in range(300)]
    tail: Points = {("d0", "m0"): [(5, -1), (250, -2)], ("d9", "m9"): [(1, 1)]}
    whole = points(rows, tail)
    for size in (100, 1000, 5000):
        monkeypatch.setattr(paging, "PAGE_BYTES", size)
        assert points(rows, tail) == whole


def test_a_plan_has_whole_series_and_pages_of_some_size() -> None:
    """Devices are together as far as they fit, those with many rows are taken apart, a long series stands alone."""
    pages = Pages(ALL, EVER)
    pages.plan([Extent(f"d{n}", "m", 3000, 0, 9) for n in range(5)])
    assert [page.devices for page in pages.todo] == [("d0", "d1", "d2"), ("d3", "d4")]
    pages = Pages(ALL, EVER)
    pages.plan(
        [Extent("small", "m", 5, 0, 9)]
        + [Extent("wide", f"m{n}", 4000, 0, 9) for n in range(5)]
        + [Extent("wide", "long", 50_000, 0, 1999 * MS * 100)]
        + [Extent("last", "m", 5, 0, 9)]
    )
    assert [tuple(page) for page in pages.todo] == [
        (("small",), (), 0, None, 0),
        (("wide",), ("m0", "m1"), 0, None, 0),
        (("wide",), ("m2", "m3"), 0, None, 0),
        (("wide",), ("long",), 100 * MS + 1, None, 0),
        (("wide",), ("m4",), 0, None, 0),
        (("last",), (), 0, None, 0),
    ]
    assert pages.complete


def test_long_steps_are_whole_minutes() -> None:
    """A long time is asked for in steps that rollups answer, in hardly fewer points."""
    minute = 60_000 * MS
    pages = Pages(ALL, Join(0, 30 * 1440 * minute))
    pages.plan([Extent("a", "m", 3000, 0, 9), Extent("a", "n", 150_000, 0, 30 * 1440 * minute)])
    assert [page.step for page in pages.todo] == [22 * minute, 0]
    pages = Pages(ALL, Join(0, 30 * 1440 * minute))
    pages.plan([Extent(f"d{n}", "m", 150_000, 0, 30 * 1440 * minute) for n in range(50)])
    assert {page.step for page in pages.todo} == {22 * minute}


def test_only_what_is_covered_is_planned() -> None:
    """Devices and metrics that are not subscribed, or not allowed, are in no page."""
    subscription = Subscription("main", ("a*",), ("m",), "every", 1, "json", ("*1",))
    pages = Pages(subscription, EVER)
    pages.plan([Extent(name, "m", 1, 0, 1) for name in ("a1", "a2", "b1")] + [Extent("a3", "n", 1, 0, 1)])
    assert [page.devices for page in pages.todo] == [("a1",)]


def test_thinning_is_the_store_s() -> None:
    """Means of numbers, booleans as 0 and 1, without overflow; texts by the last; at most so many points."""
    count = 12_000
    tail: Points = {("a", name): [] for name in ("number", "flag", "huge", "text", "big")}
    for n in range(count):
        tail["a", "number"].append((n, n))
        tail["a", "flag"].append((n, n % 2 == 0))
        tail["a", "huge"].append((n, 1.7e308))
        tail["a", "text"].append((n, f"x{n}"))
        tail["a", "big"].append((n, 2**60))
    found = points([], tail)
    for series in found.values():
        assert 1500 < len(series) <= paging.POINTS_DOWNSAMPLED
    assert found["a", "number"][0][1] < 10
    assert found["a", "number"][-1][1] > count - 10
    assert all(type(value) is float and 0.0 < value < 1.0 for _, value in found["a", "flag"][1:-1])
    assert all(math.isclose(value, 1.7e308) for _, value in found["a", "huge"])
    assert found["a", "text"][-1][1] == f"x{count - 1}"
    assert all(value == 2.0**60 for _, value in found["a", "big"])


def test_what_is_in_updates_is_not_in_history() -> None:
    """As often as a missed reading's value is a row, one such row is left out, and no other."""
    rows: list[Row] = [(5 * MS, "a", "v", 1), (5 * MS, "a", "v", 1), (6 * MS, "a", "v", 2), (7 * MS, "a", "v", 3.0)]
    missed: Counter[Row] = Counter([(5 * MS, "a", "v", 1), (7 * MS, "a", "v", 3), (9 * MS, "a", "v", 9)])
    assert points(rows, missed=missed) == {("a", "v"): [[5, 1], [6, 2]]}


def test_what_follows_the_store_is_sorted_in() -> None:
    """What was shown and is not stored yet follows, late ones in their place."""
    rows: list[Row] = [(4 * MS, "a", "v", 4), (7 * MS, "a", "v", 7)]
    tail: Points = {("a", "v"): [(5, 5), (9, 9)]}
    assert points(rows, tail) == {("a", "v"): [[4, 4], [5, 5], [7, 7], [9, 9]]}


def test_incomplete_history_says_so() -> None:
    """The last message alone says that it is the last, and whether there are holes."""
    pages = Pages(ALL, EVER)
    pages.complete = False
    (frame,) = [frame for frame in pages.told(paging.Page(()), [], [], {}, Counter()) if frame is not None]
    assert frame == {"type": "history", "id": "main", "data": {}, "last": True, "complete": False}


# -- with a store -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    """An open store."""
    history = History(tmp_path / "history.db")
    await history.open("epoch")
    yield history
    await history.close()


async def write(history: History, *readings: Reading) -> None:
    """Store readings behind all others."""
    await history.write(Batch(history.end, list(readings), len(readings)))


class Asking:
    """A subscription's answer over a store, whose hub stands where the store does."""

    def __init__(self, history: History, length_ms: int, now_ms: int) -> None:
        self.hub: Hub[dict[str, Any]] = Hub(
            DeviceBook(Path("/nonexistent"), rate=1, burst=1), lambda format, message: message
        )
        self.hub.begin(history.end, floor=history.end)
        self.member = Member()
        self.hub.subscribe(self.member, ALL, None, history=True)
        self.answer = Answer(self.hub, history, Journal({}), ALL, lambda message: message, Reserve())
        self._times = length_ms * MS, now_ms * MS

    async def begin(self) -> None:
        """Make the join."""
        await self.answer.begin(self.member, self._times[0], lambda: self._times[1])

    async def rest(self) -> list[dict[str, Any]]:
        """All messages."""
        messages: list[dict[str, Any]] = []
        while found := await self.answer.next():
            messages += found
        return messages


async def test_coarse_answer_ends_where_the_join_is(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come after the join are in no page: neither the rows nor, where those are too many, the means; texts
    have no mean, their last ones come."""
    monkeypatch.setattr(paging, "ROWS_MAX", 50)
    await write(history, *(reading(n, v=1.0, text=f"x{n}", mixed=2.0 if n % 2 else "y") for n in range(60)))
    asking = Asking(history, 1000, 1000)
    await asking.begin()
    await write(history, *(reading(n, v=1e9, text="later") for n in range(60)))
    await history.flush()
    messages = await asking.rest()
    assert "complete" not in messages[-1]
    found = joined(messages)
    assert {value for _, value in found["a", "v"]} == {1.0}
    assert found["a", "text"][-1][1] == "x59"
    assert len(found["a", "text"]) == len(found["a", "v"])
    assert {value for _, value in found["a", "mixed"]} == {2.0}


async def test_very_many_series_get_coarser_steps(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two thousand buckets a series are too many rows, fewer are asked for, so that the history has no hole."""
    monkeypatch.setattr(paging, "ROWS_MAX", 600)
    for n in range(100):
        await write(history, *(reading(n * 10, f"d{d}", v=1.0) for d in range(20)))
    asking = Asking(history, 1000, 1000)
    await asking.begin()
    messages = await asking.rest()
    assert "complete" not in messages[-1]
    found = joined(messages)
    assert {device for device, _ in found} == {f"d{d}" for d in range(20)}
    assert sum(map(len, found.values())) == 400
    assert all(series[-1][0] >= 900 for series in found.values())


async def test_a_long_series_is_thinned_over_its_own_time(history: History) -> None:
    """A series of more points than are told comes as means over the time that it has points of, others as they are."""
    for first in range(0, 12_000, 1000):
        await write(history, *(reading(10**6 + n, long=float(n), t=f"x{n}") for n in range(first, first + 1000)))
    await write(history, reading(5, "b", v=1.5))
    asking = Asking(history, 10**9, 10**9)
    await asking.begin()
    found = joined(await asking.rest())
    assert found["b", "v"] == [[5, 1.5]]
    for metric in ("long", "t"):
        series = found["a", metric]
        assert 1500 < len(series) <= paging.POINTS_DOWNSAMPLED
        assert series[0][0] >= 10**6 - 10
        assert series[-1][0] >= 10**6 + 11_980
    assert all(abs(value - (ms - 10**6)) < 10 for ms, value in found["a", "long"])

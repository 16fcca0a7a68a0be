"""The stretch that the journal alone has: it joins history and updates, whatever lies where."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.devices import DeviceBook
from gateway.errors import JournalError
from gateway.history import Extent, History, Row
from gateway.hub import Hub, Subscription
from gateway.hub import hub as hub_module
from gateway.liveness import Status
from gateway.reading import Batch, Item, Mark, Reading
from gateway.server import answering, paging, stretch
from gateway.server.answering import Answer, Reserve
from gateway.server.joining import Join
from gateway.server.stretch import Stretch
from tests.running import acked, gateway, receive, send
from tests.server.feeding import FAST, feed

MS = 1_000_000
ALL = Subscription("main", (), (), "every", 1, "json")

Values = dict[tuple[str, str], list[Any]]


def reading(ms: int, device: str = "a", **values: Any) -> Reading:
    """A reading of a device."""
    return Reading(device, "s", 0, ms * MS, ms * MS, values)


class Journal:
    """Items by offset, of which those below ``durable_offset`` can be read; records end before each of ``ends``."""

    def __init__(self, items: dict[int, Item], ends: frozenset[int] = frozenset()) -> None:
        self.items = items
        self.ends = ends
        self.durable_offset = max(items, default=-1) + 1
        self.oldest_offset = 0
        self.reads: list[int] = []

    async def read_from(self, offset: int, max_readings: int = 1000) -> Batch | None:
        """As the journal's."""
        await asyncio.sleep(0)
        found: list[Item] = []
        base = -1
        for at in sorted(self.items):
            if max(offset, self.oldest_offset) <= at < self.durable_offset:
                if found and (at != base + len(found) or at in self.ends or len(found) >= max_readings):
                    break
                base = base if found else at
                found.append(self.items[at])
        self.reads.append(len(found))
        return Batch(base, found, len(found)) if found else None


async def whole(journal: Journal, join: Join, subscription: Subscription = ALL) -> tuple[Values, bool]:
    """What is read, and whether that is all."""
    made = Stretch(journal, subscription, join)
    complete = await made.read()
    return {key: [value for _, value in series] for key, series in made.points.items()}, complete


def lacking(start: int, stop: int) -> Join:
    """A join of all times that lacks these offsets."""
    return Join(0, 1 << 62, start, 1 << 60, stop)


# -- the join, whatever lies where ------------------------------------------------------------------------------------


class Member:
    """A dashboard that reads all."""

    pending_bytes = 0

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []

    def send(self, frame: dict[str, Any]) -> None:
        """Keep it."""
        self.frames.append(frame)


def values_in(frames: list[dict[str, Any]], kind: str) -> Values:
    """All values of the messages of a kind, by series."""
    found: Values = defaultdict(list)
    for frame in frames:
        if frame["type"] == kind:
            for device, metrics in frame["data"].items():
                for metric, points in metrics.items():
                    found[device, metric] += [value for _, value in points]
    return found


@st.composite
def streams(draw: st.DrawFn) -> dict[str, Any]:
    """Readings at offsets with gaps, late ones among them, and how far each part of the gateway has come."""
    count = draw(st.integers(1, 40))
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 1 << 20]), min_size=count, max_size=count))
    ages = draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))
    names = draw(st.lists(st.sampled_from("aabc"), min_size=count, max_size=count))
    places = [sum(gaps[: n + 1]) for n in range(count)]
    crash = draw(st.integers(0, count))  # so many readings are of a life before
    shown = draw(st.integers(crash, count))  # so many before the subscription
    return {
        "readings": [reading(n + 10 - ages[n], names[n], v=n) for n in range(count)],
        "places": places,
        "crash": crash,
        "shown": shown,
        "turn": (turn := draw(st.integers(shown, count))),  # so many when the history has its turn
        "stored": draw(st.integers(0, turn)),
        "recent": draw(st.integers(0, count)),
        "back": draw(st.none() | st.integers(0, count)),  # resumed from so many readings ago
        "commits": frozenset(draw(st.sets(st.sampled_from(places)))),
        "late_commit": draw(st.booleans()),
        "page": draw(st.sampled_from([1, 3, 10, 10_000])),  # rows
        "room": draw(st.sampled_from([60, 130, 400_000])),  # bytes of messages a page
        "start": draw(st.integers(0, 20)),
        "devices": draw(st.sampled_from([(), ("a",), ("b", "c")])),
        "mode": draw(st.sampled_from(["every", "every", "latest"])),
    }


class Store:
    """A history of the first ``count`` readings."""

    def __init__(self, readings: list[Reading], places: list[int], count: int) -> None:
        self.readings = readings
        self.places = places
        self.count = count
        self.asked = 0

    @property
    def end(self) -> int:
        """The offset below which it has all."""
        return self.places[self.count - 1] + 1 if self.count else 0

    def now(self) -> int:
        """This moment."""
        return self.count

    async def query(self, *, limit: int, **asked: Any) -> tuple[list[Row], bool]:
        """Rows as they are."""
        self.asked += 1
        rows = self._rows(**asked)
        return rows[:limit], len(rows) > limit

    async def extents(self, *, within: tuple[str, ...], **asked: Any) -> list[Extent]:
        """Of each series."""
        series: dict[tuple[str, str], list[int]] = defaultdict(list)
        for time, device, metric, _ in self._rows(**asked):
            series[device, metric].append(time)
        return [Extent(*key, len(times), times[0], times[-1]) for key, times in series.items()]

    def _rows(self, devices: Any, metrics: Any, start: int, end: int, at: int) -> list[Row]:
        ready = [one for one in self.readings[:at] if start <= one.time < end and one.device in devices]
        ready += [one for one in self.readings[:at] if start <= one.time < end and devices == ("*",)]
        return [(one.time, one.device, "v", one.values["v"]) for one in sorted(ready, key=lambda one: one.time)]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_join_has_no_hole_and_no_repeat(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    """Wherever history, journal and memory end, over gaps and a crash, joined or resumed, at once or when its turn
    comes, and in pages and messages of whatever size: each value comes once."""
    monkeypatch.setattr(hub_module, "RECENT_MAX", given["recent"])
    monkeypatch.setattr(stretch, "LOOK_S", 0.001)
    monkeypatch.setattr(stretch, "PIECE", 3)
    monkeypatch.setattr(answering, "CATCH_UP_S", 0)
    monkeypatch.setattr(paging, "PAGE_ROWS", given.pop("page"))
    monkeypatch.setattr(paging, "PAGE_BYTES", given["room"])
    monkeypatch.setattr(paging, "FRAME_BYTES", given.pop("room") // 2)
    asyncio.run(join_and_check(**given))


async def join_and_check(
    readings: list[Reading],
    places: list[int],
    crash: int,
    shown: int,
    turn: int,
    stored: int,
    recent: int,
    back: int | None,
    commits: frozenset[int],
    late_commit: bool,
    start: int,
    devices: tuple[str, ...],
    mode: str,
) -> None:
    """Publish, subscribe, publish; then look at what came."""
    book = DeviceBook(Path("/nonexistent"), rate=1, burst=1)
    for name in "abc":
        book.open(name).status = Status("online", 5 * MS)
    hub: Hub[dict[str, Any]] = Hub(book, lambda format, message: message)
    floor = places[crash - 1] + 1 if crash else 0
    hub.begin(floor, floor=floor)
    for n in range(crash, shown):
        hub.publish(readings[n], places[n])
    store = Store(readings, places, stored)
    journal = Journal(dict(zip(places, readings, strict=True)), commits)
    subscription = Subscription("main", devices, (), mode, 1, "json")
    member = Member()
    after = None if back is None else (places[shown - 1 - back] if back < shown else 0)
    recovered = hub.subscribe(member, subscription, after, history=True)
    resumed = recovered and mode == "every"
    first = hub.offset
    for n in range(shown, turn):
        hub.publish(readings[n], places[n])
    last = places[turn - 1] + 1 if turn else 0
    journal.durable_offset = max(floor, store.end) if late_commit else last
    now = 10**18
    answer = Answer(hub, store, journal, subscription, lambda message: message, Reserve())
    async with answer:
        beginning = asyncio.create_task(answer.begin(member, now - start * MS, lambda: now))
        await asyncio.sleep(0)
        journal.durable_offset = max(places) + 1
        await beginning
        floor_then = hub.floor
        # What comes now is in updates; the hub forgets what is to follow, and the store gets on.
        coming = iter(range(turn, len(readings)))
        while frames := await answer.next():
            member.frames += frames
            for n in coming:
                hub.publish(readings[n], places[n])
                store.count = n
                break
        for n in coming:
            hub.publish(readings[n], places[n])
    hub.release(member, subscription)
    for _ in range(3):
        while hub.tick():
            pass
    history, updates = values_in(member.frames, "history"), values_in(member.frames, "update")
    place = turn
    if resumed and after is not None:
        place = next((n for n in range(shown) if places[n] > after), shown)
    for name in "abc":
        mine = [one for one in readings if one.device == name and name in (devices or "abc")]
        old = [one for one in mine if one.values["v"] < place and one.time >= start * MS]
        assert history.get((name, "v"), []) == [one.values["v"] for one in sorted(old, key=lambda one: one.time)]
        new = [one.values["v"] for one in mine if one.values["v"] >= place]
        if not resumed:  # what came while it waited, and is too old for the history
            late = [one for one in mine if shown <= one.values["v"] < turn and one.time < start * MS]
            new = [one.values["v"] for one in late] + new
        if mode == "every":
            assert updates.get((name, "v"), []) == new
        elif new or floor_then <= first + 1:
            assert len(updates.get((name, "v"), [])) == bool(new)
    offsets = [frame["offset"] for frame in member.frames if "offset" in frame]
    assert offsets == sorted(offsets)
    told = [frame for frame in member.frames if frame["type"] == "history"]
    assert [frame["last"] for frame in told] == [False] * (len(told) - 1) + [True]
    assert "complete" not in told[-1]


# -- what is read, in what steps, and what is not ---------------------------------------------------------------------


async def test_readings_alone_of_what_was_asked_for() -> None:
    """Other items, other series, other times, and what lies behind the end are left out; times are in milliseconds."""
    items: dict[int, Item] = {
        1: reading(1, v=1),
        2: Mark("a", "s", 1),
        3: reading(3, v=3, w=3),
        4: reading(4, "b", v=4),
        5: reading(5000 * 1000, v=5),
        6: reading(6, v=6),
    }
    subscription = Subscription("main", ("a",), ("v",), "every", 1, "json")
    made = Stretch(Journal(items), subscription, Join(2 * MS, 10 * MS, 1, 9, 6))
    assert await made.read()
    assert made.points == {("a", "v"): [(3, 3)]}


async def test_nothing_to_read_reads_nothing() -> None:
    """A join that lacks nothing costs no look at the journal."""
    journal = Journal({1: reading(1, v=1)})
    assert await whole(journal, Join(0, 1 << 62)) == ({}, True)
    assert await whole(journal, Join(0, 1 << 62, 5, 9, 3)) == ({}, True)
    assert await whole(journal, lacking(5, 3)) == ({}, True)
    assert journal.reads == []


async def test_read_in_pieces_and_the_loop_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand at a time at most, and others have their turn in each."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    journal = Journal({n: reading(n, v=n) for n in range(3500)})
    other = asyncio.create_task(turn())
    found, complete = await whole(journal, lacking(0, 3500))
    other.cancel()
    assert found == {("a", "v"): list(range(3500))}
    assert complete
    assert max(journal.reads) <= 1000
    assert turns >= 3500 // stretch.ENTRIES


async def test_waits_for_what_is_not_on_disk_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was shown is read as soon as it is durable; what does not become so is left out, and that is said."""
    monkeypatch.setattr(stretch, "LOOK_S", 0.001)
    journal = Journal({n: reading(n, v=n) for n in range(10)})
    journal.durable_offset = 4
    reading_on = asyncio.create_task(whole(journal, lacking(0, 10)))
    await asyncio.sleep(0.01)
    assert journal.reads[-1] == 0
    assert not reading_on.done()
    journal.durable_offset = 10
    assert await reading_on == ({("a", "v"): list(range(10))}, True)
    monkeypatch.setattr(stretch, "DURABLE_S", 0.01)
    journal.durable_offset = 4
    assert await whole(journal, lacking(0, 10)) == ({("a", "v"): [0, 1, 2, 3]}, False)


async def test_more_readings_than_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the rest is left out, and that is said."""
    monkeypatch.setattr(stretch, "READINGS_MAX", 1500)
    journal = Journal({n: reading(n, v=n) for n in range(3000)})
    assert await whole(journal, lacking(0, 3000)) == ({("a", "v"): list(range(1500))}, False)
    assert await whole(journal, lacking(0, 1500)) == ({("a", "v"): list(range(1500))}, True)


async def test_more_points_than_are_held_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over even stretches take their place, late ones included; the bound holds, nothing is missing."""
    monkeypatch.setattr(stretch, "POINTS_MAX", 2000)
    journal = Journal({n: reading(n ^ 1, "ab"[n % 2], v=float(n), w="x") for n in range(6000)})
    made = Stretch(journal, ALL, lacking(0, 6000))
    assert await made.read()
    for (_, metric), series in made.points.items():
        times = [time for time, _ in series]
        assert len(series) < 1000
        assert times[0] <= 1
        assert times[-1] > 5940
        assert all(0 < after - before < 60 for before, after in pairwise(times))
        if metric == "v":
            assert all(abs(value - time) < 60 for time, value in series)
    assert sum(map(len, made.points.values())) <= 2000


async def test_too_many_series_to_be_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where thinning makes no room, the rest is left out, and that is said."""
    monkeypatch.setattr(stretch, "POINTS_MAX", 1000)
    journal = Journal({n: reading(n, f"d{n}", v=n) for n in range(3000)})
    found, complete = await whole(journal, lacking(0, 3000))
    assert not complete
    assert len(found) <= 2000


async def test_what_the_journal_has_let_go_of_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on its way from one store to the other: missing in both answers, which is said."""
    monkeypatch.setattr(stretch, "PIECE", 3)
    journal = Journal({n: reading(n, v=n) for n in range(10)})
    made = Stretch(journal, ALL, lacking(0, 10))
    journal.oldest_offset = 5
    assert not await made.read()
    journal.oldest_offset = 10
    made = Stretch(journal, ALL, lacking(2, 10))
    assert await made.read()  # gone before, and so in no history either
    journal.oldest_offset = 2
    made = Stretch(journal, ALL, lacking(2, 10))
    journal.oldest_offset = 11
    assert not await made.read()


async def test_journal_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """It is said, here and in the log; the rest of the history comes."""

    class Broken(Journal):
        async def read_from(self, offset: int, max_readings: int = 1000) -> Batch | None:
            raise JournalError("no disk")

    assert await whole(Broken({1: reading(1, v=1)}), lacking(0, 2)) == ({}, False)
    assert "no disk" in caplog.text


# -- in a gateway -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["every", "latest"])
@pytest.mark.parametrize("rows_max", [10**6, 60], ids=["raw", "downsampled"])
async def test_history_that_lags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, rows_max: int) -> None:
    """A history that has the first part, a memory of the last few, all on disk but the newest: nothing is missing."""
    monkeypatch.setattr(hub_module, "RECENT_MAX", 20)
    monkeypatch.setattr(paging, "ROWS_MAX", rows_max)
    monkeypatch.setattr(answering, "CATCH_UP_S", 0)
    go_on = asyncio.Event()
    go_on.set()
    write = History.write

    async def lagging(history: History, batch: Batch) -> int:
        await go_on.wait()
        return await write(history, batch)

    monkeypatch.setattr(History, "write", lagging)
    settings = FAST | {"journal": {"commit_ms": 200}}
    async with gateway(tmp_path, **settings) as gw, gw.device("a") as ws, feed(gw) as one:
        await receive(ws, "welcome")
        start = (await gw.json("/healthz"))["time"] - 1000

        async def say(first: int, last: int) -> None:
            await send(ws, [{"ts": start + n, "n": float(n), "seq": n} for n in range(first, last + 1)])

        await say(1, 100)
        await acked(ws, 100)
        await gw.rows("a", until=100)
        go_on.clear()
        await say(101, 300)
        await acked(ws, 300)
        await say(301, 400)
        assert gw.app.live is not None
        for _ in range(1000):
            if gw.app.live.hub.offset > gw.app.live.journal.durable_offset + 50:
                break
            await asyncio.sleep(0.005)
        snapshot = await one.subscribe(mode=mode, history_s=600, interval_ms=50)
        assert snapshot["devices"]["a"]["values"]["n"][1] == 400
        await say(401, 410)
        points = []
        last = False
        while not last:
            history = await one.next("history")
            points += history["data"]["a"]["n"]
            last = history["last"]
            assert history.get("complete", True)
        updates: list[float] = []
        while updates[-1:] != [410]:
            updates += [value for _, value in (await one.next("update"))["data"]["a"]["n"]]
        go_on.set()
    assert updates == [float(n) for n in range(401, 411)] if mode == "every" else updates
    if rows_max > 400:
        assert points == [[start + n, float(n)] for n in range(1, 401)]
    else:
        assert points[-300:] == [[start + n, float(n)] for n in range(101, 401)]
        assert 1 <= len(points) - 300 <= 60
        assert all(value <= 100 for _, value in points[:-300])


async def test_history_that_catches_up_before_the_journal_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the journal has let go of a part meanwhile the history is asked again, and joins what comes then."""
    monkeypatch.setattr(hub_module, "RECENT_MAX", 50)
    monkeypatch.setattr(answering, "CATCH_UP_S", 0)
    go_on = asyncio.Event()
    write = History.write

    async def lagging(history: History, batch: Batch) -> int:
        await go_on.wait()
        return await write(history, batch)

    monkeypatch.setattr(History, "write", lagging)
    async with gateway(tmp_path, **FAST) as gw, gw.device("a") as ws, feed(gw) as one:
        await receive(ws, "welcome")

        async def read(made: Stretch) -> bool:
            made.points["a", "n"] = [(0, "half of it")]
            await send(ws, *({"n": n, "seq": n} for n in range(101, 111)))
            await acked(ws, 110)
            go_on.set()
            await gw.rows("a", until=110)
            return False

        monkeypatch.setattr(Stretch, "read", read)
        await send(ws, [{"n": n, "seq": n} for n in range(1, 101)])
        await acked(ws, 100)
        await one.subscribe(mode="every", history_s=600, interval_ms=50)
        history = await one.next("history")
        assert (history["last"], history.get("complete", True)) == (True, True)
        values = [value for _, value in history["data"]["a"]["n"]]
        await send(ws, {"n": 111, "seq": 111})
        while values[-1:] != [111]:
            values += [value for _, value in (await one.next("update"))["data"]["a"]["n"]]
        assert values == list(range(1, 112))

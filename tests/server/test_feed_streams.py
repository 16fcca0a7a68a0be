"""Section 5 of the contract, stream by stream: what snapshots, history, updates and presence hold, and in what order.

One gateway for most tests, a socket and devices of its own for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.running import Running, gateway
from tests.server.feeding import FAST, JSON, MSGPACK, Feed, device, feed, fresh, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAFE = 2**53 - 1


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gw(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The gateway."""
    async with gateway(tmp_path_factory.mktemp("feed"), **FAST) as running:
        yield running


# -- what is covered --------------------------------------------------------------------------------------------------

NAMES = ["pump-1", "pump-10", "pump.1", "Pump-1", "fan:1"]
METRICS = ["t", "t1", "t/1", "T", "none"]
COVERED: list[tuple[list[str], list[str], list[str], list[str]]] = [
    ([], [], NAMES, METRICS),
    (["*"], ["*"], NAMES, METRICS),
    (["*", "pump-1"], ["*", "none"], NAMES, METRICS),
    (["pump-*"], ["t"], ["pump-1", "pump-10"], ["t"]),
    (["pump-?"], ["t?"], ["pump-1"], ["t1"]),
    (["pump?1"], ["t*"], ["pump-1", "pump.1"], ["t", "t1", "t/1"]),
    (["?ump-1"], ["?"], ["pump-1", "Pump-1"], ["t", "T"]),
    (["*1"], ["*1"], ["pump-1", "pump.1", "Pump-1", "fan:1"], ["t1", "t/1"]),
    (["*m*-*0"], ["t/1"], ["pump-10"], ["t/1"]),
    (["pump-1", "fan:1", "nobody"], ["T", "t", "nothing"], ["pump-1", "fan:1"], ["t", "T"]),
    (["PUMP-1"], ["*"], [], METRICS),
    (["pump-[0-9]", "[pP]ump-1", "!fan:1", "pump-1$", "^pump-1", "(pump-1)"], ["*"], [], METRICS),
    (["pump"], ["*"], [], METRICS),
    ([""], ["*"], [], METRICS),
    (["*"], [""], NAMES, []),
    (["*"], ["none"], NAMES, []),
    (["*"], ["none", "t"], NAMES, ["t", "none"]),
    (["none"], ["*"], [], METRICS),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def named(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Running, Callable[..., Any]]]:
    """A gateway with the devices of :data:`NAMES` alone, and a function that has each send all of :data:`METRICS`."""
    async with gateway(tmp_path_factory.mktemp("named"), **FAST) as gw, AsyncExitStack() as stack:
        values = {metric: n for n, metric in enumerate(METRICS)}
        says = [await stack.enter_async_context(device(gw, name, values)) for name in NAMES]

        async def say_all() -> None:
            for say in says:
                await say(values)

        yield gw, say_all


@pytest.mark.parametrize("mode", ["latest", "every"])
@pytest.mark.parametrize(("devices", "metrics", "covered", "shown"), COVERED)
async def test_devices_and_metrics(
    named: tuple[Running, Callable[..., Any]],
    mode: str,
    devices: list[str],
    metrics: list[str],
    covered: list[str],
    shown: list[str],
) -> None:
    """Globs know ``*`` and ``?`` and nothing else; snapshot, history and updates cover the same."""
    gw, say_all = named
    async with feed(gw) as one:
        one.skipped.add("presence")
        snapshot = await one.subscribe(devices=devices, metrics=metrics, mode=mode, history_s=3600)
        assert {name: sorted(found["values"]) for name, found in snapshot["devices"].items()} == {
            name: sorted(shown) for name in covered
        }
        data: dict[str, set[str]] = {}
        while not (history := await one.next("history"))["last"]:
            note(data, history)
        note(data, history)
        both = {name: set(shown) for name in covered if shown}
        assert data == both
        await say_all()
        data = {}
        while data != both:
            note(data, await one.next("update"))
        if not both:
            await asyncio.sleep(0.15)  # three turns of the grid
        await one.quiet()


def note(data: dict[str, set[str]], message: dict[str, Any]) -> None:
    """Add which series a message has."""
    for name, series in message["data"].items():
        data.setdefault(name, set()).update(series)


async def test_presence_alone(gw: Running) -> None:
    """``["none"]`` as metrics: states come and go with their reasons, values never do; of the covered devices only."""
    prefix = fresh("quiet")
    first, second = f"{prefix}-1", f"{prefix}-2"
    async with feed(gw) as one:
        assert (await one.subscribe(devices=[f"{prefix}-*"], metrics=["none"], mode="every"))["devices"] == {}
        async with device(gw, first, {"t": 1}) as say, device(gw, fresh("loud"), {"t": 1}):
            state = (await one.next("presence"))["devices"]
            assert (set(state), state[first]["state"]) == ({first}, "online")
            await say({"t": 2})
            async with device(gw, second, {"t": 1}):
                assert set((await one.next("presence"))["devices"]) == {second}
            gone = (await one.next("presence"))["devices"][second]
            assert gone["state"] == "offline"
            assert gone["reason"]
            assert gone["since"] >= state[first]["since"]
            snapshot = await one.subscribe(id="again", devices=[f"{prefix}-*"], metrics=["none"])
            assert {name: (found["state"], found["values"]) for name, found in snapshot["devices"].items()} == {
                first: ("online", {}),
                second: ("offline", {}),
            }
            await one.quiet()


# -- values -----------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    0,
    -7,
    22.5,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    True,
    False,
    "",
    "on",
    '\u00e4\u2028\U0001f600</script>\t\r\n"\\',
    "x" * 1024,
    SAFE,
    -SAFE,
    SAFE + 1,
    -SAFE - 1,
    2**63 - 1,
    -(2**63),
]


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
@pytest.mark.parametrize("value", VALUES, ids=[f"{type(value).__name__} {str(value)[:20]!a}" for value in VALUES])
async def test_values(gw: Running, value: Any, subprotocol: str) -> None:
    """Each comes as it was sent, in snapshot, history and update; in JSON alone a large integer as digits."""
    large = type(value) is int and abs(value) > SAFE
    want = str(value) if large and subprotocol == JSON else value
    first, second = 1764000000123, 1764000001123
    name = fresh()
    async with device(gw, name, {"ts": first, "v": value}) as say, feed(gw, subprotocol) as one:
        since = time.time() - first / 1000
        snapshot = await one.subscribe(devices=[name], mode="every", history_s=since + 60)
        history = await one.next("history")
        await say({"ts": second, "v": value})
        update = await one.next("update")
    found = [
        snapshot["devices"][name]["values"]["v"],
        *history["data"][name]["v"],
        *update["data"][name]["v"],
    ]
    assert [(at, type(got), repr(got)) for at, got in found] == [
        (at, type(want), repr(want)) for at in (first, first, second)
    ]


# -- modes, intervals, several on one socket --------------------------------------------------------------------------


async def test_intervals_are_rounded_up_to_the_grid(gw: Running) -> None:
    """Never more updates than one a multiple of 50 ms, for whatever interval; each has what is newest by then."""
    name = fresh()
    grid = {0: 50, 1: 50, 50: 50, 50.5: 100, 51: 100, 120: 150, 500: 500}
    async with device(gw, name, {"n": 0}) as say, feed(gw) as one:
        for interval in grid:
            await one.subscribe(id=str(interval), devices=[name], interval_ms=interval)
        begin = time.monotonic()
        seen: dict[str, list[int]] = {str(interval): [] for interval in grid}
        n = 0
        while (took := time.monotonic() - begin) < 1.2:
            n += 1
            await say({"n": n})
            while True:
                try:
                    async with asyncio.timeout(0.005):
                        update = await one.next("update")
                except TimeoutError:
                    break
                (shown,) = update["data"][name]["n"]
                seen[update["id"]].append(shown[1])
        for interval, step in grid.items():
            values = seen[str(interval)]
            assert 1 <= len(values) <= took * 1000 / step + 1.5, interval
            assert values == sorted(set(values))


async def test_latest_counts_what_it_passes_over(gw: Running) -> None:
    """Values sent and values counted as skipped are all that came; ``every`` skips none."""
    name, total = fresh(), 40
    async with device(gw, name) as say, feed(gw) as one:
        await one.subscribe(id="l", devices=[name], interval_ms=100)
        await one.subscribe(id="e", devices=[name], interval_ms=100, mode="every")
        await say(*({"n": n, "m": -n} for n in range(1, total + 1)))
        shown: dict[str, list[int]] = {"l": [], "e": []}
        skipped, offsets = 0, {"l": 0, "e": 0}
        while shown["l"][-1:] != [total] or shown["e"][-1:] != [total]:
            update = await one.next("update")
            id = update["id"]
            assert update["offset"] > offsets[id]
            offsets[id] = update["offset"]
            shown[id] += [value for _, value in update["data"][name]["n"]]
            skipped += update.get("skipped", 0)
            assert id == "l" or "skipped" not in update
        assert shown["e"] == list(range(1, total + 1))
        assert 2 * len(shown["l"]) + skipped == 2 * total
        assert offsets["l"] == offsets["e"]


async def test_several_on_one_socket(gw: Running) -> None:
    """Each goes its own way under its id, two of the same request as well; each message says whose it is."""
    name = fresh()
    async with device(gw, name, {"t": 0, "u": 0}) as say, feed(gw) as one:
        for id, metrics in {"a": ["t"], "b": ["u"], "c": ["t"], "main": []}.items():
            snapshot = await one.subscribe(id=id, devices=[name], metrics=metrics)
            assert snapshot["id"] == id
        await say({"t": 1, "u": 1})
        seen = {}
        for _ in range(4):
            update = await one.next("update")
            seen[update["id"]] = set(update["data"][name])
        assert seen == {"a": {"t"}, "b": {"u"}, "c": {"t"}, "main": {"t", "u"}}
        await one.quiet()


async def test_unsubscribe(gw: Running) -> None:
    """It ends that one alone, without an answer; the id named is ``main`` where none is; a second time is an error."""
    name = fresh()
    async with device(gw, name, {"t": 0}) as say, feed(gw) as one:
        for id in ("a", "b", "main"):
            await one.subscribe(id=id, devices=[name])
        await one.ask({"type": "unsubscribe", "id": "a"}, {"type": "unsubscribe"})
        await one.quiet()
        await say({"t": 1})
        assert (await one.next("update"))["id"] == "b"
        await refused(one, {"type": "unsubscribe", "id": "a"}, "a")
        await one.subscribe(id="a", devices=[name])


async def test_the_same_id_again(gw: Running) -> None:
    """It replaces what was there, whatever changes: devices, metrics, mode; nothing of the old one comes after it."""
    name, other = fresh(), fresh()
    async with device(gw, name, {"t": 0, "u": 0}) as say, device(gw, other, {"t": 0}) as say_other, feed(gw) as one:
        await one.subscribe(id="a", devices=[name], mode="every", interval_ms=50, history_s=60)
        await say({"t": 1})
        await one.ask({"type": "subscribe", "id": "a", "devices": [other]})
        while (message := await one.next())["type"] != "snapshot":  # what was on its way
            assert set(message["data"]) == {name}
        assert set(message["devices"]) == {other}
        await say({"t": 2})
        await say_other({"t": 3})
        assert (await one.next("update"))["data"] == {other: {"t": [[pytest.approx(time.time() * 1e3, abs=6e4), 3]]}}
        await one.subscribe(id="a", devices=[name], metrics=["u"], mode="every")
        await say({"t": 4, "u": 4}, {"t": 5, "u": 5})
        values: list[int] = []
        while values != [4, 5]:
            (series,) = (await one.next("update"))["data"].values()
            assert set(series) == {"u"}
            values += [value for _, value in series["u"]]
        await one.quiet()


async def test_mode(gw: Running) -> None:
    """Who stops reading ``every`` is told by ``mode`` under its id, once, and served by ``latest`` from then on."""
    name, fill = fresh(), "x" * 1000
    async with device(gw, name, {"n": 0}) as say, gw.live(max_queue=1, max_size=None) as ws:
        one = Feed(ws)
        await one.next("hello")
        await one.subscribe(id="e", devices=[name], mode="every", interval_ms=50)
        ws.transport.pause_reading()
        downgraded, n = gw.app.live.hub.downgraded, 0  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            while gw.app.live.hub.downgraded == downgraded:  # type: ignore[union-attr]
                await say(*({"n": (n := n + 1), "s": fill} for _ in range(20)))
        ws.transport.resume_reading()
        seen: list[int] = []
        while (message := await one.next())["type"] != "mode":
            seen += [value for _, value in message["data"][name]["n"]]
        assert message == {"type": "mode", "id": "e", "mode": "latest", "reason": "slow"}
        assert seen == list(range(1, len(seen) + 1))
        await say({"n": (n := n + 1)})
        skipped, shown, values = 0, 0, seen[-1:] or [0]
        while values[-1] != n:
            message = await one.next("update")
            series = message["data"][name]
            values += [value for _, value in series.get("n", [])]
            shown += sum(map(len, series.values()))
            skipped += message.get("skipped", 0)
        assert values == sorted(set(values))
        assert 2 * len(seen) + shown + skipped == 2 * (n - 1) + 1  # all that was sent, of both metrics


# -- history ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["latest", "every"])
@pytest.mark.parametrize("settled", [True, False], ids=["from the store", "from memory"])
@pytest.mark.parametrize(
    ("history_s", "shown"),
    [(0, None), (0.5, []), (90, [4, 5]), (90.5, [4, 5]), (1e6, [3, 4, 5]), (366 * 86_400, [2, 3, 4, 5])],
)
async def test_history(gw: Running, mode: str, settled: bool, history_s: float, shown: list[int] | None) -> None:
    """It reaches back as far as was asked for and no further, comes between snapshot and updates, and has an end."""
    name, now = fresh(), int(time.time() * 1000)
    ages = {1: 400 * 86_400_000, 2: 20 * 86_400_000, 3: 1_000_000, 4: 60_000, 5: 30_000}
    async with device(gw, name, *({"ts": now - age, "n": n} for n, age in ages.items())) as say, feed(gw) as one:
        if settled:
            await gw.rows(name, until=4)
        snapshot = await one.subscribe(devices=[name], history_s=history_s, mode=mode)
        assert snapshot["devices"][name]["values"]["n"] == [now - 30_000, 5]
        if shown is not None:
            history = await one.next("history")
            assert (history["last"], history.get("complete", True)) == (True, True)
            assert history["data"] == ({name: {"n": [[now - ages[n], n] for n in shown]}} if shown else {})
        await say({"ts": now, "n": 6})
        update = await one.next("update")
        assert update["data"] == {name: {"n": [[now, 6]]}}
        assert update["offset"] > snapshot["offset"]


# -- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history_s", [0, 60])
@pytest.mark.parametrize("mode", ["latest", "every"])
@pytest.mark.parametrize(
    ("epoch", "after", "recovered"),
    [
        ("ours", 0, True),
        ("ours", 2, True),
        ("ours", 3, True),
        ("ours", 4, False),
        ("ours", 10**6, False),
        ("ours", -(2**21), False),
        ("ours", -(2**70), False),
        ("ours", 2**70, False),
        ("ours", None, False),
        ("", 0, False),
        ("another", 0, False),
        (None, 0, False),
    ],
)
async def test_resume(
    gw: Running, mode: str, history_s: float, epoch: str | None, after: int | None, recovered: bool
) -> None:
    """Nothing is missing after an offset of this stream that is remembered, and ``recovered`` says just that.

    ``after`` counts from before the first of three readings.  With ``every`` all of them come, once.
    """
    name = fresh()
    async with device(gw, name, {"n": 0}) as say, feed(gw) as one:
        begin = (await one.subscribe(id="x", devices=[name]))["offset"]
        await one.ask({"type": "unsubscribe", "id": "x"})
        await say(*({"n": n} for n in (1, 2, 3)))
        request: dict[str, Any] = {"devices": [name], "mode": mode, "history_s": history_s}
        request["after"] = None if after is None else begin + after
        request["epoch"] = one.hello["epoch"] if epoch == "ours" else epoch
        snapshot = await one.subscribe(**request)
        assert snapshot["recovered"] is recovered
        assert snapshot["devices"][name]["values"]["n"][1] == 3
        resumed = recovered and mode == "every"
        assert snapshot["offset"] == begin + ((after or 0) if resumed else 3)
        values: list[int] = []
        if history_s:
            history = await one.next("history")
            values = [value for _, value in history["data"][name]["n"]]
            assert values == list(range((after or 0) + 1 if resumed else 4))
        await say({"n": 4})
        updates: list[int] = []
        while updates[-1:] != [4]:
            updates += [value for _, value in (await one.next("update"))["data"][name]["n"]]
        assert updates == ([n for n in (1, 2, 3) if n > (after or 0)] if resumed else []) + [4]

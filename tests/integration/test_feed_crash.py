"""The feed over crashes: SIGKILL between the moment a reading is shown and the moment it is on disk.

The daemon is a process, dashboards and devices are ours.  Commits are put off, so that some of what was shown is lost;
what is sent again after a start has another mark, so that two readings can be told apart wherever they are seen.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.running import receive, send
from tools.toolkit.chaos_device import Fleet, until
from tools.toolkit.chaos_rig import Rig

DEVICES = ["a", "b"]
COMMITS_MS = [300, 2000, 20, 300, 300]  # of each life; a reading is sent every 60 ms or so
READINGS = (8, 16)
TIMEOUT_S = 20.0
HISTORY_S = 3600
SLOW_HISTORY = """
import asyncio, gateway.history
write = gateway.history.History.write
async def slow(self, batch):
    await asyncio.sleep(30)
    return await write(self, batch)
gateway.history.History.write = slow
"""

Marks = dict[str, list[str]]  # by device, in the order in which they were sent


def marks_of(data: dict[str, Any]) -> Marks:
    """Those in an update or a history."""
    return {device: [value for _, value in series["m"]] for device, series in data.items() if "m" in series}


def joined(*parts: Marks) -> Marks:
    """One after the other."""
    return {device: [mark for part in parts for mark in part.get(device, [])] for device in DEVICES}


class Stream:
    """What one subscription got."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.snapshot: dict[str, Any] = {}
        self.history: Marks = {}
        self.complete = True
        self.ended = "history_s" not in request  # its history has
        self.updates: list[tuple[int, Marks]] = []

    def take(self, message: dict[str, Any]) -> None:
        """A message of it, held to the order in which they have to come."""
        kind = message["type"]
        if kind == "snapshot":
            assert not self.snapshot
            self.snapshot = message
        elif kind == "history":
            assert self.snapshot
            assert not self.ended
            self.history = joined(self.history, marks_of(message["data"]))
            self.ended, self.complete = message["last"], message.get("complete", True)
        elif kind == "update":
            assert self.ended
            before = self.updates[-1][0] if self.updates else self.snapshot["offset"]
            assert message["offset"] > before
            self.updates.append((message["offset"], marks_of(message["data"])))
        else:
            assert kind == "presence", message

    @property
    def got(self) -> Marks:
        """All values in history and updates."""
        return joined(self.history, *(marks for _, marks in self.updates))


class Life:
    """A dashboard's socket and the devices, from a start of the daemon to its end; ``shown`` has each reading's place.

    The stream ``main`` has all that was shown.
    """

    def __init__(self, url: str, number: int, ws: ClientConnection, hello: dict[str, Any]) -> None:
        self.number = number
        self.hello = hello
        self.streams: dict[str, Stream] = {}
        self.shown: list[tuple[int, str, str]] = []  # offset, device, mark
        self.acked: Marks = {device: [] for device in DEVICES}
        self.sent: Marks = {device: [] for device in DEVICES}
        self.last_seq = dict.fromkeys(DEVICES, 0)
        self._url = url
        self._ws = ws
        self._devices: dict[str, ClientConnection] = {}
        self._changed = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read(ws, self._take))]

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for it; fails after :data:`TIMEOUT_S`."""
        async with asyncio.timeout(TIMEOUT_S):
            while not done():
                await self._changed.wait()
                self._changed.clear()

    async def subscribe(self, id: str, **options: Any) -> Stream:
        """A further subscription, as soon as it has its snapshot and its history."""
        request = {"type": "subscribe", "id": id, "interval_ms": 50, **options}
        stream = self.streams[id] = Stream(request)
        await send(self._ws, request)
        await self.until(lambda: bool(stream.snapshot) and stream.ended)
        return stream

    async def connect_devices(self) -> None:
        """All of them, in the session that they had."""
        for device in DEVICES:
            ws = self._devices[device] = await connect(f"{self._url}/v1/devices/{device}?session=s", compression=None)
            self.last_seq[device] = (await receive(ws, "welcome"))["last_seq"]
            self._tasks.append(asyncio.create_task(self._read(ws, lambda m, d=device: self._ack(d, m))))  # type: ignore[misc]

    async def send(self, device: str) -> None:
        """One reading; returns when it is shown."""
        sent = self.sent[device]
        seq = self.last_seq[device] + len(sent) + 1
        sent.append(f"{device}-{seq} in life {self.number}")
        main = self.streams["main"]
        count = len(main.updates)
        await send(self._devices[device], {"seq": seq, "values": {"m": sent[-1]}})
        await self.until(lambda: len(main.updates) > count)
        offset, marks = main.updates[-1]
        assert marks == {device: [sent[-1]]}
        self.shown.append((offset, device, sent[-1]))

    async def end(self) -> None:
        """The daemon was killed: read what was on its way, and go."""
        await asyncio.wait_for(asyncio.gather(*self._tasks), TIMEOUT_S)

    async def close(self) -> None:
        """Let go of all, daemon or not."""
        for task in self._tasks:
            task.cancel()
        failures = await asyncio.gather(*self._tasks, return_exceptions=True)
        for ws in (self._ws, *self._devices.values()):
            ws.transport.abort()
        for failure in failures:
            if isinstance(failure, AssertionError):
                raise failure

    async def _read(self, ws: ClientConnection, take: Callable[[dict[str, Any]], None]) -> None:
        try:
            while True:
                take(json.loads(await ws.recv()))
                self._changed.set()
        except ConnectionClosed:
            pass

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] != "heartbeat":
            self.streams[message["id"]].take(message)

    def _ack(self, device: str, message: dict[str, Any]) -> None:
        assert message["type"] == "ack", message
        self.acked[device] = self.sent[device][: message["seq"] - self.last_seq[device]]


@asynccontextmanager
async def life(rig: Rig, number: int, patch: str = "", **settings: str) -> AsyncIterator[Life]:
    """Start the daemon, and connect a dashboard at once."""
    await rig.start(patch=patch, **settings)
    url = f"ws://127.0.0.1:{rig.daemon.port}"
    ws = await connect(f"{url}/v1/live", compression=None, max_size=None)
    found = Life(url, number, ws, await receive(ws, "hello"))
    try:
        yield found
    finally:
        await found.close()


async def kept(rig: Rig) -> Marks:
    """What the history has, at a moment when it has all."""
    _, body = await rig.ask(rig.daemon.get, "/api/v1/history?metric=m&from=0")
    found: Marks = {device: [] for device in DEVICES}
    for row in json.loads(body):
        found[row["device"]].append(row["value"])
    return found


def of_lives(marks: Marks, below: int) -> Marks:
    """Those of the lives before one."""
    return {device: [mark for mark in some if int(mark.rpartition(" ")[2]) < below] for device, some in marks.items()}


async def live_and_die(directory: Path) -> tuple[list[Life], Marks]:
    """Several lives.  In each: resuming from places of the life before, then readings, then joining them midway."""
    rng = random.Random(5)
    lives: list[Life] = []
    async with Rig(directory) as rig:
        for number, commit_ms in enumerate(COMMITS_MS):
            async with life(rig, number, GATEWAY_JOURNAL__COMMIT_MS=str(commit_ms)) as now:
                epoch = now.hello["epoch"]
                await now.subscribe("main", mode="every")
                await now.subscribe("start", mode="every", history_s=HISTORY_S)
                if lives:
                    places = [offset for offset, _, _ in lives[-1].shown]
                    for after in {places[0], places[len(places) // 2], places[-2], places[-1]}:
                        for mode in ("every", "latest"):
                            await now.subscribe(f"{mode} {after}", mode=mode, epoch=epoch, after=after)
                await now.connect_devices()
                count = rng.randint(*READINGS)
                for n in range(count):
                    await now.send(DEVICES[n % 2])
                    if n == count // 2:
                        await now.subscribe("midway", mode="every", history_s=HISTORY_S)
                        after = now.shown[n // 2][0]
                        await now.subscribe("resumed", mode="every", history_s=HISTORY_S, epoch=epoch, after=after)
                last = {device: now.sent[device][-1:] for device in DEVICES}
                whole = [now.streams[id] for id in ("main", "start", "midway", "resumed")]
                await now.until(
                    lambda whole=whole, last=last: all(  # type: ignore[misc]
                        stream.got[device][-1:] == last[device] for stream in whole for device in DEVICES
                    )
                )
                await rig.kill()
                await now.end()
            lives.append(now)
        await rig.start()
        deadline = time.monotonic() + TIMEOUT_S
        before: Marks = {}
        while (found := await kept(rig)) != before:
            before = found
            assert time.monotonic() < deadline
            await asyncio.sleep(1.0)
    return lives, found


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Life], Marks]:
    """Lives, each ended by SIGKILL, and what is kept in the end."""
    return asyncio.run(live_and_die(tmp_path_factory.mktemp("crash")))


def of_life(life: Life) -> Marks:
    """What was shown in a life."""
    return joined(*({device: [mark]} for _, device, mark in life.shown))


def test_some_of_what_was_shown_is_lost_and_some_is_kept(past: tuple[list[Life], Marks]) -> None:
    """The crashes fell between show and commit, and behind some commits; what was acked is kept, once, in order."""
    lives, found = past
    lost = [sum(mark not in found[device] for _, device, mark in life.shown) for life in lives]
    assert sum(count > 0 for count in lost) >= 2, lost
    assert any(mark in found[device] for life in lives for _, device, mark in life.shown)
    for device in DEVICES:
        assert len(found[device]) == len(set(found[device]))
        sent = [mark for life in lives for mark in life.sent[device]]
        assert found[device] == [mark for mark in sent if mark in set(found[device])]
        acked = {mark for life in lives for mark in life.acked[device]}
        assert acked
        assert acked <= set(found[device])


def test_no_offset_is_used_twice(past: tuple[list[Life], Marks]) -> None:
    """One epoch; whatever was shown and lost, each life begins beyond it, and offsets only grow."""
    lives, _ = past
    assert len({life.hello["epoch"] for life in lives}) == 1
    reached = -1
    for life in lives:
        assert life.hello["offset"] >= reached
        reached = life.hello["offset"]
        for offset, _, _ in life.shown:
            assert offset > reached
            reached = offset
        for stream in life.streams.values():
            of_this_life = {offset for offset, _ in stream.updates if offset > life.hello["offset"]}
            assert of_this_life <= {offset for offset, _, _ in life.shown}
    readings = {offset: mark for life in lives for offset, _, mark in life.shown}
    assert len(readings) == sum(len(life.shown) for life in lives)
    for life in lives:
        for stream in life.streams.values():
            for offset, some in stream.updates:
                assert readings[offset] in joined(some)[readings[offset][0]]


@pytest.mark.parametrize("id", ["start", "midway"])
def test_history_joins_the_stream_without_a_hole_or_a_repeat(past: tuple[list[Life], Marks], id: str) -> None:
    """Everything that outlived the lives before and everything of this one, each once: nothing that was lost."""
    lives, found = past
    for life in lives:
        stream = life.streams[id]
        want = joined(of_lives(found, life.number), of_life(life))
        assert stream.complete
        assert stream.got == want, life.number
        assert bool(stream.updates)


def test_history_and_a_resume_within_a_life(past: tuple[list[Life], Marks]) -> None:
    """What came after ``after`` comes as updates, all before it as history."""
    for life in past[0]:
        stream = life.streams["resumed"]
        after = stream.request["after"]
        assert stream.snapshot["recovered"] is True
        behind = [(device, mark) for offset, device, mark in life.shown if offset > after]
        assert joined(*(some for _, some in stream.updates)) == joined(*({device: [mark]} for device, mark in behind))
        assert stream.got == joined(of_lives(past[1], life.number), of_life(life))


def test_resume_over_a_crash_lacks_nothing(past: tuple[list[Life], Marks]) -> None:
    """All that was kept since an offset is in the answer, also where that was shown and lost, or shown before a crash.

    ``latest`` has the newest of each series; ``every`` all, in order: what only the journal has, then the new life's.
    """
    lives, found = past
    over_a_crash = 0
    for before, life in pairwise(lives):
        newest = {device: some[-1] for device, some in of_lives(found, life.number).items() if some}
        for stream in life.streams.values():
            after, mode = stream.request.get("after"), stream.request["mode"]
            if after is None:
                continue
            if "history_s" in stream.request:
                assert (stream.snapshot["recovered"], stream.complete) == (True, True)
                assert stream.got == joined(of_lives(found, life.number), of_life(life))
                continue
            missed = [(device, mark) for offset, device, mark in before.shown if offset > after]
            missed = [(device, mark) for device, mark in missed if mark in found[device]]
            assert stream.snapshot["recovered"] is True, (life.number, after, missed)
            shown = {device: state["values"] for device, state in stream.snapshot["devices"].items()}
            assert {device: values["m"][1] for device, values in shown.items() if values} == newest
            if mode == "every":
                over_a_crash += bool(missed)
                assert stream.got == joined(*({device: [mark]} for device, mark in missed), of_life(life))
    assert over_a_crash


async def test_history_while_the_store_lacks_what_the_journal_has(tmp_path: Path) -> None:
    """After a start the store takes in what it had only in memory; a history asked for meanwhile has that as well."""
    async with Rig(tmp_path) as rig, AsyncExitStack() as stack:
        now = await stack.enter_async_context(life(rig, 0, GATEWAY_JOURNAL__COMMIT_MS="5"))
        await now.subscribe("main", mode="every")
        await now.connect_devices()
        for n in range(6):
            await now.send(DEVICES[n % 2])
        await now.until(lambda: now.acked == now.sent)
        await rig.kill()
        await now.end()
        sent = now.sent
        then = await stack.enter_async_context(life(rig, 1, SLOW_HISTORY))
        await then.subscribe("main", mode="every")
        stream = await then.subscribe("joined", mode="every", history_s=HISTORY_S)
        assert stream.history == sent
        assert stream.complete
        await then.connect_devices()
        await then.send("a")
        await then.until(lambda: bool(stream.updates))
        assert stream.got == joined(stream.history, then.sent)
        await rig.kill()


async def watch(url: str, found: dict[str, list[int]]) -> bool:
    """Subscribe to all with history, and note what comes of each device to the end; whether its history is whole."""
    whole = True
    async with connect(f"{url}/v1/live", compression=None, max_size=None) as ws:
        await send(ws, {"type": "subscribe", "mode": "every", "metrics": ["n"], "history_s": 3 * HISTORY_S})
        try:
            while True:
                message = json.loads(await ws.recv())
                for device, series in message.get("data", {}).items():
                    found.setdefault(device, []).extend(value for _, value in series["n"])
                whole = whole and message.get("complete", True)
        except ConnectionClosed:
            return whole


async def test_joining_under_load_over_crashes(tmp_path: Path) -> None:
    """Devices go on from what was kept, so that whoever joins at any moment of any life sees 1, 2, 3 and so on."""
    rng = random.Random(11)
    async with Rig(tmp_path) as rig:
        rig.fleet = Fleet(3)
        count = 0
        for commit_ms in (150, 400, 40):
            await rig.start(GATEWAY_JOURNAL__COMMIT_MS=str(commit_ms))
            url = f"ws://127.0.0.1:{rig.daemon.port}"
            seen: list[dict[str, list[int]]] = []
            watching = []
            async with rig.load(600.0) as fleet:
                for _ in range(4):
                    seen.append({})
                    watching.append(asyncio.create_task(watch(url, seen[-1])))
                    await asyncio.sleep(rng.uniform(0.1, 0.4))
                acked = {device.name: device.acked for device in fleet.devices}
                assert await until(
                    lambda seen=seen, acked=acked: all(  # type: ignore[misc]
                        some.get(name, [0])[-1] >= most for some in seen for name, most in acked.items()
                    ),
                    TIMEOUT_S,
                )
                await rig.kill()
                whole = await asyncio.gather(*watching)
            for some, complete in zip(seen, whole, strict=True):
                for device in fleet.devices:
                    values = some.get(device.name, [])
                    if complete:
                        assert values == list(range(1, len(values) + 1)), device.name
                        assert len(values) >= acked[device.name]
                        count += 1
            assert not [fault for device in fleet.devices for fault in device.faults]
        assert count >= 9

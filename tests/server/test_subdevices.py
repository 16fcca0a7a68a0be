"""Sub-devices behind one connection, over real sockets: whose readings, whose sequence, whose presence."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cbor2
import msgspec
import pytest

from gateway.client import DeviceClient
from gateway.delivery import Delivery
from gateway.devices import DeviceBook
from gateway.ledger import Ledger
from gateway.pipeline import Pipeline
from gateway.reading import Batch, Mark, Reading
from gateway.server import subdevices
from gateway.server.connection import Connection
from gateway.server.device import DeviceEndpoint, Settings
from gateway.ws import Message
from tests.running import Running, acked, gateway, receive, send
from tests.server.test_access import closing
from tests.server.visitor import bearer, gate
from tests.test_delivery_machine import EPOCH, Journal, Socket

TIMEOUT = 10.0


async def row(gw: Running, device: str) -> dict[str, Any]:
    rows = await gw.json("/api/v1/devices")
    return next((row for row in rows if row["device"] == device), {"state": "unknown"})


async def state(gw: Running, device: str, expected: str) -> dict[str, Any]:
    """The device's row, once it is in that state."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            found = await row(gw, device)
            if found["state"] == expected:
                return found
            await asyncio.sleep(0.02)


async def test_readings_are_the_sub_devices_and_the_sequence_is_the_concentrators(tmp_path: Path) -> None:
    """Flat, envelope and array: kept under the names that they bear, acked and resumed as one session."""
    async with gateway(tmp_path) as gw, gw.device("hub", "?session=s1") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "t": 1, "device": "a"}, {"seq": 2, "device": "b", "values": {"t": 2}})
        await send(ws, [{"seq": 3, "t": 3}, {"seq": 4, "t": 4, "device": "a"}, {"seq": 5, "t": 5, "device": "hub"}])
        await acked(ws, 5)
        assert [row["value"] for row in await gw.rows("a", until=2)] == [1, 4]
        assert [row["value"] for row in await gw.rows("b", until=1)] == [2]
        assert [row["value"] for row in await gw.rows("hub", until=2)] == [3, 5]
        for name, count in (("a", 2), ("b", 1), ("hub", 2)):
            ledger = await gw.ledger(name)
            assert (ledger["received"], ledger["stored"]) == (count, count)
        found = await row(gw, "a")
        assert (found["state"], found["via"]) == ("online", "hub")
        assert "via" not in await row(gw, "hub")
        await send(ws, {"seq": 4, "t": 4, "device": "a"}, {"seq": 9, "t": 9, "device": "b"})
        await acked(ws, 9)
        assert ((await gw.ledger("a"))["duplicate"], (await gw.ledger("hub"))["missing"]) == (1, 3)
    async with gateway(tmp_path) as gw, gw.device("hub", "?session=s1") as ws:
        welcome = await receive(ws, "welcome")
        assert (welcome["resumed"], welcome["last_seq"]) == (True, 9)
        assert (await gw.ledger("a"))["stored"] == 2
        assert (await row(gw, "a"))["confirmed"] is False


@pytest.mark.parametrize(("format", "encode"), [("msgpack", msgspec.msgpack.encode), ("cbor", cbor2.dumps)])
async def test_in_binary(tmp_path: Path, format: str, encode: Any) -> None:
    """MessagePack and CBOR name them alike."""
    async with gateway(tmp_path) as gw, gw.device("hub", subprotocols=[f"gateway.v1.{format}"]) as ws:
        await ws.recv()
        await ws.send(encode([{"seq": 1, "t": 1.5, "device": "a"}, {"seq": 2, "values": {"t": 2}, "device": "b"}]))
        await ws.recv()
        assert [(await gw.rows(name, until=1))[0]["value"] for name in "ab"] == [1.5, 2]


async def test_what_may_not_be_named_is_refused_for_good(tmp_path: Path) -> None:
    """A name that is none, and one beyond the bound of devices: an error with the seq, counted, covered by the ack."""
    async with gateway(tmp_path, limits={"max_devices": 2, "max_metrics": 2}) as gw, gw.device("hub") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "t": 1, "device": "a/b"}, {"seq": 2, "t": 1, "device": "a"})
        await send(ws, {"seq": 3, "t": 1, "device": "b"}, {"seq": 4, "u": 1, "v": 1, "w": 1, "device": "a"})
        await send(ws, {"seq": 5, "t": [1], "device": "a"})
        errors = [await receive(ws, "error") for _ in range(4)]
        assert [(error["code"], error["seq"], error.get("device")) for error in errors] == [
            ("bad_device", 1, None),
            ("too_many_devices", 3, None),
            ("too_many_metrics", 4, "a"),
            ("bad_value", 5, "a"),
        ]
        while (await receive(ws, "ack"))["seq"] < 5:
            pass
        assert [(await gw.ledger(name))["rejected"] for name in ("hub", "a")] == [2, 2]
        assert (await gw.ledger("a"))["stored"] == 1


async def test_the_scope_of_the_token_says_which(tmp_path: Path) -> None:
    """That of one device covers no other; one with a glob covers those that match, until it is revoked."""
    async with gate(tmp_path) as gw:
        async with gw.device("pump-1", additional_headers=bearer(gw.token("device:pump-1"))) as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 1, "t": 1, "device": "pump-2"}, {"seq": 2, "t": 2, "device": "pump-1"})
            error = await receive(ws, "error")
            assert (error["code"], error["seq"]) == ("bad_device", 1)
            await send(ws, {"type": "describe", "device": "pump-2", "name": "Two"})
            assert (await receive(ws, "error"))["code"] == "bad_device"
        reader = bearer(gw.token("live:read"))
        token = gw.token("device:hub", "device:pump-*")
        async with gw.device("hub", additional_headers=bearer(token)) as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 1, "t": 1, "device": "pump-2"}, {"seq": 2, "t": 1, "device": "valve"})
            assert (await receive(ws, "error"))["seq"] == 2
            gw.revoke(token)
            assert (await closing(ws))[0] == 1008
        _, _, body = await gw.get("/api/v1/devices", reader)
        rows = {row["device"]: row for row in msgspec.json.decode(body)}
        assert rows.keys() == {"pump-1", "pump-2", "hub"}
        assert (rows["pump-1"]["ledger"]["rejected"], rows["pump-2"]["ledger"]["rejected"]) == (1, 0)
        assert (rows["pump-2"]["state"], rows["pump-2"]["reason"]) == ("offline", "token revoked (concentrator hub)")


async def test_each_has_the_rate_of_a_device(tmp_path: Path) -> None:
    """Who is beyond it holds the one sequence up; without a sequence the others are taken all the same."""
    async with gateway(tmp_path, limits={"device_rate": 1, "device_burst": 3}) as gw:
        async with gw.device("hub") as ws:
            await receive(ws, "welcome")
            await send(ws, [{"t": n, "device": "a"} for n in range(5)] + [{"t": 1}, {"t": 1, "device": "b"}])
            throttled = await receive(ws, "throttled")
            assert throttled["dropped"] == 2
            assert "seq" not in throttled
        assert [(await gw.ledger(name))["throttled"] for name in ("a", "b", "hub")] == [2, 0, 0]
        async with gw.device("hub") as ws:
            await receive(ws, "welcome")
            readings = [{"seq": n, "t": n, "device": "c"} for n in range(1, 6)] + [{"seq": 6, "t": 6, "device": "d"}]
            await send(ws, readings)
            throttled = await receive(ws, "throttled")
            assert (throttled["seq"], throttled["dropped"]) == (4, 3)
            assert (await gw.ledger("d"))["throttled"] == 1
            await send(ws, {"seq": 4, "values": {}, "device": "c"}, {"seq": 5, "values": {}}, readings[5])
            while (await receive(ws, "ack"))["seq"] < 6:
                pass
            assert ((await gw.ledger("c"))["stored"], (await gw.ledger("d"))["stored"]) == (4, 1)


async def test_named_by_formats_that_have_no_device(tmp_path: Path) -> None:
    """Base names of SenML and a tag of line protocol, by settings, where the token covers them."""
    async with gate(tmp_path, subdevices={"senml_base_name": True, "influx_tag": "host"}) as gw:
        headers = bearer(gw.token("device:hub", "device:web-*", "live:read"))
        async with gw.device("hub", "?format=gateway.v1.senml-json", additional_headers=headers) as ws:
            await receive(ws, "welcome")
            await send(ws, [{"bn": "web-3", "n": "t", "u": "Cel", "v": 1}, {"bn": "urn:x:", "n": "t", "v": 2}])
            error = await receive(ws, "error")
            assert (error["code"], "device" in error) == ("bad_device", False)
        async with gw.device("hub", "?format=gateway.v1.influx", additional_headers=headers) as ws:
            await receive(ws, "welcome")
            await ws.send(
                "cpu,host=web-1 idle=1\ncpu,host=web-2 idle=2\ncpu,host=db idle=3\ncpu idle=4\ncpu,host=hub i=5"
            )
            assert (await receive(ws, "error"))["index"] == 2
        _, _, body = await gw.get("/api/v1/devices", headers)
        rows = {row["device"]: row for row in msgspec.json.decode(body)}
        assert {name: row["ledger"]["received"] for name, row in rows.items()} == {
            "hub": 4,
            "web-1": 1,
            "web-2": 1,
            "web-3": 1,
        }
        assert rows["web-3"]["metrics"] == {"t": {"unit": "Cel"}}


async def test_presence(tmp_path: Path) -> None:
    """Online once heard, on a connection that replaces its concentrator's too; offline with the reason at the end."""
    async with gateway(tmp_path) as gw:
        async with gw.device("hub") as ws:
            await receive(ws, "welcome")
            await send(ws, {"type": "describe", "device": "a", "name": "A"}, {"type": "heartbeat", "device": "b"})
            await state(gw, "b", "online")
            assert (await row(gw, "a"))["state"] == "offline"
            await send(ws, {"seq": 1, "values": {}, "device": "a"})
            await acked(ws, 1)
            since = (await state(gw, "a", "online"))["since"]
            async with gw.device("hub") as newer:
                await receive(newer, "welcome")
                assert (await closing(ws))[0] == 4001
                found = await row(gw, "a")
                assert (found["state"], found["since"], found["name"]) == ("online", since, "A")
        found = await state(gw, "a", "offline")
        assert found["reason"].endswith("(concentrator hub)")
        async with gw.device("hub") as ws:
            await receive(ws, "welcome")
            assert (await row(gw, "a"))["state"] == "offline"


async def test_a_device_with_a_connection_of_its_own(tmp_path: Path) -> None:
    """Readings are taken from both; its presence is that of its own connection."""
    async with gateway(tmp_path) as gw, gw.device("hub") as hub:
        await send(hub, {"seq": 1, "t": 1, "device": "a"})
        await receive(hub, "ack")
        async with gw.device("a") as own:
            await receive(own, "welcome")
            await send(own, {"seq": 7, "t": 2})
            await acked(own, 7)
            await send(hub, {"seq": 2, "t": 3, "device": "a"})
            await acked(hub, 2)
            assert "via" not in await row(gw, "a")
            ledger = await gw.ledger("a")
            assert (ledger["received"], ledger["stored"], ledger["duplicate"]) == (3, 3, 0)
        assert "concentrator" not in (await state(gw, "a", "offline"))["reason"]
        await send(hub, {"seq": 3, "t": 4, "device": "a"})
        await acked(hub, 3)
        assert (await state(gw, "a", "online"))["via"] == "hub"


async def test_one_that_two_concentrators_hear(tmp_path: Path) -> None:
    """It is online while one of them is there; commands go by the one that heard it last, and then by the other."""
    async with gateway(tmp_path) as gw, gw.live() as live, gw.device("one") as one:
        await send(one, {"seq": 1, "t": 1, "device": "a"})
        await receive(one, "ack")
        async with gw.device("two") as two:
            await send(two, {"seq": 1, "t": 1, "device": "a"})
            await receive(two, "ack")
            await send(live, {"type": "command", "ref": "x", "device": "a", "name": "first"})
            command = await receive(two, "command")
            assert (command["name"], command["device"]) == ("first", "a")
            await send(two, {"type": "result", "device": "a", "id": command["id"], "ok": True})
        await state(gw, "two", "offline")
        assert (await row(gw, "a"))["state"] == "online"
        await send(live, {"type": "command", "ref": "y", "device": "a", "name": "second"})
        command = await receive(one, "command")
        assert (command["name"], command["device"]) == ("second", "a")


async def test_commands_and_their_results(tmp_path: Path) -> None:
    """A command for a sub-device goes over its concentrator and names it; the id alone answers it as well."""
    async with gateway(tmp_path) as gw, gw.live() as live, gw.device("hub") as hub, gw.device("other") as other:
        await send(live, {"type": "command", "ref": "x", "device": "a", "name": "on"})
        await send(hub, {"seq": 1, "values": {}, "device": "a"})
        command = await receive(hub, "command")
        assert command["device"] == "a"
        await send(other, {"type": "result", "id": command["id"], "ok": True})
        assert (await receive(other, "error"))["code"] == "unknown_command"
        await send(hub, {"type": "result", "id": command["id"], "ok": True, "value": 5})
        while (told := await receive(live, "command_state"))["state"] != "done":
            pass
        assert (told["device"], told["value"]) == ("a", 5)
        await send(hub, {"type": "result", "device": "a", "id": command["id"], "ok": True})
        error = await receive(hub, "error")
        assert (error["code"], error["device"]) == ("unknown_command", "a")


async def test_the_client(tmp_path: Path) -> None:
    """It speaks for sub-devices, and is told whose a command is."""
    async with gateway(tmp_path) as gw, gw.live() as live:
        url = f"ws://127.0.0.1:{gw.port}"
        async with DeviceClient(url, "hub", on_command=lambda command: command.device) as hub:
            await hub.connected(TIMEOUT)
            hub.heartbeat(device="b")
            await hub.send({"t": 1}, device="a")
            await hub.drain(TIMEOUT)
            assert (await state(gw, "b", "online"))["via"] == "hub"
            assert (await gw.ledger("a"))["stored"] == 1
            await send(live, {"type": "command", "ref": "x", "device": "a", "name": "on"})
            while (told := await receive(live, "command_state"))["state"] != "done":
                pass
            assert (told["device"], told["value"]) == ("a", "a")


# -- without sockets, on a clock that is passed ------------------------------------------------------------------------


class Rig:
    """An endpoint on a journal in memory."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.now = 1000.0
        self.journal = Journal([], 0)
        self.book = DeviceBook(directory / "devices.msgpack", rate=100, burst=200, clock=lambda: self.now)
        hub: Any = SimpleNamespace(publish=lambda *_: None, presence=lambda *_: None)
        self.endpoint = DeviceEndpoint(
            self.book,
            Pipeline(self.journal, hub),  # type: ignore[arg-type]
            Delivery(lambda: 0, lambda: 0),
            Settings(**settings),
            now=lambda: int(self.now * 1e9),
            monotonic=lambda: self.now,
        )

    def connect(self, name: str) -> Connection:
        return Connection(self.endpoint, Socket({"session": "s"}, set()), self.book.open(name))  # type: ignore[arg-type]

    def state(self, name: str) -> str | None:
        device = self.book.get(name)
        return device.status.state if device is not None and device.status is not None else None

    def ledger(self, name: str) -> Ledger:
        device = self.book.get(name)
        assert device is not None
        return device.ledger


def say(connection: Connection, *messages: object) -> None:
    for message in messages:
        connection.message(Message.text(msgspec.json.encode(message).decode()))


async def test_it_is_stale_by_its_own_rhythm(tmp_path: Path) -> None:
    """The concentrator's chatter says nothing of it; a word of it does."""
    rig = Rig(tmp_path)
    hub = rig.connect("hub")
    say(hub, {"type": "describe", "device": "a", "interval_s": 10}, {"t": 1, "device": "a"})
    for _ in range(31):
        rig.now += 1
        say(hub, {"t": 1})
        await rig.endpoint.watch()
    assert (rig.state("hub"), rig.state("a")) == ("online", "stale")
    say(hub, {"type": "heartbeat", "device": "a"})
    assert rig.state("a") == "online"


async def test_nobody_is_stale_sooner_or_later_than_it_is_silent(tmp_path: Path) -> None:
    """Not all devices are looked at each second; each is stale from the first round in which it is silent too long.

    Also sub-devices, those that were not read for a while, and all of them after the gateway itself stood still: for
    these two the silence begins anew, and who was stale stays so until it speaks.
    """
    rng = random.Random(4)
    rig = Rig(tmp_path)
    connections = [rig.connect(f"d{number}") for number in range(20)]
    hub = rig.connect("hub")
    remain: set[str] = set()  # stale, although its silence began anew
    stale = stood = 0
    for number in range(8):
        say(hub, {"type": "describe", "device": f"s{number}", "interval_s": 1})
    for second in range(2_000):
        jump = rng.random() < 0.01
        rig.now += 100 if jump else 1 + second % 2  # rounds that are late themselves
        if jump:
            stood += 1
            remain = {
                device.name for device in rig.book if device.link is not None and rig.state(device.name) == "stale"
            }
        for number, connection in enumerate(connections):
            chance, name, rhythm = rng.random(), connection.device.name, connection.device.rhythm
            if connection.device.link is None:
                if chance < 0.1:
                    connections[number] = rig.connect(name)
                    remain.discard(name)
            elif connection.paused:
                if chance < 0.2:
                    connection._resume = None
                    rhythm.begin(rig.now)
                    remain |= {name} if rig.state(name) == "stale" else set()
            elif chance < 0.001:
                connection.closed()
            elif chance < 0.004:
                say(connection, {"type": "describe", "interval_s": 1})
                remain.discard(name)
                connection._resume = cast("Any", object())
            elif chance < 0.005:
                say(connection, {"type": "describe", "interval_s": rng.choice([0.1, 1, 5, 60])})
                remain.discard(name)
            elif chance < 0.005 + 0.5 ** (number % 8):
                say(connection, {"t": 1})
                remain.discard(name)
        if rng.random() < 0.02:
            hub.closed()
            hub = rig.connect("hub")
            remain -= {"hub", *(f"s{number}" for number in range(8))}
        for number in range(8):
            name = f"s{number}"
            if rng.random() < 0.5 ** (number + 1):
                say(hub, {"t": 1, "device": name})
                remain.discard(name)
                remain.discard("hub")
        before = {device.name: rig.state(device.name) for device in rig.book}
        await rig.endpoint.watch()
        for device in [device for device in rig.book if device.link is not None]:
            if device.link is not None and device.link.paused:
                assert rig.state(device.name) == before[device.name]
                continue
            silent = device.rhythm.silence(rig.now) > 0
            assert rig.state(device.name) == ("stale" if silent or device.name in remain else "online"), device.name
            stale += silent
    assert stale > 1_000
    assert stood > 3


async def test_one_that_has_become_quicker_is_stale_by_its_new_rhythm(tmp_path: Path) -> None:
    """Though its time to be looked at had been reckoned by the pauses that it made before; also a sub-device."""
    rig = Rig(tmp_path)
    hub = rig.connect("hub")

    async def speaks(every: int, times: int) -> None:
        for _ in range(times):
            say(hub, {"t": 1}, {"t": 1, "device": "a"})
            for _ in range(every):
                rig.now += 1
                await rig.endpoint.watch()

    await speaks(60, 3)
    await speaks(2, 20)
    for _ in range(9):
        assert (rig.state("hub"), rig.state("a")) == ("online", "online")
        rig.now += 1
        await rig.endpoint.watch()
    assert (rig.state("hub"), rig.state("a")) == ("stale", "stale")


async def test_a_round_that_fails_passes_over_nobody(tmp_path: Path) -> None:
    """Whoever it did not come to is looked at in the next."""
    rig = Rig(tmp_path)
    for number in range(10):
        say(rig.connect(f"d{number}"), {"type": "describe", "interval_s": 5}, {"t": 1})
    failures = 0

    def fails(_: object) -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise RuntimeError

    rig.endpoint.pipeline.on_presence.append(fails)
    for _ in range(18):
        rig.now += 1
        with suppress(RuntimeError):
            await rig.endpoint.watch()
    assert [rig.state(f"d{number}") for number in range(10)] == ["stale"] * 10
    assert failures == 10


async def test_what_is_not_read_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the concentrator is not read, for somebody's rate, nobody behind it becomes stale, nor right afterwards."""
    monkeypatch.setattr(Socket, "peer_gone", True, raising=False)
    monkeypatch.setattr(Socket, "resume", lambda self: None, raising=False)
    rig = Rig(tmp_path, policy="delay")
    hub = rig.connect("hub")
    say(hub, {"type": "describe", "device": "a", "interval_s": 10}, {"t": 1, "device": "a"})
    rig.now += 60
    rig.endpoint._watched = rig.now  # the gateway itself was not away
    say(hub, [{"t": n} for n in range(300)])
    await rig.endpoint.watch()
    assert rig.state("a") == "online"


def test_counts_of_what_comes_both_ways_at_once(tmp_path: Path) -> None:
    """In whatever order a commit tells who waits for it, and with more already given, each ledger adds up."""
    rig = Rig(tmp_path)
    hub, own = rig.connect("hub"), rig.connect("a")
    say(own, {"t": 1})
    say(hub, {"seq": 1, "t": 1, "device": "a"})
    say(own, {"t": 1})
    say(hub, {"seq": 2, "t": 1, "device": "a"})
    group, rig.journal.pending = rig.journal.pending, []
    say(hub, {"seq": 3, "t": 1, "device": "a"}, {"seq": 4, "t": 1, "device": "b"})
    rest, rig.journal.pending = rig.journal.pending, group
    rig.journal.commit()
    assert (rig.ledger("a").stored, rig.ledger("a").in_flight, rig.ledger("b").in_flight) == (4, 1, 1)
    hub_device = rig.book.get("hub")
    assert hub_device is not None
    assert hub_device.session.durable == 2
    rig.journal.pending = rest
    rig.journal.commit()
    assert (rig.ledger("a").stored, rig.ledger("b").stored, hub_device.session.durable) == (5, 1, 4)
    say(hub, {"seq": 5, "t": 1, "device": "a"})
    say(own, {"t": 1})
    say(hub, {"seq": 6, "t": 1, "device": "a"})
    rig.journal.pending.sort(key=lambda entry: entry[2][0])  # told the other way round
    rig.journal.commit()
    assert rig.ledger("a").stored == 8
    say(own, {"t": 1})
    say(hub, {"seq": 7, "t": 1, "device": "a"})
    say(own, {"t": 1})
    rig.journal.commit()
    assert rig.ledger("a").stored == 11


def test_a_connection_that_was_sent_away_makes_nobody_online(tmp_path: Path) -> None:
    """What stands behind it in its last message may still be taken; the connection is gone all the same."""
    rig = Rig(tmp_path)
    hub = rig.connect("hub")
    for _ in range(12):
        rig.journal.refusals = 1
        say(hub, [{"t": 1, "device": "a"}, {"t": 1, "device": "b"}] if rig.now > 1010 else {"t": 1, "device": "a"})
        rig.now += 1
    assert (rig.state("hub"), rig.state("a"), rig.state("b")) == ("offline", "offline", None)


def test_many_are_told_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A concentrator's end is told a slice at a time, and not of those that are back by then."""

    async def run() -> None:
        monkeypatch.setattr(subdevices, "SLICE", 2)
        rig = Rig(tmp_path)
        hub = rig.connect("hub")
        names = [f"s{n}" for n in range(6)]
        say(hub, [{"t": 1, "device": name} for name in names])
        hub.closed()
        assert [rig.state(name) for name in names] == ["offline"] * 2 + ["online"] * 4
        say(rig.connect("hub"), {"t": 1, "device": "s5"})
        for _ in range(3):
            await asyncio.sleep(0)
        assert [rig.state(name) for name in names] == ["offline"] * 5 + ["online"]
        assert not rig.endpoint.heard_by

    asyncio.run(run())


def test_replay_moves_the_session_of_the_concentrator(tmp_path: Path) -> None:
    """Readings of sub-devices, marks and its own, in one sequence; the counts are each device's."""
    book = DeviceBook(tmp_path / "devices.msgpack", rate=10, burst=20)
    items = [
        Reading("hub", "s", 1, 1, 1, {"t": 1}),
        Reading("a", "s", 2, 1, 1, {"t": 1}, 0, "hub"),
        Mark("hub", "s", 3),
        Reading("b", "s", 5, 1, 1, {"t": 1}, 0, "hub"),
        Reading("a", "own", 9, 1, 1, {"t": 1}),
        Reading("c", "t", 7, 1, 1, {"t": 1}, 0, "hub"),
    ]
    book.replay(Batch(0, items, 5))
    hub, a = book.get("hub"), book.get("a")
    assert hub is not None
    assert a is not None
    assert (hub.session.id, hub.session.durable, hub.ledger.stored) == ("t", 7, 1)
    assert (a.session.id, a.session.durable, a.ledger.stored, a.via) == ("own", 9, 2, "")
    book.open("b").via = "hub"
    (tmp_path / "devices.msgpack").write_bytes(book.snapshot(EPOCH, 6))
    again = DeviceBook(tmp_path / "devices.msgpack", rate=10, burst=20)
    again.load(EPOCH)
    assert again.open("b").via == "hub"


def test_older_journals_are_read() -> None:
    """A reading that was written before there were sub-devices has no concentrator."""
    old = msgspec.msgpack.encode([0, "pump-1", "s", 3, 5, 6, {"t": 1.5}, 1])
    assert msgspec.msgpack.decode(old, type=Reading) == Reading("pump-1", "s", 3, 5, 6, {"t": 1.5}, 1)


async def test_a_forgotten_one_is_a_new_one(tmp_path: Path) -> None:
    """What its concentrator says of it afterwards is of the device that is in the book then."""
    rig = Rig(tmp_path)
    hub = rig.connect("hub")
    say(hub, {"type": "describe", "device": "a", "name": "A"})
    rig.book.forget("a")
    say(hub, {"t": 1, "device": "a"})
    device = rig.book.get("a")
    assert device is not None
    assert (device.ledger.received, device.display_name, rig.state("a")) == (1, "a", "online")

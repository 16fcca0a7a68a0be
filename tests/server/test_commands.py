"""Commands on their way: from dashboards, MQTT and the command line to devices, and their states back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.client import DeviceClient
from tests.running import Running, gateway, receive, send
from tests.servers import Missing, Mosquitto

COMMAND = {"type": "command", "ref": "x1", "device": "pump-1", "name": "set_speed", "params": {"rpm": 1200}}


async def states(ws: Any, count: int) -> list[dict[str, Any]]:
    return [await receive(ws, "command_state") for _ in range(count)]


async def test_from_a_dashboard_to_a_device_and_back(tmp_path: Path) -> None:
    """Queued, sent, done with its value, each with the ref; the device gets it with its time to live."""
    async with gateway(tmp_path) as running, running.device("pump-1") as pump, running.live() as live:
        await send(live, COMMAND)
        command = await receive(pump, "command")
        assert (command["name"], command["params"]) == ("set_speed", {"rpm": 1200})
        assert command.keys() == {"type", "id", "name", "params", "expires"}
        await send(pump, {"type": "result", "id": command["id"], "ok": True, "value": 3})
        told = await states(live, 3)
        assert [state["state"] for state in told] == ["queued", "sent", "done"]
        assert {(state["ref"], state["id"], state["device"]) for state in told} == {("x1", command["id"], "pump-1")}
        assert told[-1]["value"] == 3


async def test_a_device_that_is_away_gets_it_when_it_comes(tmp_path: Path) -> None:
    """In order, also after a restart of the gateway; what was not answered comes again and says so."""
    async with gateway(tmp_path) as running, running.live() as live:
        for number in range(3):
            await send(live, {**COMMAND, "name": f"c{number}", "ttl_s": 600})
        assert [state["state"] for state in await states(live, 3)] == ["queued"] * 3
        async with running.device("pump-1") as pump:
            first = await receive(pump, "command")
            assert [first["name"], *[(await receive(pump, "command"))["name"] for _ in range(2)]] == ["c0", "c1", "c2"]
            await send(pump, {"type": "result", "id": first["id"], "ok": False, "value": "no power"})
            assert [state["state"] for state in await states(live, 4)] == ["sent"] * 3 + ["failed"]
    async with gateway(tmp_path) as running, running.device("pump-1") as pump:
        again = [await receive(pump, "command") for _ in range(2)]
        assert [(command["name"], command["again"]) for command in again] == [("c1", True), ("c2", True)]


async def test_another_dashboard_after_a_restart_is_not_told(tmp_path: Path) -> None:
    """What one has sent before a restart is nobody else's after it."""
    async with gateway(tmp_path) as running, running.live() as live:
        await send(live, {**COMMAND, "ttl_s": 600})
        await states(live, 1)
    async with gateway(tmp_path) as running, running.live() as other:
        await send(other, {**COMMAND, "device": "pump-2", "ref": "x2", "ttl_s": 600})
        await states(other, 1)
        for name in ("pump-1", "pump-2"):
            async with running.device(name) as pump:
                command = await receive(pump, "command")
                await send(pump, {"type": "result", "id": command["id"], "ok": True})
                await send(pump, {"seq": 1, "values": {}})
                await receive(pump, "ack")
        assert [(state["device"], state["state"]) for state in await states(other, 2)] == [
            ("pump-2", "sent"), ("pump-2", "done")]  # fmt: skip


async def test_the_same_connection_gets_it_once(tmp_path: Path) -> None:
    """Others that come do not send it again; another connection of the device does."""
    async with gateway(tmp_path) as running, running.live() as live, running.device("pump-1") as pump:
        for number in range(3):
            await send(live, {**COMMAND, "name": f"c{number}"})
        names = [(await receive(pump, "command"))["name"] for _ in range(3)]
        await send(pump, {"seq": 1, "values": {}})
        await receive(pump, "ack")
        assert names == ["c0", "c1", "c2"]
        async with running.device("pump-1") as newer:
            assert (await receive(newer, "command"))["again"] is True


async def test_connections_that_ended_are_let_go(tmp_path: Path) -> None:
    """However long what went out on them waits for its answer."""
    async with gateway(tmp_path) as running, running.live() as live:
        await send(live, {**COMMAND, "ttl_s": 600})
        async with running.device("pump-1") as pump:
            await receive(pump, "command")
            assert running.app.downlink is not None
            await running.app.downlink.watch()
            assert len(running.app.downlink._went) == 1
        async with asyncio.timeout(10):
            while running.app.downlink._went:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with running.device("pump-1") as pump:
            assert (await receive(pump, "command"))["again"] is True


async def test_a_long_ref_is_not_sent_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of a command that was not taken is no longer than of one that was."""
    async with gateway(tmp_path) as running:
        told: list[bytes] = []
        assert running.app.downlink is not None
        running.app.downlink.publish = lambda device, state: told.append(state)
        monkeypatch.setattr("gateway.server.downlink.INBOUND", 0)
        running.app.downlink.received("pump-1", json.dumps({"name": "a", "ref": "r" * 100_000}).encode())
        (state,) = map(json.loads, told)
        assert (state["value"], state["ref"]) == ("too many commands at once", "r" * 128)
        running.app.downlink.received("pump-1", b"no command")
        counts = running.app.downlink.stats()
        assert (counts["refused_queue_full"], counts["refused_bad_command"]) == (1, 1)


async def test_its_time_is_over(tmp_path: Path) -> None:
    """A device that does not come in time never gets it."""
    async with gateway(tmp_path) as running, running.live() as live:
        await send(live, {**COMMAND, "ttl_s": 0.05})
        assert [state["state"] for state in await states(live, 2)] == ["queued", "expired"]
        async with running.device("pump-1") as pump:
            await send(pump, {"seq": 1, "values": {}})
            assert [(await receive(pump))["type"] for _ in range(2)] == ["welcome", "ack"]


async def test_results_that_nobody_waits_for(tmp_path: Path) -> None:
    """They are refused; so is one that is none."""
    async with gateway(tmp_path) as running, running.device("pump-1") as pump:
        for result in ({"id": "c0", "ok": True}, {"id": 5, "ok": True}, {"id": "c0"}, {"id": "c0", "ok": 1}):
            await send(pump, {"type": "result", **result})
        codes = [(await receive(pump, "error"))["code"] for _ in range(4)]
        assert sorted(codes) == ["bad_message", "bad_message", "bad_message", "unknown_command"]


async def test_what_is_no_command(tmp_path: Path) -> None:
    """It is refused with its ref; more than may wait for a device, too."""
    async with gateway(tmp_path) as running, running.live() as live:
        for bad in ({"device": "a/b"}, {"name": ""}, {"params": []}, {"ttl_s": -1}):
            await send(live, {**COMMAND, **bad})
            error = await receive(live, "error")
            assert (error["ref"], error["code"] in ("bad_command", "bad_request")) == ("x1", True), error
        for _ in range(100):
            await send(live, COMMAND)
            await states(live, 1)
        await send(live, COMMAND)
        error = await receive(live, "error")
        assert (error["code"], error["ref"]) == ("queue_full", "x1")


async def test_a_dashboard_that_has_gone(tmp_path: Path) -> None:
    """What it sent goes its way; nobody is told, and nothing of it is held."""
    async with gateway(tmp_path) as running:
        async with running.live() as live:
            await send(live, COMMAND)
            await states(live, 1)
        assert running.app.downlink is not None
        async with asyncio.timeout(10):
            while running.app.downlink.tellers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with running.device("pump-1") as pump:
            command = await receive(pump, "command")
            await send(pump, {"type": "result", "id": command["id"], "ok": True})
            await send(pump, {"seq": 1, "values": {}})
            await receive(pump, "ack")


async def test_the_client_carries_it_out_once(tmp_path: Path) -> None:
    """Over a cut as well: what it has done it answers from memory."""
    done: list[Any] = []

    async with gateway(tmp_path) as running, running.live() as live:
        url = f"ws://127.0.0.1:{running.port}"
        async with DeviceClient(url, "pump-1", on_command=lambda command: done.append(command.params) or 7):
            await send(live, COMMAND)
            told = await states(live, 3)
        assert (done, told[-1]["state"], told[-1]["value"]) == ([{"rpm": 1200}], "done", 7)


async def in_msgpack_and_cbor(running: Running, subprotocol: str) -> str:
    async with running.device("pump-2", subprotocols=[subprotocol]) as pump, running.live() as live:
        await pump.recv()
        await send(live, {**COMMAND, "device": "pump-2"})
        data = await pump.recv()
        assert isinstance(data, bytes)
        return subprotocol


async def test_in_the_device_s_own_format(tmp_path: Path) -> None:
    """A command comes in what the device speaks."""
    async with gateway(tmp_path) as running:
        for subprotocol in ("gateway.v1.msgpack", "gateway.v1.cbor"):
            assert await in_msgpack_and_cbor(running, subprotocol) == subprotocol


async def test_from_mqtt_and_back(tmp_path: Path) -> None:
    """A command that is published is carried out, and its states are published; what is none has failed."""
    from tests.sinks.broker import Subscriber

    try:
        server = Mosquitto(tmp_path / "mosquitto")
    except Missing as missing:
        pytest.skip(str(missing))
    with server, Subscriber(server.port, "gateway/pump-1/#") as subscriber:

        def told() -> list[Any]:
            return [message for message in subscriber.messages if message.topic.endswith("/command/state")]

        state_dir = tmp_path / "state"
        async with gateway(state_dir, mqtt={"url": server.url}) as running, running.device("pump-1") as pump:
            async with asyncio.timeout(20):
                # What a new connection is told first comes after the subscription.
                while not any(message.topic.endswith("/presence") for message in subscriber.messages):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            publish = subscriber.publish
            asked = {"ref": "x1", "name": "set_speed", "params": {"rpm": 5}, "ttl_s": 60}
            await asyncio.to_thread(publish, "gateway/pump-1/command", json.dumps(asked).encode())
            command = await receive(pump, "command")
            await send(pump, {"type": "result", "id": command["id"], "ok": True, "value": "ok"})
            await asyncio.to_thread(publish, "gateway/pump-1/command", b"no JSON")
            await asyncio.to_thread(publish, "gateway/pump-1/command", b'{"ref":"x2","name":""}')
            async with asyncio.timeout(20):
                while len(told()) < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        found = [json.loads(message.payload) for message in told()]
        assert [state["state"] for state in found if state.get("ref") == "x1"] == ["queued", "sent", "done"]
        assert {(state.get("ref"), state["state"]) for state in found if state.get("ref") != "x1"} == {
            (None, "failed"), ("x2", "failed")}  # fmt: skip
        assert not any(message.retain for message in told())


async def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The states are printed, and the exit status says what became of it."""
    state = ["--state-dir", str(tmp_path)]
    async with gateway(tmp_path) as running:
        assert await asyncio.to_thread(main, ["send", "pump-1", "stop", "--ttl", "0.05", *state]) == 75
        assert await asyncio.to_thread(main, ["send", "pump-1", "stop", "--no-wait", "--json", *state]) == 0
        queued = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (queued["state"], queued["device"]) == ("queued", "pump-1")
        async with running.device("pump-1") as pump:
            assert (await receive(pump, "command"))["id"] == queued["id"]
            answers = {"go": (True, 3, 0), "halt": (False, "no\x1b[31m power", 1)}
            for name, (ok, value, status) in answers.items():
                sending = asyncio.create_task(asyncio.to_thread(main, ["send", "pump-1", name, '{"a":1}', *state]))
                command = await receive(pump, "command")
                assert command["params"] == {"a": 1}
                await send(pump, {"type": "result", "id": command["id"], "ok": ok, "value": value})
                assert await sending == status
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1].rstrip(":") for line in lines] == ["queued", "sent", "done", "queued", "sent", "failed"]
        assert "\x1b" not in "".join(lines)
        assert await asyncio.to_thread(main, ["send", "a/b", "stop", *state]) == 1
        assert "device: not a device's name" in capsys.readouterr().err
    for bad in (["pump-1", "x", "[]"], ["pump-1", "x", "{"], ["pump-1", "x", "--ttl", "0"]):
        with pytest.raises(SystemExit) as usage:
            main(["send", *bad, *state])
        assert usage.value.code == 2
    assert main(["send", "pump-1", "stop", *state]) == 69


async def test_those_that_wait_are_listed_and_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the operator, whoever has sent them; who sent one is told that it has expired."""
    state = ["--state-dir", str(tmp_path)]
    async with gateway(tmp_path) as running, running.live() as live:
        await send(live, {**COMMAND, "ttl_s": 600})
        (queued,) = await states(live, 1)
        assert await asyncio.to_thread(main, ["commands", *state]) == 0
        assert [queued["id"], "pump-1", "set_speed", "queued"] == capsys.readouterr().out.splitlines()[1].split()[:4]
        assert await asyncio.to_thread(main, ["commands", "other-*", "--json", *state]) == 0
        assert json.loads(capsys.readouterr().out) == []
        assert await asyncio.to_thread(main, ["commands", "--cancel", queued["id"], *state]) == 0
        (ended,) = await states(live, 1)
        assert (ended["ref"], ended["state"]) == ("x1", "expired")
        assert await asyncio.to_thread(main, ["commands", "--cancel", queued["id"], *state]) == 1
        assert await asyncio.to_thread(main, ["commands", *state]) == 0
        assert capsys.readouterr().out.splitlines() == [f"{queued['id']} expired"]


async def test_integers_that_no_device_can_be_sent(tmp_path: Path) -> None:
    """They are refused, and nothing waits behind them."""
    async with gateway(tmp_path) as running, running.live() as live:
        await send(live, {**COMMAND, "params": {"a": 1 << 70}})
        error = await receive(live, "error")
        assert (error["code"], error["ref"]) == ("bad_command", "x1")
        await send(live, COMMAND)
        async with running.device("pump-1", subprotocols=["gateway.v1.msgpack"]) as pump:
            assert (await receive(pump, "command"))["name"] == "set_speed"


async def test_units_that_change_all_the_time_fill_nothing(tmp_path: Path) -> None:
    """The description, which is journalled whole, is changed by them a hundred times and then now and then."""
    async with gateway(tmp_path, limits={"device_rate": 10_000, "device_burst": 10_000}) as running:
        async with running.device("pump-1", subprotocols=["gateway.v1.senml-json"]) as pump:
            for number in range(300):
                await pump.send(json.dumps([{"n": "t", "u": f"u{number}", "v": number}]))
            await running.rows("pump-1", until=300)
        (row,) = await running.json("/api/v1/devices")
        assert row["metrics"]["t"]["unit"] == "u99"

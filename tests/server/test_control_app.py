"""The control socket of a running gateway: what it says of real devices and real sinks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from websockets.asyncio.client import unix_connect

from gateway.server.control import NAME
from tests.running import Running, acked, gateway, receive, send
from tests.sinks.store import FakeStore, Request, answer

TIMEOUT = 10.0


async def ask(directory: Path, command: str, **params: Any) -> Any:
    """The result of a command, or the joined items of its stream."""
    async with unix_connect(str(directory / NAME), "ws://gateway/control", compression=None) as ws:
        await ws.send(json.dumps({"id": 1, "command": command, "params": params}))
        items: list[Any] = []
        while True:
            answer = json.loads(await asyncio.wait_for(ws.recv(), TIMEOUT))
            if "item" not in answer:
                assert answer["ok"], answer
                return answer["result"] if answer["result"] is not None else items
            items += answer["item"]


async def test_explain_tells_of_a_real_device(tmp_path: Path) -> None:
    """Its numbers add up, why some were refused, and what a broker that is away lacks."""
    async with gateway(tmp_path, mqtt={"url": "mqtt://127.0.0.1:1"}) as running:
        async with running.device("pump-1", "?session=a") as ws:
            await receive(ws, "welcome")
            await send(ws, *({"seq": seq, "t": seq} for seq in range(1, 6)))
            await acked(ws, 5)
            await send(ws, {"seq": 6, "bad name": 1}, {"seq": 5, "t": 0})
            await receive(ws, "error")
            await acked(ws, 6)
        await running.rows("pump-1", "t", 5)
        told = await ask(tmp_path, "explain", device="pump-1")
    assert told["ledger"]["received"] == 7
    assert {part["part"]: part["count"] for part in told["parts"]} == {"stored": 5, "duplicate": 1, "rejected": 1}
    assert told["refusals"]["counts"] == {"bad_name": 1}
    assert told["session"]["last_seq"] == 6
    sinks = {sink["sink"]: sink for sink in told["sinks"]}
    assert sinks["history"]["text"] == "Has taken all that is stored."
    assert (sinks["mqtt"]["waiting"], sinks["mqtt"]["counted"]) == (5, True)


async def test_dead_letters_of_a_real_sink(tmp_path: Path) -> None:
    """What a store refuses is put aside, told of its device, tried again, and counted throughout."""

    def respond(request: Request) -> bytes:
        bad = refusing and any("device=pump-1" in line for line in request.lines)
        return answer(400, '{"code":"invalid","message":"field type conflict"}') if bad else answer(204)

    refusing = True
    async with FakeStore() as store:
        store.respond = respond
        async with gateway(tmp_path, influx={"url": store.url}) as running:
            for name in ("pump-1", "tank"):
                async with running.device(name, "?session=a&ack=delivered") as ws:
                    await receive(ws, "welcome")
                    await send(ws, *({"seq": seq, "t": seq} for seq in range(1, 4)))
                    await acked(ws, 3)
            told = {sink["sink"]: sink for sink in (await ask(tmp_path, "explain", device="pump-1"))["sinks"]}
            (reason,) = told["influx"]["put_aside"]
            assert "field type conflict" in reason
            assert told["influx"]["put_aside"] == {reason: 3}
            assert told["influx"]["text"].startswith("Has taken all that is stored, but what was put aside.")
            other = {sink["sink"]: sink for sink in (await ask(tmp_path, "explain", device="tank"))["sinks"]}
            assert other["influx"]["text"] == "Has taken all that is stored."
            assert await ledger(running) == {"stored": 6, "delivered": 3, "dead_lettered": 3}
            letters = await ask(tmp_path, "dead-letters show", sink="influx")
            assert [letter["item"]["seq"] for letter in letters] == [1, 2, 3]

            (again,) = await ask(tmp_path, "dead-letters retry", sink="influx", offsets=[letters[0]["offset"]])
            assert (again["delivered"], again["left"]) == (0, 1)
            assert "field type conflict" in again["reason"]
            refusing = False
            (again,) = await ask(tmp_path, "dead-letters retry", sink="influx", offsets=[letters[1]["offset"]])
            assert (again["delivered"], again["left"]) == (1, 0)
            assert await ledger(running) == {"stored": 6, "delivered": 4, "dead_lettered": 2}
            (purged,) = await ask(tmp_path, "dead-letters purge", sink="influx", offsets=[letters[2]["offset"]])
            assert purged["purged"] == 1
            assert await ledger(running) == {"stored": 6, "delivered": 4, "dead_lettered": 2}
            summary = {row["sink"]: row for row in await ask(tmp_path, "dead-letters")}
            assert summary["influx"]["count"] == 1


async def ledger(running: Running) -> dict[str, int]:
    """What ``/healthz`` counts of the store's sink, without zeroes; checked to add up."""
    health = await running.json("/healthz")
    (counts,) = [sink["ledger"] for sink in health["sinks"] if sink["name"] == "influx"]
    assert counts["stored"] == sum(counts.values()) - counts["stored"]
    return {name: count for name, count in counts.items() if count}


async def test_devices_are_those_of_the_api(tmp_path: Path) -> None:
    """Row by row."""
    async with gateway(tmp_path) as running, running.device("pump-1") as ws:
        await receive(ws, "welcome")
        assert await ask(tmp_path, "devices") == await running.json("/api/v1/devices")
        assert (await ask(tmp_path, "health"))["devices"] == {"online": 1, "stale": 0, "offline": 0}


async def test_the_socket_is_gone_after_the_stop(tmp_path: Path) -> None:
    """And a client that stays connected does not delay the stop beyond its deadline."""
    async with gateway(tmp_path):
        await unix_connect(str(tmp_path / NAME), "ws://gateway/control", compression=None)
        assert (tmp_path / NAME).exists()
    assert not (tmp_path / NAME).exists()

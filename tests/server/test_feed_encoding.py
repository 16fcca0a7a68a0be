"""What is encoded, and how often: once for all dashboards that asked for the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.server.live import encode_frame
from tests.running import gateway
from tests.server.feeding import FAST, JSON, MSGPACK, Feed, device, feed

SUBSCRIPTIONS = [(JSON, "latest"), (JSON, "every"), (MSGPACK, "every")]
READINGS = 20


@pytest.mark.parametrize("dashboards", [3, 60])
async def test_encoder_calls_do_not_rise_with_dashboards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dashboards: int
) -> None:
    """An update is encoded once a tick and subscription, a presence once a change, a heartbeat once a form; for many
    dashboards no more often than for few, and each of them gets all of it."""
    encoded: Counter[object] = Counter()

    def counted(format: str, message: dict[str, object]) -> Any:
        encoded[message["type"]] += 1
        return encode_frame(format, message)

    monkeypatch.setattr("gateway.app.encode_frame", counted)
    monkeypatch.setattr("gateway.server.live.encode_frame", counted)
    monkeypatch.setattr("gateway.server.live.HEARTBEAT_S", 0.2)
    async with gateway(tmp_path, **FAST) as gw, AsyncExitStack() as stack:
        live = gw.app.live
        assert live is not None
        ticks = beats = 0
        tick, heartbeat = live.hub.tick, live._heartbeat

        def counting_tick() -> bool:
            nonlocal ticks
            ticks += 1
            return tick()

        def counting_heartbeat() -> None:
            nonlocal beats
            beats += 1
            heartbeat()

        monkeypatch.setattr(live.hub, "tick", counting_tick)
        monkeypatch.setattr(live, "_heartbeat", counting_heartbeat)
        say = await stack.enter_async_context(device(gw, "a", {"n": -1}))
        feeds: list[Feed] = []
        for number in range(dashboards):
            subprotocol, mode = SUBSCRIPTIONS[number % len(SUBSCRIPTIONS)]
            one = await stack.enter_async_context(feed(gw, subprotocol))
            await one.subscribe(mode=mode, interval_ms=50)
            feeds.append(one)

        async def seen(one: Feed, last: int) -> Counter[str]:
            kinds: Counter[str] = Counter()
            while True:
                message = await one.next()
                kinds[message["type"]] += 1
                if message["type"] == "update" and message["data"]["a"]["n"][-1][1] == last:
                    return kinds

        # Who has just joined is sent what it lacks alone, once.
        for n in (-2, -1, 0):
            await say({"n": n})
            await asyncio.gather(*(seen(one, n) for one in feeds))
        encoded.clear()
        ticks = beats = 0
        async with device(gw, "b"):
            for n in range(1, READINGS + 1):
                await say({"n": n})
        found = await asyncio.gather(*(seen(one, READINGS) for one in feeds))
        groups = len(SUBSCRIPTIONS)
        assert 0 < encoded["update"] <= groups * ticks
        assert encoded["presence"] <= groups * 2
        assert encoded["heartbeat"] <= 2 * beats
        assert set(encoded) <= {"update", "presence", "heartbeat"}
        assert all(kinds["update"] > 0 and kinds["presence"] > 0 for kinds in found)
        # Those of one subscription got the same, so that all of them together got more than was encoded.
        assert sum(kinds["update"] for kinds in found) == encoded["update"] * dashboards // groups

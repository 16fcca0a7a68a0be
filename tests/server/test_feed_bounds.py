"""What one dashboard costs in memory, whatever it asks for, when it reads nothing of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.reading import Reading
from tests.running import Running, gateway
from tests.server.feeding import FAST, Feed, feed

DEVICES, READINGS, PIECE = 160, 60_000, 500
VALUES = {f"m{n}": "x" * 20 for n in range(4)}


def held(gw: Running) -> int:
    """Bytes that the gateway holds for all dashboards, as it counts them: sockets, and readings not sent yet."""
    assert gw.app.live is not None
    pending = sum(client.pending_bytes for client in gw.live_clients())
    hub = gw.app.live.hub
    ready = [one.own for group in hub._groups.values() for one in group.subscribers.values() if one.own is not None]
    ready += [group.shared for group in hub._groups.values()]
    for own in ready:
        own.weigh(hub.floor)
    return pending + sum(own.size for own in ready)


async def flooded(gw: Running) -> int:
    """Show very many readings of all devices; the most that was held meanwhile."""
    assert gw.app.live is not None
    hub = gw.app.live.hub
    most = 0
    for first in range(0, READINGS, PIECE):
        for n in range(first, first + PIECE):
            hub.publish(Reading(f"load-{n % DEVICES:03}", "s", 0, n, n, VALUES), hub.offset + 1, 100)
        hub.tick()
        most = max(most, held(gw))
        await asyncio.sleep(0)
    return most


async def deaf(one: Feed, *requests: dict[str, Any]) -> None:
    """Read nothing from now on, and ask for this."""
    one.ws.transport.pause_reading()
    await one.ask(*({"type": "subscribe", "interval_ms": 50, **request} for request in requests))
    await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    "requests",
    [
        [{"mode": "every"}],
        [{"mode": "latest"}],
        [{"id": f"s{n}", "mode": "every"} for n in range(16)],
        [{"id": f"s{n}", "mode": "latest", "metrics": [f"m{n % 4}"]} for n in range(16)],
        [{"id": f"s{n}", "mode": "every", "devices": [f"load-{n:02}?"], "interval_ms": 3_600_000} for n in range(16)],
        [{"id": f"s{n}", "mode": "every", "devices": [f"load-{n:02}?"]} for n in range(16)],
        [{"id": f"s{n}", "mode": "every", "devices": [f"load-{n:02}?"], "history_s": 3600} for n in range(16)],
    ],
    ids=[
        "every",
        "latest",
        "every often",
        "latest often",
        "every, seldom",
        "every, other devices each",
        "with history, waiting",
    ],
)
async def test_one_dashboard_that_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: list[dict[str, Any]]
) -> None:
    """It never costs more than 1 MiB, sockets included, however many subscriptions it has."""
    never = asyncio.Event()

    async def answer(question: object) -> None:
        await never.wait()

    monkeypatch.setattr("gateway.server.live.Question.answer", answer)
    async with gateway(tmp_path, **FAST) as gw, feed(gw) as one:
        await deaf(one, *requests)
        most = await flooded(gw)
        one.ws.transport.abort()
        assert 0 < most <= 1 << 20

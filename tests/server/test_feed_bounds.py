"""What one dashboard costs in memory, whatever it asks for, when it reads nothing of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.reading import Reading
from gateway.server.paging import Pages
from tests.running import Running, acked, gateway, receive, send
from tests.server.feeding import FAST, Feed, feed

DEVICES, READINGS, PIECE = 160, 60_000, 500
POINTS = 9_000
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

    async def answer(self: object) -> None:
        await never.wait()

    monkeypatch.setattr("gateway.server.live.Answer.next", answer)
    async with gateway(tmp_path, **FAST) as gw, feed(gw) as one:
        await deaf(one, *requests)
        most = await flooded(gw)
        one.ws.transport.abort()
        assert 0 < most <= 1 << 20


async def test_history_that_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long history a few messages are ready, the rest is not even asked for; others get theirs meanwhile, and what
    was not read in time is left out, which is said."""
    monkeypatch.setattr("gateway.server.live.HISTORY_S", 1.0)
    asked = 0
    told = Pages.told

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return told(*arguments)

    names = ["a", "b", "c"]
    async with gateway(tmp_path, **FAST) as gw:
        for name in names:
            async with gw.device(name) as ws:
                await receive(ws, "welcome")
                for first in range(0, POINTS, 500):
                    await send(ws, [{"seq": first + n + 1, "v": f"{first + n:0>80}"} for n in range(500)])
                await acked(ws, POINTS)
        for name in names:
            await gw.rows(name, until=POINTS)
        monkeypatch.setattr(Pages, "told", counted)
        async with feed(gw) as one, feed(gw) as other:
            await deaf(one, *({"id": f"s{n}", "mode": "every", "history_s": 3600} for n in range(16)))
            most, few = held(gw), asked
            assert 256 * 1024 < most < 1 << 20
            assert few <= 4
            (client,) = (one for one in gw.live_clients() if len(one._reading) > 1)
            monkeypatch.setattr("gateway.server.live.HISTORY_S", 60.0)
            async with feed(gw) as ended:
                await deaf(ended, {"id": "x", "history_s": 3600})
                (its,) = (one for one in gw.live_clients() if "x" in one._reading)
                assert its._held > 0
                await ended.ask({"type": "unsubscribe", "id": "x"})
                async with asyncio.timeout(10):
                    while its._held or its._reading:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                ended.ws.transport.abort()
            await other.subscribe(history_s=3600)
            found: dict[str, list[str]] = {name: [] for name in names}
            last = False
            while not last:
                message = await other.next("history")
                for name, series in message["data"].items():
                    found[name] += [value for _, value in series["v"]]
                last = message["last"]
            assert found == {name: [f"{n:0>80}" for n in range(POINTS)] for name in names}
            async with asyncio.timeout(10):
                while "s0" in client._reading:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            one.ws.transport.resume_reading()
            one.skipped |= {"snapshot", "presence", "history"}
            assert (await one.next("error"))["code"] == "history_failed"

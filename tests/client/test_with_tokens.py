"""The clients against a gateway that asks for tokens, by TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.client import ClientClosed, DeviceClient, LiveClient, Snapshot, Update
from tests.certificates import authority, issue, trusting
from tests.server.visitor import gate


async def forever(what: Callable[[], Awaitable[object]]) -> None:
    """Again and again, until it raises."""
    while True:
        await what()
        await asyncio.sleep(0.01)


async def test_clients_with_tokens_over_tls(tmp_path: Path) -> None:
    """Both work with a token of their scope; what is revoked ends them for good, with the reason."""
    ca = authority(tmp_path)
    pair, tls = issue(tmp_path, ca), trusting(ca)
    state = tmp_path / "state"
    async with gate(state, tls={"cert": pair.cert, "key": pair.key}) as gw, asyncio.timeout(20):
        url = f"wss://localhost:{gw.port}"
        sends, reads = gw.token("device:pump-1"), gw.token("live:read")
        async with LiveClient(url, token=reads, ssl=tls) as live:
            live.subscribe(devices=["pump-*"], interval_ms=50)
            assert isinstance(await live.next(), Snapshot)
            device = DeviceClient(url, "pump-1", token=sends, ssl=tls)
            device.start()
            await device.send({"n": 7})
            assert await device.drain(10)
            while not isinstance(event := await live.next(), Update):
                pass
            assert [point[3] for point in event.points()] == [7]
            gw.revoke(sends)
            with pytest.raises(ClientClosed, match="token revoked") as closed:
                await forever(lambda: device.send({"n": 8}))
            assert closed.value.code == 1008
            gw.revoke(reads)
            with pytest.raises(ClientClosed, match="token revoked"):
                await forever(live.next)


@pytest.mark.parametrize("token", [None, "nonsense"])
async def test_clients_without_one_are_told(tmp_path: Path, token: str | None) -> None:
    """They do not try again and again, and say what is missing."""
    async with gate(tmp_path) as gw, asyncio.timeout(20):
        url = f"ws://127.0.0.1:{gw.port}"
        device, live = DeviceClient(url, "pump-1", token=token), LiveClient(url, token=token)
        for client in (device, live):
            with pytest.raises(ClientClosed, match="token") as closed:
                async with client:
                    await client.connected(10)
            assert closed.value.code == 401
            assert closed.value.hint

"""A gateway in this process, on a free port, with a state directory of its own; and small clients for it."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import msgspec
from websockets.asyncio.client import ClientConnection, connect

from gateway.app import App
from gateway.config import Settings

TIMEOUT = 10.0


class Running:
    """A running gateway's addresses."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.port = app.port

    def device(self, name: str, query: str = "", **options: Any) -> Any:
        """A device's connection, as an async context manager."""
        options.setdefault("compression", None)
        return connect(f"ws://127.0.0.1:{self.port}/v1/devices/{name}{query}", **options)

    def live(self, **options: Any) -> Any:
        """A dashboard's connection, as an async context manager."""
        options.setdefault("compression", None)
        return connect(f"ws://127.0.0.1:{self.port}/v1/live", **options)

    def live_clients(self) -> set[Any]:
        """The dashboards' connections, as the gateway sees them."""
        assert self.app.live is not None
        return self.app.live.clients

    def connections(self) -> list[Any]:
        """All WebSocket connections, as the gateway sees them."""
        assert self.app.server is not None
        return list(self.app.server.connections)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a GET."""
        return await asyncio.to_thread(self._get, path, headers or {})

    def _get(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
        except HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()

    async def json(self, path: str) -> Any:
        """The JSON of a GET that succeeds."""
        status, _, body = await self.get(path)
        assert status == 200, (status, body)
        return json.loads(body)

    async def ledger(self, device: str) -> dict[str, int]:
        """The device's counts, checked to add up."""
        for row in await self.json("/api/v1/devices"):
            if row["device"] == device:
                ledger: dict[str, int] = row["ledger"]
                parts = ("stored", "rejected", "duplicate", "throttled", "dropped", "in_flight")
                assert ledger["received"] == sum(ledger[part] for part in parts)
                return ledger
        raise AssertionError(f"no device {device}")

    async def rows(self, device: str, metric: str = "*", until: int | None = None) -> list[dict[str, Any]]:
        """The device's history; with ``until`` as soon as there are that many rows."""
        deadline = asyncio.get_running_loop().time() + TIMEOUT
        while True:
            rows: list[dict[str, Any]] = await self.json(f"/api/v1/history?device={device}&metric={metric}&from=0")
            if until is None or len(rows) >= until:
                return rows
            assert asyncio.get_running_loop().time() < deadline, f"{len(rows)} rows after {TIMEOUT} s, not {until}"
            await asyncio.sleep(0.02)


@asynccontextmanager
async def gateway(state_dir: Path, **sections: Any) -> AsyncIterator[Running]:
    """Run a gateway; ``sections`` are settings by section, such as ``limits={"device_rate": 5}``."""
    sections.setdefault("listen", {"port": 0})
    settings = Settings(_env_file=None, state_dir=state_dir, **sections)  # type: ignore[call-arg]
    async with App(settings).running() as app:
        yield Running(app)


async def receive(ws: ClientConnection, kind: str | None = None) -> dict[str, Any]:
    """The next message; with ``kind`` the next of that type, others are left out."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            data = await ws.recv()
            message: dict[str, Any] = json.loads(data) if isinstance(data, str) else msgspec.msgpack.decode(data)
            if kind is None or message["type"] == kind:
                return message


async def acked(ws: ClientConnection, seq: int) -> None:
    """Wait for the ack of ``seq`` or more; anything but an ack is a failure."""
    while True:
        message = await receive(ws)
        assert message["type"] == "ack", message
        if message["seq"] >= seq:
            return


async def send(ws: ClientConnection, *messages: Any) -> None:
    """Send each as JSON text."""
    for message in messages:
        await ws.send(message if isinstance(message, str | bytes) else json.dumps(message))

"""Devices that show client certificates, and what ends them while they are connected."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.certificates import Pair, authority, issue, trusting
from tests.running import acked, receive, send
from tests.server.test_access import closing
from tests.server.visitor import Gate, bearer, gate
from tests.test_reload import reload


class Scene:
    """An authority, the gateway's certificate, two devices' of two authorities, and the file of those in force."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.other = authority(directory), authority(directory, "other")
        self.server = issue(directory, self.ca)
        self.pair = issue(directory, self.ca, "pump-1", client=True)
        self.file = directory / "clients.pem"
        shutil.copy(self.ca.cert, self.file)
        self.tls = {"cert": self.server.cert, "key": self.server.key, "client_ca": self.file}

    def connect(self, gw: Gate, name: str, *, pair: Pair | None = None, token: str = "") -> Any:
        return connect(
            f"wss://localhost:{gw.port}/v1/devices/{name}?session=s",
            host="127.0.0.1",
            ssl=trusting(self.ca, pair),
            additional_headers=bearer(token) if token else {},
        )


async def test_an_authority_that_is_replaced_takes_its_devices_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are connected, and one whose handshake was done before; not those with tokens.  One that joins the
    others ends nobody.  The log says which files were others."""
    caplog.set_level(logging.INFO, "gateway")
    scene = Scene(tmp_path)
    async with gate(tmp_path / "state", tls=scene.tls) as gw:
        token = gw.token("device:pump-2")
        async with (
            scene.connect(gw, "pump-1", pair=scene.pair) as shown,
            scene.connect(gw, "pump-2", token=token, pair=scene.pair) as with_token,
        ):
            for ws in (shown, with_token):
                await receive(ws, "welcome")
            await reload(gw)
            assert "read anew: none was changed" in caplog.text
            scene.file.write_text(scene.other.cert.read_text() + scene.ca.cert.read_text())
            await reload(gw)
            assert "the file of GATEWAY_TLS__CLIENT_CA is another" in caplog.text
            await send(shown, {"seq": 1, "t": 1})
            await acked(shown, 1)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", gw.port, ssl=trusting(scene.ca, scene.pair), server_hostname="localhost"
            )
            shutil.copy(scene.other.cert, scene.file)
            await reload(gw)
            assert await closing(shown) == (1008, "certificate authority changed")
            assert "GATEWAY_TLS__CLIENT_CA is another; 1 connection of a client certificate" in caplog.text
            writer.write(
                b"GET /v1/devices/pump-1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            async with asyncio.timeout(20):
                assert (await reader.readline()).split()[1] == b"401"
            writer.close()
            await send(with_token, {"seq": 1, "t": 1})
            await acked(with_token, 1)


async def test_a_certificate_that_expires_ends_its_connection(tmp_path: Path) -> None:
    """At its ``notAfter``, and not before."""
    scene = Scene(tmp_path)
    async with gate(tmp_path / "state", tls=scene.tls) as gw, scene.connect(gw, "pump-1", pair=scene.pair) as ws:
        await receive(ws, "welcome")
        gw.app.access._guests._now = lambda: time.time() + 89 * 86_400
        gw.app.access.watch()
        await send(ws, {"seq": 1, "t": 1})
        await acked(ws, 1)
        gw.app.access._guests._now = lambda: time.time() + 91 * 86_400
        assert await closing(ws) == (1008, "certificate expired")

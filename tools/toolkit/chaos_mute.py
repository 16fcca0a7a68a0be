"""Connections that say next to nothing, by the thousand: on TCP alone, in the TLS handshake, in the middle of a
request, and behind the upgrade without a word of who they are.  A device among them is served all the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_device import HOST
from .chaos_peers import SERVED_WITHIN_S, allow_files
from .chaos_rig import Rig, execute, need
from .frames import upgrade_request
from .proc import resident_bytes

__all__ = ["CASES", "MUTE"]

MUTE = 2000
FILES = 0  # file descriptors that the gateway may have, which bound its handshakes; 0: as many as it gets
AGAIN_S = 0.5  # from the end of one until it connects again
# A handshake of TLS 1.2 without its last bytes: record, type, length, version, and nothing of what they announce.
HALF_HELLO = bytes.fromhex("160301020001000" + "1fc0303") + bytes(100)


@dataclass(frozen=True)
class Kind:
    """What such a connection says, and whether the gateway speaks TLS."""

    name: str
    says: bytes
    tls: bool = False


def kinds(address: str) -> list[Kind]:
    """All there are."""
    return [
        Kind("TCP alone", b""),
        Kind("half a head", b"GET /v1/devices/mute HTTP/1.1\r\nHost: localhost\r\nX-"),
        Kind("no word of who it is", upgrade_request(address, "/v1/live")),
        Kind("TLS, no hello", b"", tls=True),
        Kind("TLS, half a hello", HALF_HELLO, tls=True),
    ]


class Mute(asyncio.Protocol):
    """Says its part, reads nothing of interest, and stays."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.says:
            transport.write(self.says)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    @classmethod
    async def live(cls, port: int, says: bytes, made: list[None], pause: float) -> None:
        """Connect, and again when that is over, until cancelled."""
        await asyncio.sleep(pause)
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError):
                transport, mute = await loop.create_connection(lambda: cls(says), HOST, port)
                made.append(None)
                try:
                    await mute.ended.wait()
                finally:
                    transport.abort()
            await asyncio.sleep(AGAIN_S)


@contextlib.asynccontextmanager
async def crowd(port: int, kind: Kind, count: int) -> AsyncIterator[None]:
    """Keep ``count`` such connections while the block runs; it begins when each has connected once."""
    made: list[None] = []
    tasks = [asyncio.create_task(Mute.live(port, kind.says, made, n / count)) for n in range(count)]
    try:
        async with asyncio.timeout(30):
            while len(made) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def certificate(directory: Path) -> dict[str, str]:
    """Settings with a certificate of its own."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    words = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "3",
        "-subj",
        "/CN=localhost",
    ]
    await execute(need("openssl", "openssl"), "req", "-x509", *words, "-keyout", key, "-out", cert)
    return {"GATEWAY_TLS__CERT": str(cert), "GATEWAY_TLS__KEY": str(key)}


async def token(rig: Rig, *scopes: str) -> str:
    """A token of the running gateway."""
    words = [word for scope in scopes for word in ("--scope", scope)]
    return json.loads(await rig.command("token", "create", *words, "--json"))["token"]


async def mute(rig: Rig) -> None:
    """2,000 connections of each kind hold on; devices among them are served within two seconds."""
    allow_files(4 * MUTE)
    prefix = [need("prlimit", "util-linux"), f"--nofile={FILES}"] if FILES else None
    secret = ""
    for settings in ({}, await certificate(rig.directory)):
        await rig.start(prefix=prefix, GATEWAY_AUTH__MODE="token", **settings)
        secret = secret or await token(rig, "device:quick-*")
        for kind in kinds(HOST):
            if kind.tls is bool(settings):
                await hold(rig, kind, secret)
                if rig.faults:
                    return
        if await rig.terminate(10.0) is None:
            rig.fault("the gateway did not stop")


async def hold(rig: Rig, kind: Kind, secret: str) -> None:
    """One kind of them, and devices among them."""
    before, slowest = resident_bytes(rig.daemon.pid), 0.0
    async with crowd(rig.daemon.port, kind, MUTE):
        await asyncio.sleep(rig.seconds)
        grown = resident_bytes(rig.daemon.pid) - before
        for number in range(rig.rounds):
            slowest = max(slowest, await served(rig, f"quick-{number}", secret, kind))
    rig.notes.append(f"{kind.name}: {slowest * 1000:.0f} ms, {grown / MUTE / 1024:.1f} KiB each")


async def served(rig: Rig, name: str, secret: str, kind: Kind) -> float:
    """Connect, send, wait for the ack; the seconds that took."""
    context = None
    if kind.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    scheme = "wss" if kind.tls else "ws"
    begin = time.monotonic()
    rig.past_sent += 1
    try:
        async with (
            asyncio.timeout(SERVED_WITHIN_S),
            connect(
                f"{scheme}://{HOST}:{rig.daemon.port}/v1/devices/{name}",
                additional_headers={"Authorization": f"Bearer {secret}"},
                ssl=context,
                open_timeout=None,
            ) as ws,
        ):
            await ws.send('{"seq":1,"t":21.5}')
            while json.loads(await ws.recv())["type"] != "ack":
                pass
            took = time.monotonic() - begin
            rig.past_acked += 1
            return took
    except (OSError, WebSocketException, TimeoutError) as error:
        rig.fault(f"{kind.name}: {name} was not served within {SERVED_WITHIN_S:.0f} s: {error!r}")
        return SERVED_WITHIN_S


CASES = {
    "mute": Case(
        "mute",
        "2,000 connections that say nothing, of each kind, and devices among them",
        mute,
        {"silent-stay": Control(faults.SILENT_STAY, "was not served within")},
        rounds=3,
        seconds=1.0,
    ),
}

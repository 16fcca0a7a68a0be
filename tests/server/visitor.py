"""Requests as they stand on the wire, over TCP or TLS, from any address of this machine; gateways with tokens."""

from __future__ import annotations

import asyncio
import base64
import itertools
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.running import TIMEOUT, Running, gateway

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_sources = itertools.count(1)


class Answer(NamedTuple):
    """Status, headers and body; of an upgrade the first bytes behind it."""

    status: int
    headers: dict[str, str]
    body: bytes


def bearer(token: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {token}"}


def basic(device: str, token: str) -> dict[str, str]:
    """The header of a device and its token."""
    return {"Authorization": "Basic " + base64.b64encode(f"{device}:{token}".encode()).decode()}


def cookie(session: str) -> dict[str, str]:
    """The header of a browser's session."""
    return {"Cookie": f"gateway_session={session}"}


def another_address() -> str:
    """An address of this machine that nobody has failed from yet."""
    number = next(_sources)
    return f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"


async def ask(
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    upgrade: bool = False,
    host: str | None = "localhost",
    tls: ssl.SSLContext | None = None,
    source: str | None = None,
) -> Answer:
    """One request; the answer is read to its end, an upgraded connection is dropped behind its head."""
    lines = [f"{method} {path} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    options: dict[str, Any] = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
    local = (source or another_address(), 0)
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=local, **options)
        try:
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split(" ")[1])
            fields = dict(line.split(": ", 1) for line in head[1:] if line)
            body = b"" if status == 101 else await reader.read()
        finally:
            writer.transport.abort()
    return Answer(status, {name.lower(): value for name, value in fields.items()}, body)


class Gate(Running):
    """A running gateway that asks for tokens, and tokens of it."""

    def token(self, *scopes: str, expires_s: float | None = None) -> str:
        """A new token."""
        return self.app.tokens.create(scopes, expires_s=expires_s)[1]

    def revoke(self, token: str) -> None:
        """End a token."""
        self.app.tokens.revoke(token.partition(".")[0])

    def stats(self) -> dict[str, float]:
        """What access has counted."""
        return self.app.access.stats()


@asynccontextmanager
async def gate(state_dir: Path, **sections: Any) -> AsyncIterator[Gate]:
    """A gateway in mode ``token``."""
    async with gateway(state_dir, **{"auth": {"mode": "token"}, **sections}) as running:
        yield Gate(running.app)

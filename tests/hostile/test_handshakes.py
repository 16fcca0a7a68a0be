"""Handshakes of TLS by the hundred, finished or not: nothing of them stays, whether the collector looks or not."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import certificates
from tests.running import gateway

EACH = 25


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The cyclic collector stands still."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def first_flight(context: ssl.SSLContext) -> bytes:
    """What a client begins with."""
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


async def unfinished(port: int, said: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    await asyncio.sleep(0)
    writer.transport.abort()


async def finished(port: int, context: ssl.SSLContext, request: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(request)
    if request:
        assert await reader.readline()
    writer.transport.abort()


async def test_nothing_of_them_stays(tmp_path: Path, uncollected: None) -> None:
    """Memory is as flat behind hundreds of strangers as behind the first."""
    pair = certificates.issue(tmp_path, ca := certificates.authority(tmp_path))
    client = certificates.trusting(ca)
    hello = first_flight(client)
    tls = {"cert": pair.cert, "key": pair.key, "client_ca": ca.cert}
    async with gateway(tmp_path / "state", tls=tls, auth={"mode": "token"}) as gw:
        assert gw.app.tls is not None
        kind = type("Watched", (ssl.SSLObject,), {})
        gw.app.tls.context.sslobject_class = kind
        head = b"GET /v1/devices/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(EACH):
            for said in (b"", b"\x16", hello[:100], hello, hello + b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n"):
                await unfinished(gw.port, said)
            for request in (b"", head):
                await finished(gw.port, client, request)
        stats = gw.app.server.stats
        async with asyncio.timeout(20):
            while stats()["transports"] or any(type(found) is kind for found in gc.get_objects()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert stats()["handler_errors"] == 0

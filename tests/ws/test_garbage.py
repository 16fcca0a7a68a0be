"""What is over is freed at once: nothing of a connection waits for the cyclic collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from websockets.asyncio.client import connect

from gateway.ws import Connection, Message, Response, Router, Server, message_handler
from tests import certificates


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The cyclic collector stands still."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def hello(port: int, context: ssl.SSLContext) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.transport.abort()


async def stranger(port: int, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")  # no TLS
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.transport.abort()


async def page(port: int, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.read()
    writer.transport.abort()


async def socket(port: int, context: ssl.SSLContext) -> None:
    async with connect(f"wss://127.0.0.1:{port}/socket", ssl=context) as ws:
        await ws.send("a")
        assert await ws.recv() == "a"


@pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("visit", [hello, stranger, page, socket])
def test_a_connection_over_tls(
    tmp_path: Path, visit: Callable[[int, ssl.SSLContext], Any], loop: Any, uncollected: None
) -> None:
    """Its TLS state is gone when it is: a peer that connects thousands of times fills nothing."""
    ca = certificates.authority(tmp_path)
    pair = certificates.issue(tmp_path, ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    made: list[weakref.ref[ssl.SSLObject]] = []
    context.sslobject_class = type("Watched", (ssl.SSLObject,), {})

    router = Router()
    router.get("/page", lambda request: Response(200, "ok"))

    def echo(ws: Connection, message: Message) -> None:
        ws.try_send(message)

    router.websocket("/socket", message_handler(echo, inline=True))

    async def run() -> None:
        async with Server(router, port=0, ssl=context) as server:
            for _ in range(5):
                await visit(server.port, certificates.trusting(ca))
            async with asyncio.timeout(10):
                while server.stats()["transports"] or server.stats()["handshakes"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            for _ in range(3):
                await asyncio.sleep(0)
            made.extend(weakref.ref(found) for found in gc.get_objects() if type(found) is context.sslobject_class)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
    assert [found for found in made if found() is not None] == []

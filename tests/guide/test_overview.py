"""The guide, "Overview": its key features that have no chapter of their own, and the limits they need."""

from __future__ import annotations

import asyncio
import re
import socket
from itertools import groupby
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed as ClientClosed
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Origin, Subprotocol

from gateway.ws import Connection, Message, Router, message_handler

from .support import dial, eventually, running


def echo(ws: Connection, message: Message) -> Message:
    return message


def echoing(**options: Any) -> Router:
    router = Router()
    router.websocket("/", message_handler(echo, inline=True), **options)
    return router


async def refusal(connection: connect) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refused:
        await connection
    return refused.value


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v1", "v2"], "v2"),
        (["unknown", "v1"], "v1"),
        (["unknown"], None),
        (["V2"], None),
        ([], None),
    ],
)
async def test_the_subprotocol_is_chosen_from_the_servers_list(offered: list[str], chosen: str | None) -> None:
    """The guide's promise of negotiation: the server's first choice among those offered, none where none fits."""
    seen: list[str | None] = []
    router = Router()
    router.websocket(
        "/", message_handler(echo, opened=lambda ws: seen.append(ws.subprotocol)), subprotocols=("v2", "v1")
    )
    router.websocket("/none", message_handler(echo, opened=lambda ws: seen.append(ws.subprotocol)))
    subprotocols = [Subprotocol(name) for name in offered] or None
    async with running(router) as server:
        async with dial(server, subprotocols=subprotocols) as client:
            assert client.subprotocol == chosen
        async with dial(server, "/none", subprotocols=subprotocols) as client:
            # A server without a list never echoes what was offered first.
            assert client.subprotocol is None
    assert seen == [chosen, None]


async def test_the_origin_is_checked() -> None:
    """A browser's page from elsewhere is refused with 403 before the upgrade; a list is per server or per route."""
    router = echoing(origins=["https://here.example", re.compile(r"https://[a-z]+\.here\.example"), None])
    router.websocket("/strict", message_handler(echo))
    router.websocket("/any", message_handler(echo), origins=[re.compile(".*"), None])
    async with running(router, origins=["https://strict.example"]) as server:
        for path, origin in (
            ("/", "https://here.example"),
            ("/", "https://www.here.example"),
            ("/", None),
            ("/strict", "https://strict.example"),
            ("/any", "https://evil.example"),
        ):
            async with dial(server, path, origin=origin) as client:
                await client.send("in")
                assert await client.recv() == "in"
        for path, origin in (
            ("/", "https://evil.example"),
            ("/", "http://here.example"),
            ("/", "https://here.example.evil.example"),
            ("/", "https://www.here.example.evil"),
            ("/", "null"),
            ("/strict", "https://here.example"),
            ("/strict", None),
        ):
            refused = await refusal(dial(server, path, origin=None if origin is None else Origin(origin)))
            assert refused.response.status_code == 403
        assert server.stats()["refused_403"] == 7


async def test_what_is_no_handshake_is_told_so() -> None:
    """The guide's promise of the upgrade: anything but a handshake gets an answer in HTTP and no connection."""

    async def ask(head: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.split(b"\r\n")[0].removeprefix(b"HTTP/1.1 ")

    upgrade = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    async with running(echoing()) as server:
        assert await ask("GET / HTTP/1.1\nHost: x") == b"426 Upgrade Required"
        assert await ask("GET /nowhere HTTP/1.1\nHost: x") == b"404 Not Found"
        assert await ask("POST / HTTP/1.1\nHost: x\nContent-Length: 0") == b"405 Method Not Allowed"
        assert await ask(f"GET / HTTP/1.1\nHost: x\n{upgrade}") == b"400 Bad Request"
        assert await ask(f"GET / HTTP/1.1\n{upgrade}\n{key}") == b"400 Bad Request"
        assert await ask(f"GET / HTTP/1.1\nHost: x\n{upgrade}\nSec-WebSocket-Key: short") == b"400 Bad Request"
        assert await ask(f"GET / HTTP/1.1\nHost: x\n{upgrade[:-2]}12\n{key}") == b"426 Upgrade Required"
        assert await ask("this is not HTTP") == b"400 Bad Request"
        assert server.stats()["opened"] == 0


async def test_a_message_has_a_limit() -> None:
    """A message up to the limit passes; above it, in one frame or in fragments, 1009; a route can have its own."""
    router = echoing()
    router.websocket("/small", message_handler(echo), max_message_bytes=10)
    async with running(router, max_message_bytes=1000) as server:
        for path, limit in (("/", 1000), ("/small", 10)):
            async with dial(server, path) as client:
                await client.send("x" * limit)
                assert await client.recv() == "x" * limit
                await client.send([b"x" * (limit - 1), b"y"])
                assert await client.recv() == b"x" * (limit - 1) + b"y"
                # Bytes count, not characters.
                await client.send("é" * (limit // 2) + "z")
                await client.wait_closed()
                assert client.close_code == 1009
            async with dial(server, path) as client:
                await client.send([b"x" * (limit - 1), b"yz"])
                await client.wait_closed()
                assert client.close_code == 1009


async def test_connections_have_limits() -> None:
    """In all and per address: who comes too much gets 503 or 429 and when to try again; who leaves makes room."""
    for limit, status in (({"max_connections": 2}, 503), ({"max_per_address": 2}, 429)):
        async with running(echoing(), **limit) as server, dial(server), dial(server) as client:
            refused = await refusal(dial(server))
            assert refused.response.status_code == status
            assert int(refused.response.headers["Retry-After"]) > 0
            await client.close()
            await eventually(lambda server=server: server.stats()["transports"] == 1)
            async with dial(server) as another:
                await another.send("in")
                assert await another.recv() == "in"


async def test_a_handshake_has_a_time() -> None:
    """Who connects and asks for nothing, or for half of it, is answered with 408 and dropped."""
    async with running(echoing(), handshake_timeout=0.2) as server:
        for half in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(half)
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            writer.close()
            await writer.wait_closed()
        assert server.stats()["refused_408"] == 2


async def test_a_client_that_reconnects_finds_the_next_server() -> None:
    """The guide's promise of reconnection: over restarts on one socket a client is told 1001, and comes back."""
    listener = socket.create_server(("127.0.0.1", 0))
    talk: list[str] = []
    codes: list[int | None] = []
    refusals: list[int] = []
    current = 0

    async def client() -> None:
        while len(codes) < 3:
            connection = connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/", proxy=None)
            try:
                async with connection as ws:
                    while ws.close_code is None:
                        await ws.send(f"server {current}")
                        talk.append(str(await ws.recv()))
            except ClientClosed as closed:
                codes.append(closed.rcvd and closed.rcvd.code)
            except InvalidStatus as refused:
                # The old server answers while it stops.
                refusals.append(refused.response.status_code)
            except (InvalidHandshake, ConnectionError):
                # It had no time to answer.
                pass
            await asyncio.sleep(0.005)

    with listener:
        talking = asyncio.create_task(client())
        for number in (1, 2, 3):
            current = number
            async with running(echoing(), sock=listener.dup()):
                await eventually(lambda number=number: f"server {number}" in talk)
        await asyncio.wait_for(talking, 5)
    assert [word for word, _ in groupby(talk)] == ["server 1", "server 2", "server 3"]
    assert codes == [1001] * 3
    assert set(refusals) <= {503}

"""Listening sockets that somebody else holds as well: a server goes, the next comes, and nobody is refused."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.ws import Router, Server, message_handler
from tests.certificates import authority, issue, trusting

from .support import echo, eventually, no_loop_errors

BOTH_LOOPS = True


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """The manager's socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def serve(*held: socket.socket) -> Server:
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))
    router.get("/page", lambda request: request.refuse(200, "here"))
    return Server(router, sock=[sock.dup() for sock in held], shared=True, stop_timeout=3)


async def test_a_change_of_servers_refuses_nobody(held: socket.socket) -> None:
    """Clients that connect without pause all get through, before, while and after one server follows another."""
    port = held.getsockname()[1]
    connected = 0
    done = False
    codes: set[int | None] = set()

    async def client() -> None:
        nonlocal connected
        while not done:
            async with connect(f"ws://127.0.0.1:{port}/", compression=None, open_timeout=20) as ws:
                try:
                    await ws.send("hello")
                    assert await ws.recv() == "hello"
                except ConnectionClosed:
                    codes.add(ws.close_code)
                connected += 1

    with no_loop_errors():
        clients = [asyncio.create_task(client()) for _ in range(4)]
        for _ in range(3):
            async with serve(held):
                before = connected
                await eventually(lambda before=before: connected > before + 20, 20)
        done = True
        async with serve(held):
            await asyncio.wait_for(asyncio.gather(*clients), 20)
    assert codes <= {1001}


async def test_who_was_accepted_is_answered(held: socket.socket) -> None:
    """A request that comes after the stop has begun is answered, a WebSocket connection opened and closed with 1001."""
    port = held.getsockname()[1]
    with no_loop_errors():
        async with serve(held) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            other = await asyncio.open_connection("127.0.0.1", port)
            await eventually(lambda: server.stats()["handshakes"] == 2)
            server.close()
            await asyncio.sleep(0.02)
            writer.write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
            key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            other[1].write(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + key + b"\r\n"
            )
            answer = await asyncio.wait_for(other[0].readuntil(b"\r\n\r\n"), 5)
            assert answer.startswith(b"HTTP/1.1 101")
            frame = await asyncio.wait_for(other[0].readexactly(4), 5)
            assert frame[0] == 0x88
            assert int.from_bytes(frame[2:4], "big") == 1001
            for each in (writer, other[1]):
                each.close()


async def test_the_silent_do_not_hold_up_the_stop(held: socket.socket) -> None:
    """Whoever was accepted and says nothing is cut."""
    loop = asyncio.get_running_loop()
    async with serve(held) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await eventually(lambda: server.stats()["handshakes"] == 1)
        began = loop.time()
        server.close()
        await server.wait_closed()
        assert loop.time() - began < 2
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_several_sockets(held: socket.socket, tmp_path: object) -> None:
    """All are served, of whatever family; the port is that of the first that has one."""
    path = f"{tmp_path}/s"
    with closing(socket.socket(socket.AF_UNIX)) as local:
        local.bind(path)
        local.listen()
        async with serve(local, held) as server:
            assert server.port == held.getsockname()[1]
            for reader, writer in (
                await asyncio.open_unix_connection(path),
                await asyncio.open_connection("127.0.0.1", server.port),
            ):
                writer.write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
                writer.close()


async def test_a_tls_handshake_that_a_stop_meets_is_finished(held: socket.socket, tmp_path: Path) -> None:
    """Whoever was accepted and is still at TLS when the stop begins gets through, and its answer."""
    ca = authority(tmp_path)
    pair = issue(tmp_path, ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    router = Router()
    router.get("/page", lambda request: request.refuse(200, "here"))
    loop = asyncio.get_running_loop()
    async with Server(router, sock=held.dup(), shared=True, ssl=context, stop_timeout=3) as server:
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await eventually(lambda: server.stats()["handshakes"] == 1)
        server.close()
        await asyncio.sleep(0.02)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting(ca), server_hostname="localhost")
        writer.write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()

"""Connections that do not get through TLS: bounded, timed, and gone at the stop."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.ws import Router, Server, message_handler

from .support import echo, eventually, no_loop_errors

BOTH_LOOPS = True

Context = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A server's context, and that of a client that trusts it."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not on this machine.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, ssl.create_default_context(cafile=str(cert))


@asynccontextmanager
async def secure(contexts: Context, **options: Any) -> AsyncIterator[Server]:
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))
    with no_loop_errors():
        async with Server(router, ssl=contexts[0], **{"stop_timeout": 3, **options}) as server:
            yield server


async def talk(server: Server, contexts: Context, path: Path | None = None) -> None:
    """One connection that does get through."""
    async with connect(f"wss://localhost:{server.port}/", ssl=contexts[1], host="127.0.0.1") as client:
        await client.send("hello")
        assert await client.recv() == "hello"


async def silent(server: Server, count: int) -> list[socket.socket]:
    """TCP connections that say nothing."""
    loop = asyncio.get_running_loop()
    socks = []
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        socks.append(sock)
    return socks


def gone(sock: socket.socket) -> bool:
    """Whether the other side has ended the connection."""
    try:
        return sock.recv(10) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_silent_connections_end_after_handshake_timeout(contexts: Context) -> None:
    """handshake_timeout covers TLS, and they are counted once."""
    async with secure(contexts, handshake_timeout=0.3) as server:
        socks = await silent(server, 5)
        await eventually(lambda: server.stats()["handshakes"] == 5)
        await eventually(lambda: all(map(gone, socks)), 3)
        await eventually(lambda: server.stats()["handshakes"] == 0)
        assert server.stats()["handshakes_failed"] == 5
        assert server.stats()["handshakes_cut"] == 0
        await talk(server, contexts)
        for sock in socks:
            sock.close()


async def test_silent_connections_give_way(contexts: Context) -> None:
    """At max_handshakes the oldest goes, and one that speaks gets through."""
    async with secure(contexts, max_handshakes=5, handshake_timeout=20) as server:
        socks = await silent(server, 12)
        await eventually(lambda: server.stats()["accepted"] == 12)
        await eventually(lambda: sum(map(gone, socks)) == 7)
        assert server.stats()["handshakes"] == 5
        await talk(server, contexts)
        assert server.stats()["handshakes_cut"] == 8
        assert server.stats()["handshakes_failed"] == 0
        for sock in socks:
            sock.close()


async def test_a_stop_ends_them(contexts: Context) -> None:
    """No connection is left when wait_closed comes back, and it comes back at once."""
    loop = asyncio.get_running_loop()
    async with secure(contexts, handshake_timeout=20) as server:
        socks = await silent(server, 5)
        await eventually(lambda: server.stats()["handshakes"] == 5)
        started = loop.time()
        server.close()
        await server.wait_closed()
        assert loop.time() - started < 2
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert server.stats()["handshakes"] == 0
    await eventually(lambda: all(map(gone, socks)))
    for sock in socks:
        sock.close()


async def test_what_is_no_tls_is_counted_and_nothing_more(contexts: Context) -> None:
    """Plain HTTP, rubbish, and an end in the middle; each is a failed handshake."""
    async with secure(contexts) as server:
        for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00", bytes(300), b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            writer.write_eof()
            try:
                await asyncio.wait_for(reader.read(), 5)
            except ConnectionError:
                pass
            writer.close()
        await eventually(lambda: server.stats()["handshakes_failed"] == 4)
        await talk(server, contexts)
        assert server.stats()["handshakes"] == 0


async def test_silence_behind_tls_is_silence_too(contexts: Context) -> None:
    """Whoever does not ask after the TLS handshake has what is left of handshake_timeout, then 408."""
    async with secure(contexts, handshake_timeout=0.4) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=contexts[1], server_hostname="localhost"
        )
        assert (await asyncio.wait_for(reader.read(), 3)).startswith(b"HTTP/1.1 408")
        writer.close()
        await writer.wait_closed()


async def test_no_descriptor_left(contexts: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that cannot be taken ends at once, is counted, and holds nothing; the next gets through."""

    def dup(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with secure(contexts, handshake_timeout=20) as server:
        monkeypatch.setattr("gateway.ws.secure.os.dup", dup)
        socks = await silent(server, 3)
        await eventually(lambda: all(map(gone, socks)))
        assert server.stats()["handshakes"] == 0
        assert server.stats()["handshakes_failed"] == 3
        monkeypatch.undo()
        await talk(server, contexts)
        for sock in socks:
            sock.close()

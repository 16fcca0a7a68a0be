"""The three stalls of the ``websockets`` library, each shown on its own server first, then bounded on ours.

The stalled peer keeps its connection open and never reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed as LibraryClosed

from gateway.ws import Connection, ConnectionClosed, Router, Server, websocket_handler

from .support import Raw, eventually, no_loop_errors, open_raw, serving

pytestmark = pytest.mark.alone

BOTH_LOOPS = True

LARGE = b"x" * (8 << 20)  # more than the buffers of both kernels hold


@asynccontextmanager
async def never_reads(port: int) -> AsyncIterator[Raw]:
    """A connected peer that will not read."""
    async with open_raw(port, recv_buffer=4096) as raw:
        raw.writer.transport.pause_reading()
        yield raw


@asynccontextmanager
async def library_server(**options: Any) -> AsyncIterator[tuple[int, asyncio.Future[ServerConnection], Any]]:
    """The library's server with a handler that sends more than the peer will take."""
    opened: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
    sends: list[asyncio.Task[None]] = []

    async def handler(ws: ServerConnection) -> None:
        sends.append(asyncio.ensure_future(ws.send(LARGE)))
        await asyncio.sleep(0.05)
        opened.set_result(ws)
        await ws.wait_closed()

    server = await serve(handler, "127.0.0.1", 0, compression=None, **options)
    try:
        yield next(iter(server.sockets)).getsockname()[1], opened, server
    finally:
        for ws in list(server.connections):
            ws.transport.abort()
        server.close()
        await asyncio.wait_for(server.wait_closed(), 5)
        for send in sends:
            with suppress(LibraryClosed):
                await send


@asynccontextmanager
async def our_server(**options: Any) -> AsyncIterator[tuple[Server, asyncio.Future[Connection]]]:
    """Ours, with the same handler."""
    opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def handler(ws: Connection) -> None:
        send = asyncio.ensure_future(ws.send_bytes(LARGE))
        await asyncio.sleep(0.05)
        opened.set_result(ws)
        try:
            await ws.wait_closed()
        finally:
            with pytest.raises(ConnectionClosed):
                await send

    async with serving(websocket_handler(handler), **options) as server:
        yield server, opened


# ping() waits for the write buffer, outside its timeout


async def test_in_the_library_a_ping_waits_for_a_peer_that_never_reads() -> None:
    """Its keepalive, ten timeouts long, does not find the peer; a ping of one's own does not even start to wait."""
    async with (
        library_server(ping_interval=0.05, ping_timeout=0.05) as (port, opened, _),
        never_reads(port),
    ):
        ws = await opened
        await asyncio.sleep(0.5)
        assert ws.state.name == "OPEN"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.ping(), 0.2)


async def test_here_the_heartbeat_finds_a_peer_that_never_reads() -> None:
    """Interval and timeout hold, whatever the write buffer does."""
    with no_loop_errors():
        async with our_server(heartbeat=(0.2, 0.2)) as (server, opened), never_reads(server.port):
            ws = await opened
            await asyncio.wait_for(ws.wait_closed(), 1.5)
            assert (ws.close_code, ws.reason_lost) == (1006, "ping timeout")


async def test_here_a_ping_times_out_with_a_peer_that_never_reads() -> None:
    """ws.ping() keeps its timeout, and the connection stays."""
    async with our_server(heartbeat=None) as (server, opened), never_reads(server.port):
        ws = await opened
        with pytest.raises(TimeoutError):
            await ws.ping(timeout=0.1)
        assert not ws.closed
        ws.abort()


# close() waits for the write buffer, outside its timeout


async def test_in_the_library_a_close_waits_for_a_peer_that_never_reads() -> None:
    """Neither close() nor the server's own close comes back, ten close timeouts long."""
    async with (
        library_server(ping_interval=None, close_timeout=0.05) as (port, opened, server),
        never_reads(port),
    ):
        ws = await opened
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.close(), 0.5)
        server.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 0.5)


async def test_here_a_close_is_bounded_with_a_peer_that_never_reads() -> None:
    """close() ends after close_timeout, by an abort."""
    loop = asyncio.get_running_loop()
    with no_loop_errors():
        async with our_server(heartbeat=None, close_timeout=0.2) as (server, opened), never_reads(server.port):
            ws = await opened
            started = loop.time()
            await ws.close(4000, "bye")
            assert 0.19 < loop.time() - started < 1.5
            assert ws.close_code == 4000


async def test_here_a_stop_is_bounded_with_a_peer_that_never_reads() -> None:
    """The server's stop ends within stop_timeout."""
    loop = asyncio.get_running_loop()
    with no_loop_errors():
        async with (
            our_server(heartbeat=None, close_timeout=60, stop_timeout=0.8) as (server, opened),
            never_reads(server.port),
        ):
            ws = await opened
            started = loop.time()
            server.close()
            await server.wait_closed()
            assert loop.time() - started <= 0.9
            assert (ws.close_code, ws.reason_lost) == (1006, "server stopped")
            assert server.stats()["aborted_at_stop"] == 1


async def test_here_a_send_is_bounded_with_a_peer_that_never_reads() -> None:
    """A send that gets nothing off for send_timeout aborts the peer."""
    with no_loop_errors():
        async with our_server(heartbeat=None, send_timeout=0.2) as (server, opened), never_reads(server.port):
            ws = await opened
            await asyncio.wait_for(ws.wait_closed(), 3)
            assert (ws.close_code, ws.reason_lost) == (1006, "send timeout")


async def test_here_a_peer_that_reads_slowly_is_not_cut_off() -> None:
    """send_timeout bounds the time without progress, not the time of a send."""
    done: list[bool] = []

    async def handler(ws: Connection) -> None:
        await ws.send_bytes(b"x" * 600_000)
        await ws.send_text("all of it")
        done.append(True)

    async with (
        serving(
            websocket_handler(handler), send_timeout=0.3, send_buffer_bytes=4096, write_buffer_bytes=1024
        ) as server,
        open_raw(server.port, recv_buffer=4096) as raw,
    ):
        loop = asyncio.get_running_loop()
        started = loop.time()
        transport = raw.writer.transport
        received = asyncio.ensure_future(raw.recv(10))
        while loop.time() < started + 1.0:
            transport.pause_reading()
            await asyncio.sleep(0.04)
            transport.resume_reading()
            await asyncio.sleep(0.0005)
        message = await received
        assert message is not None
        assert len(message.payload) == 600_000
        await eventually(lambda: done)


# A full queue stops reading, pongs included


async def test_in_the_library_a_full_queue_is_a_ping_timeout() -> None:
    """A client that answers every ping is closed with 1011, because a slow handler's queue is full."""

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    beat = {"ping_interval": 0.1, "ping_timeout": 0.1, "close_timeout": 0.1}
    async with serve(handler, "127.0.0.1", 0, max_queue=4, **beat) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        client = await connect(f"ws://127.0.0.1:{port}/", ping_interval=None)
        for _ in range(50):
            await client.send("x")
        await asyncio.wait_for(client.wait_closed(), 5)
        assert client.close_code == 1011


async def test_here_a_full_queue_is_no_ping_timeout() -> None:
    """The same client stays, and is answered once the handler goes on."""
    go_on = asyncio.Event()

    async def handler(ws: Connection) -> None:
        await go_on.wait()
        async for message in ws:
            if message.kind == "text":
                await ws.send_text("taken")

    router = Router()
    router.websocket("/", handler, max_queue_bytes=1000)
    async with (
        Server(router, heartbeat=(0.1, 0.1), stop_timeout=2) as server,
        connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) as client,
    ):
        for _ in range(50):
            await client.send("x")
        await asyncio.sleep(0.8)
        assert client.state.name == "OPEN"
        go_on.set()
        assert [await client.recv() for _ in range(50)] == ["taken"] * 50


async def test_here_a_stop_reaches_a_peer_behind_a_full_queue() -> None:
    """Reading goes on for the close frame's sake: the peer's answer is seen behind all it sent."""
    stop = asyncio.Event()

    async def handler(ws: Connection) -> None:
        await stop.wait()

    async with (
        serving(websocket_handler(handler), options={"max_queue_bytes": 1000}, stop_timeout=5) as server,
        connect(f"ws://127.0.0.1:{server.port}/") as client,
    ):
        for _ in range(50):
            await client.send("x" * 1000)
        await asyncio.sleep(0.05)
        server.close()
        await asyncio.wait_for(client.wait_closed(), 2)
        assert client.close_code == 1001
        stop.set()

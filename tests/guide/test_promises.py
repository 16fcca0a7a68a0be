"""Where the guide promises more than its framework keeps: each test fails on what that framework does.

In the order of the guide: routing, middleware, the three kinds of handlers, receiving, sending, pings, closing, pools,
shutdown, limits.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.ws import (
    BearerAuth,
    Connection,
    ConnectionClosed,
    Message,
    Pool,
    Router,
    Server,
    batch_handler,
    message_handler,
)
from tests.ws.support import BINARY, CLOSE, PING, PONG, TEXT, Frame, eventually, frame, open_raw


def url(server: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


async def collect(ws: Connection, message: Message) -> None:
    ws.state.setdefault("messages", []).append(message)


async def test_paths_have_parameters() -> None:
    """A pattern matches, and its parameter is filled; no exact string is asked for."""
    router = Router()
    router.websocket("/chat/{user_id}", message_handler(lambda ws, message, user_id: user_id))
    async with Server(router) as server, connect(url(server, "/chat/alice")) as client:
        await client.send("who am I?")
        assert await client.recv() == "alice"


async def test_middleware_runs_before_the_upgrade() -> None:
    """Authentication is not skipped for sockets: without a token there is no connection."""
    router = Router()
    router.middleware(BearerAuth({"t": "user"}.get))
    router.websocket("/", message_handler(collect))
    async with Server(router) as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(server))
        assert refused.value.response.status_code == 401
        assert server.stats()["opened"] == 0


async def test_a_partial_batch_does_not_wait_for_ever() -> None:
    """The timeout is used: one message alone is handed over after it, with nothing behind it."""
    router = Router()
    router.websocket("/", batch_handler(lambda ws, messages: str(len(messages)), 50, 0.05))
    async with Server(router) as server, connect(url(server)) as client:
        await client.send("alone")
        assert await asyncio.wait_for(client.recv(), 2) == "1"


async def test_the_tail_of_a_batch_is_not_lost() -> None:
    """What is left when the peer closes is handed over."""
    stored: list[str | bytes] = []
    router = Router()
    router.websocket("/", batch_handler(lambda ws, messages: stored.extend(m.data for m in messages), 50, 60))
    async with Server(router) as server:
        async with connect(url(server)) as client:
            for text in ("a", "b", "c"):
                await client.send(text)
        await eventually(lambda: stored == ["a", "b", "c"])


async def test_a_full_queue_does_not_stall_the_reader() -> None:
    """A handler that takes nothing: the peer's ping is answered and its close is seen, with its code."""
    router = Router()
    seen: list[Connection] = []
    leave = asyncio.Event()

    @router.websocket("/")
    async def busy(ws: Connection) -> None:
        seen.append(ws)
        await leave.wait()

    async with Server(router) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, b"x" * 100) * 2000 + frame(PING, b"alive?"))
        assert await raw.recv() == Frame(PONG, b"alive?")
        raw.send(frame(CLOSE, b"\x0f\xa1bye"))
        assert await raw.recv() == Frame(CLOSE, b"\x0f\xa1bye")
        await eventually(lambda: seen[0].close_code == 4001)
        leave.set()


async def test_a_timeout_is_told_from_the_end() -> None:
    """recv with a timeout raises while the connection is open and gives None once it has closed."""
    router = Router()
    trail: list[str] = []
    done = asyncio.Event()

    @router.websocket("/")
    async def patient(ws: Connection) -> None:
        while True:
            try:
                message = await ws.recv(timeout=0.03)
            except TimeoutError:
                trail.append("timeout")
                continue
            trail.append("closed" if message is None else message.kind)
            if message is None:
                break
        done.set()

    async with Server(router) as server:
        async with connect(url(server)):
            await eventually(lambda: "timeout" in trail)
        await asyncio.wait_for(done.wait(), 2)
    assert trail[-2:] == ["close", "closed"]


async def test_the_close_is_delivered_with_code_and_reason() -> None:
    """The last message of a connection is its close."""
    router = Router()
    last: list[Message] = []

    @router.websocket("/")
    async def listen(ws: Connection) -> None:
        async for message in ws:
            last.append(message)

    async with Server(router) as server:
        client = await connect(url(server))
        await client.close(4321, "because")
        await eventually(lambda: last)
    assert (last[0].kind, last[0].code, last[0].reason) == ("close", 4321, "because")


async def test_send_json_is_text_and_a_batch_is_one_write() -> None:
    """A browser's JSON.parse gets a string; a batch of fifty is not fifty flushes."""
    router = Router()
    writes: list[int] = []

    @router.websocket("/")
    async def send(ws: Connection) -> None:
        await ws.send_json({"a": 1})
        transport: Any = ws._transport
        write = transport.write
        transport.write = lambda data: (writes.append(len(data)), write(data))
        await ws.send_batch([Message.text(str(number)) for number in range(50)])
        del transport.write

    async with Server(router) as server, connect(url(server)) as client:
        answer = await client.recv()
        assert isinstance(answer, str)
        assert json.loads(answer) == {"a": 1}
        assert [await client.recv() for _ in range(50)] == [str(number) for number in range(50)]
    assert len(writes) == 1


async def test_the_server_keeps_connections_alive() -> None:
    """Without a line of the handler's, pings go out and a peer that does not answer is dropped."""
    router = Router()
    router.websocket("/", message_handler(collect))
    async with Server(router, heartbeat=(0.05, 0.1)) as server, open_raw(server.port) as raw:
        assert await raw.recv() == Frame(PING, b"")
        await eventually(lambda: server.connections == 0)


async def test_a_close_is_checked_and_bounded() -> None:
    """A code that must not be sent is refused; a peer that does not answer is waited for, but not for ever."""
    router = Router()
    trail: list[object] = []

    @router.websocket("/")
    async def leave(ws: Connection) -> None:
        for code, reason in ((1006, ""), (1011, "x" * 200)):
            with pytest.raises(ValueError, match=r"cannot be sent|longer"):
                await ws.close(code, reason)
        started = asyncio.get_running_loop().time()
        await ws.close(1011, "broken")
        trail.append(asyncio.get_running_loop().time() - started)
        with pytest.raises(ConnectionClosed):
            await ws.send_text("more")
        trail.append("done")

    async with Server(router, close_timeout=0.1) as server, open_raw(server.port) as raw:
        assert await raw.recv() == Frame(CLOSE, b"\x03\xf3broken")
        await eventually(lambda: len(trail) == 2)
    assert isinstance(trail[0], float)
    assert 0.09 < trail[0] < 2


async def test_one_slow_client_does_not_block_all() -> None:
    """A broadcast to a pool with a peer that never reads comes back at once, and the others get everything."""
    pool = Pool(max_pending_bytes=1 << 20)
    router = Router()
    router.websocket("/", message_handler(collect, opened=pool.add))
    async with (
        Server(router, heartbeat=None, close_timeout=0.2) as server,
        open_raw(server.port, recv_buffer=4096) as stalled,
        connect(url(server)) as client,
    ):
        await eventually(lambda: len(pool) == 2)
        stalled.writer.transport.pause_reading()
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for _ in range(100):
            started = loop.time()
            pool.broadcast(b"x" * 100_000)
            slowest = max(slowest, loop.time() - started)
            assert len(await client.recv()) == 100_000
        assert slowest < 0.1
        assert pool.stats()["dropped"] > 0


async def test_connections_are_counted_and_closed_at_the_stop() -> None:
    """No task and no socket outlives the server, and every peer is told 1001."""
    router = Router()
    router.websocket("/", message_handler(collect))
    async with Server(router) as server:
        clients = [await connect(url(server)) for _ in range(5)]
        assert server.connections == 5
        assert server.stats()["handlers"] == 5
    for client in clients:
        await client.wait_closed()
        assert client.close_code == 1001
    assert server.connections == 0
    assert server.stats()["handlers"] == server.stats()["transports"] == 0


async def test_subprotocols_and_origins_are_the_servers_choice() -> None:
    """An offer is not echoed but chosen from a list; an Origin that is not listed does not get in."""
    router = Router()
    router.websocket("/", message_handler(collect), subprotocols=["v2", "v1"], origins=["https://here", None])
    async with Server(router) as server:
        async with connect(url(server), subprotocols=["anything", "v1", "v2"]) as client:  # type: ignore[list-item]
            assert client.subprotocol == "v2"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(server), origin="https://elsewhere")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403


async def test_a_message_has_a_limit() -> None:
    """max_message_bytes holds for one frame and for fragments together."""
    router = Router()
    router.websocket("/", message_handler(collect), max_message_bytes=1000)
    async with Server(router) as server:
        for data in (
            frame(BINARY, b"x" * 1001),
            frame(BINARY, b"x" * 900, fin=False) + frame(0, b"x" * 101),
        ):
            async with open_raw(server.port) as raw:
                raw.send(data)
                received = await raw.recv()
                assert received is not None
                assert received.code == 1009

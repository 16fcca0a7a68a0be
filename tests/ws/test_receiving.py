"""``recv`` where several things happen at once, and what a message costs while it waits."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway.ws import Connection, Message, Router, Server, websocket_handler

from .support import TEXT, close_frame, eventually, frame, open_raw, serving

BOTH_LOOPS = True


async def test_a_close_from_elsewhere_as_messages_arrive_is_the_end_and_no_error() -> None:
    """A task woken for a message that a close then dropped gets the close message."""
    got: list[Message | None] = []
    connections: list[Connection] = []

    async def handler(ws: Connection) -> None:
        connections.append(ws)
        got.append(await ws.recv())
        got.append(await ws.recv())

    async with serving(websocket_handler(handler)) as server, open_raw(server.port) as raw:
        await eventually(lambda: connections)
        (ws,) = connections
        enqueue = ws._handler

        def and_kick(ws: Connection, message: Message) -> None:
            enqueue(ws, message)
            ws.close_soon(4000, "kicked")

        ws._handler = and_kick
        raw.send(frame(TEXT, b"hello"))
        assert (await raw.recv()).code == 4000  # type: ignore[union-attr]
        raw.send(close_frame(4000, b"kicked"))
        await eventually(lambda: len(got) == 2)
        assert got == [Message("close", b"", 4000, "kicked"), None]
        assert server.stats()["handler_errors"] == 0


async def test_kicks_in_natural_traffic_are_no_errors() -> None:
    """One connection's handler closes another one while messages arrive for both."""
    router = Router()
    members: dict[str, Connection] = {}

    @router.websocket("/{name}")
    async def member(ws: Connection, name: str) -> None:
        members[name] = ws
        async for message in ws:
            if message.kind == "text" and name == "admin":
                members["victim"].close_soon(4000, "kicked")

    async with Server(router, stop_timeout=2, close_timeout=0.2) as server:
        for _ in range(30):
            async with open_raw(server.port, "/victim") as victim, open_raw(server.port, "/admin") as admin:
                await eventually(lambda: len(members) == 2)
                for _ in range(3):
                    admin.send(frame(TEXT, b"kick"))
                    victim.send(frame(TEXT, b"hello"))
                await asyncio.sleep(0.002)
                members.clear()
        assert server.stats()["handler_errors"] == 0


async def test_only_one_task_waits_whatever_is_in_the_queue() -> None:
    """A second recv is refused also when a message has come for the first one, which has not run yet."""
    got: list[Message | None] = []
    refused = asyncio.Event()

    async def handler(ws: Connection) -> None:
        first = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        while not ws._queue:  # noqa: ASYNC110
            await asyncio.sleep(0)
        if not first.done():
            with pytest.raises(RuntimeError, match="another task"):
                await ws.recv()
            refused.set()
        got.append(await first)

    async with serving(websocket_handler(handler)) as server:
        for _ in range(20):
            async with open_raw(server.port) as raw:
                raw.send(frame(TEXT, b"hello"))
                await eventually(lambda: got)
                if refused.is_set():
                    break
                got.clear()
        assert refused.is_set()
        assert got == [Message.text("hello")]


async def test_the_timeout_of_recv_is_that_of_the_whole_wait() -> None:
    """TimeoutError after it; the connection goes on, and the next message is there."""
    told = asyncio.Event()

    async def handler(ws: Connection) -> None:
        with pytest.raises(TimeoutError):
            await ws.recv(timeout=0.05)
        told.set()
        message = await ws.recv(timeout=5)
        assert message is not None
        await ws.send(message)
        await ws.recv()

    async with serving(websocket_handler(handler)) as server, open_raw(server.port) as raw:
        await told.wait()
        raw.send(frame(TEXT, b"hello"))
        assert (await raw.recv()).payload == b"hello"  # type: ignore[union-attr]


async def test_the_queues_bound_is_one_of_memory() -> None:
    """Text beyond ASCII takes up to four bytes a character, and is counted so."""
    held: list[Connection] = []
    go_on = asyncio.Event()

    async def handler(ws: Connection) -> None:
        held.append(ws)
        await go_on.wait()

    text = ("a" * 10_000 + "\U0001f600").encode()
    async with (
        serving(websocket_handler(handler), max_queue_bytes=400_000) as server,
        open_raw(server.port) as raw,
    ):
        for _ in range(60):
            raw.send(frame(TEXT, text))
        await eventually(lambda: held and held[0]._paused)
        queue = held[0]._queue
        assert queue is not None
        assert 350_000 < sum(sys.getsizeof(message.data) for message in queue) <= 450_000
        go_on.set()

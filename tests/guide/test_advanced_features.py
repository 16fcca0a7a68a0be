"""The guide, "Advanced Features": a pool with broadcasts, and rate limits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.ws import Connection, Message, Pool, Router, SlidingWindow, TokenBucket, message_handler

from .support import Clock, CountingListener, dial, eventually, running, stalled


class ChatServer:
    """The guide's chat server: what one connection sends goes to all others, with the sender's id before it."""

    def __init__(self) -> None:
        self.connections = Pool()

    async def handle_connection(self, ws: Connection) -> None:
        self.connections.add(ws)
        await ws.send_text(ws.id)
        async for message in ws:
            if message.kind == "text":
                self.connections.broadcast(f"[{ws.id}]: {message.data!s}", exclude=ws)


async def test_pooling_and_broadcasting() -> None:
    """All but the sender get a message; who leaves, by a close or without one, is out of the pool by itself."""
    chat = ChatServer()
    router = Router()
    router.websocket("/chat", chat.handle_connection)
    async with running(router) as server, dial(server, "/chat") as one, dial(server, "/chat") as two:
        first, second = await one.recv(), await two.recv()
        assert first != second
        three = await dial(server, "/chat")
        third = await three.recv()
        assert len(chat.connections) == 3
        await one.send("hello")
        assert await two.recv() == await three.recv() == f"[{first}]: hello"
        await three.send("hi")
        assert await one.recv() == await two.recv() == f"[{third}]: hi"
        await three.close()
        await eventually(lambda: len(chat.connections) == 2)
        await two.send("two left")
        # Its own first message never came back: this is the next it gets.
        assert await one.recv() == f"[{second}]: two left"
        one.transport.abort()
        await eventually(lambda: len(chat.connections) == 1)
        assert chat.connections.broadcast("alone") == 1
        assert await two.recv() == "alone"
        assert chat.connections.stats()["broadcasts"] == 4
    assert len(chat.connections) == 0


async def test_rooms() -> None:
    """A connection stands in any number of rooms; a room's broadcast reaches those in it, one without all."""
    pool = Pool()
    sockets: dict[str, Connection] = {}
    router = Router()

    def enter(ws: Connection, rooms: str) -> None:
        sockets[rooms] = ws
        for room in rooms:
            pool.add(ws, room=room)

    router.websocket("/{rooms}", message_handler(lambda ws, message, rooms: None, opened=enter))
    async with running(router) as server, AsyncExitStack() as stack:
        clients = {rooms: await stack.enter_async_context(dial(server, f"/{rooms}")) for rooms in ("a", "b", "ab")}
        await eventually(lambda: len(pool) == 3)
        assert pool.broadcast("to a", room="a") == 2
        assert pool.broadcast("to b but one", room="b", exclude=sockets["ab"]) == 1
        assert pool.broadcast("to none", room="c") == 0
        pool.discard(sockets["ab"], room="a")
        assert pool.broadcast("to a again", room="a") == 1
        pool.discard(sockets["b"])
        pool.discard(sockets["b"])
        assert pool.broadcast("to all") == 2
        for rooms, texts in {
            "a": ["to a", "to a again", "to all"],
            "b": ["to b but one"],
            "ab": ["to a", "to all"],
        }.items():
            assert [await clients[rooms].recv() for _ in texts] == texts
        # Out of the pool, and connected all the same.
        assert server.connections == 3
        await sockets["b"].send_text("still here")
        assert await clients["b"].recv() == "still here"


async def test_a_broadcast_takes_every_kind_of_data_and_nothing_else() -> None:
    """Text, bytes, messages, objects and prepared frames go out as what they are; control frames are an error."""
    pool = Pool(max_pending_bytes=1000)
    router = Router()
    router.websocket("/", message_handler(lambda ws, message: None, opened=pool.add))
    async with running(router) as server, dial(server) as client:
        await eventually(lambda: len(pool) == 1)
        for message in ("text", b"bytes", Message.text("message"), {"a": 1}, Message.binary(b"prepared").prepare()):
            assert pool.broadcast(message) == 1
        for wrong in (Message.ping(), Message.pong(), Message.close(), "x" * 1000):
            with pytest.raises(ValueError, match=r"pool|prepared|max_pending_bytes"):
                pool.broadcast(wrong)
        assert [await client.recv() for _ in range(5)] == ["text", b"bytes", "message", '{"a":1}', b"prepared"]


async def test_a_broadcast_is_one_write_to_each() -> None:
    """The guide's promise of broadcasts to many: twenty peers get the very same bytes, in one write each."""
    listener = CountingListener()
    pool = Pool()
    router = Router()
    router.websocket("/", message_handler(lambda ws, message: None, opened=pool.add))
    async with running(router, sock=listener, heartbeat=None) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(dial(server)) for _ in range(20)]
        await eventually(lambda: len(pool) == 20)
        del listener.writes[:]
        assert pool.broadcast({"price": 17.25}) == 20
        assert [await client.recv() for client in clients] == ['{"price":17.25}'] * 20
        assert listener.writes == [b"\x81\x0f" + b'{"price":17.25}'] * 20


@pytest.mark.parametrize("slow", ["drop_oldest", "latest", "disconnect"])
async def test_a_slow_client_holds_up_nobody(slow: str) -> None:
    """The guide's promise of a broadcast to all: with one peer that reads nothing, the others get every message."""
    pool = Pool(max_pending_bytes=1 << 20, slow=slow, deadline=60.0)  # type: ignore[arg-type]
    peers: list[Connection] = []
    router = Router()

    def enter(ws: Connection) -> None:
        pool.add(ws)
        peers.append(ws)

    router.websocket("/", message_handler(lambda ws, message: None, opened=enter))
    async with running(router, heartbeat=None, close_timeout=0.2) as server, stalled(server):
        await eventually(lambda: len(pool) == 1)
        async with dial(server) as one, dial(server) as two:
            await eventually(lambda: len(pool) == 3)
            for number in range(100):
                pool.broadcast(f"{number:08}" + "x" * 60_000)
                assert [str(await client.recv())[:8] for client in (one, two)] == [f"{number:08}"] * 2
                # What the slow one costs is bounded all the while, the socket's own buffer included.
                assert peers[0].pending_bytes + pool.stats()["queued_bytes"] <= 1 << 20
        stats = pool.stats()
        if slow == "disconnect":
            assert stats["disconnected"] == 1
            assert peers[0].closed
            await eventually(lambda: peers[0].reason_lost == "too slow")
        else:
            assert stats["disconnected"] == 0
            assert not peers[0].closed
            assert stats["dropped"] > 70


async def test_a_slow_client_that_reads_again_gets_what_the_policy_kept() -> None:
    """Dropping the oldest keeps the newest in order up to the bound; latest only keeps the very last message."""
    kept: dict[str, list[int]] = {}
    for slow in ("drop_oldest", "latest"):
        pool = Pool(max_pending_bytes=1 << 20, slow=slow)  # type: ignore[arg-type]
        router = Router()
        router.websocket("/", message_handler(lambda ws, message: None, opened=pool.add))
        async with running(router) as server, stalled(server) as client:
            await eventually(lambda pool=pool: len(pool) == 1)
            for number in range(100):
                pool.broadcast(f"{number:08}" + "x" * 60_000)
            client.transport.resume_reading()
            kept[slow] = []
            while kept[slow][-1:] != [99]:
                kept[slow].append(int(str(await client.recv())[:8]))
            assert len(kept[slow]) == 100 - pool.stats()["dropped"]
            assert pool.stats()["behind"] == pool.stats()["queued_bytes"] == 0
            pool.broadcast("as ever")
            assert await client.recv() == "as ever"
    oldest, latest = kept["drop_oldest"], kept["latest"]
    assert oldest == sorted(oldest)
    assert 10 <= len(oldest) < 20
    assert oldest[-10:] == list(range(90, 100))
    # What had gone into the buffers before, and the last message.
    assert latest[:-1] == list(range(len(latest) - 1))
    assert len(latest) < 10


def rate_limited(clock: Clock) -> Router:
    """The guide's handler: ten requests a minute."""
    router = Router()

    @router.websocket("/limited")
    async def rate_limited_websocket(ws: Connection) -> None:
        limiter = SlidingWindow(10, 60.0, clock=clock)
        async for message in ws:
            if message.kind == "close":
                break
            if not limiter.allow():
                await ws.send_text("Rate limit exceeded. Please slow down.")
            elif message.kind == "text":
                await ws.send_text(f"Processed: {message.data!s}")

    return router


async def test_rate_limiting() -> None:
    """Ten messages in a minute are processed, the next are told to slow down, until the window has moved on."""
    refusal = "Rate limit exceeded. Please slow down."
    clock = Clock()
    async with running(rate_limited(clock)) as server, dial(server, "/limited") as client:

        async def ask(count: int) -> list[str | bytes]:
            for number in range(count):
                await client.send(str(number))
            return [await client.recv() for _ in range(count)]

        assert await ask(6) == [f"Processed: {number}" for number in range(6)]
        clock.now += 30
        assert await ask(6) == [*(f"Processed: {number}" for number in range(4)), refusal, refusal]
        # A request of exactly a window ago counts; what was refused does not.
        clock.now += 30
        assert await ask(1) == [refusal]
        clock.now += 0.001
        assert await ask(7) == [*(f"Processed: {number}" for number in range(6)), refusal]
        async with dial(server, "/limited") as other:
            await other.send("a window of its own")
            assert await other.recv() == "Processed: a window of its own"


async def test_a_token_bucket_says_how_long_to_wait() -> None:
    """A bucket allows its burst at once, then its rate; a refused message is told when it would have passed."""
    clock = Clock()
    router = Router()

    def limited(ws: Connection, message: Message) -> str:
        bucket = ws.state.setdefault("bucket", TokenBucket(2.0, 5, clock=clock))
        wait = bucket.take()
        return f"wait {wait:.2f}" if wait else "ok"

    router.websocket("/", message_handler(limited, inline=True))
    async with running(router) as server, dial(server) as client:

        async def ask(count: int) -> list[str | bytes]:
            for _ in range(count):
                await client.send("x")
            return [await client.recv() for _ in range(count)]

        assert await ask(7) == ["ok"] * 5 + ["wait 0.50"] * 2
        clock.now += 0.25
        assert await ask(1) == ["wait 0.25"]
        clock.now += 0.25
        assert await ask(2) == ["ok", "wait 0.50"]
        clock.now += 3600
        assert await ask(6) == ["ok"] * 5 + ["wait 0.50"]


async def test_a_broadcast_reaches_peers_that_come_and_go_meanwhile() -> None:
    """Connections that open and close during broadcasts disturb neither the pool nor those that stay."""
    chat = ChatServer()
    router = Router()
    router.websocket("/chat", chat.handle_connection)
    async with running(router) as server, dial(server, "/chat") as reader, dial(server, "/chat") as writer:
        name = [await client.recv() for client in (reader, writer)][1]

        async def come_and_go() -> None:
            for _ in range(10):
                async with dial(server, "/chat") as guest:
                    await guest.recv()

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(come_and_go())
            for number in range(100):
                await writer.send(str(number))
                assert await reader.recv() == f"[{name}]: {number}"
        await eventually(lambda: len(chat.connections) == 2)

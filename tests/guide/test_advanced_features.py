"""The guide's chapter "Advanced Features"."""

from __future__ import annotations

from websockets.asyncio.client import connect

from gateway.ws import Connection, Pool, Router, Server, SlidingWindow
from tests.ws.support import eventually


class ChatServer:
    """The guide's ``ChatServer``, on a pool."""

    def __init__(self) -> None:
        self.connections = Pool()

    async def handle_connection(self, ws: Connection) -> None:
        self.connections.add(ws)
        async for message in ws:
            if message.kind == "text":
                self.connections.broadcast(f"[{ws.id}]: {message.data}", exclude=ws)


async def test_connection_pooling_and_broadcasting() -> None:
    """Connection Pooling and Broadcasting: all but the sender get a message; who leaves is out of the pool."""
    chat = ChatServer()
    router = Router()
    router.websocket("/chat", chat.handle_connection)
    async with Server(router) as server:
        url = f"ws://127.0.0.1:{server.port}/chat"
        async with connect(url) as a, connect(url) as b:
            async with connect(url) as c:
                await eventually(lambda: len(chat.connections) == 3)
                await a.send("hello")
                got = {await b.recv(), await c.recv()}
                assert len(got) == 1
                assert str(got.pop()).endswith("]: hello")
            await eventually(lambda: len(chat.connections) == 2)
            await b.send("two left")
            # The next thing the first one gets is this: not its own message.
            assert str(await a.recv()).endswith("]: two left")


async def test_rate_limiting_websocket_messages() -> None:
    """Rate Limiting: beyond ten a minute a message is told so, and is processed again when the window has moved."""
    now = 0.0
    router = Router()

    @router.websocket("/limited")
    async def limited(ws: Connection) -> None:
        limiter = SlidingWindow(10, 60.0, clock=lambda: now)
        async for message in ws:
            if message.kind == "close":
                break
            if not limiter.allow():
                await ws.send_text("Rate limit exceeded. Please slow down.")
                continue
            await ws.send_text(f"Processed: {message.data}")

    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/limited") as client:
        for number in range(12):
            await client.send(str(number))
        answers = [await client.recv() for _ in range(12)]
        assert answers == [f"Processed: {n}" for n in range(10)] + ["Rate limit exceeded. Please slow down."] * 2
        now = 60.1
        await client.send("later")
        assert await client.recv() == "Processed: later"

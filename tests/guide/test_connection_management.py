"""The guide's chapter "Connection Management"."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect

from gateway.ws import Connection, Message, Router, Server


async def test_connection_information() -> None:
    """Connection Information: at the handler's start the connection is there, and says who and what."""
    router = Router()
    seen: list[tuple[object, ...]] = []

    @router.websocket("/info")
    async def info(ws: Connection) -> None:
        seen.append((ws.remote, ws.path, dict(ws.query), ws.headers["user-agent"], ws.closed))
        await ws.send_text("Connected successfully!")

    async with Server(router) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/info?room=7", user_agent_header="a test")
        assert await client.recv() == "Connected successfully!"
        assert seen == [(client.local_address, "/info", {"room": "7"}, "a test", False)]
        await client.wait_closed()


async def test_ping_pong_handling() -> None:
    """Ping/Pong Handling: pings are answered by themselves, and both are seen by a route that asks for them."""
    router = Router()
    trail: list[tuple[str, int]] = []

    @router.websocket("/watch", control=True)
    async def watch(ws: Connection) -> None:
        async for message in ws:
            match message.kind:
                case "text":
                    await ws.send_text(f"Echo: {message.data}")
                case "ping" | "pong":
                    trail.append((message.kind, len(message.data)))
                case "close":
                    trail.append(("close", message.code or 0))
                    break

    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/watch") as client:
        await (await client.ping(b"12345"))
        await client.pong(b"123")
        await client.send("hello")
        assert await client.recv() == "Echo: hello"
        await client.close(1000)
    assert trail == [("ping", 5), ("pong", 3), ("close", 1000)]


async def test_manual_ping_pong() -> None:
    """Manual Ping/Pong: a handler pings on its own beat while it answers messages."""
    router = Router()
    times: list[float] = []

    @router.websocket("/beat")
    async def beat(ws: Connection) -> None:
        async def pings() -> None:
            while True:
                await asyncio.sleep(0.02)
                times.append(await ws.ping(b"heartbeat"))

        beating = asyncio.create_task(pings())
        try:
            async for message in ws:
                match message.kind:
                    case "text":
                        await ws.send_text(f"Got: {message.data}")
                    case "close":
                        break
        finally:
            beating.cancel()

    async with Server(router, heartbeat=None) as server, connect(f"ws://127.0.0.1:{server.port}/beat") as client:
        for number in range(3):
            await client.send(str(number))
            assert await client.recv() == f"Got: {number}"
            await asyncio.sleep(0.03)
        assert len(times) >= 2
        assert all(0 < seconds < 1 for seconds in times)


async def test_graceful_shutdown() -> None:
    """Graceful Shutdown: on a signal the handler closes with 1001 and its reason, and the peer gets both."""
    router = Router()
    shutdown = asyncio.Event()

    @router.websocket("/work")
    async def work(ws: Connection) -> None:
        stopping = asyncio.create_task(shutdown.wait())
        while True:
            receiving = asyncio.create_task(ws.recv())
            await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                receiving.cancel()
                await ws.close(1001, "Server shutdown")
                return
            message: Message | None = receiving.result()
            if message is None or message.kind == "close":
                stopping.cancel()
                return
            await ws.send(message)

    async with Server(router) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/work")
        await client.send("still there?")
        assert await client.recv() == "still there?"
        shutdown.set()
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1001, "Server shutdown")

"""The guide, "Connection Management": information, pings, a heartbeat by hand, graceful shutdown."""

from __future__ import annotations

import asyncio
import signal

import pytest
from websockets.exceptions import ConnectionClosed as ClientClosed
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode

from gateway.ws import Connection, ConnectionClosed, Message, Router, message_handler

from .support import dial, eventually, running, stalled, watching


async def test_connection_information() -> None:
    """The handler starts with an open connection that says who is there, and its welcome comes before any message."""
    seen: list[tuple[object, ...]] = []
    ids: set[str] = set()
    router = Router()

    @router.websocket("/info/{room}")
    async def handle_websocket(ws: Connection, room: str) -> None:
        seen.append((ws.remote, ws.path, room, ws.query["color"], ws.query.getlist("color"), ws.headers["USER-agent"]))
        ids.add(ws.id)
        assert not ws.closed
        assert ws.close_code is None
        assert ws.subprotocol is None
        await ws.send_text("Connected successfully!")
        await ws.recv()

    async with running(router) as server:
        for number in range(2):
            async with dial(server, "/info/a%20b?color=red&color=blue", user_agent_header="a test") as client:
                assert await client.recv() == "Connected successfully!"
                assert server.connections == 1
                assert len(ids) == number + 1
                color = ("blue", ["red", "blue"])
                assert seen.pop() == (client.local_address, "/info/a b", "a b", *color, "a test")
            await eventually(lambda: server.connections == 0)
        assert server.stats()["opened"] == 2


async def test_ping_pong_handling() -> None:
    """A ping is answered with its own data by itself; a route that asks for them sees pings, pongs and the close."""
    trail: list[str] = []
    router = Router()

    @router.websocket("/watch", control=True)
    async def handle_websocket(ws: Connection) -> None:
        async for message in ws:
            match message.kind:
                case "text":
                    await ws.send_text(f"Echo: {message.data!s}")
                case "ping":
                    trail.append(f"Received ping with {len(message.data)} bytes")
                case "pong":
                    trail.append(f"Received pong with {len(message.data)} bytes")
                case "close":
                    trail.append(f"Connection closed by client: {message.code} {message.reason}")
                    break

    async with running(router) as server:
        async with dial(server, "/watch") as client:
            # The library's ping is over once a pong with the very same data is there.
            assert await (await client.ping(b"12345")) > 0
            await client.pong(b"123")
            await client.send("hello")
            assert await client.recv() == "Echo: hello"
            assert await (await client.ping(bytes(125))) > 0
            await client.close(1001, "going")
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert trail == [
        "Received ping with 5 bytes",
        "Received pong with 3 bytes",
        "Received ping with 125 bytes",
        "Connection closed by client: 1001 going",
    ]


async def test_pings_are_answered_where_nobody_asks_for_them() -> None:
    """Without ``control`` a handler sees data and the close alone, and pings are answered all the same."""
    kinds: list[str] = []
    router = Router()

    @router.websocket("/")
    async def handle_websocket(ws: Connection) -> None:
        async for message in ws:
            kinds.append(message.kind)

    async with running(router) as server:
        async with dial(server) as client:
            await (await client.ping(b"12345"))
            await client.pong(b"123")
            await client.send("data")
            await (await client.ping())
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert kinds == ["text", "close"]


async def test_ping_gives_the_round_trip_time() -> None:
    """The guide's ``ws.ping``: it goes out with its data, and gives the seconds until the pong was there."""
    trips: list[float] = []
    router = Router()

    @router.websocket("/")
    async def measure(ws: Connection) -> None:
        trips.append(await ws.ping(b"one"))
        trips.extend(await asyncio.gather(ws.ping(), ws.ping(), ws.ping("three")))
        with pytest.raises(ValueError, match="125"):
            await ws.ping(bytes(126))

    async with running(router) as server, watching(server) as peer:
        ping = await peer.frame()
        assert ping is not None
        assert (ping.opcode, ping.data) == (Opcode.PING, b"one")
        others = [await peer.frame() for _ in range(3)]
        assert {frame.opcode for frame in others if frame is not None} == {Opcode.PING}
        close = await peer.frame()
        assert close is not None
        assert (close.opcode, close.data) == (Opcode.CLOSE, b"\x03\xe8")
    assert len(trips) == 4
    assert all(0 < trip < 5 for trip in trips)


async def test_a_heartbeat_by_hand() -> None:
    """The guide's heartbeat: pings go out on a beat of the handler's own while messages are answered in between."""
    router = Router()

    @router.websocket("/beat")
    async def websocket_with_heartbeat(ws: Connection) -> None:
        async def heartbeat() -> None:
            while True:
                await ws.ping("heartbeat")
                await asyncio.sleep(0.02)

        beating = asyncio.create_task(heartbeat())
        try:
            async for message in ws:
                if message.kind == "text":
                    await ws.send_text(f"Got: {message.data!s}")
        finally:
            beating.cancel()

    async with running(router, heartbeat=None) as server, watching(server, "/beat") as peer:
        texts: list[bytes] = []
        pings: list[bytes] = []
        for number in range(3):
            peer.text(str(number))
            while len(texts) <= number or len(pings) <= 2 * number:
                frame = await peer.frame()
                assert frame is not None
                assert frame.opcode in (Opcode.TEXT, Opcode.PING)
                (texts if frame.opcode is Opcode.TEXT else pings).append(bytes(frame.data))
        peer.close(1000, "")
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert texts == [b"Got: 0", b"Got: 1", b"Got: 2"]
    assert set(pings) == {b"heartbeat"}


async def test_the_server_keeps_connections_alive_by_itself() -> None:
    """The guide's promise of connection health: no line in the handler, and pings go out; who answers stays."""
    pongs = 0
    router = Router()

    @router.websocket("/", control=True)
    async def handle_websocket(ws: Connection) -> None:
        nonlocal pongs
        async for message in ws:
            pongs += message.kind == "pong"

    async with running(router, heartbeat=(0.03, 2.0)) as server, dial(server, ping_interval=None) as client:
        await eventually(lambda: pongs >= 5)
        assert server.connections == 1
        await (await client.ping())


async def test_a_dead_peer_is_found_by_the_server() -> None:
    """The guide's promise of connection health: a peer that answers no ping is lost, the handler told 1006."""
    ends: list[tuple[Message, str]] = []
    router = Router()

    @router.websocket("/")
    async def handle_websocket(ws: Connection) -> None:
        async for message in ws:
            ends.append((message, ws.reason_lost))

    router.websocket("/forever", handle_websocket, heartbeat=False)
    async with (
        running(router, heartbeat=(0.05, 0.5)) as server,
        stalled(server),
        stalled(server, "/forever") as kept,
        dial(server, ping_interval=None) as healthy,
    ):
        await eventually(lambda: ends)
        ((end, why),) = ends
        assert (end.kind, end.code, why) == ("close", 1006, "ping timeout")
        assert server.stats()["lost_ping_timeout"] == 1
        # A route without a heartbeat asks for nothing, and a healthy peer has answered.
        assert server.connections == 2
        await (await healthy.ping())
        kept.transport.resume_reading()
        await kept.close()


async def test_graceful_shutdown_by_the_handler() -> None:
    """The guide's shutdown: on Ctrl-C the handler closes with 1001 and a reason, and the peer gets both."""
    shutdown = asyncio.Event()
    answered: list[str] = []
    router = Router()

    @router.websocket("/work")
    async def handle_websocket(ws: Connection) -> None:
        async def on_shutdown() -> None:
            await shutdown.wait()
            await ws.close(1001, "Server shutdown")

        watching_signal = asyncio.create_task(on_shutdown())
        try:
            async for message in ws:
                if message.kind == "text":
                    answered.append(str(message.data))
                    await ws.send_text("done")
        finally:
            await ws.wait_closed()
            watching_signal.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, shutdown.set)
    try:
        async with running(router) as server, dial(server, "/work") as one, dial(server, "/work") as two:
            for client in (one, two):
                await client.send("work")
                assert await client.recv() == "done"
            signal.raise_signal(signal.SIGINT)
            for client in (one, two):
                with pytest.raises(ClientClosed):
                    await client.recv()
                assert (client.close_code, client.close_reason) == (1001, "Server shutdown")
            await eventually(lambda: server.stats()["handlers"] == 0)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    assert answered == ["work", "work"]


async def test_graceful_shutdown_by_the_server() -> None:
    """The guide's promise of graceful shutdown: one call, 1001 to all of every kind, no task and no socket left."""
    ends: list[Message | None] = []
    router = Router()

    @router.websocket("/loop")
    async def handle_websocket(ws: Connection) -> None:
        ends.append(await ws.recv())

    router.websocket("/message", message_handler(lambda ws, message: message))
    router.websocket("/inline", message_handler(lambda ws, message: message, inline=True))
    async with running(router) as server:
        clients = [await dial(server, path) for path in ("/loop", "/message", "/inline") for _ in range(3)]
        assert server.connections == 9
        assert server.stats()["handlers"] == 6
        server.close()
        await server.wait_closed()
        for client in clients:
            await client.wait_closed()
            assert client.close_code == 1001
        assert server.connections == 0
        assert server.stats()["handlers"] == server.stats()["aborted_at_stop"] == 0
        assert server.stats()["closed_1001"] == 9
    assert [(end.kind, end.code) for end in ends if end is not None] == [("close", 1001)] * 3


async def test_a_shutdown_refuses_newcomers_and_waits_for_nobody_for_ever() -> None:
    """A stop answers new handshakes with 503, lets handlers finish, and aborts stalled peers within its time."""
    loop = asyncio.get_running_loop()
    finish = asyncio.Event()
    finished: list[bool] = []
    router = Router()

    @router.websocket("/pour")
    async def pour(ws: Connection) -> None:
        while True:
            await ws.send_bytes(bytes(60_000))

    @router.websocket("/tidy")
    async def tidy(ws: Connection) -> None:
        async for _ in ws:
            pass
        await finish.wait()
        finished.append(True)

    router.websocket("/inline", message_handler(lambda ws, message: message, inline=True))
    async with running(router, stop_timeout=1.0, close_timeout=60.0) as server:
        async with stalled(server, "/pour"), stalled(server, "/inline"), dial(server, "/tidy") as client:
            await eventually(lambda: server.connections == 3)
            before = loop.time()
            server.close()
            with pytest.raises(InvalidStatus) as refused:
                await dial(server, "/tidy")
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "1"
            await client.wait_closed()
            assert client.close_code == 1001
            assert not finished
            finish.set()
            await server.wait_closed()
            assert loop.time() - before < 5
            assert server.stats()["transports"] == server.stats()["handlers"] == 0
        assert finished == [True]
        assert server.stats()["aborted_at_stop"] == 2


async def test_a_close_is_waited_for_and_bounded() -> None:
    """The guide's promise of ``close_with_reason``: it waits for the peer's answer, and for no longer than agreed."""
    loop = asyncio.get_running_loop()
    seconds: dict[str, float] = {}
    router = Router()

    @router.websocket("/{name}")
    async def leave(ws: Connection, name: str) -> None:
        before = loop.time()
        await ws.close(1011, "broken")
        seconds[name] = loop.time() - before
        with pytest.raises(ConnectionClosed) as closed:
            await ws.send_text("more")
        assert (closed.value.code, closed.value.reason) == (1011, "broken")

    async with running(router, close_timeout=0.3) as server, stalled(server, "/stalled"), dial(server, "/x") as client:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1011, "broken")
        await eventually(lambda: len(seconds) == 2)
        assert server.stats()["handler_errors"] == 0
        assert server.stats()["close_timeouts"] == 1
    assert 0.29 < seconds["stalled"] < 3

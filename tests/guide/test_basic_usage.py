"""The guide, "Basic Usage": an echo server, and a handler given as a function."""

from __future__ import annotations

import asyncio

import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from gateway.ws import Connection, ConnectionClosed, Message, Router, websocket_handler

from .support import dial, eventually, running, watching


def echo_server() -> Router:
    """The guide's simple echo server."""
    router = Router()

    @router.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            match message.kind:
                case "text":
                    await ws.send_text(f"Echo: {message.data}")
                case "binary":
                    await ws.send_bytes(message.data)

    return router


async def test_echo_server() -> None:
    """Text comes back with "Echo: " before it, binary as it was; a close ends the handler and is answered."""
    async with running(echo_server()) as server, dial(server, "/echo") as client:
        await client.send("hello")
        assert await client.recv() == "Echo: hello"
        await client.send(b"\x00\xff")
        assert await client.recv() == b"\x00\xff"
        for text in ("", "żółw 🐢", "x" * 200_000):
            await client.send(text)
            assert await client.recv() == f"Echo: {text}"
        assert server.connections == 1
        await client.close(1000, "done")
        assert (client.close_code, client.close_reason) == (1000, "done")
        await eventually(lambda: server.stats()["handlers"] == 0)


async def test_echo_keeps_the_order_of_messages_sent_at_once() -> None:
    """A thousand messages sent without waiting come back in their order."""
    async with running(echo_server()) as server, dial(server, "/echo") as client:
        for number in range(1000):
            await client.send(str(number))
        assert [await client.recv() for _ in range(1000)] == [f"Echo: {number}" for number in range(1000)]


async def test_many_clients_echo_at_the_same_time() -> None:
    """Each of fifty connections gets its own answers alone."""

    async def talk(number: int) -> list[str | bytes]:
        async with dial(server, "/echo") as client:
            answers = []
            for turn in range(5):
                await client.send(f"{number}.{turn}")
                answers.append(await client.recv())
            return answers

    async with running(echo_server()) as server:
        answers = await asyncio.gather(*(talk(number) for number in range(50)))
    assert answers == [[f"Echo: {number}.{turn}" for turn in range(5)] for number in range(50)]
    assert server.stats()["closed_1000"] == 50


async def handle_websocket(ws: Connection) -> None:
    """The guide's handler for ``websocket_fn``."""
    await ws.send_text("Welcome to the chat!")
    async for message in ws:
        if message.kind == "text":
            await ws.send_text(f"You said: {message.data}")


async def test_a_function_as_handler() -> None:
    """A plain function serves a route: it welcomes first and answers text alone."""
    router = Router()
    router.websocket("/chat", handle_websocket)
    async with running(router) as server, dial(server, "/chat") as client:
        assert await client.recv() == "Welcome to the chat!"
        await client.send(b"not text")
        await client.send("hi")
        assert await client.recv() == "You said: hi"


async def test_a_handler_serves_several_routes_and_routers() -> None:
    """One handler on two paths, as a function and wrapped, and under a prefix; any other path is a 404."""
    inner = Router()
    inner.websocket("/chat", websocket_handler(handle_websocket))
    router = Router()
    router.websocket("/chat", handle_websocket)
    router.include("/v2", inner)
    async with running(router) as server:
        for path in ("/chat", "/v2/chat"):
            async with dial(server, path) as client:
                assert await client.recv() == "Welcome to the chat!"
        for path in ("/", "/chat/", "/chat/x", "/v2", "/v2/chat/x"):
            with pytest.raises(InvalidStatus) as refused:
                await dial(server, path)
            assert refused.value.response.status_code == 404


async def test_a_handler_that_returns_closes_with_1000() -> None:
    """The guide's ``Ok(())`` is a normal close that the client is told of."""
    router = Router()

    @router.websocket("/bye")
    async def bye(ws: Connection) -> None:
        await ws.send_text("bye")

    async with running(router) as server, dial(server, "/bye") as client:
        assert await client.recv() == "bye"
        with pytest.raises(ConnectionClosedOK):
            await client.recv()
        assert client.close_code == 1000


async def test_a_handler_that_fails_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    """The guide's ``?`` on an error ends the connection with 1011; the error stays in the server's log."""
    router = Router()

    @router.websocket("/broken")
    async def broken(ws: Connection) -> None:
        message = await ws.recv()
        assert message is not None
        raise RuntimeError(f"cannot {message.data}")

    async with running(router) as server, dial(server, "/broken") as client:
        await client.send("swim")
        await client.wait_closed()
        assert client.close_code == 1011
        assert "swim" not in (client.close_reason or "")
        assert server.stats()["handler_errors"] == 1
    assert "cannot swim" in caplog.text
    assert "Traceback" in caplog.text


async def test_code_and_reason_of_a_close_are_delivered() -> None:
    """The guide's promise of ``Message::Close``: the handler gets it once, with code and reason, and ``None`` after."""
    received: list[Message | None] = []
    router = Router()

    @router.websocket("/")
    async def record(ws: Connection) -> None:
        for _ in range(5):
            received.append(await ws.recv())
        assert ws.closed
        assert (ws.close_code, ws.close_reason) == (4321, "gone fishing")
        with pytest.raises(ConnectionClosed) as closed:
            await ws.send_text("too late")
        assert (closed.value.code, closed.value.reason) == (4321, "gone fishing")

    async with running(router) as server:
        async with dial(server) as client:
            await client.send("one")
            await client.send("two")
            await client.close(4321, "gone fishing")
        await eventually(lambda: len(received) == 5)
        await eventually(lambda: server.stats()["handlers"] == 0)
        assert server.stats()["handler_errors"] == 0
    assert received[:2] == [Message.text("one"), Message.text("two")]
    end = received[2]
    assert end is not None
    assert (end.kind, end.code, end.reason) == ("close", 4321, "gone fishing")
    assert received[3:] == [None, None]


async def test_a_peer_that_vanishes_is_told_apart_from_one_that_closes() -> None:
    """The guide's promise of ``recv``: the end is always seen; without a close frame its code is 1006."""
    ends: list[Message] = []
    router = Router()

    @router.websocket("/")
    async def record(ws: Connection) -> None:
        await ws.send_text("hello")
        ends.extend([message async for message in ws])

    async with running(router) as server:
        async with watching(server) as peer:
            assert await peer.frame() is not None
            peer.vanish()
            await eventually(lambda: ends)
        async with dial(server) as client:
            await client.recv()
            await client.close()
        await eventually(lambda: len(ends) == 2)
    assert [(end.kind, end.code) for end in ends] == [("close", 1006), ("close", 1000)]


async def test_unread_messages_stop_neither_pongs_nor_the_close() -> None:
    """The guide's promise of automatic pongs: they come, and a close is seen, while the handler reads nothing."""
    go_on = asyncio.Event()
    received: list[Message] = []
    sockets: list[Connection] = []
    router = Router()

    @router.websocket("/")
    async def busy(ws: Connection) -> None:
        sockets.append(ws)
        await go_on.wait()
        received.extend([message async for message in ws])

    async with running(router) as server:
        async with dial(server) as client:
            for number in range(2000):
                await client.send(str(number))
            await (await client.ping())
            await client.close(4000, "enough")
            assert client.close_code == 4000
        await eventually(lambda: sockets[0].closed)
        assert (sockets[0].close_code, sockets[0].close_reason) == (4000, "enough")
        assert not received
        go_on.set()
        await eventually(lambda: server.stats()["handlers"] == 0)
    *data, end = received
    assert data == [Message.text(str(number)) for number in range(2000)]
    assert (end.kind, end.code, end.reason) == ("close", 4000, "enough")

"""The layer end to end: each kind of handler, pages, and a stop, over real sockets."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.ws import (
    Connection,
    Message,
    Request,
    Response,
    Router,
    Server,
    batch_handler,
    message_handler,
    recover,
)


async def test_a_websocket_handler_owns_the_loop() -> None:
    """A plain function on a route receives and sends as it likes, and its path parameters are keywords."""
    router = Router()

    @router.websocket("/chat/{user_id}")
    async def chat(ws: Connection, user_id: str) -> None:
        async for message in ws:
            if message.kind == "text":
                await ws.send_text(f"{user_id}: {message.data}")

    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/chat/b%C3%B6b") as client:
        await client.send("hello")
        assert await client.recv() == "böb: hello"
        assert server.connections == 1


async def test_a_message_handlers_result_is_sent() -> None:
    """What a message handler gives back goes to the peer: text, bytes, a message, or an object as JSON."""
    router = Router()
    answers: list[object] = ["text", b"bytes", Message.text("message"), {"json": 1}]

    async def answer(ws: Connection, message: Message) -> object:
        return answers[int(message.data)]

    router.websocket("/", message_handler(answer))
    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/") as client:
        received = []
        for index in range(4):
            await client.send(str(index))
            received.append(await client.recv())
    assert received == ["text", b"bytes", "message", '{"json":1}']


async def test_an_inline_handler_is_told_of_opening_and_of_the_end() -> None:
    """An inline handler is called from the protocol's callback; opened comes first and closed exactly once."""
    router = Router()
    ends: list[tuple[int | None, str, str]] = []
    router.websocket(
        "/{device}",
        message_handler(
            lambda ws, message, device: message.data,
            inline=True,
            opened=lambda ws, device: ws.try_send(f"hello {device}"),
            closed=lambda ws: ends.append((ws.close_code, ws.close_reason, ws.reason_lost)),
        ),
    )
    async with Server(router) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/d1") as client:
            assert await client.recv() == "hello d1"
            await client.send(b"abc")
            assert await client.recv() == b"abc"
            await client.close(4001, "bye")
        client = await connect(f"ws://127.0.0.1:{server.port}/d1")
        client.transport.abort()
        await client.wait_closed()
    assert ends == [(4001, "bye", "closed by peer"), (1006, "", "connection lost")]


async def test_a_batch_handler_gets_lists() -> None:
    """A batch goes at its size, the rest after the timeout."""
    router = Router()

    async def store(ws: Connection, messages: list[Message]) -> list[str | bytes]:
        return [message.data for message in messages]

    router.websocket("/", batch_handler(store, size=3, timeout=0.05))
    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/") as client:
        for index in range(4):
            await client.send(str(index))
        assert [await client.recv(), await client.recv()] == ['["0","1","2"]', '["3"]']


async def test_recover_closes_after_five_errors_in_a_row() -> None:
    """Each error is answered, a success resets the count, the fifth in a row closes with 1011."""
    router = Router()

    async def risky(ws: Connection, message: Message) -> str:
        if message.data == "bad":
            raise ValueError("bad")
        return "good"

    router.websocket("/", message_handler(recover(risky)))
    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/") as client:
        for message in ("bad", "bad", "bad", "bad", "good", "bad", "bad", "bad", "bad", "bad"):
            await client.send(message)
            assert await client.recv() == ("Error: bad" if message == "bad" else "good")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


async def test_pages_stand_beside_the_sockets() -> None:
    """GET on a page gives its response, any other method 405, an unknown path 404."""
    router = Router()

    async def page(request: Request, name: str) -> Response:
        return Response(200, f"{name} {request.query.get('q')}")

    router.get("/pages/{name}", page)

    async def fetch(port: int, method: str, target: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async with Server(router) as server:
        answer = await fetch(server.port, "GET", "/pages/one?q=2")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\none 2")
        answer = await fetch(server.port, "HEAD", "/pages/one?q=2")
        assert b"Content-Length: 5\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")
        assert (await fetch(server.port, "PUT", "/pages/one")).startswith(b"HTTP/1.1 405 ")
        assert (await fetch(server.port, "GET", "/elsewhere")).startswith(b"HTTP/1.1 404 ")


async def test_a_stop_says_1001() -> None:
    """A server that stops closes every connection with 1001."""
    router = Router()

    @router.websocket("/")
    async def wait(ws: Connection) -> None:
        async for _ in ws:
            pass

    async with Server(router) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/")
    await client.wait_closed()
    assert client.close_code == 1001
    assert server.stats()["handlers"] == 0

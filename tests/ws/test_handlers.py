"""The kinds of handlers: what they are called with, and what becomes of what they return and raise."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed as ClientClosed

from gateway.ws import (
    Connection,
    ConnectionClosed,
    Message,
    Router,
    Server,
    batch_handler,
    message_handler,
    recover,
    websocket_handler,
)

from .support import CLOSE, PING, PONG, TEXT, Frame, eventually, frame, open_raw, serving


def url(server: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


async def nothing(ws: Connection, **params: Any) -> None:
    """Returns at once."""


async def test_a_handler_that_returns_closes_with_1000() -> None:
    """The end of a websocket handler is a normal close."""
    async with serving(websocket_handler(nothing)) as server:
        client = await connect(url(server))
        await client.wait_closed()
        assert client.close_code == 1000


async def test_a_handler_that_raises_closes_with_1011_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """1011 for the peer, without the exception's words; the traceback for the log."""

    async def broken(ws: Connection) -> None:
        raise RuntimeError("secret")

    async def broken_message(ws: Connection, message: Message) -> None:
        raise RuntimeError("secret")

    async def broken_batch(ws: Connection, messages: list[Message]) -> None:
        raise RuntimeError("secret")

    for handler in (
        websocket_handler(broken),
        message_handler(broken_message),
        message_handler(lambda ws, message: 1 // 0, inline=True),
        batch_handler(broken_batch, size=1),
    ):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "gateway.ws"):
            async with serving(handler) as server:
                client = await connect(url(server))
                with suppress(ClientClosed):
                    await client.send("x")
                await client.wait_closed()
        assert client.close_code == 1011
        assert "secret" not in (client.close_reason or "")
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "Traceback" in caplog.text
        assert server.stats()["handler_errors"] == 1


async def test_a_handler_that_meets_a_closed_connection_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """ConnectionClosed of its own connection ends a handler quietly."""
    caught: list[ConnectionClosed] = []

    async def talk(ws: Connection) -> None:
        while True:
            try:
                await ws.send_text("x")
            except ConnectionClosed as closed:
                caught.append(closed)
                raise
            await asyncio.sleep(0.001)

    with caplog.at_level(logging.WARNING, "gateway.ws"):
        async with serving(websocket_handler(talk)) as server:
            async with connect(url(server)) as client:
                await client.recv()
            await eventually(lambda: caught)
            await eventually(lambda: server.stats()["handlers"] == 0)
    assert server.stats()["handler_errors"] == 0
    assert not caplog.records


async def test_message_handlers_get_data_alone_in_order() -> None:
    """Each data message, with the path's parameters; never a control frame, also with control=True."""
    seen: list[tuple[str, str | bytes, int]] = []

    async def handler(ws: Connection, message: Message, n: int) -> None:
        await asyncio.sleep(0)
        seen.append((message.kind, message.data, n))

    def inline(ws: Connection, message: Message, n: int) -> None:
        seen.append((message.kind, message.data, n))

    for endpoint in (message_handler(handler), message_handler(inline), message_handler(inline, inline=True)):
        seen.clear()
        async with (
            serving(endpoint, "/{n:int}", options={"control": True}) as server,
            open_raw(server.port, "/7") as raw,
        ):
            raw.send(frame(TEXT, b"a") + frame(PING) + frame(PONG, b"x") + frame(2, b"b") + frame(TEXT, b"c"))
            await eventually(lambda: len(seen) == 3)
        assert seen == [("text", "a", 7), ("binary", b"b", 7), ("text", "c", 7)]


async def test_what_was_received_before_the_peers_close_is_handled() -> None:
    """A message handler gets every message that came before the close frame, however slow it is."""
    seen: list[str | bytes] = []

    async def handler(ws: Connection, message: Message) -> str:
        await asyncio.sleep(0.001)
        seen.append(message.data)
        return "too late, and no error"

    async with serving(message_handler(handler)) as server:
        async with connect(url(server)) as client:
            for number in range(20):
                await client.send(str(number))
        await eventually(lambda: len(seen) == 20)
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert seen == [str(number) for number in range(20)]
    assert server.stats()["handler_errors"] == 0


async def test_no_message_is_handled_after_the_handler_closed() -> None:
    """A handler that closes is not called again, though more messages are queued."""
    calls: list[str | bytes] = []

    async def handler(ws: Connection, message: Message) -> None:
        calls.append(message.data)
        ws.close_soon(4000)

    async with serving(message_handler(handler)) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, b"x") * 10)
        assert await raw.recv() == Frame(CLOSE, b"\x0f\xa0")
        await asyncio.sleep(0.02)
    assert calls == ["x"]


async def test_opened_and_closed_frame_the_messages() -> None:
    """opened comes before the first message and may send; closed comes once, with code and reason known."""
    trail: list[str] = []

    def opened(ws: Connection, name: str) -> None:
        trail.append(f"opened {name}")
        ws.try_send("welcome")

    def closed(ws: Connection) -> None:
        trail.append(f"closed {ws.close_code} {ws.close_reason}")

    def handler(ws: Connection, message: Message, name: str) -> None:
        trail.append(f"message {message.data!r}")

    for inline in (True, False):
        trail.clear()
        endpoint = message_handler(handler, inline=inline, opened=opened, closed=closed)
        async with serving(endpoint, "/{name}") as server:
            async with connect(url(server, "/n")) as client:
                assert await client.recv() == "welcome"
                await client.send("m")
                await eventually(lambda: len(trail) == 2)
                await client.close(4000, "why")
            await eventually(lambda: len(trail) == 3)
        assert trail == ["opened n", "message 'm'", "closed 4000 why"]


@pytest.mark.parametrize("how", ["abort", "close", "ping timeout", "stop", "protocol error", "opened raises"])
async def test_closed_is_called_exactly_once_however_it_ends(how: str) -> None:
    """The peer's abort or close, a ping timeout, a failure, a stop of the server: one call each."""
    ends: list[tuple[int | None, str]] = []

    def opened(ws: Connection) -> None:
        if how == "opened raises":
            raise RuntimeError

    endpoint = message_handler(
        lambda ws, message: None,
        inline=True,
        opened=opened,
        closed=lambda ws: ends.append((ws.close_code, ws.reason_lost)),
    )
    beat = (0.05, 0.05) if how == "ping timeout" else None
    async with serving(endpoint, heartbeat=beat, close_timeout=0.1) as server, open_raw(server.port) as raw:
        if how == "abort":
            raw.writer.transport.abort()
        elif how == "close":
            raw.send(frame(CLOSE, b"\x0f\xa0"))
        elif how == "protocol error":
            raw.send(b"\xff\xff")
        if how == "stop":
            server.close()
            assert await raw.recv() == Frame(CLOSE, b"\x03\xe9server is stopping")
        else:
            await eventually(lambda: server.stats()["transports"] == 0)
    expected = {
        "abort": (1006, "connection lost"),
        "close": (4000, "closed by peer"),
        "ping timeout": (1006, "ping timeout"),
        "stop": (1001, ""),
        "protocol error": (1002, "protocol error"),
        "opened raises": (1011, ""),
    }
    assert ends == [expected[how]]


class Later:
    """A handler that is an object, and async."""

    async def __call__(self, ws: Connection, message: Message) -> None:
        """Do nothing."""


def test_functions_that_must_not_be_async_are_refused() -> None:
    """An async inline handler, opened or closed would never be awaited."""

    async def later(*_: Any) -> None:
        pass

    with pytest.raises(TypeError, match="inline"):
        message_handler(later, inline=True)
    with pytest.raises(TypeError, match="inline"):
        message_handler(Later(), inline=True)
    with pytest.raises(TypeError, match="opened"):
        message_handler(later, opened=later)
    with pytest.raises(TypeError, match="closed"):
        message_handler(later, closed=later)


async def test_a_returned_none_sends_nothing() -> None:
    """Only what is not None is an answer; falsy values are."""
    answers: list[Any] = [None, "", b"", 0, [], False]
    async with (
        serving(message_handler(lambda ws, message: answers[int(message.data)])) as server,
        connect(url(server)) as client,
    ):
        for index in range(len(answers)):
            await client.send(str(index))
        assert [await client.recv() for _ in answers[1:]] == ["", b"", "0", "[]", "false"]


@pytest.mark.parametrize("inline", [True, False])
async def test_recover_counts_per_connection_and_handler(inline: bool) -> None:
    """Errors of one connection are no errors of another's; the reply can be chosen."""

    def risky(ws: Connection, message: Message) -> str:
        if message.data == "bad":
            raise ValueError("no")
        return "fine"

    wrapped = recover(risky, max_errors=2, reply=lambda error: {"error": str(error)})
    async with (
        serving(message_handler(wrapped, inline=inline)) as server,
        connect(url(server)) as one,
        connect(url(server)) as two,
    ):
        for client in (one, two):
            await client.send("bad")
            assert await client.recv() == '{"error":"no"}'
        await two.send("good")
        assert await two.recv() == "fine"
        for client in (one, two):
            await client.send("bad")
            assert await client.recv() == '{"error":"no"}'
        await one.wait_closed()
        assert one.close_code == 1011
        await two.send("good")
        assert await two.recv() == "fine"


class AsyncCall:
    """Its call is async, which its type does not say."""

    async def __call__(self, ws: Connection, message: Any) -> str:
        raise ValueError("bad")


@pytest.mark.parametrize("fn", [AsyncCall(), lambda ws, message: AsyncCall()(ws, message)], ids=["object", "lambda"])
async def test_recover_guards_whatever_is_awaited(fn: Any) -> None:
    """An object with an async call, and a function that hands on a coroutine, are under the same guard."""
    async with serving(message_handler(recover(fn))) as server, connect(url(server)) as client:
        await client.send("x")
        assert await client.recv() == "Error: bad"
        await client.send("x")
        assert await client.recv() == "Error: bad"


async def test_recover_around_a_batch_handler() -> None:
    """A batch that fails is answered once."""

    async def store(ws: Connection, messages: list[Message]) -> int:
        if any(message.data == "bad" for message in messages):
            raise ValueError("bad batch")
        return len(messages)

    async with (
        serving(batch_handler(recover(store, max_errors=2), size=2, timeout=5)) as server,
        connect(url(server)) as client,
    ):
        for message in ("a", "bad", "c", "d"):
            await client.send(message)
        assert [await client.recv(), await client.recv()] == ["Error: bad batch", "2"]
    with pytest.raises(ValueError, match="at least 1"):
        recover(store, max_errors=0)


async def test_one_endpoint_on_several_routes() -> None:
    """An endpoint can be registered more than once, with different options."""
    router = Router()
    endpoint = message_handler(lambda ws, message: ws.path)
    router.websocket("/a", endpoint)
    router.websocket("/b", endpoint, max_message_bytes=10)
    async with Server(router) as server, connect(url(server, "/a")) as a, connect(url(server, "/b")) as b:
        for client, path in ((a, "/a"), (b, "/b")):
            await client.send("x")
            assert await client.recv() == path
        await a.send("x" * 11)
        assert await a.recv() == "/a"
        await b.send("x" * 11)
        await b.wait_closed()
        assert b.close_code == 1009

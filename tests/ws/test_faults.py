"""What goes wrong in a program's own code is counted, logged with path and peer, and ends one connection at most."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import re
from typing import Any

import pytest
from websockets.server import ServerProtocol

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
    websocket_handler,
)

from .support import TEXT, close_frame, echo, eventually, frame, no_loop_errors, open_raw, serving


async def cancelled(*_: Any, **__: Any) -> None:
    """As a handler does that awaits a task which somebody else cancelled."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def raises(*_: Any, **__: Any) -> None:
    raise asyncio.CancelledError


# Cancellations that are not ours


@pytest.mark.parametrize(
    "handler",
    [
        websocket_handler(cancelled),
        message_handler(cancelled),
        batch_handler(cancelled, 1),
        message_handler(raises, inline=True),
        message_handler(echo, opened=raises),
        message_handler(echo, inline=True, opened=raises),
        message_handler(recover(cancelled, 1)),
        message_handler(recover(raises, 1), inline=True),
    ],
)
async def test_a_cancellation_from_within_is_a_failure(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    """1011, counted and logged, with path and peer; never a connection without a handler."""
    with no_loop_errors(), caplog.at_level(logging.WARNING, "gateway.ws"):
        async with serving(handler) as server, open_raw(server.port) as raw:
            raw.send(frame(TEXT, b"x"))
            while (got := await raw.recv()) is not None and got.opcode == TEXT:
                pass
            assert got is not None
            assert got.code == 1011
            raw.send(close_frame(1011))
            assert await raw.ended()
            assert server.stats()["handler_errors"] == 1
    (record,) = caplog.records
    assert record.exc_info
    assert re.search(r"at '/' from \('127\.0\.0\.1', \d+\)", record.getMessage())


async def test_a_cancellation_within_middleware_is_a_500() -> None:
    """And not a connection that nobody answers."""
    router = Router()
    router.get("/", lambda request: Response(200))

    async def middleware(request: Request, call_next: Any) -> Response:
        await cancelled()
        return Response(200)

    router.middleware(middleware)
    async with Server(router, stop_timeout=1) as server, open_raw(server.port, None) as raw:
        raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.wait_for(raw.reader.read(), 3)).startswith(b"HTTP/1.1 500")
        assert server.stats()["handler_errors"] == 1


async def test_a_stop_still_cancels_handlers() -> None:
    """A cancellation from outside is none of their failures."""
    async with (
        serving(websocket_handler(lambda ws: asyncio.sleep(30)), stop_timeout=0.3) as server,
        open_raw(server.port),
    ):
        await eventually(lambda: server.stats()["handlers"] == 1)
        server.close()
        await server.wait_closed()
        assert server.stats()["handler_errors"] == 0


# Answers


async def test_a_failing_upgrade_is_answered(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """500, counted and logged, at once; after the answer the connection is aborted."""

    def broken(*_: Any) -> None:
        raise ValueError("broken")

    async with serving(handshake_timeout=30) as server:
        monkeypatch.setattr(server, "terms", broken)
        async with open_raw(server.port, None) as raw:
            assert await asyncio.wait_for(raw.handshake(), 3) == "HTTP/1.1 500 Internal Server Error"
        monkeypatch.undo()
        monkeypatch.setattr(Connection, "_open", broken)
        async with open_raw(server.port, None) as raw:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await raw.handshake()
        await eventually(lambda: server.stats()["transports"] == 0)
        assert server.stats()["handler_errors"] == 2
        assert "broken" in caplog.text


async def test_log_lines_hold_no_lines_of_a_peers(caplog: pytest.LogCaptureFixture) -> None:
    """A decoded path is logged as a literal."""
    router = Router()
    router.get("/p/{x}", lambda request, x: 1 / 0)  # type: ignore[arg-type,return-value]
    async with Server(router, stop_timeout=1) as server, open_raw(server.port, None) as raw:
        raw.send(b"GET /p/a%0AERROR%20forged HTTP/1.1\r\nHost: a\r\n\r\n")
        await raw.reader.read()
    assert r"'/p/a\nERROR forged'" in caplog.text


@pytest.mark.parametrize("target", [b"/", b"/?" + b"a=1&" * 300, b"/nothing", b"/%zz"])
async def test_no_answer_to_head_has_a_body(target: bytes) -> None:
    """Whatever the status: 500, 400 and 404 among them."""
    router = Router()
    router.get("/", lambda request: 1 / 0)  # type: ignore[arg-type,return-value]
    async with Server(router, stop_timeout=1) as server, open_raw(server.port, None) as raw:
        raw.send(b"HEAD %s HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        head, _, body = (await asyncio.wait_for(raw.reader.read(), 3)).partition(b"\r\n\r\n")
        assert head[9:12] in (b"500", b"400", b"404")
        assert not body


def test_interim_statuses_are_refused() -> None:
    """A response that would be no answer (100 to 199, but 101) cannot be made."""
    for status in (100, 102, 199, 600, 99):
        with pytest.raises(ValueError, match="status"):
            Response(status)


# Limits


async def test_a_closing_connection_still_counts_for_its_address() -> None:
    """Until its transport is gone: one address cannot hold all the places of max_connections."""
    async with (
        serving(max_connections=20, max_per_address=3, close_timeout=30, stop_timeout=0.4) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(3):
            raw = await stack.enter_async_context(open_raw(server.port))
            raw.send(close_frame(1000))
            await raw.recv()
        assert server.stats()["transports"] == 3
        async with open_raw(server.port, None) as raw:
            assert (await raw.handshake()).startswith("HTTP/1.1 429")


async def test_on_a_unix_socket_nobody_has_an_address(tmp_path: Any) -> None:
    """max_per_address does not count its connections together."""
    writers = []
    async with serving(unix=tmp_path / "s", max_per_address=1) as server:
        for number in range(3):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b"101" in await reader.readline()
            assert server.connections == number + 1
            writers.append(writer)
        for writer in writers:
            writer.close()


async def test_a_cut_handshake_is_counted_once() -> None:
    """As cut, not as failed, too."""
    async with serving(max_handshakes=2) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(open_raw(server.port, None))
        await eventually(lambda: server.stats()["handshakes_cut"] == 3)
        await asyncio.sleep(0.05)
        assert server.stats()["handshakes_failed"] == 0


# Order


async def test_closed_is_told_behind_the_last_message() -> None:
    """Also where the handler is slower than the peer's close."""
    told: list[str] = []

    async def slow(ws: Connection, message: Message) -> None:
        await asyncio.sleep(0.01)
        told.append(str(message.data))

    def closed(ws: Connection) -> None:
        told.append(f"closed {ws.close_code}")

    async with serving(message_handler(slow, closed=closed)) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, b"3") + close_frame(4000))
        await eventually(lambda: len(told) == 4)
        assert told == ["1", "2", "3", "closed 4000"]


async def test_closed_is_told_of_a_connection_whose_task_never_ran() -> None:
    """A stop that cancels it at once does not leave its end untold."""
    told: list[int | None] = []

    def opened(ws: Connection) -> None:
        server = ws._host
        asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in server._tasks])  # type: ignore[attr-defined]

    handler = message_handler(echo, opened=opened, closed=lambda ws: told.append(ws.close_code))
    async with serving(handler, stop_timeout=0.5) as server, open_raw(server.port) as raw:
        raw.send(close_frame(1000))
        await eventually(lambda: told)
        assert len(told) == 1


# recover


async def test_recover_with_a_reply_of_none_sends_nothing() -> None:
    """Neither for an error in between nor for the last one."""
    handler = message_handler(recover(lambda ws, message: 1 / 0, max_errors=2, reply=lambda error: None))
    async with serving(handler) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, b"1") * 2)
        got = await raw.recv()
        assert got is not None
        assert got.code == 1011


async def test_recover_leaves_the_names_of_parameters_to_the_route() -> None:
    """Parameters called ws or message are none of its own."""

    def handler(connection: Connection, received: Message, /, ws: str, message: str) -> str:
        return f"{ws} {message}"

    async with (
        serving(message_handler(recover(handler)), "/{ws}/{message}") as server,
        open_raw(server.port, "/a/b") as raw,
    ):
        raw.send(frame(TEXT, b"x"))
        assert (await raw.recv()).payload == b"a b"  # type: ignore[union-attr]


def test_recover_around_an_async_function_is_async() -> None:
    """So that it is refused where none can be, at registration."""

    async def handler(ws: Connection, message: Message) -> None: ...

    with pytest.raises(TypeError, match="inline"):
        message_handler(recover(handler), inline=True)


# What is left behind


@pytest.mark.parametrize("kind", ["upgraded", "refused", "batch"])
async def test_nothing_waits_for_the_cyclic_collector(kind: str) -> None:
    """A connection that is gone is gone from memory."""
    handler = batch_handler(echo, 5) if kind == "batch" else message_handler(echo, inline=True)

    async def one(port: int) -> None:
        async with open_raw(port, None) as raw:
            await raw.handshake("/" if kind != "refused" else "/nothing", ("Sec-WebSocket-Protocol: a",))
            if kind != "refused":
                raw.send(close_frame(1000))
            assert await raw.ended()

    def alive() -> int:
        return sum(isinstance(one, ServerProtocol | Connection) for one in gc.get_objects())

    async with serving(handler, options={"subprotocols": ("a",)}) as server:
        await one(server.port)
        await asyncio.sleep(0.05)
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(10):
                await one(server.port)
            await eventually(lambda: not server.stats()["transports"] and not server.stats()["answered"])
            await asyncio.sleep(0.05)
            assert alive() <= before
        finally:
            gc.enable()

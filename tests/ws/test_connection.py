"""A connection as handlers use it: receiving, sending, pinging, pausing, closing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as ClientClosed

from gateway.ws import Connection, ConnectionClosed, Message, Prepared, Server, message_handler, websocket_handler
from gateway.ws.message import MESSAGE_OVERHEAD

from .support import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    close_frame,
    eventually,
    frame,
    no_loop_errors,
    open_raw,
    serving,
)


class Held:
    """A handler that hands its connection to the test, and ends when the test says so."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self.leave = asyncio.Event()

    async def __call__(self, ws: Connection, **params: Any) -> None:
        self.opened.set_result(ws)
        await self.leave.wait()

    async def connection(self) -> Connection:
        return await asyncio.wait_for(self.opened, 5)


def url(server: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


# Receiving


async def test_recv_gives_messages_then_close_then_none() -> None:
    """Text and binary in order, one close message with the peer's code and reason, then None for ever."""
    held = Held()
    async with serving(websocket_handler(held)) as server, connect(url(server)) as client:
        ws = await held.connection()
        await client.send("a")
        await client.send(b"b")
        await client.close(4000, "bye")
        assert await ws.recv() == Message("text", "a")
        assert await ws.recv() == Message("binary", b"b")
        assert await ws.recv() == Message("close", b"", 4000, "bye")
        assert [await ws.recv(), await ws.recv(timeout=0)] == [None, None]
        assert (ws.closed, ws.close_code, ws.close_reason, ws.reason_lost) == (True, 4000, "bye", "closed by peer")
        held.leave.set()


async def test_recv_tells_a_peer_that_vanished() -> None:
    """Without a close frame the close message has 1006, and reason_lost says how it ended."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        raw.send(frame(TEXT, b"last words"))
        raw.writer.write_eof()
        assert await ws.recv() == Message("text", "last words")
        assert await ws.recv() == Message("close", b"", 1006, "")
        assert await ws.recv() is None
        assert ws.reason_lost == "connection lost"
        held.leave.set()


async def test_recv_times_out_and_loses_nothing() -> None:
    """TimeoutError is not None: the connection is open, and the next message comes."""
    held = Held()
    async with serving(websocket_handler(held)) as server, connect(url(server)) as client:
        ws = await held.connection()
        for timeout in (0.02, 0, -1):
            with pytest.raises(TimeoutError):
                await ws.recv(timeout=timeout)
        assert not ws.closed
        await client.send("a")
        message = await ws.recv(timeout=5)
        assert message is not None
        assert message.data == "a"
        held.leave.set()


async def test_recv_can_be_cancelled_without_losing_a_message() -> None:
    """A message that arrives as recv is cancelled is there for the next one."""
    held = Held()
    async with serving(websocket_handler(held)) as server, connect(url(server)):
        ws = await held.connection()
        for number in range(3):
            waiting = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)
            ws._enqueue(Message("text", str(number)))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await ws.recv() == Message("text", str(number))
        held.leave.set()


async def test_only_one_task_may_wait_in_recv() -> None:
    """A second recv at once is an error of the program; so is recv where messages go to a handler."""
    held = Held()
    seen: list[Connection] = []
    handler = message_handler(lambda ws, message: None, inline=True, opened=seen.append)
    async with serving(websocket_handler(held)) as server, connect(url(server)):
        ws = await held.connection()
        waiting = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await ws.recv()
        held.leave.set()
        await waiting
    async with serving(handler) as server, connect(url(server)):
        with pytest.raises(RuntimeError, match="go to its handler"):
            await seen[0].recv()


async def test_iteration_ends_after_the_close_message() -> None:
    """``async for`` gives the close message last."""
    kinds: list[str] = []
    done = asyncio.Event()

    async def handler(ws: Connection) -> None:
        async for message in ws:
            kinds.append(message.kind)
        async for _ in ws:
            kinds.append("more")
        done.set()

    async with serving(websocket_handler(handler)) as server:
        async with connect(url(server)) as client:
            await client.send("a")
            await client.send(b"b")
        await asyncio.wait_for(done.wait(), 5)
    assert kinds == ["text", "binary", "close"]


async def test_control_frames_are_seen_where_asked_for() -> None:
    """With control=True pings, answered all the same, and pongs are messages; without it they are not."""
    for control in (True, False):
        held = Held()
        async with (
            serving(websocket_handler(held), options={"control": control}) as server,
            open_raw(server.port) as raw,
        ):
            ws = await held.connection()
            raw.send(frame(PING, b"p") + frame(PONG, b"q") + frame(TEXT, b"t"))
            expected = [Message("ping", b"p"), Message("pong", b"q")] if control else []
            assert [await ws.recv() for _ in expected] == expected
            assert await ws.recv() == Message("text", "t")
            assert await raw.recv() == Frame(PONG, b"p")
            held.leave.set()


async def test_a_full_queue_pauses_reading_and_loses_nothing() -> None:
    """Beyond max_queue_bytes the peer waits; everything arrives, in order, once it is taken."""
    held = Held()
    size, count = 1000, 400
    bound = 20 * (size + MESSAGE_OVERHEAD)
    async with serving(websocket_handler(held), max_queue_bytes=bound) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        raw.send(b"".join(frame(BINARY, number.to_bytes(2, "big") * (size // 2)) for number in range(count)))
        await eventually(lambda: ws._transport_paused)
        assert ws._queue is not None
        assert len(ws._queue) == 20
        for number in range(count):
            message = await ws.recv(timeout=5)
            assert message is not None
            assert message.data[:2] == number.to_bytes(2, "big")
            assert len(ws._queue) <= 20
        held.leave.set()


async def test_a_handler_that_does_not_receive_holds_up_neither_pong_nor_close() -> None:
    """A thousand messages nobody takes: pings are answered, a close is seen, and the messages are still there."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        raw.send(frame(TEXT, b"not taken") * 1000 + frame(PING, b"there?"))
        assert await raw.recv() == Frame(PONG, b"there?")
        raw.send(close_frame(4000))
        assert await raw.recv() == Frame(CLOSE, b"\x0f\xa0")
        await eventually(lambda: ws.close_code == 4000)
        messages = [message async for message in ws]
        assert [message.kind for message in messages] == ["text"] * 1000 + ["close"]
        held.leave.set()


# Sending


async def test_everything_that_sends() -> None:
    """Each method sends its kind of frame; a batch is one write and keeps its order."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        await ws.send_text("é")
        await ws.send_bytes(memoryview(b"b"))
        await ws.send_json({"a": [1]})
        await ws.send(Message.text("m").prepare())
        await ws.send([1, 2])
        await ws.send(Message.pong(b"po"))
        writes: list[bytes] = []
        write = ws._transport.write
        ws._transport.write = lambda data: (writes.append(bytes(data)), write(data))[1]  # type: ignore[method-assign,assignment]
        await ws.send_batch(["1", b"2", Message.text("3"), {"4": 4}])
        await ws.send_batch([])
        assert len(writes) == 1
        received = [await raw.recv() for _ in range(10)]
        assert received == [
            Frame(TEXT, "é".encode()),
            Frame(BINARY, b"b"),
            Frame(TEXT, b'{"a":[1]}'),
            Frame(TEXT, b"m"),
            Frame(TEXT, b"[1,2]"),
            Frame(PONG, b"po"),
            Frame(TEXT, b"1"),
            Frame(BINARY, b"2"),
            Frame(TEXT, b"3"),
            Frame(TEXT, b'{"4":4}'),
        ]
        for wrong in (ws.send_text(b"x"), ws.send_bytes("x"), ws.send_json(object()), ws.send(object())):  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await wrong
        with pytest.raises(ValueError, match="surrogates"):
            await ws.send_text("\ud800")
        assert await raw_is_open(ws, raw)
        held.leave.set()


async def raw_is_open(ws: Connection, raw: Any) -> bool:
    await ws.send_text("still")
    return bool(await raw.recv() == Frame(TEXT, b"still"))


async def test_sending_on_a_closed_connection_raises_one_exception() -> None:
    """Everything that sends raises ConnectionClosed with code and reason; try_send drops and gives 0."""
    held = Held()
    async with serving(websocket_handler(held)) as server, connect(url(server)) as client:
        ws = await held.connection()
        await client.close(4001, "gone")
        await eventually(lambda: ws.closed)
        for coroutine in (
            ws.send("a"),
            ws.send_text("a"),
            ws.send_bytes(b"a"),
            ws.send_json(1),
            ws.send_batch(["a"]),
            ws.send_batch([]),
            ws.ping(),
        ):
            with pytest.raises(ConnectionClosed, match="4001 gone") as closed:
                await coroutine
            assert (closed.value.code, closed.value.reason) == (4001, "gone")
        assert ws.try_send("a") == 0
        assert ws.pending_bytes == 0
        held.leave.set()


async def test_a_close_message_closes() -> None:
    """Sent like any other message, a close message closes with its code and reason."""
    async with serving(message_handler(lambda ws, message: Message.close(4002, "you asked"))) as server:
        client = await connect(url(server))
        await client.send("x")
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4002, "you asked")


async def test_try_send_tells_what_is_pending() -> None:
    """It never waits; what the peer's machine has not taken is counted, kernel buffer included, and goes down again."""
    held = Held()
    async with (
        serving(websocket_handler(held), send_buffer_bytes=16384) as server,
        open_raw(server.port, recv_buffer=4096) as raw,
    ):
        ws = await held.connection()
        assert ws.try_send("small") == 0
        raw.writer.transport.pause_reading()
        sent, pending = 0, 0
        prepared = Message.binary(b"x" * 10_000).prepare()
        for _ in range(60):
            pending = ws.try_send(prepared)
            sent += len(prepared.frame)
            await asyncio.sleep(0)
        # What is not pending is in the peer's receive buffer, or under way to it.
        assert sent - 200_000 < pending < sent
        assert ws.pending_bytes > ws._transport.get_write_buffer_size()
        raw.writer.transport.resume_reading()
        assert (await raw.recv()) == Frame(TEXT, b"small")
        for _ in range(60):
            received = await raw.recv()
            assert received is not None
            assert len(received.payload) == 10_000
        assert ws.pending_bytes == 0
        held.leave.set()


async def test_send_waits_for_a_slow_peer() -> None:
    """A send returns only when the write buffer has room; a peer that reads gets everything."""
    held = Held()
    async with (
        serving(websocket_handler(held), send_buffer_bytes=8192, write_buffer_bytes=16384, send_timeout=30) as server,
        open_raw(server.port, recv_buffer=4096) as raw,
    ):
        ws = await held.connection()
        raw.writer.transport.pause_reading()

        async def send_all() -> None:
            for number in range(100):
                await ws.send_bytes(number.to_bytes(1, "big") * 10_000)

        sending = asyncio.ensure_future(send_all())
        await eventually(lambda: ws._write_paused)
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert ws._transport.get_write_buffer_size() < 40_000
        raw.writer.transport.resume_reading()
        for number in range(100):
            received = await raw.recv()
            assert received is not None
            assert received.payload == number.to_bytes(1, "big") * 10_000
        await sending
        held.leave.set()


async def test_compression_deflates_both_ways_and_prepared_frames_once() -> None:
    """A route with compression negotiates permessage-deflate without contexts; any client understands it."""
    text = "many times the same. " * 50
    prepared = Message.text(text).prepare()
    frames: list[bytes] = []

    async def handler(ws: Connection, message: Message) -> Prepared:
        assert message.data == text
        await ws.send_text(text)
        frames.append(prepared.deflated)
        return prepared

    async with (
        serving(message_handler(handler), options={"compression": True}) as server,
        connect(url(server)) as client,
        connect(url(server), compression=None) as plain,
    ):
        assert "permessage-deflate" in str(client.response)
        for peer in (client, plain, client):
            await peer.send(text)
            assert await peer.recv() == text
            assert await peer.recv() == text
        assert frames[0] is frames[2]
        assert len(frames[0]) < 100


async def test_a_compressed_message_that_inflates_too_far_is_too_big() -> None:
    """max_message_bytes bounds what a message inflates to."""
    async with serving(options={"compression": True}, max_message_bytes=10_000) as server:
        client = await connect(url(server))
        await client.send("x" * 9_000)
        assert len(await client.recv()) == 9_000
        await client.send("x" * 5_000_000)
        await client.wait_closed()
        assert client.close_code == 1009


async def test_compression_is_off_unless_asked_for() -> None:
    """A route without compression does not negotiate it."""
    async with serving() as server, connect(url(server)) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


# Pings


async def test_ping_gives_the_round_trip_time() -> None:
    """Each ping gets its own pong; a later one answers the earlier ones, too."""
    held = Held()
    async with serving(websocket_handler(held)) as server, connect(url(server)):
        ws = await held.connection()
        times = await asyncio.gather(ws.ping(), ws.ping(b"data"), ws.ping("text"), ws.ping())
        assert all(0 < seconds < 5 for seconds in times)
        held.leave.set()


async def test_a_later_pong_answers_earlier_pings() -> None:
    """RFC 6455, 5.5.3: a peer may answer only the latest ping."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        first, second = asyncio.ensure_future(ws.ping(b"1")), asyncio.ensure_future(ws.ping(b"2"))
        await raw.recv()
        raw.send(frame(PONG, b"other") + frame(PONG, b"2"))
        assert await first >= await second > 0
        held.leave.set()


async def test_a_ping_times_out() -> None:
    """Without a pong there is a TimeoutError, and the same data may be used again; with the end, ConnectionClosed."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        with pytest.raises(TimeoutError):
            await ws.ping(b"data", timeout=0.02)
        waiting = asyncio.ensure_future(ws.ping(b"data"))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="same data"):
            await ws.ping(b"data")
        with pytest.raises(ValueError, match="125 bytes"):
            await ws.ping(b"x" * 126)
        raw.writer.transport.abort()
        with pytest.raises(ConnectionClosed):
            await waiting
        held.leave.set()


# Pause and resume


async def test_pause_stops_messages_and_the_peer() -> None:
    """While paused nothing is delivered and the peer's sends run into its buffers; after resume all of it comes."""
    seen: list[int] = []
    opened: list[Connection] = []

    def handler(ws: Connection, message: Message) -> None:
        seen.append(int.from_bytes(message.data[:4], "big"))  # type: ignore[arg-type]
        if len(seen) == 5:
            ws.pause()

    async with (
        serving(message_handler(handler, inline=True, opened=opened.append)) as server,
        open_raw(server.port) as raw,
    ):
        count = 500
        raw.send(b"".join(frame(BINARY, number.to_bytes(4, "big") * 4000) for number in range(count)))
        await eventually(lambda: len(seen) == 5)
        await asyncio.sleep(0.05)
        assert len(seen) == 5
        assert raw.writer.transport.get_write_buffer_size() > 0
        opened[0].resume()
        await eventually(lambda: len(seen) == count)
        assert seen == list(range(count))


async def test_what_came_before_the_end_is_read_after_resume() -> None:
    """Messages in the same read as a pause, and the peer's FIN right behind: all of them come, then the end."""
    trail: list[str | bytes | int | None] = []
    opened: list[Connection] = []

    def handler(ws: Connection, message: Message) -> None:
        trail.append(message.data)
        ws.pause()

    endpoint = message_handler(
        handler, inline=True, opened=opened.append, closed=lambda ws: trail.append(ws.close_code)
    )
    async with serving(endpoint) as server, open_raw(server.port) as raw:
        raw.send(b"".join(frame(TEXT, b"%d" % number) for number in range(4)))
        raw.writer.write_eof()
        for count in range(1, 4):
            await eventually(lambda count=count: len(trail) == count)
            await asyncio.sleep(0.02)
            assert len(trail) == count
            opened[0].resume()
        await eventually(lambda: trail == ["0", "1", "2", "3", 1006])
        assert await raw.ended()


async def test_closing_while_paused_works_from_both_sides() -> None:
    """A close of ours resumes reading, so that the peer's answer is seen behind what it sent before."""
    held = Held()
    async with serving(websocket_handler(held), close_timeout=5) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        ws.pause()
        raw.send(frame(TEXT, b"not delivered") * 10)
        await asyncio.sleep(0.02)
        closing = asyncio.ensure_future(ws.close(4000, "enough"))
        assert await raw.recv() == Frame(CLOSE, b"\x0f\xa0enough")
        raw.send(close_frame(4000, b"enough"))
        await eventually(lambda: ws.close_code == 4000)
        await raw.close()
        await asyncio.wait_for(closing, 2)
        assert await ws.recv() == Message("close", b"", 4000, "enough")
        held.leave.set()


# Ending


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        (1005, "", "cannot be sent"),
        (1006, "", "cannot be sent"),
        (99, "", "cannot be sent"),
        (1000, "x" * 124, "123 bytes"),
    ],
)
async def test_close_checks_code_and_reason(code: int, reason: str, says: str) -> None:
    """A code that must not be sent or a reason that is too long is refused, and the connection stays open."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        with pytest.raises(ValueError, match=says):
            await ws.close(code, reason)
        with pytest.raises(ValueError, match=says):
            ws.close_soon(code, reason)
        assert await raw_is_open(ws, raw)
        held.leave.set()


async def test_close_waits_for_the_peer_and_is_the_same_for_all_who_call() -> None:
    """The peer sees code and reason; whoever closes again only waits; the peer's own code is close_code."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        closings = [asyncio.ensure_future(ws.close(3000 + index, f"{index}")) for index in range(3)]
        assert await raw.recv() == Frame(CLOSE, b"\x0b\xb80")
        assert not any(closing.done() for closing in closings)
        raw.send(close_frame(4444, b"mine"))
        await raw.ended()
        await raw.close()
        await asyncio.gather(*closings)
        await ws.close()
        assert (ws.close_code, ws.close_reason, ws.reason_lost) == (4444, "mine", "")
        held.leave.set()


async def test_close_is_bounded() -> None:
    """A peer that answers no close frame is aborted after close_timeout; the code is ours."""
    held = Held()
    async with serving(websocket_handler(held), close_timeout=0.1) as server, open_raw(server.port):
        ws = await held.connection()
        started = asyncio.get_running_loop().time()
        await ws.close(4000, "anybody?")
        assert 0.09 < asyncio.get_running_loop().time() - started < 3
        assert (ws.close_code, ws.close_reason) == (4000, "anybody?")
        assert server.stats()["close_timeouts"] == 1
        held.leave.set()


async def test_a_peer_that_keeps_tcp_open_after_its_close_frame_is_bounded() -> None:
    """The end is known at the close frame; the transport goes after close_timeout at the latest."""
    held = Held()
    async with serving(websocket_handler(held), close_timeout=0.15) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        raw.send(close_frame(4000))
        await eventually(lambda: ws.close_code == 4000)
        assert server.connections == 0
        assert server.stats()["transports"] == 1
        await eventually(lambda: server.stats()["transports"] == 0)
        held.leave.set()


async def test_abort_ends_at_once() -> None:
    """The peer sees no close frame; code 1006 and the reason given."""
    ends: list[tuple[int | None, str]] = []
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        ws.on_closed(lambda ws: ends.append((ws.close_code, ws.reason_lost)))
        ws.abort("no more")
        ws.abort("again")
        assert ws.closed
        assert await raw.recv() is None
        await eventually(lambda: ends)
        assert ends == [(1006, "no more")]
        late: list[Connection] = []
        ws.on_closed(late.append)
        await asyncio.sleep(0)
        assert late == [ws]
        held.leave.set()


async def test_a_reset_is_named() -> None:
    """A peer that resets the connection is "connection reset", or "connection lost" where the system hides it."""
    held = Held()
    async with serving(websocket_handler(held)) as server, open_raw(server.port) as raw:
        ws = await held.connection()
        sock = raw.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: on, 0 s
        raw.writer.transport.abort()
        await eventually(lambda: ws.close_code == 1006)
        assert ws.reason_lost == "connection reset"
        held.leave.set()


async def test_information_about_a_connection() -> None:
    """Path, parameters, query, headers, address, a unique id and the time of the last byte are there."""
    held = Held()
    async with serving(websocket_handler(held), "/d/{name}") as server:
        target = url(server, "/d/p%C3%BCmp?a=1&a=2")
        async with connect(target, additional_headers={"X-A": "b"}) as client:
            ws = await held.connection()
            assert (ws.path, ws.path_params) == ("/d/pümp", {"name": "pümp"})
            assert ws.query["a"] == "2"
            assert ws.headers["x-a"] == "b"
            assert ws.remote == client.local_address
            assert ws.subprotocol is None
            assert ws.state == {}
            assert len(ws.id) == 32
            before = ws.last_received
            await client.send("x")
            await ws.recv()
            assert before < ws.last_received <= server.clock()
            assert "open" in repr(ws)
            held.leave.set()


async def test_no_exception_reaches_the_loop() -> None:
    """Hooks that raise, handlers that raise and peers that break off are logged and counted, nothing more."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("on purpose")

    async def fail_later(*_: Any) -> None:
        fail()

    def cancelled(*_: Any) -> None:
        raise asyncio.CancelledError

    with no_loop_errors():
        for handler in (
            message_handler(fail, inline=True),
            message_handler(lambda ws, message: None, inline=True, opened=fail),
            message_handler(lambda ws, message: None, inline=True, closed=fail),
            message_handler(lambda ws, message: object(), inline=True),
            message_handler(cancelled, inline=True),
            message_handler(lambda ws, message: object()),
            message_handler(fail),
            websocket_handler(fail_later),
            websocket_handler(lambda ws, missing: None),  # type: ignore[arg-type,return-value]
        ):
            async with serving(handler) as server:
                clients: list[ClientConnection] = [await connect(url(server)) for _ in range(2)]
                for client in clients:
                    with suppress(ClientClosed):
                        await client.send("x")
                clients[0].transport.abort()
                await clients[1].close()
                await eventually(lambda: server.stats()["transports"] == 0)
                assert server.stats()["handler_errors"] >= 1

"""What is written to a peer that does not read is bounded, whoever writes it; on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.ws import Connection, ConnectionClosed, Message, Pool, Server, message_handler, websocket_handler

from .rig import Rig
from .support import BINARY, PING, PONG, TEXT, Raw, echo, eventually, frame, no_loop_errors, open_raw, serving

BOTH_LOOPS = True

KIB = 1 << 10
BUFFERS = {"send_buffer_bytes": 16 * KIB, "write_buffer_bytes": 16 * KIB}


@asynccontextmanager
async def one_peer(handler: Any, **options: Any) -> AsyncIterator[tuple[Server, Raw, Connection]]:
    """A server and its only peer, which does not read yet."""
    with no_loop_errors():
        async with (
            serving(handler, **{"heartbeat": None, **BUFFERS, **options}) as server,
            open_raw(server.port, recv_buffer=4096) as raw,
        ):
            raw.writer.transport.pause_reading()
            await eventually(lambda: len(server.connections) == 1)
            yield server, raw, next(iter(server.connections))


def inline(answer: Any) -> Any:
    return message_handler(lambda ws, message: answer(ws, message), inline=True)


async def flood(raw: Raw, data: bytes, until: Any, seconds: float = 5) -> None:
    """Send ``data`` over and over while the transport takes it, until ``until()``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not until():
        assert loop.time() < deadline, "it did not happen"
        if raw.writer.transport.get_write_buffer_size() < 256 * KIB:
            raw.send(data)
        await asyncio.sleep(0.001)


async def test_answers_of_inline_handlers_wait_for_the_peer() -> None:
    """A peer that sends and does not read is not read either, and cut after send_timeout."""
    async with one_peer(inline(echo), send_timeout=0.4) as (_, raw, ws):
        most = 0

        def gone() -> bool:
            nonlocal most
            most = max(most, ws.pending_bytes)
            return ws.closed

        await flood(raw, frame(BINARY, b"x" * 8000) * 8, gone)
        await ws.wait_closed()
        assert (ws.close_code, ws.reason_lost) == (1006, "send timeout")
        assert 16 * KIB < most < 160 * KIB


async def test_reading_goes_on_where_the_peer_reads_again() -> None:
    """Nothing is lost on the way, and the order is kept."""
    async with one_peer(inline(echo), send_timeout=30) as (server, raw, ws):
        for number in range(3000):
            raw.send(frame(TEXT, b"%06d" % number * 40))
        await eventually(lambda: ws._paused)
        assert server.stats()["messages_in"] < 3000
        raw.writer.transport.resume_reading()
        for number in range(3000):
            answer = await raw.recv()
            assert answer is not None
            assert answer.payload == b"%06d" % number * 40
        assert not ws._paused


async def test_one_read_does_not_make_more_than_the_bound_of_answers() -> None:
    """Large answers to many small messages in one piece: the next message waits until there is room."""
    most = 0

    def large(ws: Connection, message: Message) -> bytes:
        nonlocal most
        most = max(most, ws.pending_bytes)
        return b"y" * (100 * KIB)

    async with one_peer(inline(large), send_timeout=0.3) as (_, raw, ws):
        raw.send(frame(TEXT, b"") * 1000)
        await ws.wait_closed()
        assert ws.reason_lost == "send timeout"
        assert most < 300 * KIB


async def test_a_pools_bound_holds_while_messages_are_read() -> None:
    """A handler that broadcasts to its own connection, again and again in one turn of the loop."""
    pool = Pool(max_pending_bytes=256 * KIB, slow="disconnect")
    most = 0

    def loud(ws: Connection, message: Message) -> None:
        nonlocal most
        pool.broadcast(b"z" * 4096)
        most = max(most, ws.pending_bytes)

    handler = message_handler(loud, inline=True, opened=pool.add)
    async with one_peer(handler) as (_, raw, ws):
        raw.send(frame(TEXT, b"") * 10_000)
        await ws.wait_closed()
        assert ws.reason_lost == "too slow"
        assert most <= 256 * KIB


def test_what_cannot_be_written_ends_the_connection_alone() -> None:
    """An error of the transport after a read is logged and ends this connection; the loop never sees it."""
    rig = Rig()

    def fail(data: Any) -> None:
        raise MemoryError

    rig.handle = lambda message: message  # type: ignore[assignment,return-value]
    rig.transport.write = fail  # type: ignore[method-assign]
    rig.feed(frame(TEXT, b"hello"))
    assert rig.ws.closed
    assert rig.transport.closing
    rig.end()
    assert rig.ws.reason_lost == "internal error"


async def test_sends_that_are_given_up_cost_nothing_and_prolong_nothing() -> None:
    """A send behind a full buffer waits before it writes; send_timeout counts from the peer's last progress."""
    loop = asyncio.get_running_loop()
    most = 0
    seconds = 0.0
    said: list[str] = []

    async def handler(ws: Connection) -> None:
        nonlocal most, seconds
        started = loop.time()
        try:
            while True:
                try:
                    await asyncio.wait_for(ws.send_bytes(b"x" * 10_000), 0.03)
                except TimeoutError:
                    most = max(most, ws.pending_bytes)
        except ConnectionClosed as closed:
            said.append(str(closed))
            seconds = loop.time() - started

    async with one_peer(websocket_handler(handler), send_timeout=0.6) as (_, _raw, ws):
        await ws.wait_closed()
        await eventually(lambda: seconds)
        assert ws.reason_lost == "send timeout"
        assert said == ["connection closed: 1006 send timeout"]
        assert most < 120 * KIB
        assert 0.55 < seconds < 3


async def test_many_senders_share_the_bound() -> None:
    """Tasks that wait to send go one after the other as there is room, and get all of it out."""
    done = []

    async def handler(ws: Connection) -> None:
        await ws.send_bytes(b"x" * 300_000)

        async def send(number: int) -> None:
            await ws.send_bytes(bytes([number]) * 50_000)
            done.append(number)

        await asyncio.gather(*(send(number) for number in range(20)))
        await ws.recv()

    async with one_peer(websocket_handler(handler), send_timeout=30) as (_, raw, ws):
        await eventually(lambda: ws._write_paused)
        assert ws.pending_bytes < 400_000
        raw.writer.transport.resume_reading()
        assert len((await raw.recv()).payload) == 300_000  # type: ignore[union-attr]
        got = [(await raw.recv()).payload for _ in range(20)]  # type: ignore[union-attr]
        assert sorted(payload[0] for payload in got) == list(range(20))
        assert {len(payload) for payload in got} == {50_000}
        await eventually(lambda: len(done) == 20)


async def test_the_latest_ping_is_answered_once_there_is_room() -> None:
    """Behind a full buffer only the last of many pings has its pong, as soon as the peer reads."""

    async def handler(ws: Connection) -> None:
        await ws.send_bytes(b"x" * 500_000)
        await ws.recv()

    async with one_peer(websocket_handler(handler), send_timeout=30) as (_, raw, ws):
        await eventually(lambda: ws._write_paused)
        before = ws.pending_bytes
        raw.send(b"".join(frame(PING, b"%04d" % number) for number in range(2000)))
        await eventually(lambda: ws.last_received and ws._host.counters.bytes_in >= 20_000)
        await asyncio.sleep(0.05)
        assert ws.pending_bytes <= before
        raw.writer.transport.resume_reading()
        message = await raw.recv()
        assert message is not None
        assert len(message.payload) == 500_000
        pong = await raw.recv(2)
        assert pong is not None
        assert (pong.opcode, pong.payload) == (PONG, b"1999")


async def test_pings_without_end_do_not_fill_the_memory() -> None:
    """Pongs to a peer that reads nothing stay within the bound of what is written."""
    async with one_peer(inline(echo), send_timeout=30) as (_, raw, ws):
        most = 0

        def enough() -> bool:
            nonlocal most
            most = max(most, ws.pending_bytes)
            return ws._host.counters.bytes_in > 4_000_000

        await flood(raw, frame(PING, b"p" * 120) * 500, enough)
        assert not ws.closed
        assert most < 160 * KIB


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_paused_connection_can_ask_whether_its_peer_is_gone(how: str) -> None:
    """The kernel knows, and nothing is read for it; what was sent before is read afterwards."""
    seen: list[Message] = []

    def take(ws: Connection, message: Message) -> None:
        seen.append(message)

    async with one_peer(message_handler(take, inline=True)) as (_, raw, ws):
        ws.pause()
        raw.send(frame(TEXT, b"1"))
        await asyncio.sleep(0.02)
        raw.send(frame(TEXT, b"2"))
        await asyncio.sleep(0.02)
        assert not ws.peer_gone
        if how == "close":
            raw.writer.write_eof()
        else:
            sock = raw.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.writer.transport.abort()
        await eventually(lambda: ws.peer_gone)
        assert not ws.closed
        assert not seen
        ws.resume()
        await ws.wait_closed()
        assert ws.peer_gone
        if how == "close":
            assert [message.data for message in seen] == ["1", "2"]


def test_a_transport_without_a_socket_cannot_say_whether_its_peer_is_gone() -> None:
    """False."""
    rig = Rig()
    assert not rig.ws.peer_gone
    rig.end()


@pytest.mark.parametrize("slow", ["drop_oldest", "disconnect"])
async def test_a_pools_bound_covers_a_message_that_is_written_at_once(slow: Any) -> None:
    """A large message to a peer that is only a little behind; and whatever never was sent is counted."""
    pool = Pool(max_pending_bytes=512 * KIB, slow=slow, deadline=30)
    handler = message_handler(lambda ws, message: None, inline=True, opened=pool.add)
    async with one_peer(handler, write_buffer_bytes=64 * KIB) as (_, _raw, ws):
        number = 0
        while ws.pending_bytes < 50_000:
            pool.broadcast(b"x" * 1000)
            number += 1
            await asyncio.sleep(0)
        assert not ws._write_paused
        pool.broadcast(b"x" * (512 * KIB - 100))
        assert ws.pending_bytes + pool.stats()["queued_bytes"] <= 512 * KIB
        stats = pool.stats()
        assert (stats["sent"], stats["dropped"]) == (number, 1)
        assert ws.closed == (slow == "disconnect")


async def test_a_pool_counts_what_was_queued_for_a_peer_that_ends() -> None:
    """sent and dropped add up to what was broadcast."""
    pool = Pool(slow="drop_oldest", deadline=30)
    handler = message_handler(lambda ws, message: None, inline=True, opened=pool.add)
    async with one_peer(handler) as (_, _raw, ws):
        for _ in range(100):
            pool.broadcast(b"x" * 8000)
        assert pool.stats()["queued_bytes"] > 0
        ws.abort()
        await ws.wait_closed()
        stats = pool.stats()
        assert stats["dropped"] > 0
        assert stats["sent"] + stats["dropped"] == 100

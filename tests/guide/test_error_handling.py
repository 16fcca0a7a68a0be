"""The guide, "Error Handling": connection errors, and recovery from errors of a handler."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gateway.ws import Connection, ConnectionClosed, Message, Router, batch_handler, message_handler, recover

from .support import dial, eventually, running, stalled, watching


async def process_message(text: str) -> None:
    if text.startswith("bad"):
        raise ValueError(f"{text} is bad")


def robust(trail: list[str], *, patience: float, ping_timeout: float) -> Router:
    """The guide's robust handler: a timeout is answered with a ping, a close with a look at its code."""
    router = Router()

    @router.websocket("/robust")
    async def robust_websocket_handler(ws: Connection) -> None:
        while True:
            try:
                message = await ws.recv(timeout=patience)
            except TimeoutError:
                trail.append("timeout")
                try:
                    await ws.ping("keepalive", timeout=ping_timeout)
                except (TimeoutError, ConnectionClosed):
                    trail.append("lost")
                    break
                trail.append("alive")
                continue
            if message is None:
                trail.append("none")
                break
            match message.kind:
                case "text":
                    try:
                        await process_message(str(message.data))
                    except ValueError:
                        await ws.send_text("Error processing your message")
                case "close":
                    trail.append(f"closed: {message.code} - {message.reason}")
                    break

    return router


async def test_an_error_of_processing_is_answered_and_no_more() -> None:
    """What cannot be processed is said so, the rest goes on, and the close is seen with code and reason."""
    trail: list[str] = []
    async with running(robust(trail, patience=60.0, ping_timeout=60.0)) as server:
        async with dial(server, "/robust") as client:
            for text in ("good", "bad 1", "good", "bad 2"):
                await client.send(text)
            for _ in range(2):
                assert await client.recv() == "Error processing your message"
            await client.close(4000, "enough")
        await eventually(lambda: trail)
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert trail == ["closed: 4000 - enough"]


async def test_a_timeout_of_recv_is_told_apart_from_a_close() -> None:
    """The guide's promise of ``recv_timeout``: silence raises ``TimeoutError``, a live peer passes the check."""
    trail: list[str] = []
    async with running(robust(trail, patience=0.02, ping_timeout=60.0), heartbeat=None) as server:
        async with dial(server, "/robust", ping_interval=None) as client:
            await eventually(lambda: trail.count("alive") >= 3)
            await client.send("bad")
            assert await client.recv() == "Error processing your message"
            await client.close(4001, "done")
        await eventually(lambda: server.stats()["handlers"] == 0)
    *checks, end = trail
    assert end == "closed: 4001 - done"
    assert checks[::2] == ["timeout"] * (len(checks) // 2)
    assert set(checks[1::2]) == {"alive"}


async def test_recv_does_not_spin_once_the_connection_has_closed() -> None:
    """The guide's promise of ``recv_timeout``: after the close there is ``None`` at once, and never a timeout."""
    ends: list[str] = []
    router = Router()

    @router.websocket("/")
    async def handler(ws: Connection) -> None:
        for _ in range(4):
            try:
                message = await ws.recv(timeout=60.0)
            except TimeoutError:
                ends.append("timeout")
            else:
                ends.append("none" if message is None else message.kind)
        # No time passes, and no task is needed, also where a wait of no time at all is asked for.
        assert await ws.recv(timeout=0) is None

    async with running(router) as server:
        async with dial(server) as client:
            await client.send("one")
        await eventually(lambda: server.stats()["handlers"] == 0)
        assert server.stats()["handler_errors"] == 0
    assert ends == ["text", "close", "none", "none"]


async def test_no_message_is_lost_to_a_timeout() -> None:
    """A receive that timed out or was cancelled leaves the next message to the next one."""
    received: list[str] = []
    router = Router()

    @router.websocket("/")
    async def impatient(ws: Connection) -> None:
        await ws.send_text("ready")
        while len(received) < 200:
            try:
                async with asyncio.timeout(0.0005):
                    message = await ws.recv(timeout=0.001)
            except TimeoutError:
                continue
            assert message is not None
            received.append(str(message.data))

    async with running(router) as server, dial(server) as client:
        await client.recv()
        for number in range(200):
            await client.send(str(number))
            await asyncio.sleep(0.0003)
        await client.wait_closed()
    assert received == [str(number) for number in range(200)]


async def test_a_peer_that_answers_no_ping_is_given_up() -> None:
    """The guide's keepalive: a peer that keeps its connection open and reads nothing is found, within the time."""
    trail: list[str] = []
    async with (
        running(robust(trail, patience=0.02, ping_timeout=0.1), heartbeat=None, close_timeout=0.1) as server,
        stalled(server, "/robust"),
    ):
        await eventually(lambda: server.stats()["transports"] == 0)
        assert trail[-2:] == ["timeout", "lost"]


async def test_a_peer_that_vanishes_during_the_check_is_lost_at_once() -> None:
    """A ping under way ends with the connection, however much time it still had."""
    trail: list[str] = []
    async with (
        running(robust(trail, patience=0.02, ping_timeout=60.0), heartbeat=None) as server,
        stalled(server, "/robust") as client,
    ):
        await eventually(lambda: trail[-1:] == ["timeout"])
        client.transport.abort()
        await eventually(lambda: server.stats()["handlers"] == 0)
        assert trail[-2:] == ["timeout", "lost"]


MAX_ERRORS = 5


async def handle_message(ws: Connection, message: Message) -> None:
    """The guide's: text and binary are processed, or that fails."""
    if isinstance(message.data, str):
        await process_message(message.data)
        await ws.send_text(message.data.upper())
    else:
        await ws.send_bytes(message.data[::-1])


async def resilient_websocket(ws: Connection) -> None:
    """The guide's handler with its own count of errors."""
    error_count = 0
    async for message in ws:
        if message.kind == "close":
            break
        try:
            await handle_message(ws, message)
        except ValueError as error:
            error_count += 1
            if error_count >= MAX_ERRORS:
                await ws.close(1011, "Too many errors")
                break
            await ws.send_text(f"Error: {error}")
        else:
            error_count = 0


async def test_error_recovery_by_hand() -> None:
    """Each error is answered, a success resets the count, and the fifth in a row closes with 1011 and the reason."""
    router = Router()
    router.websocket("/resilient", resilient_websocket)
    async with running(router) as server, dial(server, "/resilient") as client:
        for text, answer in (
            [("bad 1", "Error: bad 1 is bad")] * 4 + [("good", "GOOD")] + [("bad", "Error: bad is bad")] * 4
        ):
            await client.send(text)
            assert await client.recv() == answer
        await client.send(b"\x01\x02")
        assert await client.recv() == b"\x02\x01"
        for _ in range(5):
            await client.send("bad")
        assert [await client.recv() for _ in range(4)] == ["Error: bad is bad"] * 4
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1011, "Too many errors")


def plain(ws: Connection, message: Message) -> str:
    """A handler that is not async."""
    text = str(message.data)
    if text.startswith("bad"):
        raise ValueError(f"{text} is bad")
    return text.upper()


async def asynchronous(ws: Connection, message: Message) -> str:
    """The same, async."""
    await asyncio.sleep(0)
    return plain(ws, message)


async def batched(ws: Connection, messages: list[Message]) -> str:
    """The same for batches of one."""
    (message,) = messages
    return plain(ws, message)


@pytest.mark.parametrize(
    "handler",
    [
        message_handler(recover(asynchronous, max_errors=MAX_ERRORS)),
        message_handler(recover(plain, max_errors=MAX_ERRORS)),
        message_handler(recover(plain, max_errors=MAX_ERRORS), inline=True),
        batch_handler(recover(batched, max_errors=MAX_ERRORS), size=1),
    ],
    ids=["async", "plain", "inline", "batch"],
)
async def test_error_recovery(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The guide's recovery in one word, for every kind of handler; its errors are logged and counted."""
    router = Router()
    router.websocket("/", handler)
    with caplog.at_level(logging.WARNING, "gateway.ws"):
        async with running(router) as server, dial(server) as client, dial(server) as other:

            async def ask(*texts: str) -> list[str | bytes]:
                for text in texts:
                    await client.send(text)
                return [await client.recv() for _ in texts]

            assert await ask("bad 1", "bad 2", "bad 3", "bad 4") == [f"Error: bad {n} is bad" for n in range(1, 5)]
            assert await ask("good") == ["GOOD"]
            # Four in a row on another connection are that one's alone.
            for number in range(4):
                await other.send("bad")
                assert await other.recv() == "Error: bad is bad"
                assert await ask(f"bad {number}") == [f"Error: bad {number} is bad"]
            assert await ask("better") == ["BETTER"]
            assert await ask(*["bad"] * 5) == ["Error: bad is bad"] * 5
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (1011, "too many errors")
            await other.send("still here")
            assert await other.recv() == "STILL HERE"
            assert server.stats()["handler_errors"] == 17
    assert len(caplog.records) == 17
    assert "is bad" in caplog.text


async def test_nothing_is_handled_after_the_last_error() -> None:
    """What the peer had sent behind its fifth error is not handled any more."""
    handled: list[str] = []

    def count(ws: Connection, message: Message) -> None:
        handled.append(str(message.data))
        raise ValueError("always")

    for inline in (False, True):
        handled.clear()
        router = Router()
        router.websocket("/", message_handler(recover(count, max_errors=5), inline=inline))
        async with running(router) as server, watching(server) as peer:
            for number in range(20):
                peer.text(str(number))
            answers = []
            while (frame := await peer.frame()) is not None:
                answers.append(bytes(frame.data))
            await eventually(lambda server=server: server.stats()["handlers"] == 0)
        assert answers == [b"Error: always"] * 5 + [b"\x03\xf3too many errors"]
        assert handled == ["0", "1", "2", "3", "4"]


async def test_a_reply_of_ones_own() -> None:
    """What an error is answered with can be any message, so that nothing of the server's need be told."""
    router = Router()
    router.websocket(
        "/", message_handler(recover(plain, max_errors=2, reply=lambda error: {"error": type(error).__name__}))
    )
    async with running(router) as server, dial(server) as client:
        await client.send("bad")
        assert await client.recv() == '{"error":"ValueError"}'

"""The guide's chapter "Error Handling"."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect

from gateway.ws import Connection, ConnectionClosed, Message, Router, Server, message_handler, recover
from tests.ws.support import open_raw


async def process_message(text: str) -> None:
    if text == "bad":
        raise ValueError("cannot process")


def robust(trail: list[str], patience: float) -> Router:
    """The guide's ``robust_websocket_handler``."""
    router = Router()

    @router.websocket("/robust")
    async def robust_websocket_handler(ws: Connection) -> None:
        while True:
            try:
                message = await ws.recv(timeout=patience)
            except TimeoutError:
                trail.append("no message, checking")
                try:
                    await ws.ping(b"keepalive", timeout=patience)
                except (TimeoutError, ConnectionClosed):
                    trail.append("connection lost")
                    break
                continue
            if message is None:
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


async def test_connection_errors() -> None:
    """Connection Errors: a timeout is told from the end, and the end has code and reason."""
    trail: list[str] = []
    async with Server(robust(trail, 0.05), heartbeat=None) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/robust", ping_interval=None)
        await client.send("good")
        await client.send("bad")
        assert await client.recv() == "Error processing your message"
        await asyncio.sleep(0.13)
        await client.close(4000, "enough")
    assert trail[0] == "no message, checking"
    assert "connection lost" not in trail
    assert trail[-1] == "closed: 4000 - enough"


async def test_a_lost_connection_is_found_by_the_check() -> None:
    """Connection Errors: a peer that does not answer the keepalive is given up."""
    trail: list[str] = []
    async with (
        Server(robust(trail, 0.05), heartbeat=None, close_timeout=0.1) as server,
        open_raw(server.port, "/robust") as raw,
    ):
        await raw.ended()
    assert trail == ["no message, checking", "connection lost"]


async def some_processing_function(text: str) -> str:
    if text.startswith("bad"):
        raise ValueError(f"{text} is bad")
    return text.upper()


async def test_error_recovery() -> None:
    """Error Recovery: each error is answered, a success resets the count, five in a row close with 1011."""

    async def handle_message(ws: Connection, message: Message) -> str | bytes:
        if isinstance(message.data, str):
            return await some_processing_function(message.data)
        return message.data

    router = Router()
    router.websocket("/resilient", message_handler(recover(handle_message, max_errors=5)))
    async with Server(router) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/resilient")
        for text, answer in [("bad 1", "Error: bad 1 is bad")] * 4 + [("good", "GOOD")]:
            await client.send(text)
            assert await client.recv() == answer
        await client.send(b"binary")
        assert await client.recv() == b"binary"
        for _ in range(5):
            await client.send("bad")
        assert [await client.recv() for _ in range(5)] == ["Error: bad is bad"] * 5
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1011, "too many errors")

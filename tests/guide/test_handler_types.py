"""The guide's chapter "WebSocket Handlers"."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect

from gateway.ws import Connection, Message, Router, Server, batch_handler, message_handler, websocket_handler


async def test_basic_handler() -> None:
    """1. Basic Handler: the handler owns the loop."""
    received: list[str] = []

    async def handler(ws: Connection) -> None:
        async for message in ws:
            match message.kind:
                case "text":
                    received.append(str(message.data))
                    await ws.send_text("Acknowledged")
                case "close":
                    break

    router = Router()
    router.websocket("/simple", websocket_handler(handler))
    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/simple") as client:
        await client.send("one")
        assert await client.recv() == "Acknowledged"
    assert received == ["one"]


async def process_text_message(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


async def process_binary_data(data: bytes) -> bytes:
    await asyncio.sleep(0)
    return data[::-1]


async def test_message_handler() -> None:
    """2. Message Handler: called for each message, in order; it sends, or gives back what is to be sent."""

    async def handler(ws: Connection, message: Message) -> bytes | None:
        if isinstance(message.data, str):
            await ws.send_text(await process_text_message(message.data))
            return None
        return await process_binary_data(message.data)

    router = Router()
    router.websocket("/message", message_handler(handler))
    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/message") as client:
        await client.send("text")
        await client.send(b"\x01\x02\x03")
        assert await client.recv() == "TEXT"
        assert await client.recv() == b"\x03\x02\x01"


async def process_message_batch(messages: list[Message]) -> list[Message]:
    return [Message.text(f"{len(messages)}: {message.data}") for message in messages]


async def test_batch_handler() -> None:
    """3. Batch Handler: 50 messages at once, or what there is after 100 ms."""

    async def handler(ws: Connection, messages: list[Message]) -> None:
        await ws.send_batch(await process_message_batch(messages))

    router = Router()
    router.websocket("/batch", batch_handler(handler, 50, 0.1))
    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/batch") as client:
        for number in range(53):
            await client.send(str(number))
        answers = [await asyncio.wait_for(client.recv(), 5) for _ in range(53)]
    assert answers == [f"50: {n}" for n in range(50)] + [f"3: {n}" for n in range(50, 53)]

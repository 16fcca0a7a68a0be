"""The guide's chapter "Performance Considerations"."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import connect

from gateway.ws import Connection, Message, Router, Server, batch_handler

BATCH_SIZE, BATCH_TIMEOUT = 100, 0.05


def process_single_message(message: Message) -> Message:
    if message.kind != "text":
        raise ValueError("Unsupported message type")
    return Message.text(str(message.data).upper())


async def process_message_batch(ws: Connection, messages: list[Message]) -> None:
    """The guide's: what cannot be processed is left out, the rest is answered in one batch."""
    responses = []
    for message in messages:
        try:
            responses.append(process_single_message(message))
        except ValueError:
            continue
    if responses:
        await ws.send_batch(responses)


async def test_batch_processing_by_hand() -> None:
    """Batch Processing for High Throughput: the guide's loop with a timeout on each receive."""
    router = Router()

    @router.websocket("/fast")
    async def high_throughput(ws: Connection) -> None:
        buffer: list[Message] = []
        while True:
            try:
                message = await ws.recv(timeout=BATCH_TIMEOUT)
            except TimeoutError:
                if buffer:
                    await process_message_batch(ws, buffer)
                    buffer = []
                continue
            if message is None or message.kind == "close":
                break
            buffer.append(message)
            if len(buffer) >= BATCH_SIZE:
                await process_message_batch(ws, buffer)
                buffer = []

    await check(router)


async def test_batch_processing_with_the_handler() -> None:
    """Batch Processing for High Throughput: the same in one line."""
    router = Router()
    router.websocket("/fast", batch_handler(process_message_batch, BATCH_SIZE, BATCH_TIMEOUT))
    await check(router)


async def check(router: Router) -> None:
    """Two full batches and a partial one come back in order, without what was not text."""
    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/fast") as client:
        for number in range(250):
            await client.send(b"binary" if number == 120 else f"m{number}")
        answers = [await asyncio.wait_for(client.recv(), 5) for _ in range(249)]
    assert answers == [f"M{number}" for number in range(250) if number != 120]


async def test_memory_optimization() -> None:
    """Memory Optimization: one buffer is reused for every answer, and each answer is its own message."""
    router = Router()

    @router.websocket("/lean")
    async def memory_efficient(ws: Connection) -> None:
        response = bytearray()
        async for message in ws:
            match message.kind:
                case "binary":
                    response.clear()
                    response += b"Echo: "
                    response += message.data  # type: ignore[arg-type]
                    await ws.send_bytes(response)
                case "close":
                    break

    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/lean") as client:
        for number in range(20):
            await client.send(b"%d" % number * number)
        assert [await client.recv() for _ in range(20)] == [b"Echo: " + b"%d" % n * n for n in range(20)]

"""The guide, "Performance Considerations": batches for high throughput, and an echo that keeps nothing."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from gateway.ws import Connection, Message, Router, batch_handler, message_handler

from .support import CountingListener, dial, eventually, running

BATCH_SIZE = 100
BATCH_TIMEOUT = 0.05


def process_single_message(message: Message) -> Message:
    if message.kind != "text":
        raise ValueError("Unsupported message type")
    return Message.text(str(message.data).upper())


class HighThroughput:
    """The guide's handler, by hand and in one word; keeps in order what it processed."""

    def __init__(self) -> None:
        self.processed: list[Message] = []

    async def process_message_batch(self, ws: Connection, messages: list[Message]) -> None:
        """What cannot be processed is left out, the rest is answered in one batch."""
        self.processed += messages
        responses = []
        for message in messages:
            try:
                responses.append(process_single_message(message))
            except ValueError:
                continue
        if responses and not ws.closed:
            await ws.send_batch(responses)

    async def by_hand(self, ws: Connection) -> None:
        """The guide's loop, with a timeout on every receive; what is left at the end is processed as well."""
        buffer: list[Message] = []
        while True:
            try:
                message = await ws.recv(timeout=BATCH_TIMEOUT)
            except TimeoutError:
                full = bool(buffer)
            else:
                if message is None or message.kind == "close":
                    break
                buffer.append(message)
                full = len(buffer) >= BATCH_SIZE
            if full:
                await self.process_message_batch(ws, buffer)
                buffer = []
        await self.process_message_batch(ws, buffer)


BY_HAND = [False, True]
NAMES = ["batch_handler", "by hand"]


@pytest.fixture
def throughput(request: pytest.FixtureRequest) -> tuple[HighThroughput, Any]:
    """A handler's state, and the handler: by hand or not."""
    state = HighThroughput()
    if request.param:
        return state, state.by_hand
    return state, batch_handler(state.process_message_batch, BATCH_SIZE, BATCH_TIMEOUT)


@pytest.mark.parametrize("throughput", BY_HAND, ids=NAMES, indirect=True)
async def test_high_throughput(throughput: tuple[HighThroughput, Any]) -> None:
    """Full batches at once and the rest after its timeout, in order, without what was not text."""
    state, handler = throughput
    router = Router()
    router.websocket("/fast", handler)
    async with running(router) as server, dial(server, "/fast") as client:
        for number in range(1000):
            await client.send(b"binary" if number % 100 == 20 else f"m{number}")
        for number in range(1000):
            if number % 100 != 20:
                assert await client.recv() == f"M{number}"
        await client.send(b"nothing to answer")
        await client.send("last")
        assert await client.recv() == "LAST"
    assert len(state.processed) == 1002


@pytest.mark.parametrize("throughput", BY_HAND, ids=NAMES, indirect=True)
async def test_the_rest_is_processed_when_the_peer_closes(throughput: tuple[HighThroughput, Any]) -> None:
    """The guide's promise of every message processed: the close is seen behind the last message, not instead of it."""
    state, handler = throughput
    router = Router()
    router.websocket("/fast", handler)
    async with running(router) as server:
        async with dial(server, "/fast") as client:
            for number in range(130):
                await client.send(str(number))
        await eventually(lambda: server.stats()["handlers"] == 0)
        assert server.stats()["handler_errors"] == 0
    assert state.processed == [Message.text(str(number)) for number in range(130)]


async def test_high_throughput_takes_few_writes() -> None:
    """The guide's promise of batches: a thousand answers leave in ten writes to the socket."""
    listener = CountingListener()
    router = Router()
    router.websocket("/fast", batch_handler(HighThroughput().process_message_batch, BATCH_SIZE, 60.0))
    async with running(router, sock=listener) as server, dial(server, "/fast") as client:
        await (await client.ping())
        del listener.writes[:]
        for number in range(1000):
            await client.send(f"m{number}")
        for number in range(1000):
            assert await client.recv() == f"M{number}"
        assert len(listener.writes) <= 10


async def memory_efficient_websocket(ws: Connection) -> None:
    """The guide's echo with one buffer for all its answers."""
    response = bytearray()
    async for message in ws:
        match message.kind:
            case "text":
                response.clear()
                response += b"Echo: "
                response += str(message.data).encode()
                await ws.send_bytes(response)
            case "close":
                break


async def test_an_answer_is_its_own_whatever_becomes_of_the_buffer() -> None:
    """A buffer that is used again at once changes nothing that was sent from it before, in a batch neither."""
    router = Router()
    router.websocket("/lean", memory_efficient_websocket)

    @router.websocket("/batch")
    async def batch(ws: Connection) -> None:
        buffer = bytearray(b"first")
        messages = [buffer, Message.binary(buffer), memoryview(b"view")]
        await ws.send_batch(messages)
        await ws.send_bytes(buffer)
        buffer[:] = b"later"
        await ws.send_bytes(memoryview(buffer))

    async with running(router) as server:
        async with dial(server, "/lean") as client:
            for number in range(20):
                await client.send(str(number) * number)
            assert [await client.recv() for _ in range(20)] == [f"Echo: {str(n) * n}".encode() for n in range(20)]
        async with dial(server, "/batch") as client:
            assert [await client.recv() for _ in range(5)] == [b"first", b"first", b"view", b"first", b"later"]


async def test_an_echo_keeps_nothing() -> None:
    """The guide's promise of little memory: after 4 MiB of messages the process holds what it held before."""
    router = Router()
    router.websocket("/lean", memory_efficient_websocket)
    async with running(router) as server, dial(server, "/lean") as client:

        async def echo(count: int) -> None:
            for number in range(count):
                await client.send(f"{number:04}" * 1024)
                assert len(await client.recv()) == 6 + 4096

        await echo(50)
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await echo(1000)
            gc.collect()
            after, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 200_000
    assert peak - before < 1_000_000


@pytest.mark.parametrize("inline", [False, True], ids=["queue", "pause"])
async def test_a_server_that_is_behind_holds_a_bounded_number_of_messages(inline: bool) -> None:
    """The guide's advice to queue messages: the queue is bounded, the peer waits, nothing is lost, nobody is blamed."""
    go_on = asyncio.Event()
    received: list[int] = []
    sockets: list[Connection] = []
    router = Router()

    async def busy(ws: Connection) -> None:
        sockets.append(ws)
        await go_on.wait()
        async for message in ws:
            if message.kind == "text":
                received.append(int(str(message.data)[:8]))

    def take(ws: Connection, message: Message) -> None:
        received.append(int(str(message.data)[:8]))
        if not go_on.is_set():
            sockets.append(ws)
            ws.pause()

    async def flood() -> None:
        for number in range(400):
            await client.send(f"{number:08}" + "x" * 32_000)

    router.websocket("/", message_handler(take, inline=True) if inline else busy, max_queue_bytes=256 << 10)
    async with running(router, heartbeat=(0.05, 0.2)) as server, dial(server, ping_interval=None) as client:
        sending = asyncio.create_task(flood())
        await eventually(lambda: sockets)
        # Longer than the heartbeat would wait for a peer that is read and says nothing.
        await asyncio.sleep(0.5)
        assert not sending.done()
        assert server.stats()["bytes_in"] < 1 << 20
        assert server.connections == 1
        go_on.set()
        if inline:
            sockets[0].resume()
        await sending
        await eventually(lambda: len(received) == 400)
        await (await client.ping())
    assert received == list(range(400))

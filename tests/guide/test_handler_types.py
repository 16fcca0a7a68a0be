"""The guide, "WebSocket Handlers": basic, message and batch handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway.ws import Connection, Message, Router, batch_handler, message_handler, websocket_handler

from .support import CountingListener, dial, eventually, running, stalled, watching


async def test_basic_handler() -> None:
    """The guide's basic handler: every text is acknowledged, anything else passes, and a close ends it."""
    received: list[str | bytes] = []

    async def simple(ws: Connection) -> None:
        async for message in ws:
            match message.kind:
                case "text":
                    received.append(message.data)
                    await ws.send_text("Acknowledged")
                case "close":
                    break

    router = Router()
    router.websocket("/simple", websocket_handler(simple))
    async with running(router) as server:
        async with dial(server, "/simple") as client:
            for text in ("one", "two"):
                await client.send(text)
                assert await client.recv() == "Acknowledged"
            await client.send(b"passed over")
            await client.send("three")
            assert await client.recv() == "Acknowledged"
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert received == ["one", "two", "three"]


async def process_text_message(text: str) -> str:
    await asyncio.sleep(0)
    return text.upper()


async def process_binary_data(data: bytes) -> bytes:
    await asyncio.sleep(0)
    return data[::-1]


async def test_message_handler() -> None:
    """The guide's message handler: text and binary are processed each in its way and answered in kind."""

    async def process(ws: Connection, message: Message) -> None:
        if isinstance(message.data, str):
            await ws.send_text(await process_text_message(message.data))
        else:
            await ws.send_bytes(await process_binary_data(message.data))

    router = Router()
    router.websocket("/process", message_handler(process))
    async with running(router) as server, dial(server, "/process") as client:
        await client.send("text")
        await client.send(b"\x01\x02\x03")
        await client.ping()
        await client.send("more")
        assert [await client.recv() for _ in range(3)] == ["TEXT", b"\x03\x02\x01", "MORE"]


async def test_message_handler_handles_one_at_a_time_in_order() -> None:
    """A message is handled after the one before it, also when that one takes longer."""
    order: list[str] = []

    async def slow_then_fast(ws: Connection, message: Message) -> str:
        order.append(f"begin {message.data!s}")
        await asyncio.sleep(0.02 if message.data == "a" else 0)
        order.append(f"end {message.data!s}")
        return f"{message.data!s} done"

    router = Router()
    router.websocket("/", message_handler(slow_then_fast))
    async with running(router) as server, dial(server) as client:
        for text in "abc":
            await client.send(text)
        assert [await client.recv() for _ in range(3)] == ["a done", "b done", "c done"]
    assert order == ["begin a", "end a", "begin b", "end b", "begin c", "end c"]


class Point(msgspec.Struct):
    x: int
    y: int


@pytest.mark.parametrize("inline", [False, True], ids=["task", "inline"])
async def test_message_handler_sends_what_is_returned(inline: bool) -> None:
    """What a handler returns is sent: text, bytes, a message, or an object as JSON text; ``None`` sends nothing."""
    results: dict[str, Any] = {
        "nothing": None,
        "str": "text",
        "bytes": b"\x00\x01",
        "message": Message.binary(b"from a message"),
        "dict": {"a": [1, 2.5, None, True]},
        "struct": Point(1, -2),
        "list": [],
        "prepared": Message.text("framed once").prepare(),
    }

    def answer(ws: Connection, message: Message) -> object:
        return results[str(message.data)]

    router = Router()
    router.websocket("/", message_handler(answer, inline=inline))
    async with running(router) as server, dial(server) as client:
        for name in results:
            await client.send(name)
        answers = [await client.recv() for _ in range(len(results) - 1)]
    assert answers == [
        "text",
        b"\x00\x01",
        b"from a message",
        '{"a":[1,2.5,null,true]}',
        '{"x":1,"y":-2}',
        "[]",
        "framed once",
    ]


async def process_message_batch(messages: list[Message]) -> list[Message]:
    return [Message.text(f"{len(messages)}: {message.data!s}") for message in messages]


async def answer_batch(ws: Connection, messages: list[Message]) -> None:
    """The guide's batch handler."""
    await ws.send_batch(await process_message_batch(messages))


async def test_batch_handler() -> None:
    """The guide's batch handler, 50 messages or 100 ms: a full batch at once, the rest when its time is up."""
    router = Router()
    router.websocket("/batch", batch_handler(answer_batch, size=50, timeout=0.1))
    async with running(router) as server, dial(server, "/batch") as client:
        for number in range(53):
            await client.send(str(number))
        answers = [str(await client.recv()) for _ in range(53)]
    assert [answer.partition(": ")[2] for answer in answers] == [str(number) for number in range(53)]
    sizes = [int(answer.partition(": ")[0]) for answer in answers]
    assert max(sizes) <= 50


async def test_a_full_batch_does_not_wait_for_the_timeout() -> None:
    """The guide's promise of a size: with a timeout of a minute, each fifty messages are answered at once."""
    router = Router()
    router.websocket("/batch", batch_handler(answer_batch, size=50, timeout=60.0))
    async with running(router) as server, dial(server, "/batch") as client:
        for _ in range(3):
            for number in range(50):
                await client.send(str(number))
            assert [await client.recv() for _ in range(50)] == [f"50: {number}" for number in range(50)]


async def test_a_partial_batch_is_handed_over_at_its_timeout() -> None:
    """The guide's promise of a timeout: three messages of fifty come after 100 ms, the connection still open."""
    loop = asyncio.get_running_loop()
    router = Router()
    router.websocket("/batch", batch_handler(answer_batch, size=50, timeout=0.1))
    async with running(router) as server, dial(server, "/batch") as client:
        for _ in range(2):
            before = loop.time()
            for number in range(3):
                await client.send(str(number))
            assert [await client.recv() for _ in range(3)] == [f"3: {number}" for number in range(3)]
            assert loop.time() - before >= 0.099
        assert server.connections == 1


async def test_the_timeout_runs_from_the_first_message_of_a_batch() -> None:
    """A peer that never falls silent for the timeout gets its answer all the same, before the batch is full."""

    def count(ws: Connection, messages: list[Message]) -> str:
        return f"{len(messages)} from {messages[0].data!s}"

    router = Router()
    router.websocket("/batch", batch_handler(count, size=10_000, timeout=0.1))
    async with running(router) as server, dial(server, "/batch", max_queue=None) as client:
        answer = asyncio.create_task(client.recv())
        sent = 0
        while not answer.done():
            await client.send(str(sent))
            sent += 1
            await asyncio.sleep(0.002)
        size, first = str(await answer).split(" from ")
        assert first == "0"
        assert 1 <= int(size) <= sent


@pytest.mark.parametrize("end", ["close", "vanish", "stop"])
async def test_the_rest_of_a_batch_is_handed_over_at_the_end(end: str) -> None:
    """The guide's promise that every message is processed: what is left is a batch when the connection ends."""
    batches: list[list[str | bytes]] = []

    async def store(ws: Connection, messages: list[Message]) -> None:
        batches.append([message.data for message in messages])

    router = Router()
    router.websocket("/", batch_handler(store, size=4, timeout=60.0))
    async with running(router) as server, watching(server) as peer:
        for text in "abcdef":
            peer.text(text)
        await eventually(lambda: server.stats()["messages_in"] == 6)
        assert batches == [["a", "b", "c", "d"]]
        match end:
            case "close":
                peer.close(1000, "")
            case "vanish":
                peer.vanish()
            case "stop":
                server.close()
        await eventually(lambda: len(batches) == 2)
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert batches == [["a", "b", "c", "d"], ["e", "f"]]


async def test_the_next_batch_fills_while_one_is_handled() -> None:
    """The guide's promise of throughput: one batch is handled while the next fills; order is kept, none is lost."""
    go_on = asyncio.Event()
    batches: list[list[int]] = []

    async def slow(ws: Connection, messages: list[Message]) -> None:
        batches.append([int(message.data) for message in messages])
        await go_on.wait()

    router = Router()
    router.websocket("/", batch_handler(slow, size=10, timeout=60.0))
    async with running(router) as server, dial(server) as client:
        for number in range(20):
            await client.send(str(number))
        await eventually(lambda: server.stats()["messages_in"] == 20)
        assert batches == [list(range(10))]
        go_on.set()
        await eventually(lambda: len(batches) == 2)
    assert batches == [list(range(10)), list(range(10, 20))]


async def test_a_batch_handler_slower_than_its_input_holds_the_peer_back() -> None:
    """A peer that sends more than two batches ahead is not read any further, and gets everything handled in order."""
    go_on = asyncio.Event()
    handled: list[int] = []

    async def slow(ws: Connection, messages: list[Message]) -> None:
        await go_on.wait()
        handled.extend(int(str(message.data)[:8]) for message in messages)

    async def flood() -> None:
        for number in range(300):
            await client.send(f"{number:08}" + "x" * 65_000)

    router = Router()
    router.websocket("/", batch_handler(slow, size=10, timeout=60.0))
    async with running(router) as server, dial(server) as client:
        sending = asyncio.create_task(flood())
        await eventually(lambda: server.stats()["messages_in"] >= 20)
        held = server.stats()["messages_in"]
        for _ in range(20):
            await asyncio.sleep(0.005)
        # Two batches, and what one read of the socket may bring beyond the second.
        assert server.stats()["messages_in"] == held <= 21
        assert not sending.done()
        go_on.set()
        await sending
        await eventually(lambda: len(handled) == 300)
    assert handled == list(range(300))


async def test_send_batch_is_one_write() -> None:
    """The guide's promise of ``send_batch``: fifty messages leave in one write to the socket, in order."""
    listener = CountingListener()
    router = Router()
    router.websocket("/batch", batch_handler(answer_batch, size=50, timeout=60.0))
    async with running(router, sock=listener) as server, dial(server, "/batch") as client:
        await (await client.ping())
        del listener.writes[:]
        for number in range(50):
            await client.send(str(number))
        assert [await client.recv() for _ in range(50)] == [f"50: {number}" for number in range(50)]
        assert len(listener.writes) == 1
        assert len(listener.writes[0]) == sum(2 + len(f"50: {number}") for number in range(50))


async def test_send_batch_takes_all_kinds_of_messages() -> None:
    """Text, bytes, messages, JSON-able objects and prepared frames in one batch arrive in order and in kind."""

    async def answer(ws: Connection, message: Message) -> None:
        await ws.send_batch(["a", b"b", Message.text("c"), Message.binary(b"d"), {"e": 1}, Message.text("f").prepare()])
        await ws.send_batch([])
        await ws.send_batch(str(number) for number in range(2))

    router = Router()
    router.websocket("/", message_handler(answer))
    async with running(router) as server, dial(server) as client:
        await client.send("go")
        assert [await client.recv() for _ in range(8)] == ["a", b"b", "c", b"d", '{"e":1}', "f", "0", "1"]


def _basic(seen: Callable[[str, str], None]) -> Any:
    async def basic(ws: Connection, user: str, n: int) -> None:
        assert ws.path_params == {"user": user, "n": n}
        await ws.recv()
        seen(user, str(n + 1))
        await ws.send_text("ok")

    return websocket_handler(basic)


def _message(seen: Callable[[str, str], None]) -> Any:
    async def message(ws: Connection, message: Message, user: str, n: int) -> str:
        seen(user, str(n + 1))
        return "ok"

    return message_handler(message)


def _inline(seen: Callable[[str, str], None]) -> Any:
    def inline(ws: Connection, message: Message, *, user: str, n: int) -> str:
        seen(user, str(n + 1))
        return "ok"

    return message_handler(inline, inline=True)


def _batch(seen: Callable[[str, str], None]) -> Any:
    async def batch(ws: Connection, messages: list[Message], n: int, user: str) -> str:
        seen(user, str(n + 1))
        return "ok"

    return batch_handler(batch, size=1)


@pytest.mark.parametrize("handler", [_basic, _message, _inline, _batch])
async def test_every_kind_of_handler_gets_the_path_parameters(handler: Callable[..., Any]) -> None:
    """The guide's promise of ``/chat/:user_id``: parameters are filled, decoded once, and converted."""
    seen: list[tuple[str, str]] = []
    router = Router()
    router.websocket("/user/{user}/page/{n:int}", handler(lambda *what: seen.append(what)))
    async with running(router) as server, dial(server, "/user/%C5%BC%2541/page/41") as client:
        await client.send("go")
        assert await client.recv() == "ok"
    assert seen == [("ż%41", "42")]


async def test_a_peer_that_does_not_read_holds_up_its_own_handler_alone() -> None:
    """A handler whose peer does not read waits in its send, bounded; another connection goes on meanwhile."""
    sent = 0

    async def pour(ws: Connection) -> None:
        nonlocal sent
        while True:
            await ws.send_bytes(bytes(60_000))
            sent += 1

    async def echo(ws: Connection, message: Message) -> Message:
        return message

    router = Router()
    router.websocket("/pour", pour)
    router.websocket("/echo", message_handler(echo))
    async with running(router, send_timeout=0.5) as server, stalled(server, "/pour"), dial(server, "/echo") as client:
        for number in range(50):
            await client.send(str(number))
            assert await client.recv() == str(number)
        await eventually(lambda: server.stats().get("lost_send_timeout") == 1)
        assert sent * 60_000 < 1 << 20
        await client.send("still here")
        assert await client.recv() == "still here"

"""Batches: when they are handed over, in virtual time, on an injected clock and in real time."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from gateway.ws import Connection, Message, Server, batch_handler
from gateway.ws.batch import Batcher, BatchRun
from gateway.ws.host import Terms

from .support import BINARY, CLOSE, TEXT, Clock, Frame, close_frame, eventually, frame, open_raw, serving


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/"


def text(number: int) -> Message:
    return Message("text", str(number))


# The decision


def test_a_batch_is_full_at_its_size() -> None:
    """The message that makes it ``size`` says so; the next batch starts empty."""
    clock = Clock()
    batcher = Batcher(3, 0.1, 1000)
    assert [batcher.add(text(n), clock) for n in range(3)] == [False, False, True]
    assert batcher.full
    assert batcher.take() == [text(0), text(1), text(2)]
    assert (len(batcher), batcher.due, batcher.full) == (0, None, False)


def test_a_batch_is_due_after_its_first_message() -> None:
    """``due`` counts from the first message, whatever comes later, and anew for the next batch."""
    clock = Clock(50.0)
    batcher = Batcher(10, 0.1, 1000)
    assert batcher.due is None
    batcher.add(text(0), clock)
    clock.now += 0.09
    batcher.add(text(1), clock)
    assert batcher.due == 50.1
    batcher.take()
    clock.now = 60.0
    batcher.add(text(2), clock)
    assert batcher.due == 60.1


def test_a_batch_is_full_at_its_bytes() -> None:
    """Few large messages are a full batch, too."""
    batcher = Batcher(100, 0.1, 1000)
    assert not batcher.add(Message("binary", b"x" * 840), Clock())
    assert batcher.add(Message("binary", b"x"), Clock())


# In virtual time


class VirtualSelector(selectors.DefaultSelector):
    """Never waits: the time it was to wait for has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only by waiting."""

    def __init__(self) -> None:
        self.selector = VirtualSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class FakeConnection:
    """What a batch run needs of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._terms = Terms()
        self.path_params: dict[str, Any] = {}
        self.closed = False
        self.reading = asyncio.Event()
        self.reading.set()
        self.pauses = 0

    def _pause(self, why: int) -> None:
        self.reading.clear()
        self.pauses += 1

    def _resume(self, why: int) -> None:
        self.reading.set()


# Times in steps of 1/64 s: exact in floats.
steps = st.integers(0, 40).map(lambda n: n / 64)


@settings(deadline=None, max_examples=200)
@given(
    size=st.integers(1, 5),
    timeout=st.integers(0, 32).map(lambda n: n / 64),
    gaps=st.lists(st.one_of(st.just(0.0), steps), max_size=30),
    works=st.lists(st.one_of(st.just(0.0), steps), min_size=1, max_size=10),
    last=steps,
)
@example(size=2, timeout=0.25, gaps=[0.0, 0.25], works=[0.0], last=1.0)  # full and due at the same moment
@example(size=3, timeout=0.25, gaps=[0.0, 0.0], works=[0.0], last=0.25)  # due and closed at the same moment
@example(size=1, timeout=0.0, gaps=[0.0] * 5, works=[0.5], last=0.0)
def test_batches_are_handed_over_when_they_should(
    size: int, timeout: float, gaps: list[float], works: list[float], last: float
) -> None:
    """In order, one at a time, as soon as it is full, due or the last and the handler is free; two held at most."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(check_run(loop, size, timeout, gaps, works, last))
    finally:
        loop.close()


async def check_run(
    loop: VirtualLoop, size: int, timeout: float, gaps: list[float], works: list[float], last: float
) -> None:
    ws = FakeConnection(loop)
    work = itertools.cycle(works)
    starts: list[tuple[float, float, list[Message]]] = []
    arrivals: dict[Message, float] = {}
    handled = 0

    async def handler(_: Any, batch: list[Message]) -> None:
        nonlocal handled
        begun = loop.time()
        await asyncio.sleep(next(work))
        handled += len(batch)
        starts.append((begun, loop.time(), batch))

    run = BatchRun(cast("Connection", ws), handler, size, timeout, loop.time)
    serving = loop.create_task(run.serve())
    await asyncio.sleep(0)
    for number, gap in enumerate(gaps):
        if gap:
            await asyncio.sleep(gap)
        await ws.reading.wait()
        message = text(number)
        arrivals[message] = loop.time()
        run.add(cast("Connection", ws), message)
        assert number + 1 - handled <= 2 * size
    if last:
        await asyncio.sleep(last)
    end = loop.time()
    ws.closed = True
    run.end()
    await serving
    assert [message for _, _, batch in starts for message in batch] == list(arrivals)
    free = 0.0
    for begun, done, batch in starts:
        assert 1 <= len(batch) <= size
        full = arrivals[batch[-1]] if len(batch) == size else float("inf")
        assert begun == pytest.approx(max(free, min(arrivals[batch[0]] + timeout, full, end)))
        free = done


# Over sockets


async def test_size_reached() -> None:
    """Batches of exactly ``size`` go at once, long before the timeout."""
    batches: list[list[str | bytes]] = []

    async def store(ws: Connection, messages: list[Message]) -> None:
        batches.append([message.data for message in messages])

    async with serving(batch_handler(store, size=3, timeout=60)) as server, open_raw(server.port) as raw:
        raw.send(b"".join(frame(TEXT, b"%d" % n) for n in range(9)))
        await eventually(lambda: len(batches) == 3)
    assert batches == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]


async def test_timeout_reached_in_real_time() -> None:
    """A partial batch goes ``timeout`` after its first message, though messages keep coming."""
    batches: list[tuple[float, int]] = []
    loop = asyncio.get_running_loop()

    async def store(ws: Connection, messages: list[Message]) -> None:
        batches.append((loop.time(), len(messages)))

    async with serving(batch_handler(store, size=1000, timeout=0.15)) as server, connect(url(server)) as client:
        first = loop.time()
        while not batches and loop.time() < first + 5:
            await client.send("x")
            await asyncio.sleep(0.01)
        assert 0.14 < batches[0][0] - first < 1.5
        assert batches[0][1] > 1


async def test_the_clock_is_the_one_given() -> None:
    """On an injected clock a batch is due when that clock says so, and not before."""
    batches: list[int] = []
    clock = Clock()

    async def store(ws: Connection, messages: list[Message]) -> None:
        batches.append(len(messages))

    handler = batch_handler(store, size=1000, timeout=0.02, clock=clock)
    async with serving(handler) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, b"x"))
        await eventually(lambda: server.stats()["messages_in"] == 1)
        await asyncio.sleep(0.08)
        assert not batches
        clock.now += 0.02
        raw.send(frame(TEXT, b"y"))
        await eventually(lambda: batches)
    assert batches == [2]


@pytest.mark.parametrize("how", ["close frame", "reset", "stop"])
async def test_the_remainder_is_handed_over_at_the_close(how: str) -> None:
    """However the connection ends, what is left of a batch is handled."""
    batches: list[int] = []

    async def store(ws: Connection, messages: list[Message]) -> str:
        await asyncio.sleep(0.01)
        batches.append(len(messages))
        return "an answer for nobody"

    handler = batch_handler(store, size=4, timeout=60)
    async with serving(handler, stop_timeout=30, close_timeout=30) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, b"x") * 6)
        await eventually(lambda: server.stats()["messages_in"] == 6)
        if how == "close frame":
            raw.send(close_frame(1000))
        elif how == "reset":
            raw.writer.transport.abort()
        else:
            # Nothing more can come once we have said goodbye, whatever the peer answers.
            server.close()
        await eventually(lambda: batches == [4, 2])
        await raw.close()
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert server.stats()["handler_errors"] == 0


async def test_a_slow_handler_pushes_back() -> None:
    """A handler slower than its input: two batches held, the peer's sends stall, nothing lost, order kept."""
    release = asyncio.Event()
    seen: list[int] = []
    calls = 0

    async def store(ws: Connection, messages: list[Message]) -> None:
        nonlocal calls
        calls += 1
        await release.wait()
        seen.extend(int.from_bytes(message.data[:4], "big") for message in messages)  # type: ignore[arg-type]

    count, size = 700, 16_000
    async with serving(batch_handler(store, size=10, timeout=0.01)) as server, open_raw(server.port) as raw:
        raw.send(b"".join(frame(BINARY, n.to_bytes(4, "big") * (size // 4)) for n in range(count)))
        await eventually(lambda: server.stats()["messages_in"] == 20)
        await asyncio.sleep(0.05)
        assert calls == 1
        assert server.stats()["messages_in"] == 20
        assert raw.writer.transport.get_write_buffer_size() > 0
        release.set()
        await eventually(lambda: len(seen) == count)
    assert seen == list(range(count))


async def test_a_handler_that_raises_closes_with_1011() -> None:
    """An exception ends the connection; later messages are not handled."""
    calls = 0

    async def store(ws: Connection, messages: list[Message]) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("full disk")

    async with serving(batch_handler(store, size=2, timeout=60)) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, b"x") * 8)
        closed = await raw.recv()
        assert closed is not None
        assert (closed.opcode, closed.code) == (CLOSE, 1011)
        await raw.close()
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert calls == 1


async def test_a_plain_function_and_parameters() -> None:
    """A batch handler need not be async; path parameters are its keywords, its result is sent, pings are not for it."""

    def store(ws: Connection, messages: list[Message], name: str) -> str:
        return f"{name} {len(messages)}"

    handler = batch_handler(store, size=2, timeout=60)
    async with (
        serving(handler, "/{name}", options={"control": True}) as server,
        open_raw(server.port, "/n") as raw,
    ):
        raw.send(frame(TEXT, b"x") + frame(10, b"pong") + frame(BINARY, b"y"))
        assert await raw.recv() == Frame(TEXT, b"n 2")


def test_bad_arguments_are_refused() -> None:
    """A batch holds at least one message, and its timeout is a time."""
    for size, timeout in ((0, 0.1), (1, -0.1), (1, float("nan"))):
        with pytest.raises(ValueError, match="must be"):
            batch_handler(lambda ws, messages: None, size, timeout)

"""The servers that ``tools/bench ws`` measures: ``python -m tools.toolkit.wsserver KIND``, a process for each.

The port goes to stdout as the first line.  Then each line on stdin, a JSON object, is answered with one on stdout; at
the end of stdin the process ends at once.

    {}                                                    counts only
    {"fill": bytes}                                       pool: that much to the room "stalled"
    {"seconds": s, "per_s": n, "bytes": n}                pool: broadcasts to all; answered when done

Every kind counts the messages it gets in the same way, so that what differs is the layer alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

import gateway.ws.message
from gateway.ws import Connection, Pool, Router, Server, batch_handler, message_handler

__all__ = ["KINDS"]

HOST = "127.0.0.1"
FILL_BYTES = 64 << 10
BATCH = 50
MAX_MESSAGE_BYTES = 64 << 10


class Counts:
    """What a server saw and did."""

    def __init__(self) -> None:
        self.messages = 0
        self.batches = 0
        self.server: Server | None = None

    @property
    def received(self) -> int:
        """Messages that a server of ours has read, handled or not; of plain websockets those handled."""
        return self.messages if self.server is None else int(self.server.stats()["messages_in"])


def _plain(heartbeat: float | None) -> Callable[[Counts, argparse.Namespace], Any]:
    @asynccontextmanager
    async def serve(counts: Counts, options: argparse.Namespace) -> AsyncIterator[int]:
        from websockets.asyncio.server import ServerConnection
        from websockets.asyncio.server import serve as plain

        async def handler(ws: ServerConnection) -> None:
            async for _ in ws:
                counts.messages += 1

        interval = None if heartbeat is None else options.heartbeat
        async with plain(
            handler, HOST, 0, compression=None, ping_interval=interval, max_size=MAX_MESSAGE_BYTES, backlog=1024
        ) as server:
            yield server.sockets[0].getsockname()[1]

    return serve


def _ours(make: Callable[[Counts], Any], *, heartbeat: bool = False) -> Callable[[Counts, argparse.Namespace], Any]:
    @asynccontextmanager
    async def serve(counts: Counts, options: argparse.Namespace) -> AsyncIterator[int]:
        router = Router()
        router.websocket("/", make(counts))
        beat = (options.heartbeat, options.heartbeat) if heartbeat else None
        async with Server(router, HOST, heartbeat=beat, max_message_bytes=MAX_MESSAGE_BYTES) as server:
            counts.server = server
            yield server.port

    return serve


def _basic(counts: Counts) -> Any:
    async def handler(ws: Connection) -> None:
        async for message in ws:
            if message.kind != "close":
                counts.messages += 1

    return handler


def _message(counts: Counts) -> Any:
    async def handler(ws: Connection, message: object) -> None:
        counts.messages += 1

    return message_handler(handler)


def _inline(counts: Counts) -> Any:
    def handler(ws: Connection, message: object) -> None:
        counts.messages += 1

    return message_handler(handler, inline=True)


def _batch(timeout: float) -> Callable[[Counts], Any]:
    def make(counts: Counts) -> Any:
        async def handler(ws: Connection, messages: list[object]) -> None:
            counts.messages += len(messages)
            counts.batches += 1

        return batch_handler(handler, size=BATCH, timeout=timeout)

    return make


class Broadcaster:
    """A pool, filled and measured on request; ``framed`` counts the frames made of messages."""

    def __init__(self, deadline: float) -> None:
        self.pool = Pool(deadline=deadline)
        self.framed = 0
        self.pending_max = 0
        make_frame = gateway.ws.message.frame

        def counted(opcode: int, payload: bytes, rsv1: int = 0) -> bytes:
            self.framed += 1
            return make_frame(opcode, payload, rsv1)

        gateway.ws.message.frame = counted

    def join(self, ws: Connection, room: str) -> None:
        self.pool.add(ws, room=room)
        self.pool.add(ws)

    def look(self) -> None:
        """Note what the stalled peers cost now: the socket's and the transport's bytes, and the pool's queues."""
        stalled = self.pool.room("stalled")
        if stalled:
            queued = int(self.pool.stats()["queued_bytes"])
            self.pending_max = max(self.pending_max, max(ws.pending_bytes for ws in stalled) + queued // len(stalled))

    async def fill(self, size: int) -> None:
        """Send ``size`` bytes to the stalled peers alone."""
        text = "x" * FILL_BYTES
        for _ in range(size // FILL_BYTES):
            self.pool.broadcast(text, room="stalled")
            self.look()
            await asyncio.sleep(0)

    async def run(self, seconds: float, per_s: float, size: int) -> dict[str, float]:
        """Broadcast messages that begin with the monotonic time, in nanoseconds, at which they were sent."""
        begin = time.monotonic()
        sent, framed, worst = 0, self.framed, 0.0
        while (due := begin + sent / per_s) < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            text = f"{time.monotonic_ns():020}".ljust(size, ".")
            before = time.perf_counter()
            self.pool.broadcast(text)
            worst = max(worst, time.perf_counter() - before)
            sent += 1
            if sent % 8 == 0:
                self.look()
        return {"broadcasts": sent, "framed": self.framed - framed, "call_max_ms": worst * 1000}


@asynccontextmanager
async def _pool(counts: Counts, options: argparse.Namespace) -> AsyncIterator[int]:
    router = Router()
    broadcaster = options.broadcaster = Broadcaster(options.deadline)

    async def peer(ws: Connection, room: str) -> None:
        broadcaster.join(ws, room)
        async for _ in ws:
            pass

    router.websocket("/{room}", peer)
    async with Server(router, HOST, heartbeat=None) as server:
        yield server.port


KINDS: dict[str, Callable[[Counts, argparse.Namespace], Any]] = {
    "plain": _plain(None),
    "basic": _ours(_basic),
    "message": _ours(_message),
    "inline": _ours(_inline),
    "batch": _ours(_batch(60.0)),
    "batch-100ms": _ours(_batch(0.1)),
    "plain-idle": _plain(1.0),
    "basic-idle": _ours(_basic, heartbeat=True),
    "inline-idle": _ours(_inline, heartbeat=True),
    "pool": _pool,
}


async def _answer(request: dict[str, Any], counts: Counts, options: argparse.Namespace) -> dict[str, Any]:
    answer: dict[str, Any] = {name: getattr(counts, name) for name in ("messages", "received", "batches")}
    broadcaster: Broadcaster | None = getattr(options, "broadcaster", None)
    if broadcaster is not None:
        answer |= broadcaster.pool.stats()
        if "fill" in request:
            await broadcaster.fill(request["fill"])
        elif "seconds" in request:
            answer |= await broadcaster.run(request["seconds"], request["per_s"], request["bytes"])
        answer["pending_max"] = broadcaster.pending_max
        answer["stalled"] = len(broadcaster.pool.room("stalled"))
    return answer


async def _main(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    counts = Counts()
    requests: asyncio.Queue[bytes] = asyncio.Queue()
    tail = b""

    def read() -> None:
        nonlocal tail
        data = os.read(0, 65536)
        if not data:
            loop.remove_reader(0)
            requests.put_nowait(b"")
            return
        *lines, tail = (tail + data).split(b"\n")
        for line in lines:
            requests.put_nowait(line)

    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(KINDS[options.kind](counts, options))
        loop.add_reader(0, read)
        print(port, flush=True)
        while line := await requests.get():
            print(msgspec.json.encode(await _answer(msgspec.json.decode(line), counts, options)).decode(), flush=True)
        # What is measured is over: thousands of connections need no farewell.
        os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--loop", default="asyncio", choices=["asyncio", "uvloop"])
    parser.add_argument("--heartbeat", type=float, default=20.0)
    parser.add_argument("--deadline", type=float, default=10.0)
    options = parser.parse_args()
    factory: Any = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_main(options))
    sys.exit(0)


if __name__ == "__main__":
    main()

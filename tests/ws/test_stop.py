"""What a stop finishes: requests under way, answers that are read, messages that were received."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.ws import Connection, Message, Request, Response, Router, Server, batch_handler, message_handler

from .support import TEXT, close_frame, eventually, frame, no_loop_errors, open_raw, serving

BOTH_LOOPS = True


def pages() -> Router:
    router = Router()

    async def late(request: Request) -> Response:
        await asyncio.sleep(0.2)
        return Response(200, "late")

    router.get("/late", late)
    router.get("/large", lambda request: Response(200, b"x" * 3_000_000))
    return router


async def ask(server: Server, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=4096)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return reader, writer


@pytest.mark.parametrize(("path", "size"), [("/late", 4), ("/large", 3_000_000)])
async def test_a_stop_waits_for_pages(path: str, size: int) -> None:
    """A page asked for before the stop is answered, and a large answer read to its end."""
    with no_loop_errors():
        async with Server(pages(), stop_timeout=10) as server:
            reader, writer = await ask(server, path)
            await eventually(lambda: server.stats()["handlers"] or server.stats()["answered"])
            server.close()
            await asyncio.sleep(0.1)
            body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")[2]
            assert len(body) == size
            await asyncio.wait_for(server.wait_closed(), 5)
            assert server.stats()["answered"] == server.stats()["handlers"] == 0
            writer.close()


async def test_a_stop_does_not_wait_for_an_answer_that_is_not_read() -> None:
    """At the deadline it is cut."""
    loop = asyncio.get_running_loop()
    with no_loop_errors():
        async with (
            Server(pages(), stop_timeout=0.8) as server,
            open_raw(server.port, None, recv_buffer=4096) as raw,
        ):
            raw.writer.transport.pause_reading()
            raw.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: server.stats()["answered"] == 1)
            started = loop.time()
            server.close()
            await server.wait_closed()
            assert 0.4 < loop.time() - started < 1.5


async def test_middleware_has_ended_when_the_server_has() -> None:
    """One that hangs is cancelled at the deadline, and its clean-up awaited."""
    cleaned = []

    async def hangs(request: Request, call_next: Any) -> Response:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            cleaned.append(True)
            raise
        raise AssertionError

    router = pages()
    router.middleware(hangs)
    async with Server(router, stop_timeout=0.6) as server:
        _, writer = await ask(server, "/late")
        await eventually(lambda: server.stats()["handlers"] == 1)
        server.close()
        await server.wait_closed()
        assert cleaned == [True]
        writer.close()


@pytest.mark.parametrize("kind", ["batch", "message"])
async def test_what_was_received_before_a_stop_is_handled(kind: str) -> None:
    """Also what is held back behind a full batch or queue; batches keep their size."""
    seen: list[Message] = []
    sizes: list[int] = []

    async def batch(ws: Connection, messages: list[Message]) -> None:
        await asyncio.sleep(0.005)
        sizes.append(len(messages))
        seen.extend(messages)

    async def one(ws: Connection, message: Message) -> None:
        await asyncio.sleep(0.001)
        seen.append(message)

    handler = batch_handler(batch, size=10, timeout=0.05) if kind == "batch" else message_handler(one)
    async with serving(handler, options={"max_queue_bytes": 2000}, stop_timeout=5) as server:
        async with open_raw(server.port) as raw:
            raw.send(b"".join(frame(TEXT, b"%d" % number) for number in range(100)))
            await eventually(lambda: server.stats()["bytes_in"] >= 100 * 7)
            server.close()
            assert (await raw.recv()).code == 1001  # type: ignore[union-attr]
            raw.send(close_frame(1001))
        await asyncio.wait_for(server.wait_closed(), 5)
    assert [message.data for message in seen] == [str(number) for number in range(100)]
    assert max(sizes, default=0) <= 10


async def test_a_connection_paused_by_its_user_gets_nothing_more() -> None:
    """A stop hands over nothing that a handler asked not to be given."""
    seen: list[Message] = []

    def handler(ws: Connection, message: Message) -> None:
        seen.append(message)
        ws.pause()

    async with serving(message_handler(handler, inline=True), stop_timeout=2) as server:
        async with open_raw(server.port) as raw:
            raw.send(frame(TEXT, b"x") * 5)
            await eventually(lambda: seen)
            server.close()
            assert (await raw.recv()).code == 1001  # type: ignore[union-attr]
            raw.send(close_frame(1001))
        await server.wait_closed()
    assert len(seen) == 1


async def test_a_server_starts_once() -> None:
    """A second start is refused, and the first one's stop is none the worse."""
    async with Server(Router(), stop_timeout=1) as server:
        with pytest.raises(RuntimeError, match="started"):
            await server.start()
    with pytest.raises(RuntimeError, match="started"):
        await server.start()
    await asyncio.wait_for(server.wait_closed(), 1)


async def test_a_stop_that_fails_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the end does not wait for ever."""
    server = Server(Router(), stop_timeout=1)
    await server.start()

    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(server.beats, "stop", broken)
    server.close()
    await asyncio.wait_for(server.wait_closed(), 3)
    assert server._stop is not None
    with pytest.raises(RuntimeError, match="broken"):
        await server._stop


async def test_a_stop_leaves_the_path_of_its_successor(tmp_path: Path) -> None:
    """Where another server has taken the Unix socket's path, the first one's stop does not remove it."""
    path = tmp_path / "s"
    first, second = Server(Router(), unix=path, stop_timeout=1), Server(Router(), unix=path, stop_timeout=1)
    await first.start()
    await second.start()
    first.close()
    await first.wait_closed()
    assert os.path.exists(path)
    second.close()
    await second.wait_closed()
    assert not os.path.exists(path)

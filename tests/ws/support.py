"""A client of raw frames, and the few things that most tests of the layer need."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from websockets.speedups import apply_mask

from gateway.ws import Connection, Message, Router, Server, message_handler

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "PING",
    "PONG",
    "TEXT",
    "Clock",
    "Frame",
    "Member",
    "Raw",
    "close_frame",
    "echo",
    "eventually",
    "frame",
    "many_files",
    "no_loop_errors",
    "open_raw",
    "serving",
    "swarm",
]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Clock:
    """A clock that moves when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def code(self) -> int:
        """The code of a close frame; 1005 where it has none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    length: int | None = None,
    size: int | None = None,
) -> bytes:
    """A client's frame; ``length`` lies about the payload's, ``size`` (0, 2, 8) picks the length's encoding."""
    length = len(payload) if length is None else length
    if size is None:
        size = 0 if length < 126 else 2 if length < 65536 else 8
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    second = 0x80 if mask is not None else 0
    if size == 0:
        head = struct.pack("!BB", first, second | length)
    elif size == 2:
        head = struct.pack("!BBH", first, second | 126, length)
    else:
        head = struct.pack("!BBQ", first, second | 127, length)
    return head + (payload if mask is None else mask + apply_mask(payload, mask))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


class Raw:
    """A TCP connection that speaks frames, and can break every rule."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""

    async def handshake(self, path: str = "/", headers: tuple[str, ...] = ()) -> str:
        """Ask for an upgrade; give the status line."""
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {KEY}",
            "Sec-WebSocket-Version: 13",
            *headers,
        ]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        return self.head.split(b"\r\n")[0].decode()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    async def recv(self, timeout: float = 5) -> Frame | None:
        """The next frame; ``None`` at the end of the stream, also by a reset."""
        try:
            async with asyncio.timeout(timeout):
                first, second = await self.reader.readexactly(2)
                length = second & 0x7F
                if length == 126:
                    (length,) = struct.unpack("!H", await self.reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
                payload = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, bool(second & 0x80))

    async def ended(self, timeout: float = 5) -> bool:
        """Whether the server ends the stream, whatever it sends before."""
        try:
            async with asyncio.timeout(timeout):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            return True
        return True

    async def close(self) -> None:
        """Close the socket, whatever is still unsent."""
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


@asynccontextmanager
async def open_raw(port: int, path: str | None = "/", *headers: str, recv_buffer: int = 0) -> AsyncIterator[Raw]:
    """A raw connection, upgraded on ``path`` unless it is ``None``; with a small receive buffer where asked for."""
    sock = socket.socket()
    if recv_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw = Raw(*await asyncio.open_connection(sock=sock, limit=1 << 22))
    try:
        if path is not None:
            status = await raw.handshake(path, headers)
            assert status.startswith("HTTP/1.1 101"), raw.head
        yield raw
    finally:
        await raw.close()


class Member(asyncio.Protocol):
    """One of many cheap clients: keeps what data frames it gets and when, and closes when it is told to."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.open: asyncio.Future[None] = self.loop.create_future()
        self.received: list[tuple[float, bytes]] = []  # when, and the first eight bytes
        self.close_code: int | None = None
        self.lost: float | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self.open.done():
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            assert buffer.startswith(b"HTTP/1.1 101"), bytes(buffer)
            del buffer[: end + 4]
            self.open.set_result(None)
        at = 0
        while len(buffer) - at >= 2:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if len(buffer) < start + length:
                break
            opcode = buffer[at] & 0x0F
            if opcode in (TEXT, BINARY):
                self.received.append((self.loop.time(), bytes(buffer[start : start + min(length, 8)])))
            elif opcode == PING:
                self.transport.write(frame(PONG, bytes(buffer[start : start + length])))
            elif opcode == CLOSE:
                self.close_code = int.from_bytes(buffer[start : start + 2], "big")
                self.transport.write(frame(CLOSE, bytes(buffer[start : start + length])))
                self.transport.close()
            at = start + length
        del buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.loop.time()
        if not self.open.done():
            self.open.set_exception(exc or ConnectionError())


@contextmanager
def many_files(count: int = 20_000) -> Iterator[None]:
    """Lets this process open ``count`` files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def swarm(port: int, count: int, stalled: int = 0) -> AsyncIterator[tuple[list[Member], list[Member]]]:
    """``count`` upgraded members; the second list, ``stalled`` of them, does not read any more."""
    loop = asyncio.get_running_loop()
    members: list[Member] = []
    for number in range(count):
        sock = socket.socket()
        if number < stalled:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, member = await loop.create_connection(Member, sock=sock)
        members.append(member)
    for member in members:
        await asyncio.wait_for(member.open, 10)
    for member in members[:stalled]:
        member.transport.pause_reading()
    try:
        yield members[stalled:], members[:stalled]
    finally:
        for member in members:
            member.transport.abort()
        await asyncio.sleep(0)


def echo(ws: Connection, message: Message) -> Message:
    """A handler that gives back what it got."""
    return message


@asynccontextmanager
async def serving(
    handler: Any = None, path: str = "/", *, options: dict[str, Any] | None = None, **server: Any
) -> AsyncIterator[Server]:
    """A server with one route; an inline echo by default."""
    server.setdefault("stop_timeout", 2.0)
    router = Router()
    router.websocket(path, handler or message_handler(echo, inline=True), **(options or {}))
    async with Server(router, **server) as running:
        yield running


async def eventually(condition: Callable[[], object], timeout: float = 5) -> None:
    """Wait until ``condition()`` is true; fail after ``timeout`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not condition():
        assert loop.time() < deadline, "it did not happen"
        await asyncio.sleep(0.005)


@contextmanager
def no_loop_errors() -> Iterator[list[dict[str, Any]]]:
    """Fails where anything reaches the loop's exception handler."""
    loop = asyncio.get_running_loop()
    caught: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: caught.append(context))
    try:
        yield caught
    finally:
        loop.set_exception_handler(before)
    assert not caught, caught

"""What the guide's tests share: a router that is served, clients for it, and a peer that sees single frames."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import CONNECTING
from websockets.uri import parse_uri

from gateway.ws import Router, Server

__all__ = ["Clock", "CountingListener", "Peer", "dial", "eventually", "running", "stalled", "watching"]

PATIENCE = 10.0  # seconds after which a test has failed, whatever it waits for


class Clock:
    """A clock that moves when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(router: Router, **options: Any) -> AsyncIterator[Server]:
    """Serve ``router`` on a free port; when it has stopped, no connection and no handler's task may be left."""
    options.setdefault("stop_timeout", 2.0)
    async with asyncio.timeout(PATIENCE):
        async with Server(router, **options) as server:
            yield server
        stats = server.stats()
        assert (stats["connections"], stats["transports"], stats["handlers"]) == (0, 0, 0)


def dial(server: Server, path: str = "/", **options: Any) -> connect:
    """A client's connection to ``path``: to be awaited, or used as an async context manager."""
    return connect(f"ws://127.0.0.1:{server.port}{path}", proxy=None, **options)


@asynccontextmanager
async def stalled(server: Server, path: str = "/") -> AsyncIterator[ClientConnection]:
    """A client that keeps its connection open and reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    client = await dial(server, path, sock=sock, ping_interval=None, close_timeout=0.1)
    client.transport.pause_reading()
    try:
        yield client
    finally:
        client.transport.abort()
        await client.wait_closed()


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` is true; whoever serves the test bounds the wait."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


class Peer:
    """The library's client without its own opinions: every frame the server sends, control frames included."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ClientProtocol) -> None:
        self.protocol = protocol
        self._reader = reader
        self._writer = writer
        self._frames: deque[Frame] = deque()

    async def handshake(self) -> None:
        """Ask for the upgrade.  Raises what the library raises where it is refused."""
        self.protocol.send_request(self.protocol.connect())
        self.flush()
        while self.protocol.state is CONNECTING:
            if not await self._read():
                raise ConnectionError("the connection ended before the answer")
            if self.protocol.handshake_exc is not None:
                raise self.protocol.handshake_exc

    async def frame(self) -> Frame | None:
        """The next frame; ``None`` at the end of the stream.  Pings are answered, close frames too."""
        while not self._frames:
            if not await self._read():
                return None
        return self._frames.popleft()

    async def _read(self) -> bool:
        try:
            data = await self._reader.read(65536)
        except ConnectionError:
            return False
        if not data:
            return False
        self.protocol.receive_data(data)
        self._frames.extend(event for event in self.protocol.events_received() if isinstance(event, Frame))
        self.flush()
        return True

    def flush(self) -> None:
        """Send what the protocol has to send."""
        for data in self.protocol.data_to_send():
            if data:
                self._writer.write(data)

    def text(self, text: str) -> None:
        """Send a text message."""
        self.protocol.send_text(text.encode())
        self.flush()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame."""
        self.protocol.send_close(code, reason)
        self.flush()

    def vanish(self) -> None:
        """End the connection without a close frame."""
        self._writer.transport.abort()


@asynccontextmanager
async def watching(server: Server, path: str = "/") -> AsyncIterator[Peer]:
    """A :class:`Peer` upgraded on ``path``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    peer = Peer(reader, writer, ClientProtocol(parse_uri(f"ws://127.0.0.1:{server.port}{path}")))
    try:
        await peer.handshake()
        yield peer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


class _Counted(socket.socket):
    """A socket that keeps what each call to send it took."""

    writes: list[bytes]

    def send(self, data: Any, *args: Any) -> int:
        sent = super().send(data, *args)
        self.writes.append(bytes(data[:sent]))
        return sent


class CountingListener(socket.socket):
    """A listening socket on a free port; ``writes`` has what every write to an accepted socket took, call by call."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.writes: list[bytes] = []
        self.bind(("127.0.0.1", 0))
        self.listen()

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        counted = _Counted(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        counted.writes = self.writes
        return counted, address

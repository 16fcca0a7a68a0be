"""The server: listeners, limits, counts, and its stop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket as sockets
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence, Set
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .checks import at_least_one, pulse, seconds
from .checks import origins as checked_origins
from .connection import Connection
from .counters import Counters
from .heartbeat import Heartbeat
from .host import Terms
from .reception import Reception
from .request import Request, Response
from .secure import Hello

if TYPE_CHECKING:
    import ssl as tls
    from types import TracebackType

    from .router import Router, WebSocketOptions
    from .wire import Wire

__all__ = ["Connections", "Server"]

logger = logging.getLogger("gateway.ws")

# How long a peer that was answered may leave its half of the connection open.
LINGER = 2.0

# How long the stop waits for the requests of those it has accepted, where sockets are shared.
HANDOVER = 0.5

LOOK = 0.05  # between two looks at unread answers while the server stops

READ_BYTES = 64 << 10


class Connections(Set[Connection]):
    """The open connections of a server: a live, read-only set that also compares with their number."""

    def __init__(self, connections: dict[Connection, None]) -> None:
        self._connections = connections

    def __contains__(self, ws: object) -> bool:
        return ws in self._connections

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    def __int__(self) -> int:
        return len(self._connections)

    def __eq__(self, other: object) -> bool:
        return len(self._connections) == other if isinstance(other, int) else super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self._connections)} connections>"


class Server:
    """Serves a router on one listener.

    ``sock`` is a listening socket to take over, or several, ``unix`` the path of a Unix socket; without either it
    listens on ``host`` and ``port`` (0: any free port, see :attr:`port`).  ``shared``: others hold ``sock`` as well and
    go on accepting from it: the stop leaves them whoever connects from its beginning on, and refuses nobody whom we had
    accepted (a WebSocket connection is opened, and closed with 1001).  Times in seconds:

    - ``heartbeat``: (interval, timeout) of pings, or ``None``; a route may say otherwise.
    - ``handshake_timeout``: from the TCP connection to the answer, TLS and middleware included; then 408 where the
      request has not come, 504 where the answer takes too long, and during TLS nothing.
    - ``close_timeout``: for the peer to answer a close frame, then it is aborted.
    - ``send_timeout``: for a peer to take anything of what a handler waits to send, then it is aborted.
    - ``stop_timeout``: for the whole of a stop.

    Bounds: ``max_connections`` and ``max_per_address`` count WebSocket connections (then 503 and 429 with
    ``Retry-After``), ``max_handshakes`` connections that are not answered yet, and as many that have their answer and
    do not leave (then the oldest that has not sent its request is cut, or the oldest answered one; where all have sent
    theirs the newest gets 503), ``max_answer_bytes`` what answered ones have not read (then the oldest of them is cut),
    ``max_message_bytes`` a message (then 1009),
    ``max_queue_bytes`` what waits for ``recv`` (then reading pauses), ``send_buffer_bytes`` the socket's send buffer
    (SO_SNDBUF, socket(7)), ``write_buffer_bytes`` what is queued before a send waits.  ``origins`` lists the accepted
    ``Origin`` headers, ``None`` among them for a missing one; without a list all are.

    ``refused`` is called with each refusal: the peer's address, the path (empty where none was read) and the response;
    it must not raise.

    Raises ``ValueError`` or ``TypeError`` for an argument that makes no sense.

    An async context manager: on leaving, :meth:`close` and :meth:`wait_closed`.
    """

    def __init__(
        self,
        router: Router,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int = 0,
        *,
        sock: sockets.socket | Sequence[sockets.socket] | None = None,
        shared: bool = False,
        unix: str | os.PathLike[str] | None = None,
        ssl: tls.SSLContext | None = None,
        heartbeat: tuple[float, float] | None = (20.0, 20.0),
        max_message_bytes: int = 1 << 20,
        max_queue_bytes: int = 1 << 20,
        max_connections: int | None = None,
        max_per_address: int | None = None,
        max_handshakes: int | None = 1024,
        max_answer_bytes: int = 64 << 20,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        handshake_timeout: float = 10.0,
        close_timeout: float = 5.0,
        send_timeout: float = 20.0,
        stop_timeout: float = 10.0,
        send_buffer_bytes: int = 64 << 10,
        write_buffer_bytes: int = 64 << 10,
        backlog: int = 1024,
        refused: Callable[[object, str, Response], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        at_least_one(
            max_message_bytes=max_message_bytes,
            max_queue_bytes=max_queue_bytes,
            max_connections=max_connections,
            max_per_address=max_per_address,
            max_handshakes=max_handshakes,
            max_answer_bytes=max_answer_bytes,
            send_buffer_bytes=send_buffer_bytes,
            write_buffer_bytes=write_buffer_bytes,
            backlog=backlog,
        )
        seconds(
            handshake_timeout=handshake_timeout,
            close_timeout=close_timeout,
            send_timeout=send_timeout,
            stop_timeout=stop_timeout,
        )
        self.router = router
        self.clock = clock
        self.counters = Counters()
        self.refused = refused or _log_refused
        self.handshake_timeout = handshake_timeout
        self.linger = min(LINGER, handshake_timeout)
        self.origins = checked_origins(origins)
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self.max_handshakes = max_handshakes
        self.max_answer_bytes = max_answer_bytes
        self.stop_timeout = stop_timeout
        self._terms = Terms(
            max_message_bytes=max_message_bytes,
            max_queue_bytes=max_queue_bytes,
            write_buffer_bytes=write_buffer_bytes,
            heartbeat=pulse(heartbeat),
            close_timeout=close_timeout,
            send_timeout=send_timeout,
        )
        self._terms_of: dict[WebSocketOptions, Terms] = {}
        self._send_buffer_bytes = send_buffer_bytes
        self._unix = unix
        self._unix_inode: tuple[int, int] | None = None
        self._starting = False
        self._tls = ssl
        self._given: Sequence[sockets.socket] = [sock] if isinstance(sock, sockets.socket) else list(sock or ())
        self._shared = shared
        self._listen = partial(self._open_listeners, host=host, port=port, unix=unix, backlog=backlog)
        # asyncio's own buffer of 256 KiB a read is mapped and unmapped by the allocator every time.
        self.buffer = bytearray(READ_BYTES)
        self.view = memoryview(self.buffer)
        self.loop: asyncio.AbstractEventLoop
        self.beats: Heartbeat
        self._listeners: list[asyncio.Server] = []
        self._answer_until = 0.0  # the loop's time until which a stop waits for requests of those it has accepted
        self._port = 0
        self._open: dict[Connection, None] = {}
        self._held: dict[Wire, None] = {}  # open ones, and closed ones whose transport is not gone yet
        self._waiting: dict[Reception | Hello, None] = {}  # not answered yet
        self._lingering: dict[Reception, None] = {}  # answered, and not gone yet
        self._unsent = 0  # bytes that those have not read
        self._addresses: dict[Any, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: asyncio.Task[None] | None = None
        self._stopped: asyncio.Event
        self._emptied: asyncio.Event
        self._aborted = 0

    # Life

    async def start(self) -> None:
        """Listen.  Raises ``OSError`` where that fails, ``RuntimeError`` where it has been started already."""
        if self._listeners or self._starting:
            raise RuntimeError("the server has been started already")
        self._starting = True
        try:
            await self._start()
        finally:
            self._starting = False

    async def _start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.beats = Heartbeat(self.loop, self.clock)
        self._stopped = asyncio.Event()
        self._emptied = asyncio.Event()
        self._listeners = await self._listen()
        names = [sock.getsockname() for sock in self.sockets]
        self._port = next((int(name[1]) for name in names if isinstance(name, tuple)), 0)
        if self._unix is not None:
            self._unix_inode = _inode(self._unix)

    async def _open_listeners(
        self, *, host: str | Sequence[str] | None, port: int, unix: str | os.PathLike[str] | None, backlog: int
    ) -> list[asyncio.Server]:
        loop = self.loop
        factory: Callable[[], asyncio.BaseProtocol] = partial(Reception, self) if self._tls is None else self._hello
        if self._given:
            return [
                await (loop.create_unix_server if sock.family == sockets.AF_UNIX else loop.create_server)(
                    factory, sock=sock, backlog=backlog
                )
                for sock in self._given
            ]
        if unix is not None:
            return [await loop.create_unix_server(factory, os.fspath(unix), backlog=backlog)]
        return [await loop.create_server(factory, host, port, backlog=backlog)]

    def _hello(self) -> Hello:
        assert self._tls is not None
        return Hello(self, self._tls, self._terms.close_timeout)

    def renew(self, ssl: tls.SSLContext) -> None:
        """Use another context for the handshakes that begin from now on; what is open stays as it is.

        Raises ``ValueError`` where the server speaks no TLS.
        """
        if self._tls is None:
            raise ValueError("the server speaks no TLS")
        self._tls = ssl

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    def close(self) -> None:
        """Begin to stop: no new handshakes (503), 1001 to all, and after ``stop_timeout`` an end to what is left."""
        if self._stop is None and self._listeners:
            self._stop = self.loop.create_task(self._run_stop())

    async def wait_closed(self) -> None:
        """Wait until the server has stopped, however long it serves before."""
        if self._listeners:
            await self._stopped.wait()

    async def _run_stop(self) -> None:
        try:
            await self._end()
        finally:
            self._stopped.set()

    async def _end(self) -> None:
        deadline = self.loop.time() + self.stop_timeout
        if self._shared:
            await self._close_listeners()
            self._answer_until = min(deadline, self.loop.time() + HANDOVER)
        for ws in list(self._held):
            ws._stop(1001, "server is stopping")
        # Peers that have not answered have until shortly before the deadline, and so have requests under way and
        # answers that are not read yet; handlers that are not done a bit longer.
        margin = min(1.0, self.stop_timeout / 4)
        await self._wait_emptied(deadline - margin)
        for wire in list(self._held):
            self._aborted += 1
            wire.abort("server stopped")
        await self._wait_emptied(deadline - margin / 2)
        for task in list(self._tasks):
            task.cancel()
        await self._close_listeners()
        for reception in [*self._waiting, *self._lingering]:
            # A request's task has been cancelled, and is not to be cancelled again while it cleans up.
            if not reception.has_request or reception in self._lingering:
                reception.abort()
        await self._wait_emptied(deadline)
        for reception in list(self._waiting):
            reception.abort()
        await asyncio.sleep(0)
        if self._unix is not None and self._unix_inode == _inode(self._unix):
            # Another server may listen at this path by now.
            with suppress(OSError):
                os.unlink(self._unix)
        if self._tasks:
            logger.error("%d handlers did not end when cancelled", len(self._tasks))
        self.beats.stop()

    async def _close_listeners(self) -> None:
        """Accept nobody any more; what the loop has accepted becomes a reception."""
        if isinstance(self.loop, asyncio.SelectorEventLoop):
            # What asyncio has accepted, and not handed on when the listener is closed, is neither served nor closed.
            for sock in self.sockets:
                self.loop.remove_reader(sock)
            await self._handed_on()
        for listener in self._listeners:
            listener.close()
        await self._handed_on()

    @staticmethod
    async def _handed_on() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def _wait_emptied(self, deadline: float) -> None:
        """Wait until nothing is under way any more, or until ``deadline``."""
        while self._busy() and self.loop.time() < deadline:
            self._emptied.clear()
            # How much of an answer was read is told by nobody.
            look = min(deadline, self.loop.time() + LOOK) if self._waiting or self._lingering else deadline
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look):
                    await self._emptied.wait()
            for answered in list(self._lingering):
                answered.measure()

    def _busy(self) -> bool:
        """Whether there are transports of connections, handlers, requests that are answered, or unread answers."""
        if self._waiting and self._answer_until > self.loop.time():
            return True
        return bool(self._held or self._tasks or self._unsent)

    # What it is and has

    @property
    def port(self) -> int:
        """The port it listens on, or listened on; 0 for a Unix socket and before the start."""
        return self._port

    @property
    def sockets(self) -> tuple[sockets.socket, ...]:
        """The listening sockets."""
        return tuple(sock for listener in self._listeners for sock in listener.sockets)

    @property
    def connections(self) -> Connections:
        """The open connections."""
        return Connections(self._open)

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun."""
        return self._stop is not None

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self._tls is not None

    def stats(self) -> dict[str, int | float]:
        """Counts since the start, and what is held now, under flat names."""
        return {
            "connections": len(self._open),
            "transports": len(self._held),
            "handshakes": len(self._waiting),
            "answered": len(self._lingering),
            "unread_bytes": self._unsent,
            "handlers": len(self._tasks),
            "aborted_at_stop": self._aborted,
            **self.counters.flat(),
            "bytes_out": self.counters.bytes_out + sum(ws._written for ws in self._held),
        }

    # What receptions and connections ask of it

    def terms(self, options: WebSocketOptions) -> Terms:
        """The terms of a route's connections."""
        terms = self._terms_of.get(options)
        if terms is None:
            base = self._terms
            beat = options.heartbeat
            terms = Terms(
                max_message_bytes=options.max_message_bytes or base.max_message_bytes,
                max_queue_bytes=options.max_queue_bytes or base.max_queue_bytes,
                write_buffer_bytes=base.write_buffer_bytes,
                heartbeat=base.heartbeat if beat is None or beat is True else pulse(None if beat is False else beat),
                close_timeout=base.close_timeout,
                send_timeout=base.send_timeout,
                control=options.control,
            )
            self._terms_of[options] = terms
        return terms

    def tune(self, transport: asyncio.Transport) -> None:
        """Bound what the kernel holds for a peer, and send small frames at once (tcp(7), TCP_NODELAY)."""
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        with suppress(OSError):
            sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, self._send_buffer_bytes)
            if sock.family in (sockets.AF_INET, sockets.AF_INET6):
                sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)

    def receive(self, reception: Reception | Hello) -> bool:
        """Take note of a new TCP connection: whether there is room for its handshake.

        At the bound the oldest one that has not sent its request gives way: connections that say nothing can be opened
        by the thousand and cannot keep out one that speaks.
        """
        limit = self.max_handshakes
        if limit is not None and len(self._waiting) >= limit:
            silent = next((other for other in self._waiting if not other.has_request), None)
            if silent is None:
                return False
            self._cut(silent)
        self._waiting[reception] = None
        return True

    def answered(self, reception: Reception) -> None:
        """A connection got its answer and is about to end."""
        self._waiting.pop(reception, None)
        if self.max_handshakes is not None and len(self._lingering) >= self.max_handshakes:
            self._cut(next(iter(self._lingering)))
        self._lingering[reception] = None

    def unsent(self, change: int) -> None:
        """The bytes of answers that were not read have changed; cut the oldest while there are too many."""
        self._unsent += change
        if change > 0 and self._unsent > self.max_answer_bytes:
            for reception in list(self._lingering):
                reception.measure()
                if self._unsent <= self.max_answer_bytes:
                    return
                if reception.unsent:
                    self._cut(reception)

    def _cut(self, reception: Reception | Hello) -> None:
        self.counters.handshakes_cut += 1
        reception.cut()
        self.left(reception)

    def left(self, reception: Reception | Hello) -> None:
        """A connection ended without an upgrade."""
        self._waiting.pop(reception, None)
        if isinstance(reception, Reception) and self._lingering.pop(reception, self) is None:
            self._unsent -= reception.unsent
        self._check_emptied()

    def admit(self, request: Request) -> Response | None:
        """A refusal where no further WebSocket connection may be opened, else ``None``."""
        if self._stop is not None and not self._shared:
            return request.refuse(503, "the server is stopping", {"Retry-After": "1"}, reason="stopping")
        if self.max_connections is not None and len(self._held) >= self.max_connections:
            return request.refuse(503, "too many connections", {"Retry-After": "10"}, reason="connections")
        address = _address(request.remote)
        if (
            self.max_per_address is not None
            and address is not None
            and self._addresses.get(address, 0) >= self.max_per_address
        ):
            text = "too many connections from this address"
            return request.refuse(429, text, {"Retry-After": "10"}, reason="per_address")
        return None

    def upgraded(self, reception: Reception, ws: Connection) -> None:
        """A handshake succeeded."""
        self._waiting.pop(reception, None)
        self._open[ws] = None
        self._held[ws] = None
        self.counters.opened += 1
        address = _address(ws.remote)
        if address is not None:
            self._addresses[address] = self._addresses.get(address, 0) + 1

    def finished(self, ws: Wire) -> None:
        """A connection's code and reason are known."""
        self._open.pop(ws, None)  # type: ignore[call-overload]

    def lost(self, ws: Wire) -> None:
        """A connection's transport is gone."""
        if ws in self._held:
            del self._held[ws]
            address = _address(ws.remote)
            if address is not None:
                self._addresses[address] -= 1
                if not self._addresses[address]:
                    del self._addresses[address]
        self.counters.bytes_out += ws._written
        self._check_emptied()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a handler in a task of its own."""
        task = self.loop.create_task(coroutine)
        self.track(task)
        return task

    def track(self, task: asyncio.Task[None]) -> None:
        """Let the stop wait for ``task``."""
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._check_emptied()

    def _check_emptied(self) -> None:
        if not self._busy():
            self._emptied.set()


def _address(remote: Any) -> Any:
    """What connections are counted by: a host, ``None`` on a Unix socket."""
    return remote[0] if isinstance(remote, tuple) and remote else None


def _inode(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _log_refused(remote: object, path: str, response: Response) -> None:
    logger.info("a request for %r from %s was refused with %d", path, remote, response.status)

"""A connection as handlers see it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .message import MESSAGE_OVERHEAD, Message, encode_json, frame
from .pending import hung_up
from .reader import PAUSED_BY_QUEUE, PAUSED_BY_USER, Reader
from .wire import CLOSED, OPEN

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

    from .host import Host, Terms
    from .request import Headers, Query, Request

__all__ = ["Connection"]


class Connection(Reader):
    """One WebSocket connection.

    ``path_params``, ``query``, ``headers``, ``remote`` and ``state`` come from the handshake (``state`` is what
    middleware put there); ``subprotocol`` is the one chosen, or ``None``.  ``close_code`` and ``close_reason`` are
    ``None`` and empty until the end is known, then the peer's where it sent a close frame, else ours where we sent
    one, else 1006.  ``reason_lost`` says in words why, where the end was not ours: "closed by peer", "connection lost",
    "connection reset", "ping timeout", "send timeout", "protocol error", or what :meth:`abort` was given.
    ``last_received`` is the time of the last byte received, by the server's clock.

    Everything that sends raises :class:`ConnectionClosed` once the connection is closing, except :meth:`try_send`,
    which drops.
    """

    __slots__ = (
        "_errors",
        "_queue",
        "_queue_bytes",
        "_received_close",
        "_request",
        "_waiter",
        "subprotocol",
    )

    def __init__(self, protocol: ServerProtocol, host: Host, terms: Terms, request: Request) -> None:
        super().__init__(protocol, host, terms)
        self._request = request
        self._queue: deque[Message] | None = None
        self._queue_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._received_close = False
        self._errors: dict[object, int] | None = None  # failures in a row, by handler (handlers.recover)
        self.subprotocol: str | None = protocol.subprotocol

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self._request.path} {('', 'open', 'closing', 'closed')[self._state]}>"

    # What the handshake said

    @property
    def path(self) -> str:
        """The decoded path."""
        return self._request.path

    @property
    def path_params(self) -> dict[str, Any]:
        """The path's parameters, decoded and converted."""
        return self._request.path_params

    @property
    def query(self) -> Query:
        """The query's fields."""
        return self._request.query

    @property
    def headers(self) -> Headers:
        """The handshake's headers."""
        return self._request.headers

    @property
    def remote(self) -> Any:
        """The peer's address, as asyncio's ``peername``."""
        return self._request.remote

    @property
    def state(self) -> dict[str, Any]:
        """What middleware and handlers keep with the connection."""
        return self._request.state

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more: closing has begun, from either side."""
        return self._state != OPEN

    @property
    def peer_gone(self) -> bool:
        """Whether the peer has closed or reset its TCP connection, also where reading is paused; false if unknown.

        Asks the kernel, reads nothing: what the peer sent before is still to come.
        """
        return self._state == CLOSED or hung_up(self._transport)

    # Receiving

    async def recv(self, timeout: float | None = None) -> Message | None:
        """The next message; after the last one a ``close`` message, then ``None`` for ever.

        Raises ``TimeoutError`` after ``timeout`` seconds without one, and ``RuntimeError`` where another task waits
        already, or the route's messages go to a handler.  Can be cancelled without losing a message.
        """
        queue = self._queue
        if queue is None:
            raise RuntimeError("the messages of this route go to its handler")
        if self._waiter is not None:
            raise RuntimeError("another task is waiting in recv()")
        if not queue:
            await self._wait(timeout)
            if not queue:
                return None
        return self._pop(queue)

    def _pop(self, queue: deque[Message]) -> Message:
        message = queue.popleft()
        self._queue_bytes -= message.data.__sizeof__() + MESSAGE_OVERHEAD
        if self._paused and self._queue_bytes * 2 <= self._terms.max_queue_bytes:
            self._resume(PAUSED_BY_QUEUE)
        if message.kind == "close":
            self._received_close = True
        return message

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> Message:
        queue = self._queue
        if queue and self._waiter is None:
            return self._pop(queue)
        message = await self.recv()
        if message is None:
            raise StopAsyncIteration
        return message

    async def _wait(self, timeout: float | None) -> None:
        """Wait until there is a message, or the last one has been taken."""
        deadline = None if timeout is None else self._loop.time() + timeout
        # Woken for a message, the task may find none: a close from this side drops what was not taken.
        while not self._queue and not self._received_close:
            waiter = self._waiter = self._loop.create_future()
            timer = None if deadline is None else self._loop.call_at(deadline, _time_out, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()

    def _use_queue(self) -> None:
        """Queue messages for ``recv``."""
        self._queue = deque()
        self._handler = Connection._enqueue
        self._closed_hooks.append(Connection._enqueue_close)

    def _enqueue(self, message: Message) -> None:
        queue = self._queue
        assert queue is not None
        queue.append(message)
        self._queue_bytes += message.data.__sizeof__() + MESSAGE_OVERHEAD
        if self._queue_bytes >= self._terms.max_queue_bytes:
            # Full: the peer waits, pings and close frames behind its data included, until half is taken.
            self._pause(PAUSED_BY_QUEUE)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _enqueue_close(self) -> None:
        self._enqueue(Message("close", b"", self.close_code, self.close_reason))

    def close_soon(self, code: int = 1000, reason: str = "") -> None:
        super().close_soon(code, reason)
        if self._queue and self.close_code is None:
            self._queue.clear()
            self._queue_bytes = 0

    # Sending

    async def send(self, message: object) -> None:
        """Send a message of any kind: ``Message``, ``Prepared``, ``str``, ``bytes``, or an object as JSON text.

        Waits while the peer is behind: before the message is written, and then until the peer has caught up.  So one
        that is cancelled may or may not have been sent.  A ``close`` message begins to close, as :meth:`close_soon`.
        """
        self._check_open()
        if self._closes(message):
            return
        data = self._framed(message)
        if self._write_paused:
            await self._room()
        self._write(data)
        if self._write_paused:
            await self._drain()

    async def send_text(self, text: str) -> None:
        """Send a text message.  Raises ``TypeError`` for anything but ``str``."""
        if self._state != OPEN:
            raise self._closed_error()
        if not isinstance(text, str):
            raise TypeError(f"text must be str, not {type(text).__name__}")
        data = self._frame(1, text.encode())
        if self._write_paused:
            await self._room()
        self._write(data)
        if self._write_paused:
            await self._drain()

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message.  Raises ``TypeError`` for anything but bytes."""
        if self._state != OPEN:
            raise self._closed_error()
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        data = self._frame(2, bytes(data))
        if self._write_paused:
            await self._room()
        self._write(data)
        if self._write_paused:
            await self._drain()

    async def send_json(self, value: object) -> None:
        """Send ``value`` as JSON in a text message.  Raises ``TypeError`` for what JSON cannot hold."""
        if self._state != OPEN:
            raise self._closed_error()
        data = self._frame(1, encode_json(value))
        if self._write_paused:
            await self._room()
        self._write(data)
        if self._write_paused:
            await self._drain()

    async def send_batch(self, messages: Iterable[object]) -> None:
        """Send several messages in order, in one write to the transport."""
        self._check_open()
        data = b"".join([self._framed(message) for message in messages])
        if data:
            if self._write_paused:
                await self._room()
            self._write(data)
            if self._write_paused:
                await self._drain()

    async def ping(self, data: bytes | str = b"", *, timeout: float | None = None) -> float:
        """Ping; give the round-trip time in seconds once the pong is there.

        ``data`` is at most 125 bytes and not that of a ping under way (``ValueError``); without it, bytes are made up.
        Raises ``TimeoutError`` after ``timeout`` seconds (the heartbeat's timeout by default, or 20) whatever the state
        of the write buffer, and :class:`ConnectionClosed` where the connection ends first.
        """
        self._check_open()
        payload = data.encode() if isinstance(data, str) else bytes(data)
        if len(payload) > 125:
            raise ValueError("a ping holds at most 125 bytes")
        pings = self._pings
        if pings is None:
            pings = self._pings = {}
        if not payload:
            payload = b"%x" % self._written
            while payload in pings:
                payload += b"."
        elif payload in pings:
            raise ValueError("a ping with the same data is under way")
        waiter: asyncio.Future[float] = self._loop.create_future()
        pings[payload] = (waiter, self._clock())
        if timeout is None:
            timeout = self._terms.heartbeat[1] if self._terms.heartbeat else 20.0
        timer = self._loop.call_later(timeout, _time_out, waiter)
        self._write(frame(0x9, payload))
        try:
            return await waiter
        finally:
            timer.cancel()
            pings.pop(payload, None)

    async def _room(self) -> None:
        """Wait until there is room for one more message."""
        await self._drain()
        self._check_open()

    def _check_open(self) -> None:
        if self._state != OPEN:
            raise self._closed_error()

    # Flow

    def pause(self) -> None:
        """Stop reading: the peer feels it, and is not timed out; no message is delivered until ``resume``.

        What stands in the queue of ``recv`` by then is still given.
        """
        self._pause(PAUSED_BY_USER)

    def resume(self) -> None:
        """Read again, from the next turn of the loop."""
        self._resume(PAUSED_BY_USER)

    # Ending

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait until the connection is gone: at most ``close_timeout``, then it is aborted.

        On a connection that is closing already it only waits.  Raises ``ValueError`` for a code that must not be sent
        (RFC 6455, 7.4) or a reason above 123 bytes.
        """
        self.close_soon(code, reason)
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        if self._state == CLOSED:
            return
        if self._lost_waiters is None:
            self._lost_waiters = []
        waiter = self._loop.create_future()
        self._lost_waiters.append(waiter)
        try:
            await waiter
        finally:
            if self._lost_waiters:
                self._lost_waiters.remove(waiter)

    def on_closed(self, hook: Callable[[Connection], object]) -> None:
        """Call ``hook(ws)`` once ``close_code`` is known; at the loop's next turn where it is known already."""
        if self.close_code is not None:
            self._loop.call_soon(self._guard, hook, self)
        else:
            self._closed_hooks.append(hook)

    def off_closed(self, hook: Callable[[Connection], object]) -> None:
        """Take back what was given to :meth:`on_closed`, once; nothing happens where it is not there."""
        if hook in self._closed_hooks:
            self._closed_hooks.remove(hook)


def _time_out(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())

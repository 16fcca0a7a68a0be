"""The writing half of a connection, and how it ends.

Writing.  Everything goes through ``_write`` in order.  While data is being received, what is written is collected and
sent in one call at the end, or as soon as it is ``write_buffer_bytes``.

A peer that does not read.  When the transport holds more than ``write_buffer_bytes`` it says so (``pause_writing``).
From then on, until it holds a quarter of it, ``send`` waits before it writes, a message that an inline handler answered
is the last one read, and of all pongs only the latest is kept.  So each connection holds ``write_buffer_bytes`` and one
message at most, but for what ``try_send`` and pools add, who are told and have bounds of their own.

Nothing waits for a peer without a deadline.  While a send or our reading waits and the peer has taken nothing for
``send_timeout``, counted from its last progress whoever waited then, it is aborted (``_stall``); so is one that has
not answered a close within ``close_timeout``.

Ending.  ``_finish`` runs exactly once, as soon as code and reason are known: at the peer's close frame, at a failure
of the protocol, or at the end of the transport.  ``connection_lost`` always follows.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .errors import ConnectionClosed
from .gone import GONE
from .message import OPCODES, Message, Prepared, check_close, deflate, encode, frame
from .pending import in_kernel, unsent

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

    from .host import Host, Terms

__all__ = ["CLOSED", "CLOSING", "OPEN", "PAUSED_BY_QUEUE", "PAUSED_BY_USER", "PAUSED_BY_WRITE", "Wire"]

logger = logging.getLogger("gateway.ws")

OPEN, CLOSING, CLOSED = 1, 2, 3


PONG_FRAME = 0x8A  # the first byte of one

# Reasons for which reading is paused; it goes on when none is left.
PAUSED_BY_USER, PAUSED_BY_QUEUE, PAUSED_BY_WRITE = 1, 2, 4

LOOKS = 4  # at a peer that does not read, in each send_timeout


class Wire(asyncio.BufferedProtocol, ABC):
    """What sends and ends; see the module's text."""

    __slots__ = (
        "__weakref__",
        "_abort_reason",
        "_beat",
        "_clock",
        "_close_timer",
        "_closed_hooks",
        "_compress",
        "_corked",
        "_deaf",
        "_drain_waiters",
        "_fast",
        "_host",
        "_input_hook",
        "_loop",
        "_lost_waiters",
        "_out",
        "_out_bytes",
        "_out_max",
        "_owed_pong",
        "_paused",
        "_pings",
        "_protocol",
        "_resumed_at",
        "_stall_timer",
        "_stalled_at",
        "_state",
        "_taken_then",
        "_terms",
        "_transport",
        "_writable_hooks",
        "_write_paused",
        "_written",
        "close_code",
        "close_reason",
        "last_received",
        "reason_lost",
    )

    def __init__(self, protocol: ServerProtocol, host: Host, terms: Terms) -> None:
        self._protocol = protocol
        self._host = host
        self._terms = terms
        self._loop = host.loop
        self._clock = host.clock
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._state = CLOSED
        self._fast = False
        self._deaf = False
        self._paused = 0
        self._resumed_at = 0.0
        self._compress = False
        self._corked = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._out_max = terms.write_buffer_bytes
        self._written = 0  # bytes that the transport was given
        self._write_paused = False
        self._stalled_at = 0.0  # when the peer last took something, as far as was looked, while writing is paused
        self._taken_then = 0  # what it had taken by then
        self._stall_timer: asyncio.TimerHandle | None = None
        self._owed_pong = b""  # the latest, which waits until there is room
        self._drain_waiters: deque[asyncio.Future[None]] | None = None
        self._lost_waiters: list[asyncio.Future[None]] | None = None
        self._closed_hooks: list[Callable[[Any], object]] = []
        self._input_hook: Callable[[], object] | None = None
        self._writable_hooks: list[Callable[[Any], object]] | None = None
        self._pings: dict[bytes, tuple[asyncio.Future[float], float]] | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._abort_reason = ""
        self._beat: Any = None
        self.last_received = 0.0
        self.close_code: int | None = None
        self.close_reason = ""
        self.reason_lost = ""

    # What the loop calls

    def pause_writing(self) -> None:
        self._write_paused = True
        self._stalled_at = self._loop.time()
        self._taken_then = self._taken()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._owed_pong:
            pong, self._owed_pong = self._owed_pong, b""
            if self._state == OPEN:
                self._write(pong)
        self._resume(PAUSED_BY_WRITE)
        if self._drain_waiters:
            for waiter in self._drain_waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self._writable_hooks:
            for hook in tuple(self._writable_hooks):
                self._guard(hook, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = CLOSED
        self._fast = False
        self._deaf = True
        for timer in (self._close_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._close_timer = self._stall_timer = None
        if self.close_code is None:
            sent = self._protocol.close_sent
            if sent is not None and not self._abort_reason:
                self._finish(int(sent.code), sent.reason, "")
            else:
                reset = "connection lost" if exc is None else "connection reset"
                self._finish(1006, "", self._abort_reason or reset)
        self._write_paused = False
        # The parser is a generator on its protocol: end it, so that neither waits for the cyclic collector.
        self._protocol.parser.close()
        for waiters in (self._drain_waiters, self._lost_waiters):
            if waiters:
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
        self._host.lost(self)
        self._transport = GONE

    # Writing

    def _write(self, data: bytes) -> None:
        if self._corked:
            self._out.append(data)
            self._out_bytes += len(data)
            if self._out_bytes >= self._out_max:
                self._flush()
        else:
            self._written += len(data)
            self._transport.write(data)

    def _flush(self) -> None:
        """Give the transport what was collected."""
        out = self._out
        if out:
            self._out = []
            self._written += self._out_bytes
            self._out_bytes = 0
            if self._state != CLOSED:
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _discard_out(self) -> None:
        self._corked = False
        self._out = []
        self._out_bytes = 0

    def _pump(self) -> None:
        """Send what the library has to send; a pong to a peer that does not read waits, in the place of earlier ones.

        A ping need not be answered when a later one is (RFC 6455, 5.5.3), and a flood of them must not fill the memory.
        """
        for data in self._protocol.data_to_send():
            if not data:
                self._end_writing()
            elif self._write_paused and data[0] == PONG_FRAME:
                self._owed_pong = data
            else:
                self._write(data)

    def _end_writing(self) -> None:
        """Close our half (RFC 6455, 7.1.1: the server first), and leave the peer ``close_timeout`` for its own."""
        self._flush()
        self._arm_close_timer()
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except (OSError, RuntimeError):
                self._transport.abort()
        else:
            self._transport.close()

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        return (self._compress and deflate(opcode, payload)) or frame(opcode, payload)

    def _framed(self, message: object) -> bytes:
        """The bytes to send for a message of any kind but ``close``."""
        if type(message) is Prepared:
            return message.deflated if self._compress else message.frame
        kind, payload = encode(message)
        opcode = OPCODES[kind]
        return (self._compress and deflate(opcode, payload)) or frame(opcode, payload)

    def try_send(self, message: object) -> int:
        """Send without waiting; give the bytes pending (see ``pending_bytes``).

        Takes whatever ``send`` takes; a ``close`` message begins to close.  On a connection that is closing or closed
        the message is dropped: 0.  Nothing bounds what is pending but the caller, who is told.
        """
        if self._state != OPEN:
            return 0
        if not self._closes(message):
            self._write(self._framed(message))
        return self.pending_bytes

    @property
    def pending_bytes(self) -> int:
        """Bytes sent here that the peer's machine has not taken: in our buffer, and then also in the kernel's.

        While our buffer is empty the kernel is not asked, and the answer is 0.
        """
        if self._state == CLOSED:
            return 0
        pending = self._out_bytes + self._transport.get_write_buffer_size()
        if pending:
            pending += in_kernel(self._transport)
        return pending

    def _unsent(self) -> int:
        """As ``pending_bytes``, but the kernel is always asked."""
        return self._out_bytes + unsent(self._transport)

    def _taken(self) -> int:
        """Bytes that the peer's machine has taken since the start."""
        return self._written - unsent(self._transport)

    async def _drain(self) -> None:
        """Wait until the transport takes more.  Raises :class:`ConnectionClosed` where the connection ends first."""
        waiters = self._drain_waiters
        if waiters is None:
            waiters = self._drain_waiters = deque()
        while self._write_paused:
            waiter = self._loop.create_future()
            waiters.append(waiter)
            self._stall()
            try:
                await waiter
            finally:
                waiters.remove(waiter)
        if self._state == CLOSED or self._abort_reason:
            raise self._closed_error()

    def _stall(self) -> None:
        """Somebody waits for the peer to read: see that this ends."""
        if self._stall_timer is None:
            self._look_stalled()

    def _look_stalled(self) -> None:
        self._stall_timer = None
        if not self._write_paused or self._abort_reason or not (self._drain_waiters or self._paused & PAUSED_BY_WRITE):
            return
        now, taken, timeout = self._loop.time(), self._taken(), self._terms.send_timeout
        if taken > self._taken_then:
            self._taken_then = taken
            self._stalled_at = now
        left = self._stalled_at + timeout - now
        if left <= 0:
            self.abort("send timeout")
        else:
            self._stall_timer = self._loop.call_later(min(left, timeout / LOOKS), self._look_stalled)

    # Ending

    def close_soon(self, code: int = 1000, reason: str = "") -> None:
        """Begin to close, without waiting: send the close frame, deliver nothing more, abort after ``close_timeout``.

        Does nothing on a connection that is closing or closed.  Raises ``ValueError`` for a code or reason that cannot
        be sent.
        """
        check_close(code, reason)
        self._begin_close(code, reason)

    def _stop(self, code: int, reason: str) -> None:
        """As ``close_soon``, but what was received before is still delivered."""
        self._deliver_held()
        self._begin_close(code, reason)

    def _closes(self, message: object) -> bool:
        """Whether ``message`` is one to close; then that has begun."""
        if type(message) is Message and message.kind == "close":
            self.close_soon(1000 if message.code is None else message.code, message.reason)
            return True
        return False

    def _begin_close(self, code: int, reason: str) -> None:
        if self._state != OPEN:
            return
        self._state = CLOSING
        self._fast = False
        self._arm_close_timer()
        self._protocol.send_close(code, reason)
        self._pump()
        # The peer's close frame stands behind whatever it sent before: read on.
        self._resume(~0)
        self._end_input()

    def abort(self, reason: str = "aborted") -> None:
        """End at once, dropping what is pending; ``reason_lost`` becomes ``reason``."""
        if self._state == CLOSED:
            return
        self._state = CLOSING
        self._fast = False
        self._deaf = True
        self._discard_out()
        if not self._abort_reason:
            self._abort_reason = reason
        self._transport.abort()

    def _drop_lost(self, reason: str) -> None:
        """End with a peer that has left: say 1011, in case it has not, and wait for nothing."""
        self._abort_reason = reason
        self._deaf = True
        if self._state == OPEN:
            self._state = CLOSING
            self._fast = False
            self._protocol.send_close(1011, reason)
            for data in self._protocol.data_to_send():
                self._write(data)
        self._arm_close_timer()
        self._transport.close()
        self._finish(1006, "", reason)

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455, 7.1.7)."""
        if self._state == OPEN:
            self._protocol.fail(code, reason)
            self._pump()
            self._failed()

    def _failed(self) -> None:
        """The library, or ``_fail``, has failed the connection: the close frame is on its way, nothing more is read."""
        self._state = CLOSING
        self._fast = False
        self._deaf = True
        protocol = self._protocol
        sent = protocol.close_sent
        code, reason = (int(sent.code), sent.reason) if sent is not None else (1006, "")
        logger.debug("websocket %s from %s: failed with %d %s", self.id, self.remote, code, reason)
        received = protocol.close_rcvd
        if received is not None:
            code, reason = int(received.code), received.reason
        self._finish(code, reason, "protocol error")

    def _close_received(self) -> None:
        received = self._protocol.close_rcvd
        assert received is not None
        ours = self._state == CLOSING
        self._state = CLOSING
        self._fast = False
        self._deaf = True
        self._finish(int(received.code), received.reason, "" if ours else "closed by peer")

    def _handler_failed(self, error: BaseException) -> None:
        """A handler raised: 1011, with its traceback in the log, unless it only met a connection that had closed."""
        if isinstance(error, ConnectionClosed) and self._state != OPEN:
            return
        self._host.counters.handler_errors += 1
        logger.error("websocket %s at %r from %s: handler failed", self.id, self.path, self.remote, exc_info=error)
        self.close_soon(1011, "internal error")

    def _arm_close_timer(self) -> None:
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(self._terms.close_timeout, self._close_expired)

    def _close_expired(self) -> None:
        self._close_timer = None
        if self._state != CLOSED:
            self._host.counters.close_timeouts += 1
            self._deaf = True
            self._transport.abort()

    def _finish(self, code: int, reason: str, lost: str) -> None:
        """Code and reason are known."""
        if self.close_code is not None:
            return
        self.close_code = code
        self.close_reason = reason
        self.reason_lost = lost
        self._paused = 0
        self._host.beats.discard(self)
        self._host.finished(self)
        self._host.counters.close(code, lost)
        pings, self._pings = self._pings, None
        if pings:
            for waiter, _ in pings.values():
                if not waiter.done():
                    waiter.set_exception(self._closed_error())
        self._end_input()
        hooks, self._closed_hooks = self._closed_hooks, []
        for hook in hooks:
            self._guard(hook, self)

    def _end_input(self) -> None:
        """Nothing received from now on is delivered."""
        hook, self._input_hook = self._input_hook, None
        if hook is not None:
            hook()

    def _closed_error(self) -> ConnectionClosed:
        code = self.close_code
        if code is None and self._abort_reason:
            return ConnectionClosed(1006, self._abort_reason)
        if code is None:
            sent = self._protocol.close_sent
            return ConnectionClosed(1006, "") if sent is None else ConnectionClosed(int(sent.code), sent.reason)
        return ConnectionClosed(code, self.close_reason or (self.reason_lost if code == 1006 else ""))

    def _guard(self, hook: Callable[..., object], *args: object) -> None:
        """Call what a user gave us where nobody is there to catch what it raises."""
        try:
            hook(*args)
        except (Exception, asyncio.CancelledError):
            self._host.counters.handler_errors += 1
            logger.exception("websocket %s at %r from %s: %r failed", self.id, self.path, self.remote, hook)

    @property
    def id(self) -> str:
        """Unique among all connections of all servers."""
        return self._protocol.id.hex

    path: Any  # from the handshake, decoded
    remote: Any  # the peer's address

    @abstractmethod
    def _resume(self, why: int) -> None:
        """The reading half's."""

    @abstractmethod
    def _deliver_held(self) -> None:
        """The reading half's."""

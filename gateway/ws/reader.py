"""The reading half of a connection: bytes in, messages to the handler.

Frames are told apart here, by their headers alone (RFC 6455, 5.2), so that whole, final, masked data frames and pongs,
which is what devices send, can be read without the library's parser; every other frame goes to it unchanged, piece by
piece, and its answers (pongs, close frames, failures) go out as it wrote them.  Between two frames the parser is always
at a frame's start.

    _tail    bytes held back: an unfinished short frame, or with _held all that came while reading was paused
    _left    bytes that the frame which the library is reading still lacks
    _fast    whether a frame may be read here: open, and no fragmented message under way
    _deaf    whether nothing is read any more: the peer has closed, or the connection has failed

Every read of a server goes into one buffer that all its connections share: nothing in it outlives the callback.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from websockets.frames import Opcode
from websockets.protocol import OPEN as PROTOCOL_OPEN

from .message import OPCODES, Message, Prepared
from .wire import CLOSED, CLOSING, OPEN, PAUSED_BY_QUEUE, PAUSED_BY_USER, PAUSED_BY_WRITE, Wire

if TYPE_CHECKING:
    from websockets.frames import Frame
    from websockets.server import ServerProtocol

    from .host import Host, Terms

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled module for this platform
    from websockets.utils import apply_mask

__all__ = ["PAUSED_BY_QUEUE", "PAUSED_BY_USER", "Reader"]

logger = logging.getLogger("gateway.ws")

# What an inline handler may raise: also what the result of a cancelled task does.
HANDLER_ERRORS = (Exception, asyncio.CancelledError)

# A data frame up to this size that has not come whole is held back until it has.
HOLD_BYTES = 4096

TEXT, BINARY, CONT, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG


class Reader(Wire):
    """What receives; see the module's text."""

    __slots__ = (
        "_ended",
        "_fragment_check",
        "_fragment_kind",
        "_fragments",
        "_handler",
        "_held",
        "_hold",
        "_left",
        "_small",
        "_tail",
        "_transport_paused",
        "_unpausable",
    )

    def __init__(self, protocol: ServerProtocol, host: Host, terms: Terms) -> None:
        super().__init__(protocol, host, terms)
        self._handler: Callable[[Any, Message], object] = _drop
        small = self._small = min(65535, terms.max_message_bytes)
        # A frame above max_message_bytes is never held back: it is to fail by its header.
        self._hold = min(HOLD_BYTES, small + (6 if small < 126 else 8))
        self._left = 0
        self._tail = b""
        self._held = False
        self._ended = False
        self._transport_paused = False
        self._unpausable = False
        self._fragments: bytearray | None = None
        self._fragment_kind: Opcode = TEXT
        self._fragment_check: codecs.IncrementalDecoder | None = None

    # Opening

    def _open(self, transport: asyncio.Transport, response: bytes, start: Callable[[], None], early: bytes) -> None:
        """Take ``transport`` over: send the handshake's ``response``, run ``start``, then read ``early`` bytes."""
        self._transport = transport
        transport.set_write_buffer_limits(high=self._terms.write_buffer_bytes)
        self._state = OPEN
        self._fast = True
        self.last_received = self._clock()
        self._resumed_at = self.last_received
        self._corked = True
        self._write(response)
        try:
            start()
        except HANDLER_ERRORS as error:
            self._handler_failed(error)
        self._corked = False
        self._flush()
        self._host.beats.add(self)
        if early:
            self._receive(early, len(early))

    # What the loop calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._host.view

    def buffer_updated(self, nbytes: int) -> None:
        self.last_received = self._clock()
        host = self._host
        host.counters.bytes_in += nbytes
        if self._paused:
            # Pausing took effect on our side only: now stop the transport, too, and keep this one piece.
            self._tail += host.buffer[:nbytes]
            self._held = True
            self._pause_transport()
            return
        self._receive(host.buffer, nbytes)

    def eof_received(self) -> bool:
        if self._held and self._transport.can_write_eof():
            # What came before the end is read first, when reading goes on.
            self._ended = True
            return True
        self._end()
        return False

    def _end(self) -> None:
        """The peer has closed its half; ours follows."""
        self._deaf = True
        if self._state == OPEN:
            self._state = CLOSING
            self._fast = False
            self._finish(1006, "", "connection lost")
        # What is still to be written must not hold the transport open for ever.
        if self._transport.get_write_buffer_size():
            self._arm_close_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler = _drop
        self._tail = b""
        self._fragments = None
        super().connection_lost(exc)

    # Frames

    def _receive(self, data: bytes | bytearray, size: int) -> None:
        """Take the frames in the first ``size`` bytes of ``data``, and keep what is left of them."""
        if self._tail:
            data = self._tail + data[:size]
            size = len(data)
            self._tail = b""
        self._corked = True
        at = 0
        try:
            while at < size:
                if self._fast and not self._left and not self._paused:
                    at = self._read_small(data, at, size)
                    if at == size:
                        break
                if self._deaf:
                    break
                if self._paused:
                    self._tail = bytes(data[at:size])
                    self._held = True
                    break
                took = self._read_other(data, at, size)
                if not took:
                    self._tail = bytes(data[at:size])
                    break
                at += took
            self._corked = False
            if self._out:
                self._flush()
        except Exception:
            logger.exception("websocket %s at %r from %s: reading failed", self.id, self.path, self.remote)
            self.abort("internal error")

    def _read_small(self, data: bytes | bytearray, at: int, size: int) -> int:
        """Take whole, final, masked data frames and pongs; give the place behind the last one taken."""
        handler = self._handler
        small = self._small
        taken = 0
        try:
            while size - at >= 6:
                head = data[at]
                if head != 0x81 and head != 0x82 and head != 0x8A:
                    break
                length = data[at + 1] ^ 0x80
                start = at + 6
                if length >= 126:
                    # 127: eight bytes of length; 128 and above: not masked.  No pong is that long.
                    if length != 126 or size - at < 8 or head == 0x8A:
                        break
                    length = data[at + 2] << 8 | data[at + 3]
                    start = at + 8
                end = start + length
                if end > size or length > small:
                    break
                payload = apply_mask(data[start:end], data[start - 4 : start])
                at = end
                if head == 0x8A:
                    self._pong(payload)
                    if self._paused or not self._fast:
                        break
                    continue
                taken += 1
                if head == 0x81:
                    try:
                        message = Message("text", payload.decode())
                    except UnicodeDecodeError as error:
                        self._fail(1007, f"{error.reason} at position {error.start}")
                        break
                else:
                    message = Message("binary", payload)
                try:
                    result = handler(self, message)
                except HANDLER_ERRORS as error:
                    self._handler_failed(error)
                    break
                if result is not None:
                    self._answer(result)
                if self._paused or not self._fast:
                    break
        finally:
            self._host.counters.messages_in += taken
        return at

    def _read_other(self, data: bytes | bytearray, at: int, size: int) -> int:
        """Give the library the frame at ``at``, or the piece of one that is here; 0 to wait for more of it."""
        here = size - at
        if not self._left:
            extent = _extent(data, at, here)
            if not extent:
                return 0
            if here < extent <= self._hold and self._fast and data[at] in (0x81, 0x82):
                return 0
            self._left = extent
        took = min(self._left, here)
        self._left -= took
        protocol = self._protocol
        protocol.receive_data(data[at : at + took])
        frames = protocol.events_received()
        self._pump()
        for event in frames:
            self._take(cast("Frame", event))
        if protocol.parser_exc is not None and self.close_code is None:
            self._failed()
        elif protocol.close_rcvd is not None and self.close_code is None:
            self._close_received()
        self._fast = self._state == OPEN and protocol.current_size is None and protocol._state is PROTOCOL_OPEN
        return took

    def _take(self, event: Frame) -> None:
        """One frame that the library has read."""
        opcode = event.opcode
        if opcode is PING:
            if self._terms.control and self._state == OPEN:
                self._deliver(Message("ping", bytes(event.data)))
            return
        if opcode is PONG:
            self._pong(bytes(event.data))
            return
        if self._state != OPEN or not (opcode is TEXT or opcode is BINARY or opcode is CONT):
            return
        data = event.data
        if opcode is not CONT:
            if event.fin:
                self._whole(opcode, bytes(data))
                return
            self._fragments = bytearray()
            self._fragment_kind = opcode
            self._fragment_check = codecs.getincrementaldecoder("utf-8")() if opcode is TEXT else None
        fragments = self._fragments
        assert fragments is not None  # the library has failed a continuation of nothing
        if self._fragment_check is not None:
            try:
                self._fragment_check.decode(bytes(data), event.fin)
            except UnicodeDecodeError as error:
                self._fragments = self._fragment_check = None
                self._fail(1007, f"{error.reason} at position {len(fragments) + error.start}")
                return
        fragments += data
        if event.fin:
            self._fragments = self._fragment_check = None
            self._whole(self._fragment_kind, bytes(fragments))

    def _whole(self, opcode: Opcode, data: bytes) -> None:
        self._host.counters.messages_in += 1
        if opcode is BINARY:
            self._deliver(Message("binary", data))
            return
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self._fail(1007, f"{error.reason} at position {error.start}")
            return
        self._deliver(Message("text", text))

    def _deliver(self, message: Message) -> None:
        try:
            result = self._handler(self, message)
        except HANDLER_ERRORS as error:
            self._handler_failed(error)
            return
        if result is not None:
            self._answer(result)

    def _answer(self, result: object) -> None:
        """Send what an inline handler gave back."""
        if self._state != OPEN:
            return
        try:
            if type(result) is Message and result.kind == "close":
                self._closes(result)
                return
            if type(result) is Prepared:
                data = result.deflated if self._compress else result.frame
            else:
                data = self._framed(result)
        except Exception as error:  # whatever it takes to encode what a handler gave
            self._handler_failed(error)
            return
        # As _write does: while data is being received what is written is collected.
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= self._out_max:
            self._flush()
        if self._write_paused:
            self._pause(PAUSED_BY_WRITE)
            self._stall()

    def _pong(self, data: bytes) -> None:
        pings = self._pings
        if pings and data in pings:
            # A pong answers every ping before its own as well (RFC 6455, 5.5.3).
            now = self._clock()
            for key in list(pings):
                waiter, sent = pings.pop(key)
                if not waiter.done():
                    waiter.set_result(now - sent)
                if key == data:
                    break
        if self._terms.control and self._state == OPEN:
            self._deliver(Message("pong", data))

    # Pause

    def _pause(self, why: int) -> None:
        if self._state == OPEN and not self._unpausable:
            self._paused |= why

    def _resume(self, why: int) -> None:
        if not self._paused & why:
            return
        self._paused &= ~why
        if self._paused:
            return
        self._resumed_at = self._clock()
        if self._transport_paused or self._held:
            self._loop.call_soon(self._go_on)

    def _deliver_held(self) -> None:
        """Deliver what was read and held back for a full queue, whatever its bound: no more will be read."""
        if self._held and not self._paused & ~PAUSED_BY_QUEUE:
            self._paused = 0
            self._unpausable = True
            self._held = False
            data, self._tail = self._tail, b""
            self._receive(data, len(data))
            self._paused = PAUSED_BY_QUEUE

    def _go_on(self) -> None:
        """Read what was held back while paused, then what the transport has."""
        if self._paused or self._state == CLOSED:
            return
        if self._held:
            self._held = False
            data, self._tail = self._tail, b""
            self._receive(data, len(data))
        if self._ended and not self._held:
            self._end()
            self._transport.close()
        elif not self._paused and self._transport_paused and not self._transport.is_closing():
            self._transport_paused = False
            self._transport.resume_reading()

    def _pause_transport(self) -> None:
        if not self._transport_paused and not self._transport.is_closing():
            self._transport_paused = True
            self._transport.pause_reading()


def _extent(data: bytes | bytearray, at: int, here: int) -> int:
    """Bytes of the frame that starts at ``at``, header included; 0 while its length has not come.

    A frame that no client may send (unknown opcode, not masked) extends to the end of what is here: the library fails
    the connection over its first two bytes.
    """
    if here < 2:
        return 0
    if data[at] & 0x0F not in _KNOWN or data[at + 1] < 0x80:
        return here
    length = data[at + 1] & 0x7F
    if length < 126:
        return 6 + length
    if length == 126:
        return 8 + int.from_bytes(data[at + 2 : at + 4], "big") if here >= 4 else 0
    return 14 + int.from_bytes(data[at + 2 : at + 10], "big") if here >= 10 else 0


_KNOWN = frozenset({0x0, *OPCODES.values()})


def _drop(ws: object, message: Message) -> None:
    """The handler of a connection that has none yet."""

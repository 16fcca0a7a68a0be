"""A connection without a socket: its transport is a list, its loop never waits.

And the library alone, which says what the same bytes ought to become.
"""

from __future__ import annotations

import asyncio
import codecs
from typing import Any, cast

from websockets.frames import Frame as LibraryFrame
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.ws import Connection, Message, Request, Router, Server
from gateway.ws.host import Terms
from gateway.ws.request import Headers

from .support import BINARY, CONT, TEXT

__all__ = ["LIMIT", "Rig", "Sink", "by_the_library"]

LIMIT = 300


class Sink(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False
        self.reading = True

    def write(self, data: Any) -> None:
        if self.closing:
            raise RuntimeError("written after the end")
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Rig:
    """One connection without a socket."""

    def __init__(self, **terms: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = Server(Router())
        self.server.loop = self.loop
        self.server.beats = cast("Any", type("Beats", (), {"add": lambda *_: None, "discard": lambda *_: None})())
        self.server._emptied = asyncio.Event()
        self.protocol = ServerProtocol(state=State.OPEN, max_size=LIMIT)
        terms = {"max_message_bytes": LIMIT, "heartbeat": None, **terms}
        self.ws = Connection(self.protocol, self.server, Terms(**terms), Request("GET", "/", Headers()))
        self.transport = Sink()
        self.seen: list[Message] = []
        self.handle = self.keep

        def start() -> None:
            self.ws._handler = lambda ws, message: self.handle(message)

        self.ws._open(self.transport, b"", start, b"")

    def keep(self, message: Message) -> None:
        self.seen.append(message)

    def feed(self, data: bytes) -> None:
        """Hand over ``data`` as the loop would."""
        buffer = self.ws.get_buffer(-1)
        buffer[: len(data)] = data
        self.ws.buffer_updated(len(data))

    def outcome(self) -> tuple[list[Message], bytes, int | None]:
        """As ``by_the_library``."""
        ours = self.protocol.close_sent
        code = None if ours is None else int(ours.code)
        sent = self.transport.written
        if code == 1007 and self.protocol.close_rcvd is None:
            sent = without_failure(sent)
        return self.seen, sent, code

    def end(self) -> None:
        self.ws.connection_lost(None)
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


def by_the_library(data: bytes) -> tuple[list[Message], bytes, int | None]:
    """What the library alone makes of ``data``: messages, bytes to send, code of the close frame sent.

    It leaves text unchecked: that is done here, as its own connections do, but with each fragment.  Of a 1007 the
    reason is its business, so that the bytes then end before the close frame.
    """
    protocol = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    messages: list[Message] = []
    sent = b""
    parts: list[bytes] = []
    kind = TEXT
    check: Any = None
    for index in range(len(data)):
        protocol.receive_data(data[index : index + 1])
        sent += b"".join(protocol.data_to_send())
        for event in protocol.events_received():
            assert isinstance(event, LibraryFrame)
            if event.opcode not in (TEXT, BINARY, CONT):
                continue
            if event.opcode != CONT:
                kind, parts = int(event.opcode), []
                check = codecs.getincrementaldecoder("utf-8")()
            parts.append(bytes(event.data))
            if kind == TEXT:
                try:
                    check.decode(parts[-1], event.fin)
                except UnicodeDecodeError:
                    return messages, sent, 1007
            if event.fin:
                whole = b"".join(parts)
                messages.append(Message("text", whole.decode()) if kind == TEXT else Message("binary", whole))
        if protocol.state is not State.OPEN:
            break
    code = None if protocol.close_sent is None else int(protocol.close_sent.code)
    return messages, without_failure(sent) if code == 1007 and protocol.close_rcvd is None else sent, code


def without_failure(sent: bytes) -> bytes:
    """What was sent before the close frame of a 1007."""
    return sent[: sent.rindex(b"\x03\xef") - 2]

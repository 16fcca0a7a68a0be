"""Messages, and what they look like on the wire from a server (RFC 6455, 5.2).

A server's frame is not masked, never fragmented here, and thus the same for every peer: that is what lets a message
be framed once (:class:`Prepared`) for any number of them.

    byte 0   FIN 0x80 | RSV1 0x40 (deflated, RFC 7692) | opcode
    byte 1   length 0..125, or 126 and two bytes, or 127 and eight bytes, big endian
    payload
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal, TypeVar, overload

import msgspec

__all__ = [
    "CLOSE_CODES",
    "Kind",
    "Message",
    "Prepared",
    "check_close",
    "encode",
    "encode_json",
    "frame",
    "prepare",
]

Kind = Literal["text", "binary", "ping", "pong", "close"]
T = TypeVar("T")

OPCODES: dict[str, int] = {"text": 0x1, "binary": 0x2, "close": 0x8, "ping": 0x9, "pong": 0xA}

# A message that waits costs what its data takes in memory (``__sizeof__``: text may take four bytes a character) and
# this, for the object and its place in a queue.
MESSAGE_OVERHEAD = 96

_BYTES = ("binary", "ping", "pong")

# Codes that may stand in a close frame (RFC 6455, 7.4.1, and the IANA registry), besides 3000 to 4999.
CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})

# Below this a deflated payload is seldom smaller by more than a frame's header.
DEFLATE_FROM = 64

_short = struct.Struct("!BB").pack
_medium = struct.Struct("!BBH").pack
_long = struct.Struct("!BBQ").pack
_code = struct.Struct("!H")

encode_json = msgspec.json.Encoder().encode


def frame(opcode: int, payload: bytes, rsv1: int = 0) -> bytes:
    """One whole, final, unmasked frame."""
    size = len(payload)
    if size < 126:
        return _short(0x80 | rsv1 | opcode, size) + payload
    if size < 65536:
        return _medium(0x80 | rsv1 | opcode, 126, size) + payload
    return _long(0x80 | rsv1 | opcode, 127, size) + payload


def check_close(code: int, reason: str) -> bytes:
    """The payload of a close frame.

    Raises ``ValueError`` for a code that must not be sent (RFC 6455, 7.4) and for a reason above 123 bytes of UTF-8,
    ``TypeError`` for what is no code or no reason.
    """
    if not isinstance(code, int) or not isinstance(reason, str):
        raise TypeError(f"a close takes a code (int) and a reason (str), not {code!r} and {reason!r}")
    if not (code in CLOSE_CODES or 3000 <= code < 5000):
        raise ValueError(f"close code {code} cannot be sent")
    try:
        data = reason.encode()
    except UnicodeEncodeError:
        raise ValueError("close reason holds a lone surrogate") from None
    if len(data) > 123:
        raise ValueError("close reason is longer than 123 bytes")
    return _code.pack(code) + data


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message, or one control frame; frozen, so that it can be shared.

    ``data`` is ``str`` for text and ``bytes`` otherwise.  ``code`` and ``reason`` are set for ``close`` alone; ``code``
    is 1005 where the peer gave none and 1006 where the connection ended without a close frame.
    """

    kind: Kind
    data: str | bytes
    code: int | None = None
    reason: str = ""

    @classmethod
    def text(cls, data: str) -> Message:
        """A text message.  Raises ``TypeError`` for anything but ``str``."""
        if not isinstance(data, str):
            raise TypeError(f"text must be str, not {type(data).__name__}")
        return cls("text", data)

    @classmethod
    def binary(cls, data: bytes | bytearray | memoryview) -> Message:
        """A binary message.  Raises ``TypeError`` for anything but bytes."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"binary must be bytes, not {type(data).__name__}")
        return cls("binary", bytes(data))

    @classmethod
    def json(cls, value: object) -> Message:
        """A text message that holds ``value`` as JSON.  Raises ``TypeError`` for what JSON cannot hold."""
        return cls("text", encode_json(value).decode())

    @classmethod
    def ping(cls, data: bytes | bytearray | memoryview | str = b"") -> Message:
        """A ping; ``str`` is sent as UTF-8.  Raises ``ValueError`` above 125 bytes (RFC 6455, 5.5)."""
        return cls("ping", _control(data.encode() if isinstance(data, str) else data))

    @classmethod
    def pong(cls, data: bytes | bytearray | memoryview | str = b"") -> Message:
        """A pong; ``str`` is sent as UTF-8.  Raises ``ValueError`` above 125 bytes (RFC 6455, 5.5)."""
        return cls("pong", _control(data.encode() if isinstance(data, str) else data))

    @classmethod
    def close(cls, code: int = 1000, reason: str = "") -> Message:
        """A close frame.  Raises ``ValueError`` for a code or reason that cannot be sent."""
        return cls("close", check_close(code, reason), code, reason)

    @overload
    def decode(self) -> Any: ...
    @overload
    def decode(self, type: type[T]) -> T: ...
    @overload
    def decode(self, type: object) -> Any: ...
    def decode(self, type: Any = None) -> Any:
        """The JSON in ``data``: as plain objects, or validated as ``type`` (whatever msgspec knows).

        Raises ``msgspec.DecodeError`` where it is not JSON and its subclass ``msgspec.ValidationError`` where it is
        not a ``type``.
        """
        try:
            return msgspec.json.decode(self.data) if type is None else msgspec.json.decode(self.data, type=type)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(str(error)) from error

    def prepare(self) -> Prepared:
        """The message framed once, to be sent to any number of peers.

        Raises ``ValueError`` for ``close``: closing is a matter of one connection.
        """
        return Prepared(*encode(self))


class Prepared:
    """A message encoded and framed once; what is made of it for peers with compression is made once, too."""

    __slots__ = ("_deflated", "frame", "kind", "payload")

    def __init__(self, kind: Kind, payload: bytes) -> None:
        self.kind: Kind = kind
        self.payload = payload
        self.frame = frame(OPCODES[kind], payload)
        self._deflated = b""

    def __repr__(self) -> str:
        return f"<Prepared {self.kind}, {len(self.payload)} bytes>"

    @property
    def deflated(self) -> bytes:
        """The frame for peers with permessage-deflate and no context takeover; the plain one where that is shorter."""
        if not self._deflated:
            self._deflated = deflate(OPCODES[self.kind], self.payload) or self.frame
        return self._deflated


def deflate(opcode: int, payload: bytes) -> bytes:
    """A frame deflated on its own (RFC 7692, 7.2.1), or nothing where that saves nothing or the opcode is control."""
    if opcode > 2 or len(payload) < DEFLATE_FROM:
        return b""
    deflater = zlib.compressobj(wbits=-15, memLevel=8)
    data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return frame(opcode, data[:-4], 0x40) if len(data) - 4 < len(payload) else b""


def encode(value: object) -> tuple[Kind, bytes]:
    """Kind and payload of whatever can be sent: a message, ``str``, bytes, or any object as JSON text.

    Raises ``TypeError`` for an object that JSON cannot hold and for a message whose data is not of its kind,
    ``ValueError`` for text with lone surrogates, for a control frame above 125 bytes (RFC 6455, 5.5) and for a
    ``close`` message: closing is a matter of one connection, not of a frame.
    """
    if isinstance(value, Message):
        kind, data = value.kind, value.data
        if kind == "text":
            if isinstance(data, str):
                return kind, data.encode()
            raise TypeError(f"the data of a text message is str, not {type(data).__name__}")
        if kind not in _BYTES:
            raise ValueError(f"a {kind} message cannot be prepared")
        if not isinstance(data, bytes):
            raise TypeError(f"the data of a {kind} message is bytes, not {type(data).__name__}")
        return kind, data if kind == "binary" else _control(data)
    if isinstance(value, str):
        return "text", value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return "binary", bytes(value)
    return "text", encode_json(value)


def prepare(value: object) -> Prepared:
    """Whatever can be sent, framed once.  Raises what :func:`encode` does."""
    return value if isinstance(value, Prepared) else Prepared(*encode(value))


def _control(data: bytes | bytearray | memoryview) -> bytes:
    data = bytes(data)
    if len(data) > 125:
        raise ValueError("a control frame holds at most 125 bytes")
    return data

"""Addresses and messages as PROTOCOL sections 3 and 5 have them, from the client's side.

Pure.  Outgoing readings are encoded one by one, once, and joined to arrays of any length without encoding
them again: JSON by commas, MessagePack by an array header.  Incoming messages are decoded in one pass into
one flat struct a kind of connection, in which everything but ``type`` is optional: a gateway may add types
and fields.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..reading import Value

__all__ = [
    "RESERVED",
    "Command",
    "Format",
    "Incoming",
    "Wire",
    "decode",
    "device_address",
    "is_loopback",
    "live_address",
    "retry_after",
]

T = TypeVar("T")
Format = Literal["json", "msgpack"]
SUBPROTOCOLS = {"json": "gateway.v1.json", "msgpack": "gateway.v1.msgpack"}
RESERVED = frozenset({"type", "ts", "seq", "values", "device"})
SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class Rate(msgspec.Struct, frozen=True):
    """The gateway's limit for this device: readings a second, and at once."""

    per_s: float = 0.0
    burst: float = 0.0


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """Any message from the gateway to a device; what its type does not carry is at its default."""

    type: str
    seq: int = 0
    # welcome
    session: str = ""
    resumed: bool = False
    last_seq: int = 0
    max_message_bytes: int = 65_536
    rate: Rate | None = None
    time: float = 0
    # throttled and error
    dropped: int = 0
    retry_after_ms: float | None = None
    code: str = ""
    detail: str = ""
    index: int | None = None
    # command
    id: str = ""
    name: str = ""
    params: Any = None
    expires: float | None = None
    device: str = ""


class Command(msgspec.Struct, frozen=True):
    """What a dashboard asks of this device, or of the sub-device ``device``; ``expires`` in milliseconds since the
    epoch, if it does."""

    id: str
    name: str
    params: dict[str, Any]
    expires: float | None = None
    device: str = ""


class Wire:
    """Encoding of one format (``json`` or ``msgpack``); raises ``ValueError`` for any other."""

    def __init__(self, format: Format) -> None:
        if format not in SUBPROTOCOLS:
            raise ValueError(f"format: {format!r} is neither json nor msgpack")
        self.subprotocol = SUBPROTOCOLS[format]
        self.text = format == "json"
        self.encode = msgspec.json.Encoder().encode if self.text else msgspec.msgpack.Encoder().encode

    def reading(
        self, seq: int, ts: int | float | None, values: Mapping[str, Value | None], device: str | None
    ) -> bytes:
        """One reading in its envelope; ``seq`` 0, ``ts`` None and ``device`` None are left out."""
        envelope: dict[str, object] = {}
        if seq:
            envelope["seq"] = seq
        if ts is not None:
            envelope["ts"] = ts
        if device is not None:
            envelope["device"] = device
        envelope["values"] = values
        return self.encode(envelope)

    def empty(self, seq: int) -> bytes:
        """The reading without values that gives ``seq`` up."""
        return self.encode({"seq": seq, "values": {}})

    def join(self, readings: list[bytes]) -> bytes:
        """The message of these readings, at least one."""
        if len(readings) == 1:
            return readings[0]
        if self.text:
            return b"[" + b",".join(readings) + b"]"
        count = len(readings)
        # MessagePack specification, "array format family": fixarray below 16, else array 16.
        head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        return head + b"".join(readings)


def decode(message: str | bytes, type: type[T]) -> T:
    """``message``, JSON where it is text, MessagePack where it is binary, as ``type``.

    Raises ``msgspec.DecodeError`` (``ValidationError`` where only the shape is wrong).
    """
    if isinstance(message, str):
        return msgspec.json.decode(message, type=type)
    return msgspec.msgpack.decode(message, type=type)


def _base(url: str) -> tuple[str, str, str]:
    parts = urlsplit(url)
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None:
        raise ValueError(f"{url!r}: not a ws://, wss://, http:// or https:// address")
    if not parts.hostname:
        raise ValueError(f"{url!r}: no host")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{url!r}: only scheme, host, port and path, please")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: not a port") from None
    return scheme, parts.netloc, parts.path.rstrip("/")


def device_address(url: str, device: str, session: str, ack: str) -> str:
    """The address of ``device`` below the gateway's ``url``, which may be http(s) and have a path of its own.

    Raises ``ValueError`` with the fault in words.
    """
    scheme, netloc, path = _base(url)
    query = urlencode({"session": session, "ack": ack})
    return urlunsplit((scheme, netloc, f"{path}/v1/devices/{quote(device, safe=':')}", query, ""))


def live_address(url: str) -> str:
    """The live feed's address below the gateway's ``url``; raises as :func:`device_address`."""
    scheme, netloc, path = _base(url)
    return urlunsplit((scheme, netloc, f"{path}/v1/live", "", ""))


def is_loopback(address: str) -> bool:
    """Whether an address names this machine's loopback."""
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def retry_after(reason: str) -> float:
    """Seconds out of a close reason ``retry_after_ms=N``; 0.0 where it says nothing of the kind."""
    name, _, value = reason.partition("=")
    if name.strip() == "retry_after_ms" and value.strip().isascii() and value.strip().isdigit():
        return min(int(value), 3_600_000) / 1000
    return 0.0

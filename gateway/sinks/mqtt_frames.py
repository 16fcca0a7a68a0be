"""The MQTT 5 packets of the hot path, PUBLISH and PUBACK, and the bounds of all others.  Pure.

Source: OASIS MQTT Version 5.0; numbers of sections are given where they are used.  A packet is
``type and flags (1) | remaining length (1 to 4) | remaining``.  Only what arrives from a broker that keeps to
the standard is understood; anything else raises ``ValueError`` in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DISCONNECT", "PINGREQ", "PINGRESP", "Splitter", "disconnect_reason", "properties", "publish", "string"]

PUBACK = 0x40
DISCONNECT = 0xE0
PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"

# Precomputed: most remaining lengths and all lengths of names are short.
_LENGTHS = [bytes([n]) for n in range(128)] + [bytes([n & 127 | 128, n >> 7]) for n in range(128, 16384)]


def varint(number: int) -> bytes:
    """A Variable Byte Integer (1.5.5), up to 268,435,455."""
    if number < 16384:
        return _LENGTHS[number]
    out = bytearray()
    while True:
        number, digit = number >> 7, number & 127
        out.append(digit | 128 if number else digit)
        if not number:
            return bytes(out)


def string(text: str) -> bytes:
    """A UTF-8 Encoded String (1.5.4), at most 65,535 bytes."""
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def properties(user: Iterable[tuple[str, str]], content_type: str = "", expiry_s: int = 0) -> bytes:
    """The property field (2.2.2), its length in front: User Properties (3.3.2.3.7), Content Type (3.3.2.3.9), and a
    Message Expiry Interval (3.3.2.3.3) where it is not 0."""
    body = b"".join([b"\x26" + string(name) + string(value) for name, value in user])
    if content_type:
        body = b"\x03" + string(content_type) + body
    if expiry_s:
        body = b"\x02" + expiry_s.to_bytes(4, "big") + body
    return varint(len(body)) + body


def publish(topic: bytes, mid: int, props: bytes, payload: bytes, retain: bool = False) -> bytes:
    """A PUBLISH (3.3): ``topic`` as ``string``, ``props`` as ``properties``; QoS 1, or 0 where ``mid`` is 0."""
    if mid:
        return b"".join(
            (
                b"\x33" if retain else b"\x32",
                varint(len(topic) + 2 + len(props) + len(payload)),
                topic,
                mid.to_bytes(2, "big"),
                props,
                payload,
            )
        )
    return b"".join(
        (
            b"\x31" if retain else b"\x30",
            varint(len(topic) + len(props) + len(payload)),
            topic,
            props,
            payload,
        )
    )


def disconnect_reason(packet: bytes) -> int:
    """The reason code of a whole DISCONNECT (3.14.2.1): 0x00 where it has none."""
    at = 1
    while packet[at] & 128:
        at += 1
    return packet[at + 1] if len(packet) > at + 1 else 0


class Splitter:
    """Cuts what arrives into packets; at most ``max_bytes`` of an unfinished one are held."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    def feed(self, data: bytes) -> tuple[list[tuple[int, int]], list[bytes]]:
        """The PUBACKs among what is whole now, as (packet identifier, reason code), and the other packets.

        Raises ``ValueError``: a packet larger than ``max_bytes``, or one that is malformed (4.13.1).
        """
        acks: list[tuple[int, int]] = []
        others: list[bytes] = []
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            length, body = data[at + 1], at + 2
            if length >= 128:
                length, body = self._length(data, at)
                if not body:
                    break
            stop = body + length
            if stop > end:
                if stop - at > self._max_bytes:
                    raise ValueError(f"a packet of {stop - at} bytes, more than we said we take")
                break
            if data[at] == PUBACK:
                if length < 2:
                    raise ValueError("a PUBACK without a packet identifier")
                # 3.4.2.1: without a reason code it is 0x00, success.
                acks.append((data[body] << 8 | data[body + 1], data[body + 2] if length > 2 else 0))
            else:
                others.append(data[at:stop])
            at = stop
        self._rest = data[at:]
        return acks, others

    @staticmethod
    def _length(data: bytes, at: int) -> tuple[int, int]:
        # The remaining length and where the remaining begins; (0, 0) where bytes of it are missing yet.
        length = 0
        for count, byte in enumerate(data[at + 1 : at + 5]):
            length |= (byte & 127) << 7 * count
            if byte < 128:
                return length, at + 2 + count
        if len(data) - at >= 5:
            raise ValueError("a remaining length of more than four bytes")
        return 0, 0

"""An MQTT 3.1.1 subscriber that costs next to nothing: CONNECT, SUBSCRIBE at QoS 1, PUBLISH in, PUBACK out.

Packets (2.2): one byte of type and flags, the remaining length in up to four bytes of seven bits, the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

__all__ = ["Subscriber"]

CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"  # clean session, no keep alive, empty identifier
CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9


class Subscriber(asyncio.Protocol):
    """Calls ``on_message(topic, payload)`` for each PUBLISH; ``subscribed`` is done after SUBACK."""

    def __init__(self, topic_filter: str, on_message: Callable[[bytes, bytes], None]) -> None:
        self._filter = topic_filter.encode()
        self._on_message = on_message
        self._tail = b""
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        body = b"\x00\x01" + len(self._filter).to_bytes(2, "big") + self._filter + b"\x01"
        self._transport.write(CONNECT + b"\x82" + bytes((len(body),)) + body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.subscribed.done():
            self.subscribed.set_exception(exc or ConnectionError("the broker closed the connection"))

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        acks: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= 2:
            size, shift, start = 0, 0, at + 1
            while start < end:
                byte = data[start]
                start += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            else:
                break
            if end - start < size:
                break
            self._packet(data[at], data[start : start + size], acks)
            at = start + size
        self._tail = data[at:]
        if acks:
            self._transport.write(b"".join(acks))

    def _packet(self, first: int, body: bytes, acks: list[bytes]) -> None:
        kind = first >> 4
        if kind == PUBLISH:
            at = 2 + int.from_bytes(body[:2], "big")
            topic = body[2:at]
            if first & 0x06:
                acks.append(b"\x40\x02" + body[at : at + 2])
                at += 2
            self._on_message(topic, body[at:])
        elif kind == SUBACK and not self.subscribed.done():
            if body[2] > 2:
                self.subscribed.set_exception(ConnectionError("the broker refused the subscription"))
            else:
                self.subscribed.set_result(None)
        elif kind == CONNACK and body[1] != 0 and not self.subscribed.done():
            self.subscribed.set_exception(ConnectionError(f"the broker refused the connection: {body[1]}"))

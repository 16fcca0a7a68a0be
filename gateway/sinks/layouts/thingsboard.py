"""Layout ``thingsboard``: the gateway API of ThingsBoard (https://thingsboard.io/docs/reference/gateway-mqtt-api/).

``v1/gateway/telemetry`` carries ``{"pump-1":[{"ts":ms,"values":{"temperature":22.5}},..],..}``, the devices of a flush
in one message.  A device that is there is told by ``v1/gateway/connect`` ``{"device":"pump-1"}``, one that is gone by
``v1/gateway/disconnect``; ThingsBoard makes devices that it does not know.  Nothing is retained and no other topic is
used.  Readings from a backlog are not marked: each has its time, and ThingsBoard files it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.reading import Item, Reading, Value
from gateway.sinks.layouts.message import JSON, Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.topics import Topics

__all__ = ["ThingsBoard"]

TELEMETRY, CONNECT, DISCONNECT = "v1/gateway/telemetry", "v1/gateway/connect", "v1/gateway/disconnect"
_encode = msgspec.json.Encoder().encode


class _Entry(msgspec.Struct, gc=False):
    ts: int
    values: dict[str, Value]


class ThingsBoard:
    """See the module's text."""

    def presence(self, device: str, state: bytes | None) -> Message:
        """What tells ThingsBoard that the device is there (``online``, ``stale``) or gone (``offline``, None)."""
        topic = CONNECT if state in (b"online", b"stale") else DISCONNECT
        return Message(topic, _encode({"device": device}), (), (), JSON)

    def messages(
        self, items: Sequence[Item], topics: Topics, max_bytes: int, historical_before: int = 0
    ) -> list[Message]:
        """One message for all devices, or several where ``max_bytes`` asks for it; ``topics`` are not used."""
        chosen = [(index, item) for index, item in enumerate(items) if type(item) is Reading and item.values]
        return list(_cut(chosen, max_bytes)) if chosen else []


def _cut(chosen: list[tuple[int, Reading]], max_bytes: int) -> Iterator[Message]:
    devices: dict[str, list[_Entry]] = {}
    for _, reading in chosen:
        devices.setdefault(reading.device, []).append(_Entry(reading.time // 1_000_000, reading.values))
    payload = _encode(devices)
    if len(payload) <= max_bytes or len(chosen) == 1:
        yield Message(TELEMETRY, payload, tuple([index for index, _ in chosen]), (), JSON)
        return
    parts = min(len(chosen), len(payload) // max(max_bytes, 1) + 1)
    size = -(-len(chosen) // parts)
    for start in range(0, len(chosen), size):
        yield from _cut(chosen[start : start + size], max_bytes)

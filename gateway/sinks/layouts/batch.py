"""Layout ``batch``: one message a device and flush, ``[{"ts":ms,"values":{"temperature":22.5}},..]``.

``ts`` is in milliseconds, rounded down; readings stand in the order in which they came.  A publish costs a
broker and us far more than a reading in it: this is the layout for many readings.  Integers are written in
full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.reading import Item, Reading, Value
from gateway.sinks.layouts.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Batched"]

_encode = msgspec.json.Encoder().encode


class _Entry(msgspec.Struct, gc=False):
    ts: int
    values: dict[str, Value]


class Batched:
    """See the module's text."""

    def messages(self, items: Sequence[Item], prefix: str, max_bytes: int) -> list[Message]:
        """One message for each device, or several where ``max_bytes`` asks for it, by each device's first reading."""
        devices: dict[str, tuple[list[int], list[_Entry]]] = {}
        for index, item in enumerate(items):
            if type(item) is not Reading or not item.values:
                continue
            found = devices.get(item.device)
            if found is None:
                found = devices[item.device] = ([], [])
            found[0].append(index)
            found[1].append(_Entry(item.time // 1_000_000, item.values))
        made = []
        for device, (indices, entries) in devices.items():
            topic = f"{prefix}/{device}/telemetry"
            for some, payload in _cut(indices, entries, max_bytes):
                made.append(Message(topic, payload, tuple(some)))
        return made


def _cut(indices: list[int], entries: list[_Entry], max_bytes: int) -> Iterator[tuple[list[int], bytes]]:
    payload = _encode(entries)
    if len(payload) <= max_bytes or len(entries) == 1:
        yield indices, payload
        return
    # In as many parts as the size asks for, not in halves of halves: most readings of a device are alike in
    # size.
    parts = min(len(entries), len(payload) // max(max_bytes, 1) + 1)
    size = -(-len(entries) // parts)
    for start in range(0, len(entries), size):
        yield from _cut(indices[start : start + size], entries[start : start + size], max_bytes)

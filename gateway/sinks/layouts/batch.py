"""Layout ``batch``: one message a device and flush, ``[{"ts":ms,"values":{"temperature":22.5}},..]``.

``ts`` is in milliseconds, rounded down; readings stand in the order in which they came.  A publish costs a
broker and us far more than a reading in it: this is the layout for many readings.  Integers are written in
full.  Readings from a backlog stand in messages of their own, marked by the user property ``historical``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.reading import Item, Reading, Value
from gateway.sinks.layouts.message import HISTORICAL, JSON, Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.topics import Topics

__all__ = ["Batched"]

_encode = msgspec.json.Encoder().encode


class _Entry(msgspec.Struct, gc=False):
    ts: int
    values: dict[str, Value]


class Batched:
    """See the module's text."""

    presence = None

    def messages(
        self, items: Sequence[Item], topics: Topics, max_bytes: int, historical_before: int = 0
    ) -> list[Message]:
        """One message for each device, or several where ``max_bytes`` or a change of kind asks for it.

        In the order of each device's first reading.
        """
        devices: dict[str, list[tuple[bool, list[int], list[_Entry]]]] = {}
        for index, item in enumerate(items):
            if type(item) is not Reading or not item.values:
                continue
            runs = devices.get(item.device)
            if runs is None:
                runs = devices[item.device] = []
            late = item.received < historical_before
            if not runs or runs[-1][0] is not late:
                runs.append((late, [], []))
            _, indices, entries = runs[-1]
            indices.append(index)
            entries.append(_Entry(item.time // 1_000_000, item.values))
        made = []
        for device, runs in devices.items():
            topic = topics.device(device)
            for late, indices, entries in runs:
                properties = (HISTORICAL,) if late else ()
                for some, payload in _cut(indices, entries, max_bytes):
                    made.append(Message(topic, payload, tuple(some), properties, JSON))
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

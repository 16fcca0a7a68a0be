"""Layout ``flat`` with ``{metric}`` in the topic: one message a value, its payload the value alone, ``22.5``.

Numbers and booleans as JSON writes them, a string as it is: what most programs for the home read.  The user properties
are those of ``flat``, and ``ts``, the reading's time in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.reading import Item, Reading
from gateway.sinks.layouts.message import Message, properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.topics import Topics

__all__ = ["Values"]

_encode = msgspec.json.Encoder().encode


class Values:
    """See the module's text; ``gateway`` is this gateway's id."""

    presence = None

    def __init__(self, gateway: str = "") -> None:
        self._gateway = ("gateway", gateway)

    def messages(
        self, items: Sequence[Item], topics: Topics, max_bytes: int, historical_before: int = 0
    ) -> list[Message]:
        """One message for each value, in order."""
        made = []
        for index, item in enumerate(items):
            if type(item) is not Reading:
                continue
            some = properties(item, self._gateway, historical_before, ("ts", str(item.time // 1_000_000)))
            for metric, value in item.values.items():
                payload = value.encode() if isinstance(value, str) else _encode(value)
                made.append(Message(topics.value(item.device, metric), payload, (index,), some, "text/plain"))
        return made

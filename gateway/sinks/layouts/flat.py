"""Layout ``flat``: one message a reading, ``{"ts":ms,"temperature":22.5}``.

``ts`` is in milliseconds, rounded down.  Metrics cannot be named ``ts``: that name is reserved in every
codec.  User properties ``gateway``, ``session`` and ``seq`` let a subscriber tell a repeat (``seq`` is left
out where the device gave none; both are those of the concentrator ``via``, where it is a sub-device's),
``historical`` one that comes from a backlog.  Integers are written in full, also those beyond 2**53.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.reading import Item, Reading
from gateway.sinks.layouts.message import JSON, Message, properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.topics import Topics

__all__ = ["Flat"]

_encode = msgspec.json.Encoder().encode


class Flat:
    """See the module's text; ``gateway`` is this gateway's id."""

    presence = None

    def __init__(self, gateway: str = "") -> None:
        self._gateway = ("gateway", gateway)

    def messages(
        self, items: Sequence[Item], topics: Topics, max_bytes: int, historical_before: int = 0
    ) -> list[Message]:
        """One message for each reading with values, in order."""
        made = []
        for index, item in enumerate(items):
            if type(item) is not Reading or not item.values:
                continue
            made.append(
                Message(
                    topics.device(item.device),
                    _encode({"ts": item.time // 1_000_000, **item.values}),
                    (index,),
                    properties(item, self._gateway, historical_before),
                    JSON,
                )
            )
        return made

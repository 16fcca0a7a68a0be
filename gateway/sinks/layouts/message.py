"""What a layout makes of readings: messages for a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.reading import Item

__all__ = ["HISTORICAL", "Layout", "Message"]

HISTORICAL = ("historical", "true")
"""The user property of readings that come late, from a backlog: no news for whoever watches."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message: ``indices`` says which of the items are in it, ``properties`` are user properties in order."""

    topic: str
    payload: bytes
    indices: tuple[int, ...]
    properties: tuple[tuple[str, str], ...] = ()


class Layout(Protocol):
    """Turns items into messages; pure, and order is kept within each device.

    Only readings with values make messages: all other items are skipped.  A message is cut so that its
    payload has at most ``max_bytes``, where there is more than one reading to it; a single reading that is
    larger makes a message all the same.  Readings that were received before ``historical_before`` (ns) are
    marked ``HISTORICAL``; no message holds both kinds.
    """

    def messages(
        self, items: Sequence[Item], prefix: str, max_bytes: int, historical_before: int = 0
    ) -> list[Message]: ...

"""What a layout makes of readings: messages for a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.reading import Item, Reading
    from gateway.topics import Topics

__all__ = ["HISTORICAL", "JSON", "Layout", "Message", "properties"]

HISTORICAL = ("historical", "true")
"""The user property of readings that come late, from a backlog: no news for whoever watches."""
JSON = "application/json"


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message: ``indices`` says which of the items are in it, ``properties`` are user properties in order.

    ``expiry_s``: after so many seconds a broker that has not delivered it need not any more; 0: it always has to.
    """

    topic: str
    payload: bytes
    indices: tuple[int, ...]
    properties: tuple[tuple[str, str], ...] = ()
    content_type: str = ""
    expiry_s: int = 0


def properties(
    reading: Reading, gateway: tuple[str, str], historical_before: int, *more: tuple[str, str]
) -> tuple[tuple[str, str], ...]:
    """The user properties of a message of this reading alone: ``gateway``, ``session``, ``more``, ``seq`` where it has
    one, ``via`` of a sub-device, ``historical``."""
    made = (gateway, ("session", reading.session), *more)
    if reading.seq:
        made = (*made, ("seq", str(reading.seq)))
    if reading.via:
        made = (*made, ("via", reading.via))
    return made if reading.received >= historical_before else (*made, HISTORICAL)


class Layout(Protocol):
    """Turns items into messages; pure, and order is kept within each device.

    Only readings with values make messages: all other items are skipped.  A message is cut so that its
    payload has at most ``max_bytes``, where there is more than one reading to it; a single reading that is
    larger makes a message all the same.  Readings that were received before ``historical_before`` (ns) are
    marked ``HISTORICAL``; no message holds both kinds.

    ``presence`` makes the message that tells of a device's state (None: it is forgotten), where that is not the
    retained topic that is ours.
    """

    @property
    def presence(self) -> Callable[[str, bytes | None], Message] | None: ...

    def messages(
        self, items: Sequence[Item], topics: Topics, max_bytes: int, historical_before: int = 0
    ) -> list[Message]: ...

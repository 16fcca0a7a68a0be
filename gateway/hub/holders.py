"""What the subscriptions of ``every`` hold for one member alone, and its bound.  Pure.

A subscription holds readings of its own while it differs from its group.  Those that the hub remembers for all cost it
a place in a list, the others what they take in memory.  A member's bound is one for all its subscriptions, however many
and whatever they cover, and what it has not taken counts against it.
"""

from __future__ import annotations

from typing import Generic

from .group import Frame, Member, Subscriber

__all__ = ["EVERY_BYTES", "Holders"]

EVERY_BYTES = 768 * 1024  # of a member; a frame on its way and what the kernel adds fit into 1 MiB beside it


class Holders(Generic[Frame]):
    """Those that may differ from their groups.  Bound: the subscriptions there are, and those that ended lately."""

    def __init__(self) -> None:
        self._subscribers: dict[Subscriber[Frame], None] = {}

    def add(self, subscriber: Subscriber[Frame]) -> None:
        """It holds readings of its own from now on."""
        self._subscribers[subscriber] = None

    def excess(self, floor: int) -> list[Subscriber[Frame]]:
        """Those that have to let go, the largest first; what is below offset ``floor`` is not remembered for all."""
        if not self._subscribers:
            return []
        members: dict[Member[Frame], list[tuple[int, Subscriber[Frame]]]] = {}
        for subscriber in list(self._subscribers):
            own = subscriber.own
            if own is None or subscriber.group.subscribers.get(subscriber.member) is not subscriber:
                del self._subscribers[subscriber]
            elif own:
                own.weigh(floor)
                members.setdefault(subscriber.member, []).append((own.size, subscriber))
        found: list[Subscriber[Frame]] = []
        for member, holders in members.items():
            over = sum([size for size, _ in holders]) + member.pending_bytes - EVERY_BYTES
            if over > 0:
                for size, subscriber in sorted(holders, key=lambda holder: holder[0], reverse=True):
                    found.append(subscriber)
                    over -= size
                    if over <= 0:
                        break
        return found

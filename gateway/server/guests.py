"""Who is in: the open connections of each grant, so that they end with it.

A connection is looked at when it comes and when what let it in changes, never at a message.  Bound: the connections
there are; ``max_per_grant`` of one grant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from ..auth import Grant

__all__ = ["End", "Guests"]

End = Callable[[int, str], None]

POLICY = 1008
SLICE = 200  # connections ended in one step of the loop


class _Guest:
    __slots__ = ("ends", "grant")

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.ends: dict[Hashable, End] = {}


class Guests:
    """``alive`` says of a grant's id whether it still holds; ``now`` gives seconds."""

    def __init__(self, alive: Callable[[str], bool], now: Callable[[], float], max_per_grant: int | None) -> None:
        self._alive = alive
        self._now = now
        self.most = max_per_grant  # of a grant, from now on; None: no bound
        self._guests: dict[str, _Guest] = {}
        self._expiring: dict[str, int] = {}  # milliseconds
        self.ended = 0

    def __len__(self) -> int:
        return len(self._guests)

    def is_full(self, grant: Grant, key: Hashable = None) -> bool:
        """Whether the grant has all connections that it may have; that of ``key`` would be replaced, and counts not."""
        if self.most is None or (guest := self._guests.get(grant.id)) is None:
            return False
        return len(guest.ends) - (key in guest.ends) >= self.most

    def enter(self, grant: Grant, key: Hashable, end: End) -> Callable[[], None]:
        """A connection is open; ``end(code, reason)`` will be called when the grant ends.  What it gives back is to be
        called when it is closed.  One of the same ``key`` is replaced."""
        guest = self._guests.get(grant.id)
        if guest is None:
            guest = self._guests[grant.id] = _Guest(grant)
            if grant.expires is not None:
                self._expiring[grant.id] = grant.expires
        guest.ends[key] = end

        def leave() -> None:
            if guest.ends.get(key) is end:
                del guest.ends[key]
                if not guest.ends and self._guests.get(grant.id) is guest:
                    self._forget(grant.id)

        return leave

    def _forget(self, id: str) -> _Guest:
        self._expiring.pop(id, None)
        return self._guests.pop(id)

    def changed(self) -> None:
        """Tokens have changed: end what has no token any more."""
        for id in [id for id in self._guests if not self._alive(id)]:
            expires = self._expiring.get(id)
            self._end(id, "expired" if expires is not None and expires <= self._now() * 1000 else "revoked")

    def expire(self) -> None:
        """To be called once a second: end what has expired."""
        if self._expiring:
            now = self._now() * 1000
            for id in [id for id, expires in self._expiring.items() if expires <= now]:
                self._end(id, "expired")

    def _end(self, id: str, how: str) -> None:
        ends = list(self._forget(id).ends.values())
        self.ended += len(ends)
        self._step(ends, f"token {how}")

    def _step(self, ends: list[End], reason: str) -> None:
        """In slices: a token may be that of all devices there are."""
        for end in ends[:SLICE]:
            end(POLICY, reason)
        if rest := ends[SLICE:]:
            asyncio.get_running_loop().call_soon(self._step, rest, reason)

"""Who is in: the open connections of each grant, so that they end with it.

A connection is looked at when it comes and when what let it in changes, never at a message.  Bound: the connections
there are; ``max_per_grant`` of one grant.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable

from ..auth import CERTIFICATE, Grant

__all__ = ["End", "Guests"]

End = Callable[[int, str], None]
_Which = tuple[str, Hashable]  # a grant's id, and the key

POLICY = 1008
SLICE = 200  # connections ended in one step of the loop


class Guests:
    """``alive`` says of a grant's id whether it still holds, ``holds`` of a grant that comes from a session; ``now``
    gives seconds."""

    def __init__(
        self,
        alive: Callable[[str], bool],
        now: Callable[[], float],
        max_per_grant: int | None,
        holds: Callable[[Grant], bool] = lambda grant: True,
    ) -> None:
        self._alive = alive
        self._holds = holds
        self._now = now
        self.most = max_per_grant  # of a grant, from now on; None: no bound
        self._guests: dict[str, dict[Hashable, End]] = {}
        # Milliseconds, of each connection: a session ends before the token that it was traded for.
        self._expiring: dict[_Which, int] = {}
        self._sessions: dict[_Which, Grant] = {}
        self.ended = 0

    def __len__(self) -> int:
        return len(self._guests)

    def is_full(self, grant: Grant, key: Hashable = None) -> bool:
        """Whether the grant has all connections that it may have; that of ``key`` would be replaced, and counts not."""
        ends = self._guests.get(grant.id, {})
        return self.most is not None and len(ends) - (key in ends) >= self.most

    def enter(self, grant: Grant, key: Hashable, end: End) -> Callable[[], None]:
        """A connection is open; ``end(code, reason)`` will be called when the grant ends.  What it gives back is to be
        called when it is closed.  One of the same ``key`` is replaced."""
        self._guests.setdefault(grant.id, {})[key] = end
        which = (grant.id, key)
        self._expiring.pop(which, None)
        self._sessions.pop(which, None)
        if grant.expires is not None:
            self._expiring[which] = grant.expires
        if grant.session:
            self._sessions[which] = grant

        def leave() -> None:
            if self._guests.get(grant.id, {}).get(key) is end:
                self._forget(grant.id, key)

        return leave

    def _forget(self, id: str, key: Hashable) -> End:
        self._expiring.pop((id, key), None)
        self._sessions.pop((id, key), None)
        ends = self._guests[id]
        end = ends.pop(key)
        if not ends:
            del self._guests[id]
        return end

    def changed(self) -> None:
        """Tokens or sessions have changed: end what has none any more."""
        now = self._now() * 1000
        gone = [(id, key) for id, ends in self._guests.items() if not self._alive(id) for key in ends]
        self._end(
            [
                (which, f"token {'expired' if self._expiring.get(which, math.inf) <= now else 'revoked'}")
                for which in gone
            ]
        )
        self._end([(which, "signed out") for which, grant in self._sessions.items() if not self._holds(grant)])

    def expire(self) -> None:
        """To be called once a second: end what has expired."""
        if self._expiring:
            now = self._now() * 1000
            self._end([(which, _expired(which)) for which, expires in self._expiring.items() if expires <= now])

    def end_certificates(self) -> int:
        """End those that client certificates let in, whose authority has gone; how many."""
        ids = [id for id in self._guests if id.startswith(CERTIFICATE)]
        gone = [((id, key), "certificate authority changed") for id in ids for key in self._guests[id]]
        self._end(gone)
        return len(gone)

    def _end(self, gone: list[tuple[_Which, str]]) -> None:
        self.ended += len(gone)
        self._step([(self._forget(*which), how) for which, how in gone])

    def _step(self, ends: list[tuple[End, str]]) -> None:
        """In slices: a token may be that of all devices there are."""
        for end, reason in ends[:SLICE]:
            end(POLICY, reason)
        if rest := ends[SLICE:]:
            asyncio.get_running_loop().call_soon(self._step, rest)


def _expired(which: _Which) -> str:
    return "certificate expired" if which[0].startswith(CERTIFICATE) else "token expired"

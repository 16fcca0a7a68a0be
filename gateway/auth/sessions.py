"""Browser sessions that ended before their time: somebody signed out.

A session is named by what its cookie says before the signature, ``<token id>.<issued>-<digits>``; the digits tell apart
those that were made in one second.  Pure.

Bound: :data:`MAX_ENDED` names, each for as long as its session would have lived.  Beyond, all sessions of the token
that has most of them are over that were made until then (one number a token): who is among them signs in again, and
nothing that was ended comes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

import msgspec

__all__ = ["MAX_ENDED", "SESSION_S", "Ended", "issued_at", "token_of"]

SESSION_S = 30 * 86_400
MAX_ENDED = 1_000


class Ended(msgspec.Struct, frozen=True):
    """``before``: by the token's id, until when (seconds) all of its sessions are over that were made."""

    sessions: frozenset[str] = frozenset()
    before: dict[str, int] = {}

    def covers(self, session: str) -> bool:
        """Whether the session of that name was ended."""
        return session in self.sessions or issued_at(session) <= self.before.get(token_of(session), -1)

    def joined(self, other: Ended) -> Ended:
        """What either has."""
        before = {id: max(self.before.get(id, 0), other.before.get(id, 0)) for id in {*self.before, *other.before}}
        return _bounded(self.sessions | other.sessions, before)

    def plus(self, session: str, now: float, tokens: Container[str]) -> Ended:
        """With that session, too, and without those that have lived their time or whose token has gone."""
        sessions = [
            other for other in self.sessions if issued_at(other) + SESSION_S > now and token_of(other) in tokens
        ]
        before = {id: at for id, at in self.before.items() if at + SESSION_S > now and id in tokens}
        return _bounded(frozenset([*sessions, session]), before)


def issued_at(session: str) -> int:
    """When it was made, in seconds; -1 for what is no session's name."""
    text = session.partition(".")[2].partition("-")[0]
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else -1


def token_of(session: str) -> str:
    """The id of its token."""
    return session.partition(".")[0]


def _bounded(sessions: frozenset[str], before: dict[str, int]) -> Ended:
    while len(sessions) > MAX_ENDED:
        ((most, _),) = Counter(map(token_of, sessions)).most_common(1)
        of = {session for session in sessions if token_of(session) == most}
        before = {**before, most: max(before.get(most, 0), *map(issued_at, of))}
        sessions -= of
    return Ended(sessions, before)

"""A host's addresses, asked for anew at each connect, with at most one question under way.

A resolver that hangs does so for longer than anybody wants to wait, and cannot be stopped: who has waited enough goes
away, and finds the same question under way, or its answer, when it comes back.  An answer that nobody waited for is
old after ``FRESH_S``; a failure is at once.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

from gateway.sinks.thread import start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Lookup"]

FRESH_S = 60.0  # beyond the longest wait between two tries, so that a name server slower than a try is heard at all


class Lookup:
    """The addresses of ``host``, a name or an address in digits; ``clock`` in seconds, called from any thread."""

    def __init__(self, host: str, port: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._host, self._port = host, port
        self._clock = clock
        self._answered_at = 0.0
        self.under_way: asyncio.Future[Sequence[str]] | None = None

    async def addresses(self) -> Sequence[str]:
        """In the order in which they should be tried.  Raises ``OSError``; may be cancelled."""
        asked = self.under_way
        if asked is None or (asked.done() and not self._fresh(asked)):
            asked = self.under_way = start(self._ask, "sink-lookup")
        try:
            return await asyncio.shield(asked)
        finally:
            if asked.done():
                self.under_way = None

    def _fresh(self, asked: asyncio.Future[Sequence[str]]) -> bool:
        return asked.exception() is None and self._clock() - self._answered_at <= FRESH_S

    def _ask(self) -> Sequence[str]:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        self._answered_at = self._clock()  # before the question is done, and there is no other
        return list(dict.fromkeys(_text(address) for *_, address in found))


def _text(address: tuple[object, ...]) -> str:
    # (host, port), or (host, port, flow, scope): a link-local one means nothing without its scope.
    text = str(address[0])
    return f"{text}%{address[3]}" if len(address) == 4 and address[3] and "%" not in text else text

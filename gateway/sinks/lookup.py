"""A host's addresses, asked for anew at each connect, with at most one question under way.

A resolver that hangs does so for longer than anybody wants to wait, and cannot be stopped: who has waited enough goes
away, and finds the same question under way, or its answer, when it comes back.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from gateway.sinks.thread import start

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Lookup"]


class Lookup:
    """The addresses of ``host``, a name or an address in digits."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.under_way: asyncio.Future[Sequence[str]] | None = None

    async def addresses(self) -> Sequence[str]:
        """In the order in which they should be tried.  Raises ``OSError``; may be cancelled."""
        if self.under_way is None:
            self.under_way = start(self._ask, "sink-lookup")
        asked = self.under_way
        try:
            return await asyncio.shield(asked)
        finally:
            if asked.done():
                self.under_way = None

    def _ask(self) -> Sequence[str]:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(_text(address) for *_, address in found))


def _text(address: tuple[object, ...]) -> str:
    # (host, port), or (host, port, flow, scope): a link-local one means nothing without its scope.
    text = str(address[0])
    return f"{text}%{address[3]}" if len(address) == 4 and address[3] and "%" not in text else text

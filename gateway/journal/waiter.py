"""Who is told of commits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol

__all__ = ["Waiter", "tell"]


class Waiter(Protocol):
    """Who is told of commits; hashable, by identity as a rule."""

    def committed(self, token: Any, /) -> None:
        """What was appended with ``token`` and before it is durable; on the loop, once a group, with the last token."""


def tell(loop: asyncio.AbstractEventLoop, waiters: Iterator[tuple[Waiter, object]]) -> None:
    """Tell each waiter of a commit, with its token."""
    done = False
    try:
        for waiter, token in waiters:
            waiter.committed(token)
        done = True
    finally:
        if not done:  # the loop reports the one that raised; the others are told all the same
            loop.call_soon(tell, loop, waiters)

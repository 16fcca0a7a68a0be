"""Who is told of commits."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Waiter"]


class Waiter(Protocol):
    """Who is told of commits; hashable, by identity as a rule."""

    def committed(self, token: Any, /) -> None:
        """What was appended with ``token`` and before it is durable; on the loop, once a group, with the last token."""

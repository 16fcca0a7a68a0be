"""Those who wait until what they appended is durable.  Owned by the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["Flushes"]


class Flushes:
    """Futures by the offset that they wait for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, offset: int, future: asyncio.Future[None]) -> None:
        """``future`` is done when items below ``offset`` are durable."""
        self._waiting.append((offset, future))

    def reach(self, durable: int) -> None:
        """Items below ``durable`` are."""
        left = []
        for offset, future in self._waiting:
            if offset > durable:
                left.append((offset, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = left

    def fail(self, error: Exception) -> None:
        """Nothing more will be."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting = []

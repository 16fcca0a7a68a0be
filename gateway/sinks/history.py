"""The embedded history as a sink: an adapter, nothing more.

The history keeps its place in its own file, together with what it holds: its cursor is opened there
(``position``), and the offset it returns lags behind what it was given until its chunks are on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.errors import HistoryError
from gateway.sinks.base import Key, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.reading import Batch

__all__ = ["HistorySink", "Store"]


class Store(Protocol):
    """What is asked of a history (gateway.history.History)."""

    @property
    def position(self) -> int: ...
    async def write(self, batch: Batch) -> int: ...
    async def flush(self) -> None: ...


class HistorySink:
    """Writes to ``store``, which somebody else opens and closes."""

    name = "history"
    refuses = False
    keeps_states = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lost: Callable[[], None] | None = None

    async def open(self) -> None:
        """Nothing: whoever owns the store has opened it."""

    async def ready(self) -> bool:
        """Always, and never newly so."""
        return False

    async def write(self, batch: Batch) -> int:
        """Add the batch; returns the offset below which all is in chunks on disk."""
        try:
            return await self._store.write(batch)
        except HistoryError as error:
            raise Unavailable(str(error), hint=error.hint, reached=True) from error

    async def state(self, changes: Mapping[Key, bytes | None]) -> None:
        """Never called."""

    async def tell(self, events: Sequence[tuple[Key, bytes]]) -> None:
        """Never called."""

    async def close(self) -> None:
        """Put on disk what is in memory."""
        try:
            await self._store.flush()
        except HistoryError:
            # The journal still holds it, and is replayed from the history's own position at the next start.
            pass

    def stats(self) -> dict[str, float]:
        """None of its own: the history has its own."""
        return {}

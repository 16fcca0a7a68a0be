"""What a subscription of ``every`` has missed and the hub no longer remembers, read from the journal, as updates.

After a start, and after some seconds of many readings, what followed an offset is in the journal alone.  It is read
from there piece by piece, as fast as the dashboard takes it, until it meets what the hub remembers: there the hub goes
on.  Nothing is held in between but a piece.  Where the journal has let go of a part, or the dashboard takes too long,
the subscription begins anew, by a snapshot that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..hub import GRID_S, Entry, Every, Hub, Member, Selection, Subscription
from ..reading import Reading
from .stretch import ENTRIES, Log

__all__ = ["Missed", "held_since"]

PIECE = 1_000  # readings read at once

Frame = TypeVar("Frame")


def held_since(journal: Log, after: int) -> bool:
    """Whether the journal has all that follows an offset."""
    return journal.oldest_offset <= after + 1


class Missed(Generic[Frame]):
    """All behind offset ``after``; ``frame`` makes a message what the dashboard is sent.

    ``whole``: nothing of it was gone so far.
    """

    def __init__(
        self,
        hub: Hub[Any],
        journal: Log,
        member: Member[Any],
        subscription: Subscription,
        after: int,
        frame: Callable[[dict[str, object]], Frame],
        turns: asyncio.Semaphore,
    ) -> None:
        self.whole = True
        self._hub = hub
        self._journal = journal
        self._member = member
        self._subscription = subscription
        self._at = after + 1
        self._frame = frame
        self._turns = turns
        self._ready = Every(Selection(subscription, hub.names), after)

    async def next(self) -> list[Frame] | None:
        """Some updates, maybe none; None where the hub has the rest, or a part is gone.

        Raises :class:`~gateway.errors.JournalError`.
        """
        if self._hub.follows(self._member, self._subscription, self._at - 1):
            return None
        async with self._turns:
            batch = await self._journal.read_from(self._at, PIECE)
            if batch is None:
                if self._journal.durable_offset >= self._hub.floor:
                    self._at = self._hub.floor  # nothing was there
                else:
                    await asyncio.sleep(GRID_S)
                return []
            if batch.base > self._at and not held_since(self._journal, self._at - 1):
                self.whole = False
                return None
            for start in range(0, len(batch.items), ENTRIES):
                items = batch.items[start : start + ENTRIES]
                entries: list[Entry] = [
                    (offset, item) for offset, item in enumerate(items, batch.base + start) if type(item) is Reading
                ]
                self._ready.fold(entries)
                await asyncio.sleep(0)
            self._at = batch.end
            frames = []
            while piece := self._ready.take():
                data, offset = piece
                message = {"type": "update", "id": self._subscription.id, "offset": offset, "data": data}
                frames.append(self._frame(message))
                await asyncio.sleep(0)
            return frames

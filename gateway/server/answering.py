"""The answer to a subscription that asks for history: page by page, from the store and what follows it.

:meth:`Answer.begin` makes the join; then each :meth:`Answer.next` reads one page, as ``paging`` plans them, and gives
its messages, framed.  Nothing of it is held in between but the plan, so that a dashboard which does not read costs no
more than a page (:data:`~gateway.server.paging.PAGE_BYTES`) beside what it was sent.

Bounds, over all dashboards: :data:`TURNS` pages are read and put into messages at once, others wait; one stretch of the
journal is held at a time (see ``stretch``), until its answer is told, and others wait for it or for the store to have
caught up.  The store's moment that answers hold keeps memtables in memory which all who joined at about the same time
share: as many as are filled while an answer may take.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import AsyncExitStack
from typing import Any, Generic, Protocol, Self, TypeVar

from ..history import Extent, Row
from ..hub import GRID_S, Hub, Member, Subscription
from ..reading import Item, Reading
from .joining import Join
from .paging import PAGE_ROWS, Page, Pages, Points
from .stretch import ENTRIES, Log, Stretch

__all__ = ["Answer", "Reserve", "Store"]

TURNS = 2
CATCH_UP_S = 0.3  # for a store that lags to have what the hub no longer remembers; then the journal is read

Frame = TypeVar("Frame")


class Store(Protocol):
    """What is asked of a history (gateway.history.History)."""

    @property
    def end(self) -> int: ...
    def now(self) -> Any: ...
    def query(
        self,
        *,
        devices: Sequence[str],
        metrics: Sequence[str],
        start: int,
        end: int,
        step: int | None = None,
        agg: str = "mean",
        limit: int,
        at: Any,
    ) -> Awaitable[tuple[list[Row], bool]]: ...
    async def extents(
        self, *, devices: Sequence[str], metrics: Sequence[str], start: int, end: int, within: tuple[str, ...], at: Any
    ) -> list[Extent]: ...


class Reserve:
    """What all answers share."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(TURNS)
        self.stretch = asyncio.Semaphore(1)


class Answer(Generic[Frame]):
    """One answer, a context manager; ``frame`` makes a message what the dashboard is sent."""

    def __init__(
        self,
        hub: Hub[Any],
        store: Store,
        journal: Log,
        subscription: Subscription,
        frame: Callable[[dict[str, object]], Frame],
        reserve: Reserve,
    ) -> None:
        self._hub = hub
        self._store = store
        self._journal = journal
        self._subscription = subscription
        self._frame = frame
        self._reserve = reserve
        self._held = AsyncExitStack()
        self._stretch: Stretch | None = None
        self._whole = True  # the stretch has all
        self._join = Join(0, 0)
        self._pages: Pages | None = None
        self._member: Member[Any] | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    async def begin(self, member: Member[Any], length: int, now: Callable[[], int], *, older: bool = False) -> None:
        """Make the join: a history of the last ``length`` nanoseconds, by the clock ``now``.

        ``older``: the updates will begin with what the journal alone has, see ``resuming``.
        """
        hub, store = self._hub, self._store
        self._member = member
        start = now() - length
        for _ in range(round(CATCH_UP_S / GRID_S)):
            if hub.floor <= store.end:
                break
            await asyncio.sleep(GRID_S)
        if hub.floor > store.end:
            await self._held.enter_async_context(self._reserve.stretch)
        while True:
            # In this step nothing is published, nor does the store get on.
            end, stored = now(), store.end
            begin, missed = hub.rejoin(member, self._subscription, Join(start, end).covers)
            missed = [entry for entry in missed if entry[0] < stored]
            self._join = join = Join(start, end, stored, begin, hub.floor, missed, older, store.now())
            if not join.lacks:
                self._whole = True
                await self._held.aclose()
                return
            above = [reading for offset, reading in hub.since(join.lacks.stop - 1) if offset <= begin]
            stretch = Stretch(self._journal, self._subscription, join, names=hub.names)
            self._whole = await stretch.read()
            if self._whole or store.end < join.lacks.stop:
                break
            # It took so long that the store has it by now.
        for start in range(0, len(above), ENTRIES):
            stretch.take(above[start : start + ENTRIES])
            await asyncio.sleep(0)
        self._stretch = stretch

    async def next(self) -> list[Frame] | None:
        """The messages of the next page, none after the last one.

        Raises :class:`~gateway.errors.HistoryError`, :class:`~gateway.errors.Overloaded` and
        :class:`~gateway.errors.JournalError`.
        """
        if self._ended:
            return None
        async with self._reserve.turns:
            if self._pages is None:
                self._pages = await self._plan()
            pages = self._pages
            page = pages.todo.popleft() if pages.todo else Page(())
            rows, texts = await self._rows(pages, page)
            tail = await self._tail(pages, frozenset(page.devices))
            missed = await self._missed(pages, frozenset(page.devices))
            frames = []
            for message in pages.told(page, rows, texts, tail, missed):
                if message is not None:
                    frames.append(self._frame(message))
                    self._ended = message["last"] is True
                await asyncio.sleep(0)
            return frames

    def _asked(self) -> dict[str, Any]:
        join = self._join
        return {"start": join.start, "end": join.until, "at": join.at}

    async def _plan(self) -> Pages:
        subscription = self._subscription
        pages = Pages(subscription, self._join, self._hub.names)
        pages.complete = self._whole
        if pages.selection.no_metrics:
            return pages
        extents = await self._store.extents(
            devices=subscription.devices or ("*",),
            metrics=subscription.metrics or ("*",),
            within=subscription.allowed,
            **self._asked(),
        )
        for (device, metric), points in (await self._tail(pages, None)).items():
            extents.append(Extent(device, metric, len(points), self._join.start, self._join.end))
        pages.plan(extents)
        return pages

    async def _rows(self, pages: Pages, page: Page) -> tuple[list[Row], list[Row]]:
        """A page's rows, and those of the store that are the last of each bucket."""
        if not page.devices:
            return [], []
        asked = self._asked()
        asked["devices"] = page.devices
        asked["metrics"] = page.metrics or self._subscription.metrics or ("*",)
        asked["limit"] = 2 * PAGE_ROWS  # there are never so many
        if page.start is not None:
            asked["start"] = max(asked["start"], page.start * 1_000_000)
        if not page.step:
            rows, cut = await self._store.query(**asked)
            pages.complete &= not cut
            return rows, []
        means, cut = await self._store.query(**asked, step=page.step)
        texts, also_cut = await self._store.query(**asked, step=page.step, agg="last")
        pages.complete &= not (cut or also_cut)
        return means, texts

    async def _tail(self, pages: Pages, devices: frozenset[str] | None) -> Points:
        """What follows the store's answer, of some devices or (None) of all."""
        hub, join = self._hub, self._join
        if self._stretch is not None:
            found = self._stretch.points
            return {key: list(points) for key, points in found.items() if devices is None or key[0] in devices}
        if not join.tail:
            return {}
        which = _All() if devices is None else devices
        stretch = Stretch(self._journal, self._subscription, join, which, hub.names)
        if hub.floor > join.tail.start:
            pages.complete &= await stretch.read()
            return stretch.points
        entries = hub.since(join.tail.start - 1)
        for start in range(0, len(entries), ENTRIES):
            stretch.take([reading for offset, reading in entries[start : start + ENTRIES] if offset <= join.begin])
            await asyncio.sleep(0)
        return stretch.points

    async def _missed(self, pages: Pages, devices: frozenset[str]) -> Counter[Row]:
        """How often each row of these devices is in updates."""
        found: Counter[Row] = Counter()
        if self._join.older:
            await self._count_older(pages, devices, found)
            return found
        missed = self._join.missed
        for start in range(0, len(missed), ENTRIES):
            self._count([reading for _, reading in missed[start : start + ENTRIES]], pages, devices, found)
            await asyncio.sleep(0)
        return found

    async def _count_older(self, pages: Pages, devices: frozenset[str], found: Counter[Row]) -> None:
        join = self._join
        assert self._member is not None
        self._hub.follows(self._member, self._subscription, join.begin)  # what it holds is read again later
        at = join.begin + 1
        while devices and at < join.stored and (batch := await self._journal.read_from(at)) is not None:
            items = batch.items[: max(0, join.stored - batch.base)]
            for start in range(0, len(items), ENTRIES):
                self._count(items[start : start + ENTRIES], pages, devices, found)
                await asyncio.sleep(0)
            at = batch.end

    def _count(self, items: Sequence[Item], pages: Pages, devices: frozenset[str], found: Counter[Row]) -> None:
        selection, covers = pages.selection, self._join.covers
        for item in items:
            if type(item) is Reading and item.device in devices and covers(item.time):
                for metric in selection.metrics(item.values):
                    found[item.time, item.device, metric, item.values[metric]] += 1


class _All(Container[str]):
    """Every name."""

    def __contains__(self, name: object) -> bool:
        return True

"""The control socket's command ``export``: a stretch of history of any length, in pages.

Devices come one after the other, by name; the rows of each ascend in time, as a question's do (``History.query``).  All
are of the moment at which it began.  Parameters: ``device``, ``metric`` (globs), ``from`` and ``to`` (nanoseconds; that
of ``to`` is not part of it), ``step`` (nanoseconds), ``agg``.  Items::

    {"devices": 3}                                                           the first: how many there are
    {"device": "pump-1", "rows": [[ns, metric, value], ..], "done": 1}       done: devices before it
    {"device": .., "integers": ["count", ..], ..}                            metrics declared integers, of these rows
    {"rows": 86400, "whole_from": null}                                      the last: how many rows there were, and
                                                                             before when (ns) readings are not kept

A page is asked for when the one before it was read: memory is one page's, whatever is exported.  Whoever reads slowly
keeps the memory's part of the history of that moment, and holds rollups up.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable
from operator import itemgetter
from typing import Annotated, Literal

import msgspec

from ..history import Answer, History, Row, Snapshot
from .control import Command, Params

__all__ = ["Exporter"]

PAGE = 20_000  # rows asked for at once
PIECE = 1_000  # rows sent at once
TOGETHER = 256  # devices asked for at once

_time = itemgetter(0)

Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class _Export(msgspec.Struct, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    device: Glob = "*"
    metric: Glob = "*"
    start: int = 0
    end: int = (1 << 63) - 1
    step: Annotated[int, msgspec.Meta(ge=1)] | None = None
    agg: Literal["mean", "min", "max", "last", "count"] = "mean"


class Exporter:
    """``integer`` says whether a device declared a metric an integer."""

    def __init__(self, history: History, integer: Callable[[str, str], bool]) -> None:
        self._history = history
        self._integer = integer
        self.commands: dict[str, Command] = {"export": self.export}

    async def export(self, params: Params) -> AsyncIterator[object]:
        """See the module's text.  Raises :class:`~gateway.errors.HistoryError`, :class:`~gateway.errors.Overloaded`."""
        wanted = msgspec.convert(params, _Export)
        at = self._history.now()
        names = await self._history.names(at=at, devices=wanted.device)
        yield {"devices": len(names)}
        count, whole_from = 0, None
        async for done, name, rows, whole in self._all(wanted, names, at):
            if whole is not None:
                whole_from = whole if whole_from is None else max(whole, whole_from)
            count += len(rows)
            for start in range(0, len(rows), PIECE):
                piece = [(time, metric, value) for time, _, metric, value in rows[start : start + PIECE]]
                integers = sorted(metric for metric in {row[1] for row in piece} if self._integer(name, metric))
                yield {"device": name, "integers": integers, "rows": piece, "done": done}
                await asyncio.sleep(0)
        yield {"rows": count, "whole_from": whole_from}

    async def _all(
        self, wanted: _Export, names: list[str], at: Snapshot
    ) -> AsyncIterator[tuple[int, str, list[Row], int | None]]:
        """How many devices are done, a device, and rows of it; devices of which there is little are asked for together,
        since their rows lie in the same chunks."""
        done, size = 0, 1
        while done < len(names):
            some = names[done : done + size]
            count = 0
            if len(some) == 1:
                async for rows, whole_from in self._pages(wanted, some[0], at):
                    count += len(rows)
                    yield done, some[0], rows, whole_from
            else:
                found = await self._ask(wanted, some, at, wanted.start, PAGE)
                if found.truncated:
                    size = len(some) // 4 or 1
                    continue
                count = len(found.rows)
                for name, rows in (await _by_device(found.rows)).items():
                    yield done, name, rows, found.whole_from
            done += len(some)
            size = min(2 * size, TOGETHER) if count < PAGE // 4 else max(size // 2, 1)

    def _ask(self, wanted: _Export, devices: list[str], at: Snapshot, start: int, limit: int) -> Awaitable[Answer]:
        return self._history.ask(
            devices=devices,
            metrics=wanted.metric,
            start=start,
            end=wanted.end,
            step=wanted.step,
            agg=wanted.agg,
            limit=limit,
            at=at,
        )

    async def _pages(self, wanted: _Export, name: str, at: Snapshot) -> AsyncIterator[tuple[list[Row], int | None]]:
        """The rows of a device, a page at a time, each with what the answer says of what is not kept any more."""
        begin, told, skip, limit = wanted.start, wanted.start - 1, 0, PAGE
        while True:
            rows, truncated, whole_from = await self._ask(wanted, [name], at, begin, limit)
            # Rows up to the last time were told; of that time so many, and there may be more.
            new = bisect_left(rows, told, key=_time) + skip if skip else 0
            if new < len(rows):
                told = rows[-1][0]
                skip = len(rows) - bisect_left(rows, told, key=_time)
                begin = max(begin, told)
                limit = PAGE + skip
                yield rows[new:], whole_from
            else:
                limit *= 2
            if not truncated:
                return


async def _by_device(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each device, in the order of names."""
    found: dict[str, list[Row]] = {}
    for start in range(0, len(rows), PIECE):
        for row in rows[start : start + PIECE]:
            found.setdefault(row[1], []).append(row)
        await asyncio.sleep(0)
    return dict(sorted(found.items()))

"""What the journal's tests share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from gateway.journal import Journal
from gateway.reading import Description, Item, Mark, Presence, Reading

START = 1_764_000_000_000_000_000


def reading(number: int, device: str = "pump-1", **values: Any) -> Reading:
    """The reading of that number."""
    return Reading(device, "boot", number + 1, START + number, START + number, values or {"temperature": 22.5 + number})


def mixed(number: int) -> Item:
    """An item of that number: every seventh is none of the readings."""
    if number % 7:
        return reading(number)
    kinds: list[Item] = [
        Mark("pump-1", "boot", number + 1),
        Presence("pump-1", "online", START + number, "connected"),
        Description("pump-1", START + number, {"name": "Boiler pump", "interval_s": 60}),
    ]
    return kinds[number % 3]


class Ear:
    """A waiter that remembers what it was told."""

    def __init__(self) -> None:
        self.tokens: list[Any] = []

    def committed(self, token: Any) -> None:
        self.tokens.append(token)


@asynccontextmanager
async def opened(directory: Path, **settings: Any) -> AsyncIterator[Journal]:
    """An open journal that commits at once and does not mind how full the disk is."""
    journal = Journal(directory, **{"commit_ms": 0, "keep_free_bytes": 0, **settings})
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


async def fill(journal: Journal, items: list[Item], group: int = 1) -> list[int]:
    """Append ``items`` in groups of ``group``, each committed before the next; their offsets."""
    offsets = []
    for start in range(0, len(items), group):
        offsets += [journal.append(item) for item in items[start : start + group]]
        await journal.flush()
    return offsets


async def held(journal: Journal) -> list[tuple[int, Item]]:
    """All that can be read, with offsets."""
    found: list[tuple[int, Item]] = []
    offset = 0
    while (batch := await journal.read_from(offset, 100)) is not None:
        found += enumerate(batch.items, batch.base)
        offset = batch.end
    return found


def segments(directory: Path) -> list[Path]:
    """The segment files, in order."""
    return sorted(directory.glob("*.seg"))


def copy(directory: Path, target: Path) -> Path:
    """What a crash leaves: the directory as it is now."""
    target.mkdir()
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the writer goes on
            shutil.copyfile(path, target / path.name)
    return target


def size(directory: Path) -> int:
    """Bytes of all segments."""
    total = 0
    for path in segments(directory):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


async def until(condition: Callable[[], object]) -> None:
    """Turn the loop until the condition holds, ten seconds at most."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise TimeoutError


@contextmanager
def failing(call: str, error: OSError, *, where: str = ".seg", at: int | None = None) -> Iterator[Callable[[], int]]:
    """``os.<call>`` on files named like ``where`` fails (at the ``at``-th call only, if given); counts calls."""
    real: Any = getattr(os, call)
    calls = 0

    def wrapped(fd: int, *arguments: Any) -> Any:
        nonlocal calls
        if where in os.readlink(f"/proc/self/fd/{fd}"):
            calls += 1
            if at is None or calls == at:
                raise error
        return real(fd, *arguments)

    setattr(os, call, wrapped)
    try:
        yield lambda: calls
    finally:
        setattr(os, call, real)


async def settled(journal: Journal) -> None:
    """The writer has done all it was told."""
    for _ in range(2):  # one look at the disk may have been under way
        journal._probe()
        await until(lambda: not journal._probing)

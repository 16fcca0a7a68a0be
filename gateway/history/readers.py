"""The readers' connections to the history's file: opened when they are first used, closed when the file is made anew.

An error of a connection to an earlier file says nothing of the one that is there now: each bears the number of the
file, its *generation*, and only the present one's errors count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import apsw

from gateway.history.schema import connect

__all__ = ["Readers"]


class _Slot:
    """Place of one connection; ``generation`` is that of the file it was opened for."""

    def __init__(self) -> None:
        self.connection: apsw.Connection | None = None
        self.generation = 0


class Readers:
    """So many connections, lent to one query each.  Methods may be called in any thread, and wait for queries."""

    def __init__(self, path: Path, count: int) -> None:
        self.generation = 0
        self._path = path
        self._count = count
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(count):
            self._slots.put(_Slot())

    @contextmanager
    def lend(self, user: list[int]) -> Iterator[apsw.Connection]:
        """A connection, once one is free; its generation is appended to ``user``.  Raises ``apsw.Error``."""
        slot = self._slots.get()
        try:
            if slot.connection is None:
                slot.generation = self.generation
                user.append(slot.generation)
                slot.connection = connect(self._path, readonly=True)
            else:
                user.append(slot.generation)
            yield slot.connection
        finally:
            self._slots.put(slot)

    def close(self) -> None:
        """Close all, when their queries are done; those lent from now on are opened anew, of a next generation."""
        slots = [self._slots.get() for _ in range(self._count)]
        self.generation += 1
        for slot in slots:
            if slot.connection is not None:
                slot.connection.close()
                slot.connection = None
            self._slots.put(slot)

"""Reading what can be read out of a damaged file: row by row, past pages that make no sense.

What is found is only believed where its seal says so (``seal``); rows of layout 1 have none and are believed.
"""

from __future__ import annotations

import contextlib
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.history.chunks import sealed_over
from gateway.history.codec import DamagedChunk
from gateway.history.schema import PLACES, connect, fetch
from gateway.history.seal import checksum, unseal

__all__ = ["COLUMNS", "Salvage"]

STEP: Final = 32  # rows of chunks at once
COLUMNS: Final = {
    "chunk": "device, shape, level, first, last, kept, low, high, rows, body",
    "shared": "shape, flush, from_device, to_device, first, last, kept, high, rows, body",
    "rollup": "device, shape, level, first, last, kept, rows, body",
}
_FAR: Final = 1 << 62  # above all numbers of rows
PROBES: Final = 256  # rows looked for one by one at once
# So many numbers one after the other that cannot be read lie on a page that leads to many others: where that is so
# the next that can be read is searched for, not every number tried.
LONG: Final = 4096
_KEPT: Final = ".damaged-"
_INDEXES: Final = {"chunk": ("chunk_kept", "chunk_time"), "shared": (), "rollup": ("rollup_kept", "rollup_time")}
_LATEST: Final = "SELECT device, shape, time, position, received, row FROM latest"


class Salvage:
    """The damaged file ``source``, opened for reading.  Raises ``apsw.Error`` where nothing can be read of it."""

    def __init__(self, source: Path) -> None:
        self._connection = connect(source, readonly=True)
        self._known: dict[str, array[int] | None] = {}
        self._begun: set[str] = set()  # tables of which rows were asked for, without an index
        self._in_vain = 0  # numbers one after the other that could not be read, until now
        try:
            version: int = self._connection.pragma("user_version")
            self._sealed, self._rolled = version > 1, version > 2
            fetch(self._connection, "SELECT count(*) FROM sqlite_schema")
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def place(self) -> tuple[int, str, int] | None:
        """Position, epoch and shift, if they can be made out."""
        column = "crc" if self._sealed else "0"
        for table in PLACES:
            statement = f"SELECT position, CAST(epoch AS BLOB), shift, {column} FROM {table}"
            for position, epoch, shift, crc in self._all(statement):
                if not self._sealed or crc == _checksum((position, shift), epoch):
                    return position, epoch.decode(), shift
        return None

    def gone(self) -> list[tuple[int, int]]:
        """Levels, and the time of each before which something may have been deleted."""
        rows = self._all("SELECT level, before, crc FROM gone")
        return [(level, before) for level, before, crc in rows if crc == _checksum((level, before), b"")]

    def rest(self, name: str) -> list[tuple[str, int, int, int]]:
        """What the history, which is kept as ``name``, was itself to take over: as the rows of ``salvage``."""
        stem = name.partition(_KEPT)[0] + _KEPT
        rollup = "rollup" if self._rolled else "0"  # layout 2 had none
        return [
            (source, *below)
            for source, *below in self._all(f"SELECT name, chunk, shared, {rollup} FROM salvage ORDER BY id")
            if type(source) is str and source.startswith(stem) and "/" not in source
            if all(type(number) is int for number in below)
        ]

    def names(self) -> list[tuple[int, bytes]]:
        """Numbers and names of the devices."""
        return self._named("device", "CAST(name AS BLOB)")

    def shapes(self) -> list[tuple[int, bytes]]:
        """Numbers and metrics (packed) of the shapes."""
        return self._named("shape", "metrics")

    def latest(self) -> list[tuple[Any, ...]]:
        """The rows of ``latest``."""
        return [row for row in self._all(_LATEST) if _is_sound(row[:-1], row[-1])]

    def rows(self, table: str, below: int) -> tuple[list[tuple[Any, ...]], int, int]:
        """Sound rows of chunks with numbers below ``below``, the highest first; how many are lost; where to go on.

        Lost are those that make no sense, and those that cannot be read: an index says which there are.  Where there is
        none each number counts that cannot be read, and as one all above the first that can.  0 to go on: there are no
        more.
        """
        if below <= 0:
            return [], 0, 0
        numbers = self._numbers(table)
        if numbers is None:
            found, lost, then = self._unguided(table, below)
        else:
            at = bisect_left(numbers, below)
            wanted = numbers[max(0, at - STEP) : at]
            then = wanted[0] if at > STEP else 0
            found, lost = self._guided(table, below, then, wanted)
        sound = [row[1:] for row in found if _is_chunk(table, row[1:])]
        return sound, lost + len(found) - len(sound), then

    def last(self, table: str) -> int:
        """A number above all rows'."""
        try:
            ((found,),) = fetch(self._connection, f"SELECT max(id) FROM {table} NOT INDEXED")
        except apsw.SQLError:  # it was another program's file
            return 0
        except apsw.Error:
            found = -1
        if found is None:
            return 0
        if type(found) is int and 0 < found < _FAR:
            return found + 1
        if numbers := self._numbers(table):
            return numbers[-1] + 1
        # The highest page is lost, and it is not known how far it reaches: something is between half and the whole.
        bound = _FAR
        while bound > 1 and not any(
            self._is_good(table, number) for number in range(bound, bound // 2, -max(1, bound // 128))
        ):
            bound //= 2
        return bound

    def _numbers(self, table: str) -> array[int] | None:
        """The numbers of all rows, ascending, if an index can be read."""
        if table not in self._known:
            self._known[table] = None
            for index in _INDEXES[table]:
                with contextlib.suppress(apsw.Error):
                    rows = self._connection.execute(f"SELECT id FROM {table} INDEXED BY {index}")
                    self._known[table] = array(
                        "q", sorted({number for (number,) in rows if type(number) is int and 0 < number < _FAR})
                    )
                    break
        return self._known[table]

    def _guided(self, table: str, below: int, then: int, wanted: array[int]) -> tuple[list[tuple[Any, ...]], int]:
        """All rows from ``then`` on that can be read, and how many of the wanted ones cannot."""
        try:
            found = self._fetch(table, "id >= ? AND id < ? ORDER BY id DESC", (then, below), then, below)
        except apsw.Error:
            found = []
            for number in reversed(wanted):
                with contextlib.suppress(apsw.Error):
                    found += self._fetch(table, "id = ?", (number,), number, number + 1)
        return found, len(set(wanted).difference(row[0] for row in found))

    def _unguided(self, table: str, below: int) -> tuple[list[tuple[Any, ...]], int, int]:
        """As :meth:`rows`, where it is not known which rows there are."""
        try:
            found = self._fetch(table, "id < ? ORDER BY id DESC LIMIT ?", (below, STEP), 1, below)
        except apsw.Error:
            found = []
        else:
            self._in_vain = 0
            lost = int(not found and table not in self._begun)  # there was one at least
            self._begun.add(table)
            return found, lost, min((row[0] for row in found), default=0)
        lost, then = 0, below
        while then > 1 and below - then < PROBES:
            then -= 1
            try:
                found += self._fetch(table, "id = ?", (then,), then, then + 1)
                self._in_vain = 0
            except apsw.Error:
                lost += 1
                self._in_vain += 1
        if self._in_vain >= LONG:
            then = self._next(table, then)
        if table not in self._begun:
            self._begun.add(table)
            lost = 1
        return found, lost, then if then > 1 else 0

    def _next(self, table: str, below: int) -> int:
        """A number such that the row before it can be read, not far below a stretch that cannot; 0: there is none."""
        good, bad = below, below
        while good > 0 and not self._is_good(table, good):
            bad, good = good, max(0, good - max(1, 2 * (below - good)))
        while good and bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if self._is_good(table, middle) else (good, middle)
        return good

    def _is_good(self, table: str, number: int) -> bool:
        """Whether the row before this number can be read."""
        statement = f"SELECT id FROM {table} NOT INDEXED WHERE id < ? ORDER BY id DESC LIMIT 1"
        try:
            return bool(fetch(self._connection, statement, (number,)))
        except apsw.Error:
            return False

    def _fetch(self, table: str, where: str, bindings: tuple[int, ...], start: int, end: int) -> list[tuple[Any, ...]]:
        """Rows with numbers from ``start`` up to ``end``, each once: a damaged page may lead elsewhere."""
        statement = f"SELECT id, {COLUMNS[table]} FROM {table} NOT INDEXED WHERE {where}"
        found = {row[0]: row for row in fetch(self._connection, statement, bindings) if type(row[0]) is int}
        return [row for number, row in found.items() if start <= number < end]

    def _named(self, table: str, column: str) -> list[tuple[int, bytes]]:
        crc = "crc" if self._sealed else "0"
        rows = self._all(f"SELECT id, {column}, {crc} FROM {table} NOT INDEXED")
        return [(number, name) for number, name, crc in rows if not self._sealed or crc == _checksum((number,), name)]

    def _all(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Rows until the end, or until the first that cannot be read."""
        try:
            yield from self._connection.execute(statement)
        except (apsw.Error, UnicodeDecodeError):
            return


def _checksum(numbers: tuple[Any, ...], content: Any) -> int:
    try:
        return checksum(numbers, content)
    except (struct.error, TypeError):
        return -1


def _is_sound(numbers: tuple[Any, ...], sealed: Any) -> bool:
    try:
        unseal(numbers, sealed)
    except DamagedChunk:
        return False
    return True


def _is_chunk(table: str, row: tuple[Any, ...]) -> bool:
    if table == "chunk":
        return _is_sound(sealed_over(row[:-1]), row[-1]) and type(row[2]) is int
    if table == "rollup":
        return _is_sound(row[:-1], row[-1])
    return _is_sound((*row[:2], *row[4:-1]), row[-1]) and type(row[2]) is int and type(row[3]) is int

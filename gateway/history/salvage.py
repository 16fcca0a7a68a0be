"""Reading what can be read out of a damaged file: row by row, past pages that make no sense.

What is found is only believed where its seal says so (``seal``); rows of layout 1 have none and are believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.history.codec import DamagedChunk
from gateway.history.schema import connect, fetch
from gateway.history.seal import checksum, unseal

__all__ = ["COLUMNS", "Salvage"]

STEP: Final = 32  # rows of chunks at once
COLUMNS: Final = {
    "chunk": "device, shape, level, first, last, kept, low, high, rows, body",
    "shared": "shape, flush, from_device, to_device, first, last, kept, high, rows, body",
}
_PLACES: Final = "SELECT position, CAST(epoch AS BLOB), shift, {crc} FROM state"
_LATEST: Final = "SELECT device, shape, time, position, received, row FROM latest"


class Salvage:
    """The damaged file ``source``, opened for reading.  Raises ``apsw.Error`` where nothing can be read of it."""

    def __init__(self, source: Path) -> None:
        self._connection = connect(source, readonly=True)
        try:
            self._sealed = self._connection.pragma("user_version") > 1
            fetch(self._connection, "SELECT count(*) FROM sqlite_schema")
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def place(self) -> tuple[int, str, int] | None:
        """Position, epoch and shift, if they can be made out."""
        for position, epoch, shift, crc in self._all(_PLACES.format(crc="crc" if self._sealed else "0")):
            if not self._sealed or crc == _checksum((position, shift), epoch):
                return position, epoch.decode(), shift
        return None

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
        """Sound rows of chunks with numbers below ``below``, the highest first; how many are none; where to go on.

        0 to go on: there are no more.
        """
        found = self._below(table, below)
        if not found:
            return [], 0, 0
        sound = [row[1:] for row in found if _is_chunk(table, row[1:])]
        return sound, len(found) - len(sound), min(row[0] for row in found)

    def last(self, table: str) -> int:
        """A number above all rows'."""
        for row in self._all(f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"):
            return int(row[0]) + 1
        found = self._below(table, 1 << 62)
        return int(found[0][0]) + 1 if found else 0

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

    def _below(self, table: str, below: int) -> list[tuple[Any, ...]]:
        statement = f"SELECT id, {COLUMNS[table]} FROM {table} NOT INDEXED WHERE id < ? ORDER BY id DESC LIMIT ?"
        step, limit = 0, STEP
        while below - step > 0:
            try:
                rows = fetch(self._connection, statement, (below - step, limit))
            except (apsw.Error, UnicodeDecodeError):
                if limit > 1:
                    limit = 1
                else:
                    step = 2 * step or 1
                continue
            return [row for row in rows if type(row[0]) is int and 0 < row[0] < below]
        return []


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
        return _is_sound((*row[:2], *row[3:-1]), row[-1]) and type(row[2]) is int
    return _is_sound((*row[:2], *row[4:-1]), row[-1]) and type(row[2]) is int and type(row[3]) is int

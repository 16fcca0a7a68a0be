"""Putting rows into the file: a device's own chunks, and those that several share.

A device from which less than ``ALONE`` rows came in a flush shares a chunk with others of its shape: ten rows have no
room for the price of a chunk, which is some pages written, not only its bytes.  Later, when there are enough of them,
they get into chunks of their own (``merge``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw

from gateway.history.codec import DamagedChunk, encode, encode_shared
from gateway.history.frame import Frame
from gateway.history.schema import FINAL, ROLLED, fetch
from gateway.history.seal import seal, unseal

__all__ = [
    "ALONE",
    "MAX_ROWS",
    "MAX_SHARED_ROWS",
    "Counts",
    "Sharing",
    "add_chunk",
    "mark_rolled",
    "read_chunk",
    "read_shared",
    "sealed_over",
]

MAX_ROWS: Final = 4096
MAX_SHARED_ROWS: Final = 1024  # fewer, since all are unpacked for one device's
ALONE: Final = 64

_CHUNK: Final = (
    "INSERT INTO chunk (device, shape, level, first, last, kept, low, high, rows, body) VALUES (?,?,?,?,?,?,?,?,?,?)"
)
_SHARED: Final = (
    "INSERT INTO shared (shape, flush, from_device, to_device, first, last, kept, high, rows, body)"
    " VALUES (?,?,?,?,?,?,?,?,?,?)"
)
_OWN: Final = "SELECT device, shape, level, first, last, kept, low, high, rows, body FROM chunk WHERE id = ?"
_OTHERS: Final = "SELECT shape, flush, first, last, kept, high, rows, body FROM shared WHERE id = ?"


@dataclass(slots=True)
class Counts:
    """What was done since the file was opened."""

    chunks: int = 0
    rows: int = 0
    values: int = 0
    bytes: int = 0
    merged: int = 0
    rolled: int = 0
    expired: int = 0
    damaged: int = 0
    salvaged: int = 0
    left_out: int = 0


def add_chunk(connection: apsw.Connection, device: int, shape: int, level: int, frame: Frame) -> int:
    """Add a chunk of a frame sorted by time; returns the bytes of its body.  A big one is FINAL whatever ``level``."""
    if len(frame) >= MAX_ROWS // 2:
        level = FINAL
    span = (frame.times[0], frame.times[-1], _kept(frame), frame.low, frame.high, len(frame))
    body = seal((device, shape, *span), encode(frame))
    connection.execute(_CHUNK, (device, shape, level, *span, body))
    return len(body)


def read_chunk(connection: apsw.Connection, number: int, device: int) -> bytes:
    """The body of a device's chunk.  Raises :class:`DamagedChunk` where it is not what was written."""
    *numbers, sealed = fetch(connection, _OWN, (number,))[0]
    body = unseal(sealed_over(numbers), sealed)
    if numbers[0] != device:
        raise DamagedChunk("it is another device's")
    return body


def sealed_over(numbers: Sequence[Any]) -> tuple[Any, ...]:
    """Over what a chunk is sealed, of its columns before the body; of ``level`` whether it is ROLLED, at the end."""
    kept = (*numbers[:2], *numbers[3:])
    return (*kept, ROLLED) if numbers[2] == ROLLED else kept


def mark_rolled(connection: apsw.Connection, number: int) -> None:
    """Say of a chunk that its rows are in rollups.  SQLite writes a record of the same size over the old one, of which
    here the first page alone changes."""
    *numbers, sealed = fetch(connection, _OWN, (number,))[0]
    try:
        body = unseal(sealed_over(numbers), sealed)
    except DamagedChunk:
        connection.execute("UPDATE chunk SET level = ? WHERE id = ?", (ROLLED, number))
        return
    numbers[2] = ROLLED
    connection.execute(
        "UPDATE chunk SET level = ?, body = ? WHERE id = ?", (ROLLED, seal(sealed_over(numbers), body), number)
    )


def read_shared(connection: apsw.Connection, number: int) -> bytes:
    """The body of a shared chunk.  Raises :class:`DamagedChunk` where it is not what was written."""
    *numbers, sealed = fetch(connection, _OTHERS, (number,))[0]
    return unseal(tuple(numbers), sealed)


class Sharing:
    """Collects the frames of one flush that are too small for chunks of their own; devices ascend."""

    def __init__(self, connection: apsw.Connection, flush: int, counts: Counts) -> None:
        self._connection = connection
        self._flush = flush
        self._counts = counts
        self._parts: defaultdict[int, list[tuple[int, Frame]]] = defaultdict(list)
        self._rows: defaultdict[int, int] = defaultdict(int)
        self.shapes: set[int] = set()

    def add(self, device: int, shape: int, frame: Frame) -> None:
        """Take in a frame, sorted by time; what fills a chunk is written."""
        if self._rows[shape] + len(frame) > MAX_SHARED_ROWS:
            self._write(shape)
        self._parts[shape].append((device, frame))
        self._rows[shape] += len(frame)

    def finish(self) -> None:
        """Write the rest."""
        for shape in list(self._parts):
            self._write(shape)

    def _write(self, shape: int) -> None:
        parts = self._parts.pop(shape)
        rows = self._rows.pop(shape)
        first = min(frame.times[0] for _, frame in parts)
        last = max(frame.times[-1] for _, frame in parts)
        kept = max(_kept(frame) for _, frame in parts)
        high = max(frame.high for _, frame in parts)
        devices = (parts[0][0], parts[-1][0])
        body = seal((shape, self._flush, first, last, kept, high, rows), encode_shared(parts))
        self._connection.execute(_SHARED, (shape, self._flush, *devices, first, last, kept, high, rows, body))
        self.shapes.add(shape)
        self._counts.chunks += 1
        self._counts.bytes += len(body)


def _kept(frame: Frame) -> int:
    """The greatest time of a frame sorted by time, or of its receipt: an old log that was sent today is of today."""
    return max(frame.times[-1], max(frame.received))

"""Rollups of chunks that are merged no more, in the background.

A chunk's rows get into the rollups of all levels in the transaction that marks it as ROLLED: so each is in them exactly
once, whatever comes between, and an answer takes a rollup and what is not in it yet.  Late rows come in chunks of their
own, and what is there of their buckets is made anew with them.  Chunks that are too old are put into rollups before
they are deleted, merged or not.

The buckets of a device, shape and level are kept in rows of at most ``ROOM``, like the leaves of a tree: ascending, not
overlapping, filled one after the other.  A row that cannot be read is made anew from the chunks that are in rollups, as
far as they are kept.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from typing import Any, Final

import apsw

from gateway.history.breath import Breath
from gateway.history.chunks import Counts, mark_rolled, read_chunk
from gateway.history.codec import DamagedChunk, decode
from gateway.history.frame import Frame, cut_frame, pieces
from gateway.history.levels import LENGTH
from gateway.history.merge import Key
from gateway.history.rollup import LEVELS, combine, decode_rollup, encode_rollup, roll
from gateway.history.schema import FINAL, ROLLED, fetch, whole
from gateway.history.seal import seal, unseal

__all__ = ["ROOM", "Roller", "read_rollup"]

log = logging.getLogger(__name__)

ROOM: Final = 360  # buckets
STEP_ROWS: Final = 16_384
CHUNKS: Final = 8  # of one device and shape at once

_NEXT: Final = (
    f"SELECT device, shape FROM chunk INDEXED BY chunk_unrolled WHERE level = {FINAL} AND (device, shape) > (?, ?)"
    " AND high < ? ORDER BY device, shape LIMIT 1"
)
_FINAL: Final = (
    f"SELECT id, kept, level, rows FROM chunk INDEXED BY chunk_unrolled WHERE level = {FINAL} AND device = ?"
    " AND shape = ? AND high < ? ORDER BY low, id LIMIT ?"
)
_OLD: Final = (
    f"SELECT id, kept, level, shape, rows FROM chunk WHERE device = ? AND last < ? AND kept < ? AND level <> {ROLLED}"
    " AND high < ? ORDER BY shape, low, id LIMIT ?"
)
_ROW: Final = "SELECT device, shape, level, first, last, kept, rows, body FROM rollup WHERE id = ?"
_OVER: Final = (
    "SELECT id, first, last, kept, rows FROM rollup WHERE device = ? AND level = ? AND last >= ? AND first <= ?"
    " AND shape = ? ORDER BY first"
)
_BEFORE: Final = (
    "SELECT id, first, last, kept, rows FROM rollup WHERE device = ? AND level = ? AND last < ? AND shape = ?"
    " ORDER BY last DESC LIMIT 1"
)
_INSERT: Final = "INSERT INTO rollup (device, shape, level, first, last, kept, rows, body) VALUES (?,?,?,?,?,?,?,?)"
_UPDATE: Final = "UPDATE rollup SET first = ?, last = ?, kept = ?, rows = ?, body = ? WHERE id = ?"
_ROLLED: Final = (
    f"SELECT id FROM chunk WHERE device = ? AND last >= ? AND first < ? AND shape = ? AND level = {ROLLED}"
    " ORDER BY low, id"
)


def read_rollup(connection: apsw.Connection, number: int, device: int) -> bytes:
    """The body of a row of a device's rollups.  Raises :class:`DamagedChunk` where it is not what was written."""
    *numbers, sealed = fetch(connection, _ROW, (number,))[0]
    body = unseal(tuple(numbers), sealed)
    if numbers[0] != device:
        raise DamagedChunk("it is another device's")
    return body


class Roller:
    """Lives in the writer's thread.  Methods raise ``apsw.Error``."""

    def __init__(self, connection: apsw.Connection, counts: Counts) -> None:
        self.ready = True  # there may be something to do
        self._connection = connection
        self._counts = counts
        self._at = (0, 0)  # device and shape after which it goes on

    def step(self, below: int) -> None:
        """Put some chunks that are FINAL into rollups, of those whose orders are all less than ``below``."""
        rows = 0
        breath = Breath()
        with self._connection:
            while rows < STEP_ROWS:
                found = fetch(self._connection, _NEXT, (*self._at, below))
                if not found:
                    if self._at == (0, 0):
                        self.ready = False
                        return
                    self._at = (0, 0)
                    continue
                device, shape = found[0]
                chunks = whole(fetch(self._connection, _FINAL, (device, shape, below, CHUNKS)))
                rows += self._roll(device, shape, [(number, kept, level) for number, kept, level, _ in chunks], breath)
                rows += 256  # a row of a table has a price, too
                if len(chunks) < CHUNKS:
                    self._at = (device, shape)

    def roll_old(self, device: int, before: int, below: int) -> tuple[list[tuple[Key, int]], bool]:
        """Put some chunks of a device that are too old into rollups, in a transaction that is open.

        Returns which chunks there are fewer of now, of device, shape and level, and whether there may be more to do.
        """
        chunks = whole(fetch(self._connection, _OLD, (device, before, before, below, 4 * CHUNKS)))
        changes: list[tuple[Key, int]] = []
        breath = Breath()
        rows = 0
        while chunks and rows < STEP_ROWS:
            shape = chunks[0][3]
            same = [chunk for chunk in chunks[:CHUNKS] if chunk[3] == shape]
            chunks = chunks[len(same) :]
            rows += self._roll(device, shape, [chunk[:3] for chunk in same], breath)
            changes += [((device, shape, chunk[2]), -1) for chunk in same]
        return changes, bool(changes)

    def _roll(self, device: int, shape: int, chunks: list[tuple[int, int, int]], breath: Breath) -> int:
        """Put these chunks, of number, kept and level, into rollups; returns how many rows these have."""
        parts: dict[int, list[Frame]] = {level: [] for level in LEVELS}
        rows = 0
        for number, _, _ in chunks:
            try:
                frame = decode(read_chunk(self._connection, number, device), orders=True)
            except DamagedChunk as error:
                log.warning("history: chunk %d cannot be read and is in no rollup: %s", number, error)
                self._counts.damaged += 1
                continue
            rows += len(frame)
            for level, frames in parts.items():
                frames.append(roll(frame, LENGTH[level]))
                breath.take()
        kept = max((kept for _, kept, _ in chunks), default=0)
        for level, frames in parts.items():
            if frames:
                self._put(device, shape, level, combine(frames), kept, breath)
        for number, _, _ in chunks:
            mark_rolled(self._connection, number)
        self._counts.rolled += len(chunks)
        return rows

    def _put(self, device: int, shape: int, level: int, new: Frame, kept: int, breath: Breath) -> None:
        """Add buckets, ascending, to what there is."""
        connection, times = self._connection, new.times
        leaves = whole(fetch(connection, _OVER, (device, level, times[0], times[-1], shape)))
        if not leaves or times[0] < leaves[0][1]:
            leaves[:0] = whole(fetch(connection, _BEFORE, (device, level, times[0], shape)))
        # Each leaf takes what comes before the next one begins.
        begin = bisect_left(times, leaves[0][1]) if leaves else len(times)
        if begin:
            self._write(device, shape, level, cut_frame(new, 0, begin), kept, None)
        for index, (number, first, last, kept_before, rows) in enumerate(leaves):
            stop = bisect_left(times, leaves[index + 1][1]) if index + 1 < len(leaves) else len(times)
            if begin == stop:
                continue
            part = cut_frame(new, begin, stop)
            begin = stop
            if rows >= ROOM and part.times[0] > last:
                self._write(device, shape, level, part, kept, None)
                continue
            part = combine([*self._read(number, device, shape, level, first, last), part])
            self._write(device, shape, level, part, max(kept, kept_before), number)
            breath.take()

    def _read(self, number: int, device: int, shape: int, level: int, first: int, last: int) -> list[Frame]:
        """The buckets of a row, in one or several frames."""
        try:
            return [decode_rollup(read_rollup(self._connection, number, device))]
        except DamagedChunk as error:
            log.warning("history: rollup %d cannot be read and is made anew: %s", number, error)
            self._counts.damaged += 1
        end = last + LENGTH[level]
        found = []
        for (chunk,) in fetch(self._connection, _ROLLED, (device, first, end, shape)):
            try:
                frame = decode(read_chunk(self._connection, chunk, device), orders=True)
            except DamagedChunk:
                continue  # told when it was put into rollups
            part = cut_frame(frame, bisect_left(frame.times, first), bisect_left(frame.times, end))
            if len(part):
                found.append(roll(part, LENGTH[level]))
        return found

    def _write(self, device: int, shape: int, level: int, frame: Frame, kept: int, number: int | None) -> None:
        """Write buckets in place of a row, or as new ones."""
        for part in pieces(frame, ROOM):
            span = (part.times[0], part.times[-1], kept, len(part))
            body = seal((device, shape, level, *span), encode_rollup(part))
            bindings: tuple[Any, ...] = (*span, body, number)
            if number is None:
                bindings = (device, shape, level, *span, body)
            self._connection.execute(_INSERT if number is None else _UPDATE, bindings)
            number = None

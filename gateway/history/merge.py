"""Small chunks into bigger ones, in the background.

Two ways lead there.  What several devices share is sorted out into chunks of each device, once ``FAN_IN`` flushes have
left such chunks of a shape.  And ``FAN_IN`` neighbours of one device, shape and level become one chunk of the next
level, until it has half of ``MAX_ROWS`` rows or spans a thirtieth of the retention.  So a row is written three or four
times in its life, each time with many others of the same pages, and a chunk goes at once when its time has come.

A step is one transaction over some ten thousand rows: it neither keeps a flush waiting for long, nor writes the pages
that chunks of several devices have in common more often than needed.
"""

from __future__ import annotations

import heapq
import logging
from collections import defaultdict
from typing import Final

import apsw

from gateway.history.breath import Breath
from gateway.history.catalogue import Catalogue
from gateway.history.chunks import MAX_ROWS, Counts, add_chunk, read_chunk, read_shared
from gateway.history.codec import DamagedChunk, decode, decode_shared
from gateway.history.frame import Frame, concatenate, cut_frame, pieces, sort_rows
from gateway.history.schema import FINAL, fetch, whole

__all__ = ["FAN_IN", "Merger"]

log = logging.getLogger(__name__)

FAN_IN: Final = 16
STEP_ROWS: Final = 32_768
MAX_MERGED: Final = 64  # chunks of one device at once

Key = tuple[int, int, int]  # device, shape, level

_SMALL: Final = (
    f"SELECT id, first, last, rows FROM chunk WHERE device = ? AND shape = ? AND level = ? AND level < {FINAL}"
    " ORDER BY low, id LIMIT ?"
)


class Merger:
    """Knows which chunks wait for others; lives in the writer's thread.  Methods raise ``apsw.Error``."""

    def __init__(self, connection: apsw.Connection, catalogue: Catalogue, span: int, counts: Counts) -> None:
        """``span``: the longest time of a merged chunk, nanoseconds (0: any)."""
        self._connection = connection
        self._catalogue = catalogue
        self._span = span
        self._counts = counts
        self._small: defaultdict[Key, int] = defaultdict(int)
        self._ready: set[Key] = set()
        self._flushes: defaultdict[int, set[int]] = defaultdict(set)  # by shape, those that left shared chunks
        self._sorting: dict[int, int] = {}  # by shape, the last flush of those being sorted out
        small = f"SELECT device, shape, level, count(*) FROM chunk WHERE level < {FINAL} GROUP BY device, shape, level"
        for *key, count in whole(fetch(connection, small)):
            self.count((key[0], key[1], key[2]), count)
        for shape, flush in whole(fetch(connection, "SELECT DISTINCT shape, flush FROM shared")):
            self.shared(shape, flush)

    @property
    def ready(self) -> bool:
        """Whether there is something to do."""
        return bool(self._ready or self._sorting)

    def count(self, key: Key, change: int) -> None:
        """There are so many more chunks of this device, shape and level."""
        if key[2] >= FINAL:
            return
        count = self._small[key] + change
        if count > 0:
            self._small[key] = count
        else:
            self._small.pop(key, None)
        if count >= FAN_IN:
            self._ready.add(key)
        else:
            self._ready.discard(key)

    def shared(self, shape: int, flush: int) -> None:
        """This flush has left shared chunks of this shape."""
        flushes = self._flushes[shape]
        flushes.add(flush)
        if len(flushes) >= FAN_IN and shape not in self._sorting:
            self._sorting[shape] = heapq.nsmallest(FAN_IN, flushes)[-1]

    @property
    def sorting(self) -> bool:
        """Whether shared chunks are being sorted out."""
        return bool(self._sorting)

    def sort_old(self, before: int) -> None:
        """Put shared rows, up to those of the last chunk whose every row is too old, into chunks of each device."""
        old = "SELECT shape, max(flush) FROM shared WHERE kept < ? GROUP BY shape"
        for shape, flush in whole(fetch(self._connection, old, (before,))):
            self._sorting[shape] = max(flush, self._sorting.get(shape, flush))

    def step(self) -> bool:
        """Do some of what there is to do; False if there is nothing."""
        if self._sorting:
            self._sort_out(min(self._sorting))
            return True
        if self._ready:
            self._merge()
            return True
        return False

    def _sort_out(self, shape: int) -> None:
        """Put the shared rows of some devices into chunks of their own."""
        until = self._sorting[shape]
        connection, added = self._connection, set[Key]()
        with connection:
            found: list[tuple[int, int, int]] = whole(
                fetch(
                    connection,
                    "SELECT id, from_device, to_device FROM shared WHERE shape = ? AND flush <= ? ORDER BY flush, id",
                    (shape, until),
                )
            )
            # All that hold the first device come to their end, the others are begun.
            first = min((start for _, start, _ in found), default=0)
            last = max((stop for _, start, stop in found if start == first), default=0)
            taken = [chunk for chunk in found if chunk[1] <= last]
            devices: defaultdict[int, list[Frame]] = defaultdict(list)
            breath = Breath()
            # A device without a name any more had nothing but rows that are too old.
            known = set(self._catalogue.devices.values())
            for number, start, stop in taken:
                for device, frame in self._split(number, known.intersection(range(start, min(stop, last) + 1))):
                    devices[device].append(frame)
                breath.take()
                if stop <= last:
                    connection.execute("DELETE FROM shared WHERE id = ?", (number,))
                else:
                    connection.execute("UPDATE shared SET from_device = ? WHERE id = ?", (last + 1, number))
            for device, frames in sorted(devices.items()):
                for piece in pieces(concatenate(frames), MAX_ROWS):
                    add_chunk(connection, device, shape, 0, sort_rows(piece))
                    if len(piece) < MAX_ROWS // 2:
                        added.add((device, shape, 0))
                breath.take()
        for key in added:
            self.count(key, 1)
        self._counts.merged += len(taken)
        if len(taken) == len(found) and all(stop <= last for _, _, stop in taken):
            del self._sorting[shape]
            flushes = self._flushes.pop(shape, set())
            for flush in flushes:
                if flush > until:
                    self.shared(shape, flush)

    def _split(self, number: int, wanted: set[int]) -> list[tuple[int, Frame]]:
        """The frames of these devices in a shared chunk."""
        try:
            frame, devices, starts = decode_shared(read_shared(self._connection, number), received=True)
        except DamagedChunk as error:
            self._damaged("shared", number, error)
            return []
        return [
            (device, cut_frame(frame, begin, end))
            for device, begin, end in zip(devices, starts, starts[1:], strict=False)
            if device in wanted
        ]

    def _damaged(self, table: str, number: int, error: DamagedChunk) -> None:
        log.warning("history: %s chunk %d cannot be read and is left out: %s", table, number, error)
        self._counts.damaged += 1

    def _merge(self) -> None:
        """Merge small neighbours, of some devices next to each other."""
        changes: list[tuple[Key, int]] = []
        rows = merged = 0
        breath = Breath()
        with self._connection:
            for key in heapq.nsmallest(256, self._ready):
                done, count = self._merge_one(key, changes)
                rows += done
                merged += count
                breath.take()
                if rows >= STEP_ROWS:
                    break
        for key, change in changes:
            self.count(key, change)
        self._counts.merged += merged

    def _merge_one(self, key: Key, changes: list[tuple[Key, int]]) -> tuple[int, int]:
        """Merge neighbours of one device, shape and level; returns how many rows and chunks."""
        connection = self._connection
        device, shape, level = key
        found: list[tuple[int, int, int, int]] = whole(fetch(connection, _SMALL, (*key, MAX_MERGED)))
        if not found:
            changes.append((key, -self._small[key]))
            return 0, 0
        group: list[int] = []
        rows, first, last = 0, found[0][1], found[0][2]
        for number, begin, end, more in found:
            begin, end = min(first, begin), max(last, end)
            if group and (rows + more > MAX_ROWS or (self._span and end - begin > self._span)):
                break
            group.append(number)
            rows, first, last = rows + more, begin, end
        # What has no room for its next neighbour is done, and so is what is nearly as long as it may be.
        full = len(group) < len(found) or (self._span and last - first > self._span // 2)
        above = FINAL if full or rows >= MAX_ROWS // 2 else level + 1
        changes.append((key, -len(group)))
        if len(group) == 1:
            connection.execute("UPDATE chunk SET level = ? WHERE id = ?", (above, group[0]))
        else:
            frames = []
            for number in group:
                try:
                    frames.append(decode(read_chunk(connection, number, device), received=True, orders=True))
                except DamagedChunk as error:
                    self._damaged("own", number, error)
            connection.executemany("DELETE FROM chunk WHERE id = ?", [(number,) for number in group])
            if not frames:
                return rows, len(group)
            add_chunk(connection, device, shape, above, sort_rows(concatenate(frames)))
        changes.append(((device, shape, above), 1))
        return rows, len(group)

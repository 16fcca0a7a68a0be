"""The writing side of the history's file: chunks in, small chunks into big ones, old chunks out.

Everything here runs in one thread, the only one that writes to the file.  A step of background work (``merge``,
``expire``, ``shrink``) is bounded: one group of chunks, some devices, some pages.

Chunks come small, one a device and shape and flush, since they must not wait in memory.  Where ``FAN_IN`` neighbours
of one level are there, they become one of the next level, until it has half of ``MAX_ROWS`` rows or spans a thirtieth
of the retention: so a row is written a few times in its life, and a chunk goes at once when its time has come.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec

from gateway.history.breath import Breath
from gateway.history.catalogue import Catalogue
from gateway.history.codec import DamagedChunk, decode, encode
from gateway.history.column import values
from gateway.history.frame import Frame, concatenate, pieces, sort_rows
from gateway.history.memtable import Memtable, Shape
from gateway.history.regroup import regroup
from gateway.history.schema import FINAL, connect, create, fetch

__all__ = ["FAN_IN", "MAX_ROWS", "Store"]

MAX_ROWS: Final = 4096
FAN_IN: Final = 16
MAX_MERGED: Final = 64  # chunks in one step

_pack = msgspec.msgpack.Encoder().encode
_unpack_shape = msgspec.msgpack.Decoder(tuple[str, ...]).decode

_Key = tuple[int, int, int]  # device, shape, level


class Store:
    """Owner of the writing connection.  All methods raise ``apsw.Error``; use it in one thread only."""

    def __init__(self, path: Path, *, epoch: str, span: int) -> None:
        """Open or make the file.  ``span``: the longest time of a merged chunk, nanoseconds (0: any).

        ``epoch`` names the journal; if it is another one than before, ``position`` is 0 again.
        """
        self._connection = connection = connect(path, readonly=False, cache_kib=2048)
        self._span = span
        self._statements()
        try:
            create(connection)
            self.position, known, self.shift = connection.execute("SELECT position, epoch, shift FROM state").get
            if epoch and epoch != known:
                if known:
                    self.position, self.shift = 0, self.shift + self.position
                with connection:
                    connection.execute(
                        "UPDATE state SET position = ?, epoch = ?, shift = ?", (self.position, epoch, self.shift)
                    )
            self.catalogue = Catalogue()
            self._load()
            # How many chunks of each level; what may be merged is in ``_ready``.
            self._small: defaultdict[_Key, int] = defaultdict(int)
            for *key, count in connection.execute(
                f"SELECT device, shape, level, count(*) FROM chunk WHERE level < {FINAL} GROUP BY device, shape, level"
            ):
                self._small[key[0], key[1], key[2]] = count
            self._ready = {key for key, count in self._small.items() if count >= FAN_IN}
        except BaseException:
            connection.close()
            raise
        self.chunks = self.rows = self.values = self.bytes = self.merged = self.expired = self.damaged = self.size = 0
        self._measure()

    def _statements(self) -> None:
        self._insert = (
            "INSERT INTO chunk (device, shape, level, first, last, low, high, rows, body) VALUES (?,?,?,?,?,?,?,?,?)"
        )
        self._newest = (
            "INSERT INTO latest VALUES (?,?,?,?,?,?) ON CONFLICT (device, shape) DO UPDATE SET time = excluded.time,"
            " position = excluded.position, received = excluded.received, row = excluded.row"
            " WHERE (excluded.time, excluded.position) >= (latest.time, latest.position)"
        )

    def _load(self) -> None:
        rows = fetch(self._connection, "SELECT metrics, id FROM shape")
        shapes = {_unpack_shape(metrics): number for metrics, number in rows}
        self.catalogue.devices = dict(fetch(self._connection, "SELECT name, id FROM device"))
        self.catalogue.shapes = shapes
        self.catalogue.shape_of = {number: shape for shape, number in shapes.items()}

    def close(self) -> None:
        """Close the connection (which also takes the write-ahead log into the file)."""
        self._connection.close()

    def _measure(self) -> None:
        self.size = self._connection.pragma("page_count") * self._connection.pragma("page_size")

    def _device(self, name: str) -> int:
        devices = self.catalogue.devices
        if name not in devices:
            self._connection.execute("INSERT INTO device (name) VALUES (?)", (name,))
            devices[name] = self._connection.last_insert_rowid()
        return devices[name]

    def _shape(self, shape: Shape) -> int:
        shapes = self.catalogue.shapes
        if shape not in shapes:
            self._connection.execute("INSERT INTO shape (metrics) VALUES (?)", (_pack(shape),))
            number = self._connection.last_insert_rowid()
            self.catalogue.shape_of[number] = shape
            shapes[shape] = number
        return shapes[shape]

    def flush(self, memtable: Memtable, position: int) -> None:
        """Put all of ``memtable`` into chunks, and ``position`` with them: both or neither."""
        counts: defaultdict[_Key, int] = defaultdict(int)
        rows = wide = size = chunks = 0
        breath = Breath()
        connection = self._connection
        try:
            with connection:
                for name, frames in regroup(memtable.blocks(), memtable.base):
                    device = self._device(name)
                    for shape, frame in frames.items():
                        number = self._shape(shape)
                        for piece in pieces(frame, MAX_ROWS):
                            chunk = sort_rows(piece)
                            body = encode(chunk)
                            level = 0 if len(chunk) < MAX_ROWS // 2 else FINAL
                            self._add(device, number, level, chunk, body)
                            counts[device, number, level] += 1
                            connection.execute(self._newest, (device, number, *_newest(chunk)))
                            rows += len(chunk)
                            wide += len(chunk) * len(shape)
                            size += len(body)
                            chunks += 1
                        breath.take()
                connection.execute("UPDATE state SET position = ?", (position,))
        except BaseException:
            # The numbers given in the transaction are not in the file.
            self._load()
            raise
        self.position = position
        self._measure()
        self.chunks += chunks
        self.rows += rows
        self.values += wide
        self.bytes += size
        for key, count in counts.items():
            if key[2] != FINAL:
                self._count(key, count)

    def _add(self, device: int, shape: int, level: int, frame: Frame, body: bytes) -> None:
        self._connection.execute(
            self._insert,
            (device, shape, level, frame.times[0], frame.times[-1], frame.low, frame.high, len(frame), body),
        )

    def _count(self, key: _Key, change: int) -> None:
        count = self._small[key] + change
        if count > 0:
            self._small[key] = count
        else:
            self._small.pop(key, None)
        if count >= FAN_IN:
            self._ready.add(key)
        else:
            self._ready.discard(key)

    @property
    def ready(self) -> int:
        """How many groups of small chunks can be merged."""
        return len(self._ready)

    def merge(self) -> bool:
        """Merge one group of small neighbours; False if there is none."""
        if not self._ready:
            return False
        key = device, shape, level = next(iter(self._ready))
        connection = self._connection
        changes: list[tuple[_Key, int]] = []
        with connection:
            found: list[tuple[int, int, int, int, bytes]] = fetch(
                connection,
                f"SELECT id, first, last, rows, body FROM chunk WHERE level < {FINAL}"
                " AND device = ? AND shape = ? AND level = ? ORDER BY low, id LIMIT ?",
                (device, shape, level, MAX_MERGED),
            )
            group: list[tuple[int, int, int, int, bytes]] = []
            rows, first, last = 0, found[0][1] if found else 0, 0
            for chunk in found:
                begin, end = min(first, chunk[1]), max(last, chunk[2])
                too_long = self._span and end - begin > self._span
                if group and (rows + chunk[3] > MAX_ROWS or too_long):
                    break
                group.append(chunk)
                rows, first, last = rows + chunk[3], begin, end
            full = rows >= MAX_ROWS // 2 or (self._span and last - first > self._span // 2) or len(group) < len(found)
            above = FINAL if full or level + 1 >= FINAL else level + 1
            if len(group) > 1:
                frames = []
                for number, _, _, _, body in group:
                    try:
                        frames.append(decode(body, received=True, orders=True))
                    except DamagedChunk:
                        self.damaged += 1
                    connection.execute("DELETE FROM chunk WHERE id = ?", (number,))
                if frames:
                    merged = sort_rows(concatenate(frames))
                    self._add(device, shape, above, merged, encode(merged))
                    if above != FINAL:
                        changes.append(((device, shape, above), 1))
            elif group:
                connection.execute("UPDATE chunk SET level = ? WHERE id = ?", (FINAL, group[0][0]))
            changes.append((key, -len(group) if found else -self._small[key]))
        for changed, count in changes:
            self._count(changed, count)
        self.merged += len(group)
        return True

    def expire(self, before: int, after: int, devices: int = 256) -> int | None:
        """Delete the chunks whose every row is older than ``before``, of some devices with numbers above ``after``.

        Returns the last number looked at, or None when there are no more.
        """
        connection = self._connection
        numbers = sorted(number for number in self.catalogue.devices.values() if number > after)[:devices]
        if not numbers:
            return None
        gone: defaultdict[_Key, int] = defaultdict(int)
        with connection:
            for number in numbers:
                for shape, level in connection.execute(
                    "DELETE FROM chunk WHERE device = ? AND last < ? RETURNING shape, level", (number, before)
                ):
                    gone[number, shape, level] += 1
                    self.expired += 1
                connection.execute("DELETE FROM latest WHERE device = ? AND time < ?", (number, before))
        for key, count in gone.items():
            if key[2] != FINAL:
                self._count(key, -count)
        return numbers[-1]

    def forget(self) -> None:
        """Delete the names of devices and shapes that have nothing left."""
        connection = self._connection
        with connection:
            for table, column in (("device", "device"), ("shape", "shape")):
                connection.execute(
                    f"DELETE FROM {table} WHERE id NOT IN (SELECT {column} FROM chunk)"
                    f" AND id NOT IN (SELECT {column} FROM latest)"
                )
        self._load()

    def shrink(self, pages: int = 512) -> bool:
        """Give free pages back to the file system, if a quarter of the file and 1 MiB is free; False if not."""
        free: int = self._connection.pragma("freelist_count")
        total: int = self._connection.pragma("page_count")
        if free < 256 or free * 4 < total:
            return False
        self._connection.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
        self._measure()
        return True


def _newest(chunk: Frame) -> tuple[int, int, int, bytes]:
    """Time, order, time of receipt and values of the last row."""
    order = chunk.orders if isinstance(chunk.orders, int) else chunk.orders[-1]
    row = _pack([values(column, len(chunk) - 1)[0] for column in chunk.columns])
    return chunk.times[-1], order, chunk.received[-1], row

"""The writing side of the history's file: rows in, old rows out.

Everything here runs in one thread, the only one that writes to the file.  A step of background work (``merger``,
``expire``, ``shrink``) is bounded: some thousand rows, some devices, some pages.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec

from gateway.history.breath import Breath
from gateway.history.catalogue import Catalogue
from gateway.history.chunks import ALONE, MAX_ROWS, Counts, Sharing, add_chunk
from gateway.history.column import values
from gateway.history.frame import Frame, pieces, sort_rows
from gateway.history.memtable import Memtable, Shape
from gateway.history.merge import Key, Merger
from gateway.history.regroup import regroup
from gateway.history.schema import connect, create, fetch

__all__ = ["Store"]

_pack = msgspec.msgpack.Encoder().encode
_unpack_shape = msgspec.msgpack.Decoder(tuple[str, ...]).decode

_NEWEST: Final = (
    "INSERT INTO latest VALUES (?,?,?,?,?,?) ON CONFLICT (device, shape) DO UPDATE SET time = excluded.time,"
    " position = excluded.position, received = excluded.received, row = excluded.row"
    " WHERE (excluded.time, excluded.position) >= (latest.time, latest.position)"
)
_EXPIRE: Final = (
    "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE device = ? AND last < ? AND kept < ? LIMIT ?)"
    " RETURNING shape, level"
)
_FORGET: Final = (
    "DELETE FROM device WHERE id NOT IN (SELECT device FROM chunk) AND id NOT IN (SELECT device FROM latest)",
    "DELETE FROM shape WHERE id NOT IN (SELECT shape FROM chunk) AND id NOT IN (SELECT shape FROM latest)"
    " AND id NOT IN (SELECT shape FROM shared)",
)


class Store:
    """Owner of the writing connection.  All methods raise ``apsw.Error``; use it in one thread only."""

    def __init__(self, path: Path, *, epoch: str, span: int) -> None:
        """Open or make the file.  ``span``: the longest time of a merged chunk, nanoseconds (0: any).

        ``epoch`` names the journal; if it is another one than before, ``position`` is 0 again.
        """
        self._connection = connection = connect(path, readonly=False, cache_kib=2048)
        try:
            create(connection)
            self.position, known, self.shift = fetch(connection, "SELECT position, epoch, shift FROM state")[0]
            if epoch and epoch != known:
                if known:
                    self.position, self.shift = 0, self.shift + self.position
                with connection:
                    connection.execute(
                        "UPDATE state SET position = ?, epoch = ?, shift = ?", (self.position, epoch, self.shift)
                    )
            self.catalogue = Catalogue()
            self._load()
            self.counts = Counts()
            self.merger = Merger(connection, self.catalogue, span, self.counts)
            self._measure()
        except BaseException:
            connection.close()
            raise

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
        connection, counts = self._connection, Counts()
        sharing = Sharing(connection, memtable.base, counts)
        added: defaultdict[Key, int] = defaultdict(int)
        breath = Breath()
        try:
            with connection:
                for device, frames in regroup(memtable.blocks(), memtable.base, self._device):
                    for shape, frame in frames.items():
                        number = self._shape(shape)
                        for piece in pieces(frame, MAX_ROWS):
                            chunk = sort_rows(piece)
                            if len(frame) < ALONE:
                                sharing.add(device, number, chunk)
                            else:
                                counts.bytes += add_chunk(connection, device, number, 0, chunk)
                                counts.chunks += 1
                                if len(chunk) < MAX_ROWS // 2:
                                    added[device, number, 0] += 1
                            connection.execute(_NEWEST, (device, number, *_newest(chunk)))
                        counts.rows += len(frame)
                        counts.values += len(frame) * len(shape)
                    breath.take()
                sharing.finish()
                connection.execute("UPDATE state SET position = ?", (position,))
        except BaseException:
            # The numbers given in the transaction are not in the file.
            self._load()
            raise
        self.position = position
        self._measure()
        self.counts.chunks += counts.chunks
        self.counts.rows += counts.rows
        self.counts.values += counts.values
        self.counts.bytes += counts.bytes
        for key, count in added.items():
            self.merger.count(key, count)
        for number in sharing.shapes:
            self.merger.shared(number, memtable.base)

    def expire(self, before: int, after: int, devices: int = 256, chunks: int = 256) -> int | None:
        """Delete chunks whose rows all are, and were received, before ``before``, of devices numbered above ``after``.

        At most so many ``devices`` are looked at, and so many ``chunks`` deleted.  Returns the last number that is done
        with, or None when all are.
        """
        connection = self._connection
        numbers = sorted(number for number in self.catalogue.devices.values() if number > after)[:devices]
        gone: defaultdict[Key, int] = defaultdict(int)
        with connection:
            for number in numbers:
                room = chunks - sum(gone.values())
                for shape, level in fetch(connection, _EXPIRE, (number, before, before, room)):
                    gone[number, shape, level] += 1
                if sum(gone.values()) == chunks:
                    # There may be more of this one.
                    after = number - 1
                    break
                connection.execute("DELETE FROM latest WHERE device = ? AND max(time, received) < ?", (number, before))
                after = number
            shared = 0
            if not numbers:
                connection.execute("DELETE FROM shared WHERE kept < ?", (before,))
                shared = connection.changes()
        for key, count in gone.items():
            self.merger.count(key, -count)
        if shared:
            self.merger.shared_gone()
        self.counts.expired += sum(gone.values()) + shared
        return after if numbers else None

    def forget(self) -> None:
        """Delete the names of devices and shapes that have nothing left."""
        connection = self._connection
        with connection:
            for statement in _FORGET:
                connection.execute(statement)
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

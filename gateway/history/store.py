"""The writing side of the history's file: rows in, old rows out.

Everything here runs in one thread, the only one that writes to the file.  A step of background work (``merger``,
``expire``, ``shrink``) is bounded: some thousand rows, some devices, some pages.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from gateway.history.breath import Breath
from gateway.history.catalogue import Catalogue
from gateway.history.chunks import ALONE, MAX_ROWS, Counts, Sharing, add_chunk
from gateway.history.column import values
from gateway.history.frame import Frame, pieces, sort_rows
from gateway.history.levels import whole_hours
from gateway.history.memtable import Memtable, Shape
from gateway.history.merge import Key, Merger
from gateway.history.regroup import regroup
from gateway.history.roller import Roller
from gateway.history.salvage import COLUMNS, Salvage
from gateway.history.schema import PLACES, ROLLED, DamagedFile, connect, create, fetch, whole
from gateway.history.seal import checksum, seal

__all__ = ["Store"]

log = logging.getLogger(__name__)

NUMBERS_JUMP: Final = 1 << 32
GIVE_UP: Final = (apsw.CorruptError, apsw.NotADBError, apsw.IOError)  # of a damaged file nothing more can be read

_pack = msgspec.msgpack.Encoder().encode
_unpack_shape = msgspec.msgpack.Decoder(tuple[str, ...]).decode

_NEWEST: Final = (
    "INSERT INTO latest VALUES (?,?,?,?,?,?) ON CONFLICT (device, shape) DO UPDATE SET time = excluded.time,"
    " position = excluded.position, received = excluded.received, row = excluded.row"
    " WHERE (excluded.time, excluded.position) >= (latest.time, latest.position)"
)
_NAMELESS: Final = (
    "SELECT lone.id, min(shape), max(kept) FROM (SELECT id FROM device WHERE NOT EXISTS"
    " (SELECT 1 FROM latest WHERE latest.device = device.id)) AS lone"
    " JOIN shared ON lone.id BETWEEN from_device AND to_device GROUP BY 1"
)
_EXPIRE: Final = (
    "DELETE FROM chunk WHERE id IN"
    f" (SELECT id FROM chunk WHERE device = ? AND last < ? AND kept < ? AND level = {ROLLED} LIMIT ?)"
)
_EXPIRE_ROLLUPS: Final = (
    "DELETE FROM rollup WHERE id IN (SELECT id FROM rollup WHERE device = ? AND level = ? AND last < ? AND kept < ?"
    " LIMIT ?)"
)
# Where a device has rows in shared chunks still, it keeps its name by its newest row.
_EXPIRE_NEWEST: Final = (
    "DELETE FROM latest WHERE device = ? AND max(time, received) < ?"
    " AND NOT EXISTS (SELECT 1 FROM shared WHERE ? BETWEEN from_device AND to_device)"
)
_GONE: Final = "INSERT OR REPLACE INTO gone VALUES (?,?,?)"
_FORGET: Final = (
    "DELETE FROM device WHERE id NOT IN (SELECT device FROM chunk) AND id NOT IN (SELECT device FROM latest)"
    " AND id NOT IN (SELECT device FROM rollup)",
    "DELETE FROM shape WHERE id NOT IN (SELECT shape FROM chunk) AND id NOT IN (SELECT shape FROM latest)"
    " AND id NOT IN (SELECT shape FROM shared) AND id NOT IN (SELECT shape FROM rollup)",
)


class Store:
    """Owner of the writing connection.  All methods raise ``apsw.Error``; use it in one thread only."""

    def __init__(self, path: Path, *, epoch: str, span: int) -> None:
        """Open or make the file.  ``span``: the longest time of a merged chunk, nanoseconds (0: any).

        ``epoch`` names the journal; if it is another one than before, ``position`` is 0 again.
        """
        self._connection = connection = connect(path, readonly=False, cache_kib=2048)
        try:
            create(connection, path)
            self._path = path
            self._identity = os.stat(path)
            self.position, self.epoch, self.shift = self._find_place()
            self.had_another_journal = bool(epoch and self.epoch and epoch != self.epoch)
            if epoch and epoch != self.epoch:
                if self.epoch:
                    self.position, self.shift = 0, self.shift + self.position
                with connection:
                    self.place(self.position, epoch, self.shift)
            self.catalogue = Catalogue()
            self._load()
            self._source: Salvage | None = None
            self.closed = False
            self.salvaging = bool(self.sources())
            self.counts = Counts()
            self.merger = Merger(connection, self.catalogue, span, self.counts)
            self.roller = Roller(connection, self.counts)
            if not self.salvaging:
                self._keep_names()
            self._measure()
        except BaseException:
            connection.close()
            raise

    def _keep_names(self) -> None:
        """Give devices that have no newest row, since it was damaged, one without values, while they share chunks.

        A device without chunks of its own keeps its name by its newest row.
        """
        found = whole(fetch(self._connection, _NAMELESS))
        if found:
            rows = [(device, shape, -(1 << 62), 0, kept) for device, shape, kept in found]
            with self._connection:
                self._connection.executemany(_NEWEST, [(*row, seal(row, _pack([]))) for row in rows])

    def _load(self) -> None:
        connection = self._connection
        devices = fetch(connection, "SELECT id, CAST(name AS BLOB), crc FROM device")
        rows = fetch(connection, "SELECT id, metrics, crc FROM shape")
        for number, content, crc in (*devices, *rows):
            if crc != checksum((number,), content):
                raise DamagedFile("a name in it is not what was written")
        shapes = {_unpack_shape(metrics): number for number, metrics, _ in rows}
        self.catalogue.devices = {name.decode(): number for number, name, _ in devices}
        self.catalogue.shapes = shapes
        self.catalogue.shape_of = {number: shape for shape, number in shapes.items()}

    def _find_place(self) -> tuple[int, str, int]:
        for table in PLACES:
            statement = f"SELECT position, CAST(epoch AS BLOB), shift, crc FROM {table}"
            for position, epoch, shift, crc in fetch(self._connection, statement):
                if crc == checksum((position, shift), epoch):
                    return position, epoch.decode(), shift
        raise DamagedFile("its place in the journal cannot be made out")

    def place(self, position: int, epoch: str, shift: int) -> None:
        """Say in the file, in a transaction that is open, up to where it holds everything."""
        crc = checksum((position, shift), epoch.encode())
        for table in PLACES:
            self._connection.execute(
                f"UPDATE {table} SET position = ?, epoch = ?, shift = ?, crc = ?", (position, epoch, shift, crc)
            )
        self.position, self.epoch, self.shift = position, epoch, shift

    def stand(self, position: int, epoch: str, shift: int) -> None:
        """As :meth:`place`, in a transaction of its own."""
        with self._connection:
            self.place(position, epoch, shift)

    def is_in_place(self) -> bool:
        """Whether the file's name still leads to it."""
        try:
            return os.path.samestat(os.stat(self._path), self._identity)
        except FileNotFoundError:
            return False

    def copy_to(self, path: Path) -> None:
        """Copy all to a new file, also of one that has no name any more."""
        other = apsw.Connection(str(path))
        try:
            with other.backup("main", self._connection, "main") as backup:
                backup.step(-1)
        finally:
            other.close()

    def close(self) -> None:
        """Close the connection (which also takes the write-ahead log into the file)."""
        self.closed = True
        if self._source is not None:
            self._source.close()
        self._connection.close()

    def _measure(self) -> None:
        self.size = self._connection.pragma("page_count") * self._connection.pragma("page_size")

    def _device(self, name: str) -> int:
        devices = self.catalogue.devices
        if name not in devices:
            devices[name] = self._insert("device", "name", name, name.encode())
        return devices[name]

    def _shape(self, shape: Shape) -> int:
        shapes = self.catalogue.shapes
        if shape not in shapes:
            number = self._insert("shape", "metrics", metrics := _pack(shape), metrics)
            self.catalogue.shape_of[number] = shape
            shapes[shape] = number
        return shapes[shape]

    def _insert(self, table: str, column: str, value: str | bytes, content: bytes) -> int:
        connection = self._connection
        connection.execute(f"INSERT INTO {table} ({column}, crc) VALUES (?, 0)", (value,))
        number = connection.last_insert_rowid()
        connection.execute(f"UPDATE {table} SET crc = ? WHERE id = ?", (checksum((number,), content), number))
        return number

    def flush(self, memtable: Memtable, position: int) -> None:
        """Put all of ``memtable`` into chunks, and ``position`` with them: both or neither.

        Raises :class:`DamagedFile` where the file is not where it was.
        """
        if not self.is_in_place():
            raise DamagedFile("it was removed or replaced while it was in use")
        connection, counts, before = self._connection, Counts(), self.position
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
                            connection.execute(_NEWEST, _newest(device, number, chunk))
                        counts.rows += len(frame)
                        counts.values += len(frame) * len(shape)
                    breath.take()
                sharing.finish()
                self.place(position, self.epoch, self.shift)
        except BaseException:
            # The numbers given in the transaction are not in the file.
            self.position = before
            self._load()
            raise
        self._measure()
        self.counts.chunks += counts.chunks
        self.counts.rows += counts.rows
        self.counts.values += counts.values
        self.counts.bytes += counts.bytes
        for key, count in added.items():
            self.merger.count(key, count)
        for number in sharing.shapes:
            self.merger.shared(number, memtable.base)
        self.roller.ready = True

    def oldest(self, level: int) -> int | None:
        """The least time by which the retention of a level goes; ``None`` where there is nothing."""
        statement = "SELECT min(kept) FROM (SELECT min(kept) AS kept FROM chunk UNION ALL SELECT min(kept) FROM shared)"
        if level:
            statement = f"SELECT min(kept) FROM rollup WHERE level = {int(level)}"
        rows = fetch(self._connection, statement)
        return rows[0][0] if type(rows[0][0]) is int else None

    def expire(
        self, before: Sequence[int], after: int, devices: int = 256, chunks: int = 256, below: int = 1 << 62
    ) -> int | None:
        """Delete what is, and was received, before the time that ``before`` has for its level, of devices numbered
        above ``after``; chunks, which are level 0, once they are in rollups, where those get to now whose orders are
        all less than ``below``.

        At most so many ``devices`` are looked at, and so many ``chunks`` deleted.  Returns the last number that is done
        with, or None when all are.
        """
        connection = self._connection
        numbers = sorted(number for number in self.catalogue.devices.values() if number > after)[:devices]
        fewer: list[tuple[Key, int]] = []
        deleted = 0
        with connection:
            for number in numbers:
                changes, more = self.roller.roll_old(number, before[0], below)
                fewer += changes
                gone = [0] * len(before)
                connection.execute(_EXPIRE, (number, before[0], before[0], chunks - deleted))
                gone[0] = connection.changes()
                for level in range(1, len(before)):
                    room = chunks - deleted - sum(gone)
                    connection.execute(_EXPIRE_ROLLUPS, (number, level, before[level], before[level], room))
                    gone[level] = connection.changes()
                deleted += sum(gone)
                for level, count in enumerate(gone):
                    if count:
                        self._note_gone(level, before[level])
                if more or deleted == chunks:
                    # There may be more of this one.
                    after = number - 1
                    break
                connection.execute(_EXPIRE_NEWEST, (number, before[0], number))
                after = number
        for key, count in fewer:
            self.merger.count(key, count)
        self.counts.expired += deleted
        return after if numbers else None

    def _note_gone(self, level: int, before: int) -> None:
        """Some of what is before that time has gone."""
        before = whole_hours(before)
        known = dict(fetch(self._connection, "SELECT level, before FROM gone"))
        if known.get(level, before - 1) < before:
            self._connection.execute(_GONE, (level, before, checksum((level, before), b"")))

    def forget(self) -> None:
        """Delete the names of devices and shapes that have nothing left."""
        connection = self._connection
        with connection:
            for statement in _FORGET:
                connection.execute(statement)
        self._load()

    @property
    def busy(self) -> bool:
        """Whether there is background work."""
        return self.salvaging or self.merger.ready or self.roller.ready

    def begin_salvage(self, source: Salvage, name: str) -> None:
        """Take over what is small from a damaged file, and note that its chunks are to come; it will be ``name``.

        So are those that it was itself to take over from another.
        """
        connection = self._connection
        with connection:
            for table, column, found in (("device", "name", source.names()), ("shape", "metrics", source.shapes())):
                for number, content in found:
                    value: str | bytes = content
                    if table == "device":
                        value = content.decode(errors="replace")
                    connection.execute(
                        f"INSERT OR IGNORE INTO {table} (id, {column}, crc) VALUES (?,?,?)",
                        (number, value, checksum((number,), content)),
                    )
                # A number that is missing here may be on chunks: it must not become another's.
                connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
                connection.execute(
                    f"INSERT INTO sqlite_sequence SELECT ?, coalesce(max(id), 0) + ? FROM {table}",
                    (table, NUMBERS_JUMP),
                )
            connection.executemany("INSERT OR IGNORE INTO latest VALUES (?,?,?,?,?,?)", source.latest())
            connection.execute(
                "DELETE FROM latest WHERE device NOT IN (SELECT id FROM device) OR shape NOT IN (SELECT id FROM shape)"
            )
            rest = [(name, *map(source.last, COLUMNS)), *source.rest(name)]
            connection.executemany("INSERT INTO salvage (name, chunk, shared, rollup) VALUES (?,?,?,?)", rest)
            for level, before in source.gone():
                self._note_gone(level, before)
            if (place := source.place()) is not None:
                self.place(*place)
        self._load()

    def sources(self) -> list[str]:
        """The names of the damaged files from which chunks are still to be taken over."""
        return [name for (name,) in fetch(self._connection, "SELECT name FROM salvage ORDER BY id")]

    def salvage_step(self) -> None:
        """Take over some chunks from a damaged file."""
        connection = self._connection
        number, name, *below = fetch(connection, f"SELECT id, name, {', '.join(COLUMNS)} FROM salvage ORDER BY id")[0]
        table, start = next((pair for pair in zip(COLUMNS, below, strict=True) if pair[1]), ("rollup", 0))
        rows: list[tuple[Any, ...]] = []
        lost = then = 0
        try:
            if self._source is None:
                self._source = Salvage(self._path.with_name(name))
            rows, lost, then = self._source.rows(table, start)
        except apsw.Error as error:
            if self._path.with_name(name).is_file() and not isinstance(error, GIVE_UP):
                raise  # it may go another time
            log.warning("no more can be read of %s: %s", name, error)
            lost, below = 1, [0, 0, 0]
        devices, shapes = set(self.catalogue.devices.values()), self.catalogue.shape_of
        marks = ",".join("?" * len(COLUMNS[table].split(",")))
        taken = [row for row in rows if row[table != "shared"] in shapes and (table == "shared" or row[0] in devices)]
        done = not then and not any(below[list(COLUMNS).index(table) + 1 :])
        with connection:
            connection.executemany(f"INSERT INTO {table} ({COLUMNS[table]}) VALUES ({marks})", taken)
            connection.execute(f"UPDATE salvage SET {table} = ? WHERE id = ?", (then, number))
            if done:
                connection.execute("DELETE FROM salvage WHERE id = ?", (number,))
        for row in taken:
            if table == "chunk":
                self.merger.count((row[0], row[1], row[2]), 1)
            elif table == "shared":
                self.merger.shared(row[0], row[1])
        self.counts.salvaged += len(taken)
        self.counts.left_out += lost + len(rows) - len(taken)
        if done:
            log.warning("chunks taken over in this run: %d, the last from %s", self.counts.salvaged, name)
            if self._source is not None:
                self._source.close()
                self._source = None
            self.salvaging = bool(self.sources())
            if not self.salvaging:
                self._keep_names()
                self.roller.ready = True
        self._measure()

    def shrink(self, pages: int = 512) -> bool:
        """Give free pages back to the file system, if a quarter of the file and 1 MiB is free; False if not."""
        free: int = self._connection.pragma("freelist_count")
        total: int = self._connection.pragma("page_count")
        if free < 256 or free * 4 < total:
            return False
        self._connection.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
        self._measure()
        return True


def _newest(device: int, shape: int, chunk: Frame) -> tuple[int, int, int, int, int, bytes]:
    """Device, shape, time, order, time of receipt and values of the last row."""
    order = chunk.orders if isinstance(chunk.orders, int) else chunk.orders[-1]
    row = _pack([values(column, len(chunk) - 1)[0] for column in chunk.columns])
    numbers = (device, shape, chunk.times[-1], order, chunk.received[-1])
    return (*numbers, seal(numbers, row))

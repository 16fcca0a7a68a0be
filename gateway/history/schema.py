"""The history's file: SQLite, its tables and its version.

=========  ======================================================================================================
device     a name and its number; numbers are never used again; ``crc`` is the checksum of both (``seal``)
shape      metrics that come together, and their number; ``metrics`` is MessagePack, an array of names, sorted;
           ``crc`` as above
chunk      rows of one device and shape, packed (``codec``) and sealed (``seal``, over the columns ``device``, ``shape``
           and ``first`` to ``rows``).  ``first``, ``last``: least and greatest time.
           ``kept``: the greatest time, of a row or of its receipt; retention goes by it.
           ``low``, ``high``: least and greatest order of a row.  ``level``: how often it was merged; FINAL: no more;
           ROLLED: nor that, and its rows are in rollups (that it is so is sealed, too)
shared     rows of several devices and one shape, from one flush, whose number is ``flush``: of those devices from
           which few rows came.  Only the devices numbered ``from_device`` to ``to_device`` count, the rows of others
           have been put into chunks of their own since.  Sealed over ``shape``, ``flush`` and ``first`` to ``rows``
latest     the newest row of each device and shape, and its time of receipt; ``row`` is MessagePack, an array of values,
           sealed over the columns before it
rollup     buckets of one device and shape, packed (``rollup``) and sealed over the columns before ``body``.  ``level``:
           of a minute or of an hour each (``levels``).  ``first``, ``last``: the buckets' least and greatest time;
           those of one device, shape and level do not overlap.  ``kept``: that of the chunks whose rows are in it
gone       the time before which rows of a level may have been deleted, since they were too old; ``crc`` of both
state      two rows that say the same: ``position``, the journal's offset below which all is in chunks; ``epoch`` of
           that journal; ``shift``, what is added to an offset of that journal to make an order; ``crc`` of these
place      the same once more, in another page of the file
salvage    a row for each damaged file put aside from which chunks are still taken over: its name, and below which
           numbers of the tables chunks and rollups are still to be taken
=========  ======================================================================================================

Orders grow over the whole life of the file, also when the journal is another one than before: then ``shift`` grows.

``PRAGMA user_version`` is the version of this layout, and ``application_id`` says it once more: a file of a later
version is refused, never guessed at.  Layout 1 had no checksums, one row of state, no salvage; ``place`` is made where
it is missing, and ``state`` counts before it.  Layout 2 had no rollups: they are made in the background, as of all
chunks that are FINAL and no more than that.  Values and names are always bound, never part of a statement.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.aside import dated, forget
from gateway.errors import HistoryError
from gateway.history.seal import checksum

__all__ = [
    "FINAL",
    "PLACES",
    "ROLLED",
    "DamagedFile",
    "connect",
    "copy",
    "create",
    "fetch",
    "first_error",
    "translated",
    "whole",
]

VERSION: Final = 3
APPLICATION: Final = 0x67744830  # "gtH0", and the version is added
FINAL: Final = 9
ROLLED: Final = 0x70  # no single bit that flips makes another level of it, or it of another
PLACES: Final = ("state", "place")  # tables that say up to where all is in chunks, that which counts first first
COPIED_WHOLE: Final = 256 << 20  # bytes of a file that is copied whole before it is migrated

_TABLES: Final = """
CREATE TABLE device (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE shape (
    id INTEGER PRIMARY KEY AUTOINCREMENT, metrics BLOB NOT NULL UNIQUE, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL, shape INTEGER NOT NULL, level INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, kept INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
    rows INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX chunk_time ON chunk (device, last, first, shape, level);
CREATE INDEX chunk_kept ON chunk (kept);
CREATE TABLE shared (
    id INTEGER PRIMARY KEY,
    shape INTEGER NOT NULL, flush INTEGER NOT NULL, from_device INTEGER NOT NULL, to_device INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, kept INTEGER NOT NULL, high INTEGER NOT NULL,
    rows INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE latest (
    device INTEGER NOT NULL, shape INTEGER NOT NULL, time INTEGER NOT NULL, position INTEGER NOT NULL,
    received INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (device, shape)
) STRICT, WITHOUT ROWID;
"""

_ROLLUP: Final = f"""
CREATE TABLE rollup (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL, shape INTEGER NOT NULL, level INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, kept INTEGER NOT NULL, rows INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX rollup_time ON rollup (device, level, last, first, shape);
CREATE INDEX rollup_kept ON rollup (level, kept);
CREATE TABLE gone (level INTEGER PRIMARY KEY, before INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE INDEX chunk_unrolled ON chunk (device, shape, high) WHERE level = {FINAL};
"""

_STATE: Final = """
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id IN (1, 2)),
    position INTEGER NOT NULL, epoch TEXT NOT NULL, shift INTEGER NOT NULL, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE salvage (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, chunk INTEGER NOT NULL, shared INTEGER NOT NULL,
    rollup INTEGER NOT NULL DEFAULT 0
) STRICT;
"""

_PLACE: Final = """
CREATE TABLE IF NOT EXISTS place (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL, epoch TEXT NOT NULL, shift INTEGER NOT NULL, crc INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO place SELECT 1, position, epoch, shift, crc FROM state WHERE id = 1;
"""


class DamagedFile(Exception):
    """The file is there and is no history, or not any more."""


def first_error(error: BaseException) -> BaseException:
    """The error with which it began: where a transaction cannot be rolled back, say, that comes of another error."""
    while isinstance(error.__context__, apsw.Error | DamagedFile) and not error.__suppress_context__:
        error = error.__context__
    return error


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns SQLite's errors, and the system's, into :class:`HistoryError`, with a hint where there is one."""
    try:
        yield
    except (apsw.Error, DamagedFile, OSError) as last:
        error = first_error(last)
        hint = ""
        if isinstance(error, DamagedFile | apsw.NotADBError | apsw.CorruptError):
            hint = "it is made anew from what can be read of it"
        elif isinstance(error, apsw.FullError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            hint = "free space on the disk that holds the state directory"
        elif isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError | PermissionError):
            hint = "check that the state directory exists and can be written"
        elif isinstance(error, apsw.BusyError):
            hint = "another program has locked the history's file"
        raise HistoryError(f"{what}: {error}", hint=hint) from error


def connect(path: Path, *, readonly: bool, cache_kib: int = 1024) -> apsw.Connection:
    """A connection with our settings; raises ``apsw.Error``."""
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_timeout(5000)
        connection.pragma("cache_size", -cache_kib)
        connection.pragma("trusted_schema", False)
    except BaseException:
        connection.close()
        raise
    return connection


def fetch(connection: apsw.Connection, statement: str, bindings: tuple[object, ...] = ()) -> list[Any]:
    """All rows of a query, as tuples whose types the tables vouch for."""
    return connection.execute(statement, bindings).fetchall()


def whole(rows: list[Any]) -> list[Any]:
    """Those rows that are numbers only: in a damaged file there may be others."""
    return [row for row in rows if all(type(number) is int for number in row)]


def create(connection: apsw.Connection, path: Path) -> None:
    """Make the tables of an empty file, or bring one of an older version, once copied, to this one.

    Raises :class:`DamagedFile`, and :class:`HistoryError` for a later version.
    """
    version: int = connection.pragma("user_version")
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_schema").get:
            raise DamagedFile("it holds other tables")
        # Takes effect in a file without pages only.
        connection.pragma("auto_vacuum", "INCREMENTAL")
        _settle(connection)
        with connection:
            connection.execute(_TABLES)
            connection.execute(_ROLLUP)
            _begin_state(connection, 0, "", 0)
            _say_version(connection)
    elif connection.pragma("application_id") != APPLICATION + version:
        raise DamagedFile("its header is not a history's")
    elif version > VERSION:
        raise HistoryError(
            f"the history was written by a later version (layout {version}, this program knows {VERSION})",
            hint="run the later version again, or move the history's file away",
        )
    elif version < VERSION:
        copy(connection, path, version)
        _settle(connection)
        with connection:
            if version < 2:
                _add_checksums(connection)
            else:
                connection.execute(_PLACE)
                connection.execute("ALTER TABLE salvage ADD COLUMN rollup INTEGER NOT NULL DEFAULT 0")
            connection.execute(_ROLLUP)
            _say_version(connection)
    else:
        _settle(connection)


def _settle(connection: apsw.Connection) -> None:
    connection.pragma("journal_mode", "WAL")
    connection.pragma("synchronous", "FULL")
    connection.pragma("journal_size_limit", 8 << 20)


def _say_version(connection: apsw.Connection) -> None:
    connection.pragma("application_id", APPLICATION + VERSION)
    connection.pragma("user_version", VERSION)


def _begin_state(connection: apsw.Connection, position: int, epoch: str, shift: int) -> None:
    connection.execute(_STATE)
    crc = checksum((position, shift), epoch.encode())
    connection.executemany("INSERT INTO state VALUES (?,?,?,?,?)", [(id, position, epoch, shift, crc) for id in (1, 2)])
    connection.execute(_PLACE)


def copy(connection: apsw.Connection, path: Path, version: int) -> Path:
    """Copy a file of that version before it is changed; of a big one everything but the chunks, which stay as they are.

    Returns the copy's name.  Raises ``apsw.Error``.
    """
    target = dated(path, f"v{version}")
    if path.stat().st_size <= COPIED_WHOLE:
        other = apsw.Connection(str(target))
        with other.backup("main", connection, "main") as backup:
            backup.step(-1)
        other.close()
    else:
        connection.execute("ATTACH ? AS copy", (str(target),))
        for table in ("device", "shape", "latest", "state"):
            connection.execute(f"CREATE TABLE copy.{table} AS SELECT * FROM main.{table}")
        connection.execute("DETACH copy")
    forget(path, spare=(target,))
    return target


def _add_checksums(connection: apsw.Connection) -> None:
    """From layout 1: checksums of names, two rows of state; chunks have no seals and are believed."""
    for table, column in (("device", "name"), ("shape", "metrics")):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
        for number, content in fetch(connection, f"SELECT id, CAST({column} AS BLOB) FROM {table}"):
            connection.execute(f"UPDATE {table} SET crc = ? WHERE id = ?", (checksum((number,), content), number))
    ((position, epoch, shift),) = fetch(connection, "SELECT position, epoch, shift FROM state")
    connection.execute("CREATE INDEX chunk_kept ON chunk (kept)")
    connection.execute("DROP TABLE state")
    _begin_state(connection, position, epoch, shift)

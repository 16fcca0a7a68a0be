"""The history's file: SQLite, its tables and its version.

=========  ======================================================================================================
device     a name and its number; numbers are never used again
shape      metrics that come together, and their number; ``metrics`` is MessagePack, an array of names, sorted
chunk      rows of one device and shape, packed (``codec``).  ``first``, ``last``: least and greatest time.
           ``kept``: the greatest time, of a row or of its receipt; retention goes by it.
           ``low``, ``high``: least and greatest order of a row.  ``level``: how often it was merged; FINAL: no more
shared     rows of several devices and one shape, from one flush, whose number is ``flush``: of those devices from
           which few rows came.  Only the devices numbered ``from_device`` to ``to_device`` count, the rows of others
           have been put into chunks of their own since
latest     the newest row of each device and shape, and its time of receipt; ``row`` is MessagePack, an array of values
state      one row: ``position``, the journal's offset below which all is in chunks; ``epoch`` of that journal;
           ``shift``, what is added to an offset of that journal to make an order
=========  ======================================================================================================

Orders grow over the whole life of the file, also when the journal is another one than before: then ``shift`` grows.

``PRAGMA user_version`` is the version of this layout: a file of a later version is refused, never guessed at.  Values
and names are always bound, never part of a statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.errors import HistoryError

__all__ = ["FINAL", "connect", "create", "fetch", "translated"]

VERSION: Final = 1
APPLICATION: Final = 0x67744831  # "gtH1"
FINAL: Final = 9

_TABLES: Final = """
CREATE TABLE device (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE shape (id INTEGER PRIMARY KEY AUTOINCREMENT, metrics BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL, shape INTEGER NOT NULL, level INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, kept INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
    rows INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX chunk_time ON chunk (device, last, first, shape, level);
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
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL, epoch TEXT NOT NULL, shift INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 0, '', 0);
"""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns SQLite's errors into :class:`HistoryError`, with a hint where there is one."""
    try:
        yield
    except apsw.Error as error:
        hint = ""
        if isinstance(error, apsw.NotADBError | apsw.CorruptError):
            hint = "move the history's file away; a new one is made at the next start"
        elif isinstance(error, apsw.FullError):
            hint = "free space on the disk that holds the state directory"
        elif isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError):
            hint = "check that the state directory exists and can be written"
        elif isinstance(error, apsw.BusyError):
            hint = "another program has locked the history's file"
        raise HistoryError(f"{what}: {error}", hint=hint) from error


def connect(path: Path, *, readonly: bool, cache_kib: int = 1024) -> apsw.Connection:
    """A connection with our settings; raises ``apsw.Error``."""
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(5000)
    connection.pragma("cache_size", -cache_kib)
    connection.pragma("trusted_schema", False)
    return connection


def fetch(connection: apsw.Connection, statement: str, bindings: tuple[object, ...] = ()) -> list[Any]:
    """All rows of a query, as tuples whose types the tables vouch for."""
    return connection.execute(statement, bindings).fetchall()


def create(connection: apsw.Connection) -> None:
    """Make the tables of an empty file, or check the version of one that is not; raises :class:`HistoryError`."""
    version = connection.pragma("user_version")
    if version > VERSION:
        raise HistoryError(
            f"the history was written by a later version (layout {version}, this program knows {VERSION})",
            hint="run the later version again, or move the history's file away",
        )
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_schema").get:
            raise HistoryError("not a history: the file holds other tables", hint="move it away")
        # Takes effect in a file without pages only.
        connection.pragma("auto_vacuum", "INCREMENTAL")
        connection.pragma("journal_mode", "WAL")
        connection.pragma("synchronous", "FULL")
        with connection:
            connection.execute(_TABLES)
            connection.pragma("application_id", APPLICATION)
            connection.pragma("user_version", VERSION)
    elif connection.pragma("application_id") != APPLICATION:
        raise HistoryError("not a history: another program's file", hint="move it away")
    connection.pragma("journal_mode", "WAL")
    connection.pragma("synchronous", "FULL")
    connection.pragma("journal_size_limit", 8 << 20)

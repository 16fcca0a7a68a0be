"""Opening the history's file; making it anew from what can be read of a damaged one, or is open of a removed one.

The new file is made under another name and takes its place whole; the damaged one is set aside.  What is small comes
over at once (names, the latest rows, the place in the journal), chunks later and step by step, from the file put aside
(``Store.salvage_step``): so a start takes no longer for it.  After a crash in between
the next start does what is left to do (``finish``).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import apsw
import msgspec

from gateway.aside import asides, dated, forget, remove, sync_directory
from gateway.history.salvage import Salvage
from gateway.history.schema import DamagedFile, first_error
from gateway.history.store import Store

__all__ = ["is_damage", "open_store", "rescue"]

KEPT: Final = 2  # damaged files of this name, which may be big
DAMAGE: Final = (DamagedFile, apsw.CorruptError, apsw.NotADBError)
# What else a file that was tampered with makes of opening it.
DAMAGE_AT_OPEN: Final = (
    apsw.SQLError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.FormatError,
    UnicodeDecodeError,
    msgspec.DecodeError,
    ValueError,
)
UNREADABLE: Final = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ)

log = logging.getLogger(__name__)


def is_damage(error: BaseException | None) -> Exception | None:
    """The error, if it says that the file is damaged, or that the disk cannot read all of it; else ``None``."""
    if isinstance(error, DAMAGE):
        return error
    if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in UNREADABLE:
        return error
    return None


def open_store(path: Path, rescued: Callable[[str, Exception], None], *, epoch: str, span: int) -> Store:
    """Open or make the file; a damaged one is made anew, and ``rescued`` told the name under which it is kept, and why.

    Raises ``apsw.Error``, ``OSError``, and :class:`HistoryError` for a file of a later version.
    """
    if (aside := finish(path)) is not None:
        rescued(aside.name, DamagedFile("so it was found before the last stop"))
    error: Exception
    try:
        if path.is_dir():
            raise DamagedFile("it is a directory")
        if path.exists() and not path.stat().st_size:
            raise DamagedFile("it is empty")
        return Store(path, epoch=epoch, span=span)
    except (apsw.Error, DamagedFile, ValueError) as last:
        first = first_error(last)
        damage = first if isinstance(first, DAMAGE_AT_OPEN) else is_damage(first)
        if damage is None:
            raise
        error = damage
    rescued(rescue(path, None, span=span), error)
    return Store(path, epoch=epoch, span=span)


def rescue(path: Path, old: Store | None, *, span: int) -> str:
    """Put a new file in the place of ``path``; the name under which the damaged one is kept (empty: there is none).

    ``old`` is the store that had the file open, and is closed when that was done: as long as it is not, this can be
    called again after an error.  Raises ``apsw.Error``, ``OSError``.
    """
    new = _new(path)
    aside = finish(path)
    spare: Sequence[str] | None = None
    if aside is None:
        foreign = old is not None and not old.is_in_place()
        aside = dated(path, "foreign" if foreign else "damaged")
        try:
            if old is not None and foreign:
                old.copy_to(new)
                spare = old.sources()
            else:
                spare = _begin(path, new, old, aside.name, span)
        except BaseException:
            _remove(new)
            raise
        _swap(path, new, aside)
    if old is not None:
        with contextlib.suppress(apsw.Error):
            old.close()
    sync_directory(path.parent)
    if spare is not None:
        forget(path, kept=KEPT, spare=[aside, *map(path.with_name, spare)])
    return aside.name if os.path.lexists(aside) else ""


def finish(path: Path) -> Path | None:
    """Where a crash came while the new file was put in its place, do that now; the damaged file's name then."""
    new = _new(path)
    if os.path.lexists(path) or not new.exists():
        _remove(new)
        return None
    # The damaged file was renamed when the new one was complete; what is older was put aside before.
    late = [each for each in asides(path.parent, path.name) if each.lstat().st_ctime_ns >= new.stat().st_mtime_ns]
    aside = late[-1] if late else dated(path, "damaged")
    _swap(path, new, aside)
    return aside


def _remove(new: Path) -> None:
    for beside in ("", "-wal", "-shm"):
        remove(_beside(new, beside))


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _beside(path: Path, what: str) -> Path:
    return path.with_name(path.name + what)


def _begin(path: Path, new: Path, old: Store | None, name: str, span: int) -> Sequence[str]:
    """Make the new file, with what is small; the names of the files from which it takes over chunks."""
    try:
        source = None if path.is_dir() else Salvage(path)
    except apsw.Error as error:
        extra = {"event": "history_damaged", "path": path, "reason": error}
        log.error("nothing can be read of %s: %s", path, error, extra=extra)
        source = None
    store = Store(new, epoch="", span=span)
    try:
        if source is not None:
            store.begin_salvage(source, name)
        if old is not None:
            store.stand(old.position, old.epoch, old.shift)
        return store.sources()
    finally:
        store.close()
        if source is not None:
            source.close()


def _swap(path: Path, new: Path, aside: Path) -> None:
    """Put ``new`` in the place of ``path``, if that is there still, and it aside, with what SQLite keeps beside it."""
    for beside in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            _beside(path, beside).rename(_beside(aside, beside))
    new.rename(path)

"""Making the history's file anew, from what can be read of a damaged one or is still open of a removed one.

The new file is made under another name and takes its place whole; the damaged one is set aside.  What is small comes
over at once (names, the latest rows, the place in the journal), chunks later and step by step, from the file put aside
(``Store.salvage_step``): so a start takes no longer for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

import apsw
import msgspec

from gateway.aside import dated, forget, remove, sync_directory
from gateway.history.salvage import Salvage
from gateway.history.schema import DamagedFile
from gateway.history.store import Store

__all__ = ["DAMAGE", "DAMAGE_AT_OPEN", "finish", "rescue"]

KEPT: Final = 2  # damaged files of this name, which may be big
DAMAGE: Final = (DamagedFile, apsw.CorruptError, apsw.NotADBError)
# What else a file that was tampered with makes of opening it.
DAMAGE_AT_OPEN: Final = (
    *DAMAGE,
    apsw.SQLError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.FormatError,
    UnicodeDecodeError,
    msgspec.DecodeError,
    ValueError,
)

log = logging.getLogger(__name__)


def rescue(path: Path, old: Store | None, *, span: int) -> str:
    """Put a new file in the place of ``path``; the name under which the damaged one is kept (empty: there is none).

    ``old`` is the store that had the file open, and is closed when that was done.  Raises ``apsw.Error``, ``OSError``.
    """
    new = _new(path)
    for beside in ("", "-wal", "-shm"):
        remove(_beside(new, beside))
    if old is not None and not old.is_in_place():
        old.copy_to(new)
        name = _swap(path, new, dated(path, "foreign"))
    else:
        aside = dated(path, "damaged")
        _begin(path, new, old, aside.name, span)
        name = _swap(path, new, aside)
    if old is not None:
        with contextlib.suppress(apsw.Error):
            old.close()
    return name


def finish(path: Path) -> None:
    """Where a crash came while the new file was put in its place, do that now."""
    if not os.path.lexists(path) and _new(path).exists():
        _new(path).rename(path)


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _beside(path: Path, what: str) -> Path:
    return path.with_name(path.name + what)


def _begin(path: Path, new: Path, old: Store | None, name: str, span: int) -> None:
    """Make the new file, with what is small."""
    try:
        source = None if path.is_dir() else Salvage(path)
    except apsw.Error as error:
        log.error("nothing can be read of %s: %s", path, error)
        source = None
    store = Store(new, epoch="", span=span)
    try:
        if source is not None:
            store.begin_salvage(source, name)
        if old is not None:
            store.stand(old.position, old.epoch, old.shift)
    finally:
        store.close()
        if source is not None:
            source.close()


def _swap(path: Path, new: Path, aside: Path) -> str:
    """Put ``new`` in the place of ``path``, and that aside; its name, if there was any."""
    there = os.path.lexists(path)
    if there:
        path.rename(aside)
    for beside in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            _beside(path, beside).rename(_beside(aside, beside))
    new.rename(path)
    sync_directory(path.parent)
    forget(path, kept=KEPT)
    return aside.name if there else ""

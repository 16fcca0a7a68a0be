"""Taking a journal's directory: the lock, recovery, the first segment of this start, the cursors' file.  Blocking.

A disk without room for the first segment is no reason not to open: what is held can be read, and may be all that is in
the way.  No offset is given out until that segment is durable.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from gateway.aside import remove
from gateway.errors import JournalError, StateLocked
from gateway.journal import identity, places
from gateway.journal.home import Home, lock
from gateway.journal.places import PlacesFile
from gateway.journal.recovery import Recovered, recover
from gateway.journal.segment import FULL, Segment, Tail, name_of
from gateway.journal.writer import free_bytes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Opened", "take"]


class Opened(msgspec.Struct):
    """A directory that is ours until ``home`` is closed; ``free`` bytes are on its disk.

    ``tail`` is the first segment of this start, or, where the disk is full, what kept it from being made; ``segment``
    stands for it in either case.
    """

    home: Home
    recovered: Recovered
    tail: Tail | OSError
    segment: Segment
    places: PlacesFile
    free: int


def take(directory: Path) -> Opened:
    """Lock ``directory``, made when missing, recover it, and begin a segment that is durable on return.

    Raises :class:`JournalError` when it cannot be used, :class:`StateLocked` when somebody has it.
    """
    with contextlib.ExitStack() as undo:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            try:
                home = Home(directory, lock(directory))
            except BlockingIOError as error:
                raise StateLocked(f"the journal in {directory} is in use by another process") from error
            undo.callback(home.close)
            recovered = recover(directory)
            tail = _begin(directory, recovered)
            if isinstance(tail, Tail):
                undo.callback(tail.abandon)
                segment = tail.segment
                _forget_empty(recovered)
            else:
                path = directory / name_of(recovered.base, 0)
                segment = Segment(path, recovered.base, 0, recovered.stored, 0)
            places_file = PlacesFile(directory / places.FILE_NAME, recovered.places_number)
            undo.callback(places_file.close)
            opened = Opened(home, recovered, tail, segment, places_file, free_bytes(directory))
        except OSError as error:
            raise JournalError(
                f"cannot open the journal in {directory}: {error.strerror or error}",
                hint="check the directory's owner and the disk's free space",
            ) from error
        undo.pop_all()
        return opened


def _begin(directory: Path, recovered: Recovered) -> Tail | OSError:
    """The first segment of this start, durable, and the epoch's file after it; the error where the disk is full.

    Raises ``OSError`` for any other.
    """
    tail = None
    try:
        tail = Tail(directory, recovered.epoch, recovered.base, 0, recovered.end, recovered.stored)
        tail.sync()
        if recovered.epoch_due:
            identity.write(directory / identity.FILE_NAME, recovered.epoch)
    except OSError as error:
        if tail is not None:
            tail.discard()
        if error.errno not in FULL:
            raise
        return error
    return tail


def _forget_empty(recovered: Recovered) -> None:
    """Unlink what earlier starts began and never wrote to, now that a later segment is durable."""
    held = []
    for segment in recovered.segments:
        if segment.end > segment.base or segment.damaged_at:
            held.append(segment)
        else:
            with contextlib.suppress(OSError):
                remove(segment.path)
    recovered.segments = held

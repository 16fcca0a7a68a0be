"""Entries on their way out: a bounded queue, and a thread that writes, so that the loop never waits for a log.

Bounds, and what happens there:

- :data:`ENTRIES_MAX` entries that are not written yet (at most :data:`~gateway.logs.entry.MESSAGE_MAX` characters each,
  and a traceback): what comes beyond it is counted and told in an entry of its own as soon as there is room.
- :data:`SAME` entries of one kind (where it has none, of one place in the code) about one device, sink or address in
  ten seconds, and three times as many about all: the others are told by their number.  Whoever expects many of a kind
  counts them before an entry is made, as ``server.complaints`` does; this is for what nobody expected.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable

from ..limit import Repeats
from .entry import Entry, entry_of

__all__ = ["ENTRIES_MAX", "Outlet", "Stream"]

ENTRIES_MAX = 2_000
SAME = 100
FLUSH_S = 1.0  # for what is queued to be written, at a flush and at the end
SAME_S = 10.0
LOOK_S = 1.0  # between two looks whether there is something to tell of these
TELL_S = 1.0  # between two entries about what was left out, while the queue stays full


class Stream:
    """A file descriptor that bytes are written to, whole; may wait for its reader."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Write; what nobody is left to read is gone."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody who shares it made it non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(1000)
            except OSError:
                return


class Outlet(logging.Handler):
    """Hands entries to ``write`` in a thread; ``write`` raises nothing."""

    def __init__(self, write: Callable[[Entry], None], *, most: int = ENTRIES_MAX) -> None:
        super().__init__()
        self.lost = 0  # entries left out because nothing took them
        self._repeats = Repeats(first=SAME, lines=3 * SAME, every=SAME_S)
        self._guard = threading.RLock()  # not the handler's own, which is held while this is closed
        self._kinds: dict[str, tuple[int, str]] = {}  # level and logger; one a place in the code
        self.entries = 0  # entries written
        self._write = write
        self._most = most
        self._told = 0
        self._told_at = 0.0
        self._look_at = 0.0
        self._queue: queue.SimpleQueue[Entry | threading.Event | None] = queue.SimpleQueue()
        self._stuck = False  # at the end somebody did not take what was written
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue an entry, or count it."""
        if record.levelno > logging.DEBUG and not self._is_said(record):
            return
        if self._queue.qsize() >= self._most:
            self.lost += 1
        elif self._thread.is_alive():
            self._queue.put(_entry(record))
        elif not self._stuck:
            self._put(_entry(record))

    def _is_said(self, record: logging.LogRecord) -> bool:
        of = record.__dict__
        kind = of.get("event") or f"{record.name}:{record.lineno}"
        who = of.get("device") or of.get("sink") or of.get("remote") or ""
        with self._guard:
            said = self._repeats.note(kind, str(who), str(record.msg))
            if not said:
                self._kinds[kind] = (record.levelno, record.name)
        return said

    def _tell_repeats(self, *, early: bool = False) -> None:
        with self._guard:
            due = self._repeats.due(early=early)
        for same in due:
            level, logger = self._kinds[same.kind]
            message = f"{same.words} … and {same.count:,} more of the same in {same.seconds:.0f} s"
            event = "" if ":" in same.kind else same.kind
            self._put(Entry(time.time(), level, logger, message, event, {"count": same.count}))

    def flush(self) -> None:
        """Wait until what is queued is written, for :data:`FLUSH_S` at most."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            done = threading.Event()
            self._queue.put(done)
            self._stuck = not done.wait(FLUSH_S)

    def close(self) -> None:
        """Write what is queued and end the thread; what comes later is written at once."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(0 if self._stuck else FLUSH_S)
            self._stuck = self._thread.is_alive()
        super().close()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            self._put(item)
            if self.lost != self._told:
                self._tell()
        self._tell_repeats(early=True)

    def _put(self, entry: Entry) -> None:
        try:
            self._write(entry)
        except Exception as error:  # the thread's outermost edge: nobody else could tell of it, nor may it end
            self._write(_failed(entry.logger, repr(error)))
        self.entries += 1

    def _next(self) -> Entry | threading.Event | None:
        while True:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_S
                self._tell_repeats()
            try:
                return self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                continue

    def _tell(self) -> None:
        now = time.monotonic()
        if self._queue.qsize() and now - self._told_at < TELL_S:
            return
        self._told_at = now
        lost = self.lost
        message = f"{lost - self._told:,} entries were left out: what takes the log was too slow"
        self._put(Entry(time.time(), logging.WARNING, __name__, message, "log_lost", {"count": lost - self._told}))
        self._told = lost


def _entry(record: logging.LogRecord) -> Entry:
    try:
        return entry_of(record)
    except Exception as error:  # of something's own way to be shown: it must not break what was to be told of
        return _failed(record.name, f"{record.pathname}:{record.lineno}: {type(error).__name__}")


def _failed(logger: str, words: str) -> Entry:
    return Entry(time.time(), logging.ERROR, logger, f"an entry cannot be shown: {words}", "fault")

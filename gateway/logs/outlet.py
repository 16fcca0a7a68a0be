"""Entries on their way out: a bounded queue, and a thread that writes, so that the loop never waits for a log.

Bound: :data:`ENTRIES_MAX` entries that are not written yet (at most :data:`~gateway.logs.entry.MESSAGE_MAX` characters
each, and a traceback).  What comes beyond it is counted and told in an entry of its own as soon as there is room.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable

from .entry import Entry, entry_of

__all__ = ["ENTRIES_MAX", "Outlet", "Stream"]

ENTRIES_MAX = 2_000
FLUSH_S = 1.0  # for what is queued to be written, at a flush and at the end
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
        self.lost = 0  # entries left out
        self.entries = 0  # entries written
        self._write = write
        self._most = most
        self._told = 0
        self._told_at = 0.0
        self._queue: queue.SimpleQueue[Entry | threading.Event | None] = queue.SimpleQueue()
        self._stuck = False  # at the end somebody did not take what was written
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue an entry, or count it."""
        if self._queue.qsize() >= self._most:
            self.lost += 1
        elif self._thread.is_alive():
            self._queue.put(entry_of(record))
        elif not self._stuck:
            self._write(entry_of(record))

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
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            self._write(item)
            self.entries += 1
            if self.lost != self._told:
                self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if self._queue.qsize() and now - self._told_at < TELL_S:
            return
        self._told_at = now
        lost = self.lost
        message = f"{lost - self._told:,} entries were left out: what takes the log was too slow"
        self._write(Entry(time.time(), logging.WARNING, __name__, message, "log_lost", {"count": lost - self._told}))
        self._told = lost

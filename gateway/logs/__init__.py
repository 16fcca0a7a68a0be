"""The log of the running gateway: lines for people, a JSON object a line, or entries for journald.

The kinds of entries stand in :mod:`gateway.events`, with their fields and how to log one.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
from types import TracebackType

from ..events import EVENTS
from .entry import Entry, console, fields, json_line
from .journald import Journald, takes_stderr
from .outlet import Outlet, Stream

__all__ = ["EVENTS", "configure", "flush", "stats"]

log = logging.getLogger(__name__)

_outlets: list[Outlet] = []  # the one in use


def configure(level: str, form: str, *, fd: int = 2, journald: Journald | None = None) -> None:
    """Set up logging for the process.

    ``form``: ``console``, ``json``, ``journald``, or ``auto``: journald where it takes ``fd`` anyhow, else ``console``.
    What journald does not take goes to ``fd``.
    """
    taken = takes_stderr(fd)
    if form == "auto":
        form = "journald" if taken else "console"
    stream = Stream(fd)

    def to_console(entry: Entry) -> None:
        # A level that journald reads from the line (sd-daemon(3)): for when it is there again.
        stream.write((f"<{entry.priority}>".encode() if taken else b"") + console(entry))

    def to_json(entry: Entry) -> None:
        stream.write(json_line(entry))

    def to_journald(entry: Entry) -> None:
        if not journal.send([*fields(entry), ("SYSLOG_IDENTIFIER", "gateway")]):
            to_console(entry)

    journal = journald or Journald()
    writes = {"console": to_console, "json": to_json, "journald": to_journald}
    outlet = Outlet(writes[form])
    root = logging.getLogger()
    root.handlers[:] = [outlet]
    root.setLevel(level.upper())
    logging.getLogger("websockets").setLevel(logging.WARNING)
    _outlets[:] = [outlet]
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    # A crash in C, or the watchdog's SIGABRT: where each thread stood, with no value of any variable.
    faulthandler.enable(fd)


def flush() -> None:
    """Wait until what was logged is written, a second at most; for a thread, not for the loop."""
    for outlet in _outlets:
        outlet.flush()


def stats() -> dict[str, float]:
    """Entries written, and entries left out because what takes the log was too slow."""
    return {
        "entries": sum(outlet.entries for outlet in _outlets),
        "lost": sum(outlet.lost for outlet in _outlets),
    }


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        log.critical("the gateway has failed: %s", kind.__name__, exc_info=(kind, error, trace))
    logging.shutdown()


def _uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        name = failed.thread.name if failed.thread else "?"
        info = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        log.error("thread %s has failed", name, exc_info=info)

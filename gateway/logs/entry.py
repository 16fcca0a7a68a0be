"""A log entry, and how it is written: a line for people, a JSON object, journald's fields.

What an entry says may come from a device or a stranger.  On the console and in JSON an entry's values cannot begin a
line, nor move the cursor, nor turn the direction of writing: control characters, line separators, bidirectional marks
and lone surrogates are escaped.  A traceback's lines after the first are indented.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from typing import NamedTuple

from ..events import EVENTS, FIELDS

__all__ = ["Entry", "console", "entry_of", "fields", "json_line"]

MESSAGE_MAX = 8_192  # characters of a message or a value; the rest is cut
TRACEBACK_MAX = 32_768

_LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_MARKS = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_unsafe = re.compile(f"[\x00-\x1f{_MARKS}]")
_unsafe_in_json = re.compile(f"[{_MARKS}]")  # what json.dumps leaves as it is


class Entry(NamedTuple):
    """``created`` in seconds since the epoch; ``values`` by the names of :data:`FIELDS`."""

    created: float
    level: int
    logger: str
    message: str
    event: str = ""
    values: dict[str, str | int] = {}
    traceback: str = ""
    code: tuple[str, int, str] = ("", 0, "")  # file, line, function

    @property
    def priority(self) -> int:
        """That of syslog(3): 7 is debug, 2 critical."""
        return _LEVELS.get(self.level, 6)


def entry_of(record: logging.LogRecord) -> Entry:
    """Take from a record all that is written of it; nothing in it may change it any more."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError) as error:  # words and values that do not fit: a fault of ours, not to be lost
        message = f"{record.msg!r} {record.args!r}: {error}"
    values: dict[str, str | int] = {}
    of = record.__dict__
    for name in FIELDS:
        value = of.get(name)
        if value is not None and value != "":
            values[name] = value if type(value) is int else str(value)[:MESSAGE_MAX]
    trace = ""
    if record.exc_info and record.exc_info[1] is not None:
        # The last frames say most.
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")[-TRACEBACK_MAX:]
    event = of.get("event", "fault" if trace and record.levelno >= logging.ERROR else "")
    code = (record.pathname, record.lineno, record.funcName or "")
    return Entry(record.created, record.levelno, record.name, message[:MESSAGE_MAX], event, values, trace, code)


def console(entry: Entry) -> bytes:
    """A line for people, and a traceback's lines below it."""
    seconds, ms = divmod(round(entry.created * 1000), 1000)
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    level = logging.getLevelName(entry.level)
    text = f"{at}.{ms:03d}Z {level:<7} {_shown(entry.logger)}: {_shown(entry.message)}"
    for line in entry.traceback.split("\n") if entry.traceback else ():
        text += f"\n    {_shown(line)}"
    return text.encode() + b"\n"


def json_line(entry: Entry) -> bytes:
    """An object in a line: time (ms), level, logger, message, the event and its id, values, traceback."""
    said: dict[str, object] = {
        "time": round(entry.created * 1000),
        "level": logging.getLevelName(entry.level).lower(),
        "logger": entry.logger,
        "message": entry.message,
    }
    if entry.event:
        said["event"] = entry.event
        if known := EVENTS.get(entry.event):
            said["message_id"] = known.id
    said.update(entry.values)
    if entry.traceback:
        said["traceback"] = entry.traceback
    return _unsafe_in_json.sub(_as_unicode, json.dumps(said, ensure_ascii=False)).encode() + b"\n"


def fields(entry: Entry) -> list[tuple[str, str]]:
    """journald's fields of an entry."""
    file, line, function = entry.code
    said = [("MESSAGE", entry.message), ("PRIORITY", str(entry.priority)), ("LOGGER", entry.logger)]
    if file:
        said += [("CODE_FILE", file), ("CODE_LINE", str(line)), ("CODE_FUNC", function)]
    if entry.event:
        said.append(("EVENT", entry.event))
        if known := EVENTS.get(entry.event):
            said.append(("MESSAGE_ID", known.id))
    said += [(FIELDS[name], str(value)) for name, value in entry.values.items()]
    if entry.traceback:
        said.append(("TRACEBACK", entry.traceback))
    return said


def _shown(text: str) -> str:
    return _unsafe.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _as_unicode(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"

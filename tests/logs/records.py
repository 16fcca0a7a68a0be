"""Log records as the gateway makes them."""

from __future__ import annotations

import logging
import sys
from typing import Any

from gateway.logs.entry import Entry, entry_of


def record(message: str, *args: object, level: int = logging.WARNING, error: Any = None, **extra: object) -> Any:
    """A record of logger ``gateway.test``, with ``extra`` as attributes."""
    made = logging.LogRecord("gateway.test", level, "/gateway/test.py", 17, message, args, error, "act")
    made.created = 1764000000.25
    made.__dict__.update(extra)
    return made


def entry(message: str, *args: object, **options: Any) -> Entry:
    """The entry of such a record."""
    return entry_of(record(message, *args, **options))


def raised(error: Exception) -> Any:
    """The ``exc_info`` of an exception that was raised."""
    try:
        raise error
    except Exception:
        return sys.exc_info()

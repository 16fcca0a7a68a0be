"""What a reading must be to be taken by the gateway, asked before it is sent.

Pure.  The rules are :mod:`gateway.reading`'s.
"""

from __future__ import annotations

import datetime
from collections import abc
from typing import TYPE_CHECKING

from ..reading import check_value, is_metric, time_to_ns
from .wire import RESERVED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..reading import Value

__all__ = ["Checks", "Time", "wire_time"]

Time = int | float | datetime.datetime

KNOWN_MAX = 10_000
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Checks:
    """Remembers names that passed, so that a name costs one look-up; at ``KNOWN_MAX`` names it learns
    anew.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: set[str] = set()

    def values(self, values: Mapping[str, Value | None]) -> None:
        """Raise ``ValueError`` with the fault in words, ``TypeError`` where these are no values by name; None is
        absent and legal.
        """
        if type(values) is not dict and not isinstance(values, abc.Mapping):
            raise TypeError(f'values by metric, such as {{"temperature": 22.5}}, and not {type(values).__name__}')
        known = self._known
        for name, value in values.items():
            if name not in known:
                if not isinstance(name, str) or name in RESERVED or not is_metric(name):
                    raise ValueError(f"{name!r}: not a metric's name")
                if len(known) >= KNOWN_MAX:
                    known.clear()
                known.add(name)
            if value is not None:
                problem = check_value(value)
                if problem:
                    raise ValueError(f"{name}: {problem}")


def wire_time(ts: Time) -> int | float:
    """``ts`` as the wire has it; raises ``ValueError`` for what is no time there."""
    if isinstance(ts, datetime.datetime):
        if ts.tzinfo is None:
            raise ValueError("ts: a datetime without a time zone")
        micros = (ts - EPOCH) // datetime.timedelta(microseconds=1)
        # Below 1e14 the number would read as milliseconds or seconds: then as seconds with a fraction.
        return micros if micros >= 10**14 else micros / 1e6
    try:
        time_to_ns(ts)
    except ValueError as error:
        raise ValueError(f"ts: {error}") from None
    return ts

"""The newest values of a device.  Pure.

A device's last reading is held whole: nearly always it has all metrics of the one before.  What it lacks is kept value
by value, so that no reading lives on for one metric of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..reading import Reading, Value
from .selection import Selection

__all__ = ["Points", "Series", "point", "text_weight", "wire_value"]

SAFE_INTEGER = (1 << 53) - 1

Points = dict[str, list[list[Value]]]
Kept = tuple[int, Value, int, int]  # time in nanoseconds, value, offset, that of the reading with which it was put here


def wire_value(value: Value) -> Value:
    """The value for JSON that browsers read: integers beyond 2^53-1 as strings of digits."""
    if type(value) is int and not -SAFE_INTEGER <= value <= SAFE_INTEGER:
        return str(value)
    return value


def point(time: int, value: Value, exact: bool = False) -> list[Value]:
    """``[ms, value]`` as on the wire; ``time`` in nanoseconds.  ``exact``: large integers are left as they are."""
    if type(value) is int and not (exact or -SAFE_INTEGER <= value <= SAFE_INTEGER):
        value = str(value)
    return [time // 1_000_000, value]


def text_weight(text: str) -> int:
    """How many bytes of JSON a string takes at most, without its quotes."""
    return 2 * len(text) if text.isascii() else 4 * len(text)


class Series(msgspec.Struct, gc=False):
    """A device's values; newest is the one of the greatest time, then the last that came.

    ``last`` is the reading of the greatest time, ``at`` its offset; ``offset`` that of the last reading of all.  Bound:
    two values a metric beside ``last``.  In ``older`` and ``late`` stands last what was put there last: what changed is
    found without a look at all others.
    """

    last: Reading
    at: int
    offset: int
    older: dict[str, Kept] = {}  # newest values of metrics that `last` lacks, and left-overs of some that it has
    late: dict[str, Kept] = {}  # of the metrics with a newer value, the last that came late

    def take(self, reading: Reading, offset: int) -> None:
        """Note a reading."""
        last, values = self.last, reading.values
        self.offset = offset
        if reading.time >= last.time:
            if values.keys() != last.values.keys():
                time, at, older = last.time, self.at, self.older
                for name, value in last.values.items():
                    if name not in values:
                        older.pop(name, None)
                        older[name] = (time, value, at, offset)
            self.last = reading
            self.at = offset
            return
        time = reading.time
        for name, value in values.items():
            kept = self.older.get(name)
            into = self.late if name in last.values or (kept is not None and kept[0] > time) else self.older
            into.pop(name, None)
            into[name] = (time, value, offset, offset)

    def names(self) -> set[str]:
        """The metrics."""
        return {*self.last.values, *self.older}

    def __len__(self) -> int:
        older = self.older
        values = self.last.values
        return len(older) + sum([name not in older for name in values]) if older else len(values)

    def newest(self) -> Iterator[tuple[str, int, Value]]:
        """Each metric with time (ns) and value of its newest."""
        last = self.last
        for name, value in last.values.items():
            yield name, last.time, value
        for name, (time, value, *_) in self.older.items():
            if name not in last.values:
                yield name, time, value

    def points(self, exact: bool = False) -> Iterator[tuple[str, list[Value]]]:
        """Each metric with its newest :func:`point`."""
        last = self.last
        time, values = last.time, last.values
        for name, value in values.items():
            yield name, point(time, value, exact)
        for name, (time, value, *_) in self.older.items():
            if name not in values:
                yield name, point(time, value, exact)

    def changed(self, known: int, selection: Selection) -> Points:
        """The covered metrics that came behind offset ``known``, each with one point.

        That is the newest, or else the last late one.
        """
        found: Points = {}
        last = self.last
        values = last.values
        if self.at > known:
            ms, exact = last.time // 1_000_000, selection.exact
            for name in selection.metrics(values):
                value = values[name]
                if type(value) is int and not (exact or -SAFE_INTEGER <= value <= SAFE_INTEGER):
                    value = str(value)
                found[name] = [[ms, value]]
        if self.older:
            self._add(found, self.older, known, selection, values)
        if self.late:
            self._add(found, self.late, known, selection, found)
        return found

    @staticmethod
    def _add(
        found: Points, kept: dict[str, Kept], known: int, selection: Selection, but: dict[str, Value] | Points
    ) -> None:
        for name, (time, value, offset, put) in reversed(kept.items()):
            if put <= known:
                break  # as all before it
            if offset > known and name not in but and selection.metric(name):
                found[name] = [point(time, value, selection.exact)]

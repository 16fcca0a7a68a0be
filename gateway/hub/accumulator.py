"""What is to be sent next to a group of subscribers, or to one that differs from its group.  Pure.

Two kinds: :class:`Every` holds readings, :class:`Latest` the newest of each series.  Both give what they hold in pieces
of about :data:`PIECE_BYTES`, so that no frame is large, whatever was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..reading import Reading, Value
from .selection import Selection

__all__ = ["PIECE_BYTES", "Accumulator", "Data", "Every", "Latest", "Piece", "point", "update_newest", "wire_value"]

PIECE_BYTES = 192 * 1024  # of a piece's JSON, estimated
SAFE_INTEGER = (1 << 53) - 1

Data = dict[str, dict[str, list[list[Value]]]]
Entry = tuple[int, Reading]


class Piece(NamedTuple):
    """Data for one frame, the offset it reaches to, and how many values were passed over."""

    data: Data
    offset: int
    skipped: int


def wire_value(value: Value) -> Value:
    """The value for JSON that browsers read: integers beyond 2^53-1 as strings of digits."""
    if type(value) is int and not -SAFE_INTEGER <= value <= SAFE_INTEGER:
        return str(value)
    return value


def point(reading: Reading, metric: str) -> list[Value]:
    """``[ms, value]`` of one metric of a reading."""
    return [reading.time // 1_000_000, wire_value(reading.values[metric])]


def update_newest(newest: dict[str, Reading], names: Iterable[str], reading: Reading) -> None:
    """Put the reading in for each of ``names`` whose present one is not of a later time."""
    time = reading.time
    for name in names:
        present = newest.get(name)
        if present is None or present.time <= time:
            newest[name] = reading


def weight(values: Iterable[Value]) -> int:
    """About how many bytes of JSON the points of some values take."""
    return sum([40 + 2 * len(value) if type(value) is str else 40 for value in values])


class Every:
    """All readings, in order; ``size`` in bytes as :func:`weight` counts."""

    __slots__ = ("entries", "selection", "size")

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.entries: list[Entry] = []
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self.entries)

    def fold(self, fresh: list[Entry], late: bool = True) -> None:
        """Take in published readings, in order; ``late`` as for :meth:`Latest.fold`."""
        selection = self.selection
        covered = fresh if selection.all_devices else [entry for entry in fresh if selection.device(entry[1].device)]
        self.entries += covered
        self.size += sum([weight(reading.values.values()) for _, reading in covered])

    def copy(self) -> Every:
        """An independent one with the same content."""
        copy = Every(self.selection)
        copy.entries, copy.size = list(self.entries), self.size
        return copy

    def latest(self) -> Latest:
        """The newest of each series of what is held."""
        latest = Latest(self.selection)
        latest.fold(self.entries)
        return latest

    def clear(self) -> None:
        """Forget all."""
        self.entries, self.size = [], 0

    def take(self) -> Piece | None:
        """The next piece; None without any."""
        data: Data = {}
        room, reached, taken = PIECE_BYTES, -1, 0
        for offset, reading in self.entries:
            reached = offset
            taken += 1
            names = self.selection.metrics(reading.values)
            if names:
                series = data.get(reading.device)
                if series is None:
                    series = data[reading.device] = {}
                for name in names:
                    points = series.get(name)
                    if points is None:
                        series[name] = [point(reading, name)]
                    else:
                        points.append(point(reading, name))
            room -= weight(reading.values.values())
            if room <= 0:
                break
        del self.entries[:taken]
        self.size = max(0, self.size - PIECE_BYTES + room) if self.entries else 0
        return Piece(data, reached, 0) if data else None


class Latest:
    """The newest reading of each metric of each device, and how many values were passed over for them."""

    __slots__ = ("newest", "passed", "reached", "selection", "sent", "sent_to")

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.newest: dict[str, dict[str, Reading]] = {}
        self.passed = 0  # values taken in
        self.sent = 0  # values given in pieces, of those
        self.reached = -1  # offset of the last reading taken in
        self.sent_to = -1  # offset that what was given reaches to

    def __bool__(self) -> bool:
        return bool(self.newest)

    def fold(self, fresh: list[Entry], late: bool = True) -> None:
        """Take in published readings, in order; without ``late`` none is older than any before it of its device."""
        selection, newest = self.selection, self.newest
        for _, reading in fresh:
            device = reading.device
            if not selection.device(device):
                continue
            names = selection.metrics(reading.values)
            if not names:
                continue
            held = newest.get(device)
            if held is None:
                newest[device] = dict.fromkeys(names, reading)
            elif late:
                update_newest(held, names, reading)
            else:
                held.update(dict.fromkeys(names, reading))
            self.passed += len(names)
        if fresh:
            self.reached = fresh[-1][0]

    def copy(self) -> Latest:
        """An independent one with the same content."""
        copy = Latest(self.selection)
        copy.newest = {device: dict(held) for device, held in self.newest.items()}
        copy.passed, copy.sent, copy.reached, copy.sent_to = self.passed, self.sent, self.reached, self.sent_to
        return copy

    def latest(self) -> Latest:
        """Itself: see :meth:`Every.latest`."""
        return self

    def clear(self) -> None:
        """Forget all."""
        self.newest, self.passed, self.sent, self.sent_to = {}, 0, 0, self.reached

    def take(self) -> Piece | None:
        """The next piece; None without any.  What was passed over is told with the last one."""
        data: Data = {}
        room = PIECE_BYTES
        for device, held in self.newest.items():
            series: dict[str, list[list[Value]]] = {}
            for name, reading in held.items():
                value = reading.values[name]
                kind = type(value)
                if kind is int:
                    value = wire_value(value)
                elif kind is str:
                    room -= 2 * len(value)  # type: ignore[arg-type]
                series[name] = [[reading.time // 1_000_000, value]]
            data[device] = series
            self.sent += len(held)
            room -= 40 * len(held)
            if room <= 0:
                break
        if not data:
            return None
        if len(data) < len(self.newest):
            for device in data:
                del self.newest[device]
            return Piece(data, self.sent_to, 0)
        skipped = self.passed - self.sent
        self.clear()
        return Piece(data, self.reached, skipped)


Accumulator = Every | Latest

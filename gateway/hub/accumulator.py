"""What is to be sent next to a group of subscribers, or to one that differs from its group.  Pure.

Two kinds: :class:`Every` holds readings, :class:`Changes` which devices have changed since what was sent.  Both give
data in pieces of at most about :data:`PIECE_BYTES`, so that no frame is large, whatever was asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Mapping

from ..reading import Reading, Value
from .selection import Selection
from .series import Points, Series, point, text_weight

__all__ = ["PIECE_BYTES", "SLOT_BYTES", "Changes", "Data", "Entry", "Every"]

PIECE_BYTES = 192 * 1024  # of a piece's JSON, estimated
POINT_BYTES = 40  # of a point beside a string's text
SLOT_BYTES = 9  # of memory: an entry's place in a list
ENTRY_BYTES, VALUE_BYTES = 400, 100  # of memory: an entry that nobody else holds, and each of its values

Data = dict[str, Points]
Entry = tuple[int, Reading]


def weight(values: Iterable[Value]) -> int:
    """About how many bytes of JSON the points of some values take."""
    return sum([POINT_BYTES + text_weight(value) if type(value) is str else POINT_BYTES for value in values])


def footprint(reading: Reading) -> int:
    """About how many bytes of memory an entry takes, from above; texts and names as they are."""
    values = reading.values
    texts = [sys.getsizeof(value) for value in values.values() if type(value) is str]
    return ENTRY_BYTES + VALUE_BYTES * len(values) + sum(map(len, values)) + sum(texts)


class Every:
    """All readings that a selection covers, in order.

    ``length`` is that of their JSON, as :func:`weight` counts; ``size`` what they take in memory beside the readings
    that are remembered anyway, as far as :meth:`weigh` was told.  Both in bytes.
    """

    __slots__ = ("_alone", "_alone_bytes", "entries", "given", "holes", "length", "reached", "selection")

    def __init__(self, selection: Selection, reached: int) -> None:
        self.selection = selection
        self.entries: list[Entry] = []
        self._alone = 0  # so many of the first entries are remembered here alone
        self._alone_bytes = 0
        self.length = 0
        self.reached = reached  # offset of the last reading taken in, covered or not
        self.holes = False  # some of what is covered was let go of
        self.given = (0, 0, 0)  # the last piece: readings, length, the last one's offset

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def size(self) -> int:
        """Bytes of memory; an entry that others remember takes its place in the list."""
        return SLOT_BYTES * len(self.entries) + self._alone_bytes

    def weigh(self, floor: int) -> None:
        """Nobody else remembers what is below offset ``floor``."""
        entries, alone = self.entries, self._alone
        while alone < len(entries) and entries[alone][0] < floor:
            self._alone_bytes += footprint(entries[alone][1])
            alone += 1
        self._alone = alone

    def fold(self, fresh: list[Entry]) -> None:
        """Take in published readings, in order."""
        if not fresh:
            return
        self.reached = fresh[-1][0]
        selection = self.selection
        if selection.all_devices and selection.all_metrics:
            self.entries += fresh
            self.length += sum([weight(reading.values.values()) for _, reading in fresh])
            return
        for entry in fresh:
            reading = entry[1]
            if selection.device(reading.device) and (names := selection.metrics(reading.values)):
                self.entries.append(entry)
                self.length += weight([reading.values[name] for name in names])

    def copy(self) -> Every:
        """An independent one with the same content."""
        copy = Every(self.selection, self.reached)
        copy.entries, copy.length, copy.holes = list(self.entries), self.length, self.holes
        copy._alone, copy._alone_bytes = self._alone, self._alone_bytes
        return copy

    def forget(self, devices: Container[str]) -> None:
        """Let go of what was held of some devices."""
        self.holes = True
        alone = [entry for entry in self.entries[: self._alone] if entry[1].device not in devices]
        rest = [entry for entry in self.entries[self._alone :] if entry[1].device not in devices]
        self._alone, self._alone_bytes = len(alone), sum([footprint(reading) for _, reading in alone])
        self.entries = alone + rest

    def leave(self, covers: Callable[[int], bool]) -> None:
        """Let go of the readings whose time is covered by something else."""
        rest, reached = [entry for entry in self.entries if not covers(entry[1].time)], self.reached
        self.clear()
        self.fold(rest)
        self.reached = reached
        self.holes = self.holes or bool(rest)

    def clear(self) -> None:
        """Let go of all."""
        self.entries, self.length = [], 0
        self._alone = self._alone_bytes = 0

    def take(self) -> tuple[Data, int] | None:
        """The next piece and the offset that it reaches to; None without any."""
        data: Data = {}
        selection = self.selection
        exact = selection.exact
        room, taken, length = PIECE_BYTES, 0, 0
        for _, reading in self.entries:
            taken += 1
            values = reading.values
            names = selection.metrics(values)
            series = data.get(reading.device)
            if series is None:
                series = data[reading.device] = {}
                room -= len(reading.device)
            for name in names:
                points = series.get(name)
                if points is None:
                    series[name] = [point(reading.time, values[name], exact)]
                    room -= len(name)
                else:
                    points.append(point(reading.time, values[name], exact))
            length += weight(values.values() if names is values else [values[name] for name in names])
            if length >= room:
                break
        if not taken:
            return None
        return data, self.drop(taken, length)

    def changes(self, passed: int) -> Changes:
        """The same for one that is shown the newest values alone; ``passed`` is its group's count of values."""
        selection = self.selection
        waiting = sum([len(selection.metrics(reading.values)) for _, reading in self.entries])
        if not self.holes:
            # It is looked for when its time comes: nothing behind the first of them was sent.
            return Changes(self.entries[0][0] - 1 if self.entries else self.reached, passed - waiting)
        changes = Changes(self.reached, passed - waiting)
        for offset, reading in self.entries:
            changes.known.setdefault(reading.device, offset - 1)
        if self.entries:
            changes.sent_to = self.entries[0][0] - 1
        return changes

    def drop(self, taken: int, length: int) -> int:
        """Let go of the first so many, with a :func:`weight` of so much; the offset that they reach to."""
        last = self.entries[taken - 1][0]
        if self._alone:
            alone = self.entries[: min(taken, self._alone)]
            self._alone -= len(alone)
            self._alone_bytes -= sum([footprint(reading) for _, reading in alone])
        del self.entries[:taken]
        self.given = (taken, length, last)
        if self.entries:
            self.length -= length
            return last
        self.length = 0
        return self.reached


class Changes:
    """Which devices have changed since what was sent, for those who are shown the newest values.

    ``known`` has the changed devices, each with the offset up to which it was sent; what others had up to ``upto`` was
    sent.  Bound: the devices there are; of one that has to wait (:meth:`unsent`), those of an update which is larger
    than a piece and was sent in part.
    """

    __slots__ = ("known", "left", "passed", "sent", "sent_to", "upto", "whole")

    def __init__(self, upto: int, passed: int) -> None:
        self.known: dict[str, int] = {}
        self.upto = upto
        self.sent_to = upto  # all that came up to here was sent, or passed over for something newer
        self.left = 0  # devices that belong to what is being sent
        self.whole = True  # nothing behind `sent_to` was sent: all that has changed since is known
        self.passed = passed  # the group's count of values when nothing was left the last time
        self.sent = 0  # values since

    def copy(self) -> Changes:
        """An independent one with the same content."""
        copy = Changes(self.upto, self.passed)
        copy.known, copy.sent_to, copy.left, copy.sent = dict(self.known), self.sent_to, self.left, self.sent
        copy.whole = self.whole
        return copy

    def unsent(self) -> Changes:
        """A copy for one that has to wait; it holds nothing, and looks for it later, where no part was sent."""
        if not self.whole:
            return self.copy()
        copy = Changes(self.sent_to, self.passed)
        copy.sent = self.sent
        return copy

    def copy_all(self) -> Changes:
        """One that is :meth:`like` this."""
        copy = self.copy()
        copy.passed = self.passed
        return copy

    def like(self, other: Changes) -> bool:
        """Whether the next piece of both is the same, and what it leaves."""
        return (
            (self.upto, self.sent_to, self.left, self.sent, self.passed)
            == (other.upto, other.sent_to, other.left, other.sent, other.passed)
            and self.known == other.known
            and list(self.known) == list(other.known)
        )

    def become(self, other: Changes) -> None:
        """Be :meth:`like` the other."""
        self.known = dict(other.known)
        self.upto, self.sent_to, self.left, self.whole = other.upto, other.sent_to, other.left, other.whole
        self.sent, self.passed = other.sent, other.passed

    def note(self, devices: Iterable[str], upto: int) -> None:
        """These have changed, and no others, between the old ``upto`` and this one."""
        known, since = self.known, self.upto
        if not known:
            self.sent_to = since
            self.whole = True
        for device in devices:
            known.setdefault(device, since)
        self.upto = upto

    def catch_up(self, all_series: Mapping[str, Series], upto: int) -> None:
        """Look for what has changed since."""
        since = self.upto
        if upto > since:
            self.note([device for device, series in all_series.items() if series.offset > since], upto)

    def restart(self, all_series: Mapping[str, Series], upto: int) -> None:
        """Go back to what was sent for certain, after a failure: values may come twice, none is left out."""
        self.known, self.left, self.upto = {}, 0, self.sent_to
        self.catch_up(all_series, upto)

    def take(self, all_series: Mapping[str, Series], selection: Selection, room: int) -> tuple[Data, int]:
        """The next piece, maybe empty, of ``room`` bytes, and what of ``room`` it took."""
        data: Data = {}
        spent, visited = 0, []
        for device, known in self.known.items():
            visited.append(device)
            spent += selection.price(device)
            series = all_series.get(device)
            if series is not None and selection.device(device):
                points = series.changed(known, selection)
                if points:
                    data[device] = points
                    self.sent += len(points)
                    spent += 2 * POINT_BYTES + sum([POINT_BYTES + len(name) for name in points])
                    spent += sum([text_weight(value) for ((_, value),) in points.values() if type(value) is str])
            if spent >= room or len(visited) >= self.left:
                break
        for device in visited:
            del self.known[device]
        self.left = min(self.left - len(visited), len(self.known))
        self.whole = False
        return data, spent

    @property
    def reached(self) -> int:
        """What ``sent_to`` is once the pieces that were taken are sent."""
        return self.sent_to if self.known else self.upto

    def skipped(self, passed: int) -> int:
        """How many of the group's ``passed`` values were passed over; asked once, when nothing is left."""
        skipped = passed - self.passed - self.sent
        self.passed, self.sent = passed, 0
        return max(0, skipped)  # what came while a snapshot was sent in parts is not counted, but may be sent

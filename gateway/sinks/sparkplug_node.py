"""What a Sparkplug B edge node says, and in which order.  Pure: who publishes it, and when, is another's.

One node is the gateway, its devices are the gateway's.  Each message that is made takes the next number of the node's
sequence, so all of them have to be published, in order; where that fails, ``births`` begins anew.

A device is born when it is connected, and dies when it is not.  What it sent may come later than that (from a backlog,
or since it sent one reading and left): then it is born for its data, and dies behind it.

Values: a metric's newest is that of the greatest time.  A value is historical where it was received long ago, or where
its time is before that of one that was data before it.  The metrics of a message are in the order of time.

What a host gets to know of a metric: alias (one number for as long as the process lives), data type, newest value.  A
metric that is new, or has another type, makes a birth of its device before its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from gateway.reading import MAX_STRING, Reading, Value
from gateway.sinks.layouts import Message
from gateway.sinks.sparkplug_payload import (
    BD_SEQ,
    BOOLEAN,
    INT64,
    REBIRTH,
    Maker,
    datatype,
    death,
    fits,
    most_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.reading import Item

__all__ = ["NAMESPACE", "Latest", "Node"]

Latest = Callable[[str], Iterable[tuple[str, int, Value]]]
"""The newest values of a device as far as known: metric, time in nanoseconds, value."""

NAMESPACE = "spBv1.0"
ALIVE = {b"online", b"stale"}  # a device that is silent is connected all the same
DATA_BYTES = 128 << 10  # a message of data is cut here


class _TooLarge(Exception):
    """The birth of a device is larger than what the broker takes, in words."""


class _Metric:
    """What a host knows of a metric; ``told`` is the greatest time that was data, as opposed to a birth's."""

    __slots__ = ("alias", "kind", "time", "told", "value")

    def __init__(self, alias: int, kind: int, value: Value, time: int) -> None:
        self.alias, self.kind, self.value, self.time = alias, kind, value, time
        self.told = 0


class _Device:
    __slots__ = ("alive", "born", "data", "metrics", "name")

    def __init__(self, name: str, data: str) -> None:
        self.name = name
        self.data = data  # its DDATA topic
        self.alive = False
        self.born = False
        self.metrics: dict[str, _Metric] = {}


class Node:
    """``group`` and ``node`` name it; ``latest`` is asked for what a device sent last; ``integer`` says which metrics
    their device declared integers.  Without ``aliases`` each value has name and data type in place of one.

    Bound: a device for each that the gateway knows, with its metrics; ``presence`` None forgets one.
    """

    def __init__(
        self,
        group: str,
        node: str,
        *,
        latest: Latest = lambda device: (),
        integer: Callable[[str, str], bool] = lambda device, metric: False,
        aliases: bool = True,
    ) -> None:
        self._group, self._node = group, node
        self._latest, self._integer, self._with_aliases = latest, integer, aliases
        self._devices: dict[str, _Device] = {}
        self._seq = 0
        self._aliases = 0
        self.born = self.died = 0
        self.death_topic = self._topic("NDEATH")
        self.command_topic = self._topic("NCMD")

    def _topic(self, verb: str, device: str = "") -> str:
        own = f"{NAMESPACE}/{self._group}/{verb}/{self._node}"
        return f"{own}/{device}" if device else own

    # -- messages: each generator has to be published as far as it was run --

    def death(self, bd_seq: int, now: int) -> bytes:
        """The payload of the node's death in the session of that number."""
        return death(bd_seq, now)

    def births(self, bd_seq: int, now: int, *, fresh: bool, max_bytes: int) -> Iterator[Message]:
        """The node's birth, and those of all devices that are alive; the sequence begins at 0.

        ``fresh``: with the newest values that there are, in place of those that were published last.  A device whose
        birth has more than ``max_bytes`` is left out.
        """
        self._seq = 0
        for device in self._devices.values():
            device.born = False
        made = Maker(now)
        made.born(BD_SEQ, INT64, bd_seq, now)
        made.born(REBIRTH, BOOLEAN, False, now)
        yield self._message(self._topic("NBIRTH"), made)
        for device in self._devices.values():
            if device.alive:
                try:
                    yield self._birth(device, now, max_bytes, fresh=fresh)
                except _TooLarge:
                    continue

    def presence(self, name: str, state: bytes | None, now: int, *, max_bytes: int) -> Iterator[Message]:
        """What tells that a device is ``state`` now; None: it is forgotten."""
        device = self._devices.get(name)
        if device is None:
            if state not in ALIVE:
                return
            device = self._device(name)
        device.alive = state in ALIVE
        if device.alive and not device.born:
            try:
                yield self._birth(device, now, max_bytes, fresh=True)
            except _TooLarge:
                return
        elif device.born and not device.alive:
            yield self._die(device, now)
        if state is None:
            del self._devices[name]

    def data(
        self, items: Sequence[Item], before: int, now: int, *, max_bytes: int, refused: dict[int, str]
    ) -> Iterator[Message]:
        """The readings of ``items``, each device's in the order of their times; historical what was received before
        ``before``.

        A message has at most ``max_bytes``, and one of data no more than ``DATA_BYTES``.  What can have no place in one
        is put into ``refused``, by index and why.
        """
        by_device: dict[str, list[tuple[int, Reading]]] = {}
        for index, item in enumerate(items):
            if type(item) is Reading and item.values:
                by_device.setdefault(item.device, []).append((index, item))
        for name, some in by_device.items():
            some.sort(key=lambda one: one[1].time)
            device = self._devices.get(name) or self._device(name)
            yield from self._data(device, some, before, now, max_bytes, refused)
            if device.born and not device.alive:
                yield self._die(device, now)

    # -- within --

    def _device(self, name: str) -> _Device:
        device = self._devices[name] = _Device(name, self._topic("DDATA", name))
        return device

    def _message(self, topic: str, made: Maker) -> Message:
        seq = self._seq
        self._seq = (seq + 1) & 255
        return Message(topic, made.encode(seq), ())

    def _die(self, device: _Device, now: int) -> Message:
        device.born = False
        self.died += 1
        return self._message(self._topic("DDEATH", device.name), Maker(now))

    def _birth(self, device: _Device, now: int, max_bytes: int, *, fresh: bool) -> Message:
        """Raises ``_TooLarge``, and no number is taken then."""
        self._catch_up(device, fresh=fresh)
        made = Maker(now)
        for name, metric in sorted(device.metrics.items(), key=lambda one: one[1].time):
            alias = metric.alias if self._with_aliases else None
            made.born(name, metric.kind, metric.value, metric.time, alias)
        size = len(made.encode(self._seq))
        if size > max_bytes:
            raise _TooLarge(
                f"the birth of {device.name} has {size} bytes with its {len(made)} metrics, "
                f"more than the {max_bytes} that the broker takes"
            )
        device.born = True
        self.born += 1
        return self._message(self._topic("DBIRTH", device.name), made)

    def _catch_up(self, device: _Device, *, fresh: bool) -> None:
        """Take what is newest of metrics that are not known yet; ``fresh``: of all."""
        for name, time, value in self._latest(device.name):
            known = device.metrics.get(name)
            if known is None:
                self._meet(device, name, value, time)
            elif fresh:
                known.kind = datatype(value, self._integer(device.name, name), known.kind)
                known.value, known.time = value, time

    def _meet(self, device: _Device, name: str, value: Value, time: int) -> None:
        self._aliases += 1
        kind = datatype(value, self._integer(device.name, name))
        device.metrics[name] = _Metric(self._aliases, kind, value, time)

    def _data(
        self,
        device: _Device,
        some: list[tuple[int, Reading]],
        before: int,
        now: int,
        max_bytes: int,
        refused: dict[int, str],
    ) -> Iterator[Message]:
        metrics = device.metrics
        most = min(max_bytes, DATA_BYTES)
        made = Maker(now)
        first = True
        for at, (index, reading) in enumerate(some):
            if words := _too_large(reading, max_bytes):
                refused[index] = words
                continue
            changed = self._changed(device, reading)
            if changed or not device.born:
                if len(made):
                    yield self._message(device.data, made)
                    made = Maker(now)
                if first:
                    # All that is new in this batch, so that it takes one birth where it can; no old value is present.
                    if reading.received < before:
                        self._catch_up(device, fresh=False)
                    for _, other in some[at:]:
                        for name, value in other.values.items():
                            if name not in metrics and not _too_large(other, max_bytes):
                                self._meet(device, name, value, other.time)
                    self._changed(device, reading)
                    first = False
                try:
                    yield self._birth(device, now, max_bytes, fresh=False)
                except _TooLarge as error:
                    refused.update((index, str(error)) for index, _ in some[at:])
                    if device.born:
                        yield self._die(device, now)
                    return
            time, old = reading.time, reading.received < before
            for name, value in reading.values.items():
                metric = metrics[name]
                # A time in the future is some clock's fault: what comes after it is no history for that.
                late = time < metric.told <= now
                if made.size + most_bytes(value, name) > most and len(made):
                    yield self._message(device.data, made)
                    made = Maker(now)
                if self._with_aliases:
                    made.told(metric.alias, metric.kind, value, time, old or late)
                else:
                    made.named(name, metric.kind, value, time, old or late)
                if not late:
                    metric.told = time
                    if not time < metric.time <= now:
                        metric.value, metric.time = value, time
        if len(made):
            yield self._message(device.data, made)

    def _changed(self, device: _Device, reading: Reading) -> bool:
        """Whether the birth lacks a metric of this reading, or has it with another type; the latter is mended."""
        changed = False
        for name, value in reading.values.items():
            metric = device.metrics.get(name)
            if metric is None:
                changed = True
            elif not fits(value, metric.kind):
                kind = datatype(value, self._integer(device.name, name), metric.kind)
                if kind != metric.kind:
                    metric.kind, metric.value, metric.time = kind, value, reading.time
                    changed = True
        return changed


def _too_large(reading: Reading, max_bytes: int) -> str:
    if max_bytes > 5 * MAX_STRING:
        return ""
    for name, value in reading.values.items():
        if type(value) is str and 32 + most_bytes(value, name) > max_bytes:
            return f"{name} alone has more than the {max_bytes} bytes that the broker takes"
    return ""

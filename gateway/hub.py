"""Latest values and live subscriptions: newest values by series, groups of like subscriptions, conflation, bounds.

Readings are shown as they are accepted, before they are durable.  ``publish`` only notes a reading; a tick every
:data:`GRID_S` folds what came since the last one into groups.  All subscribers that asked for the same share a group,
and what a group sends is built, encoded and framed once.

A subscriber has an accumulator of its own only while it differs from its group: from joining until the group's next
emission (so that its snapshot and its updates join exactly), while its history is being read, and while it is too slow
to take the group's updates.  Bounds:

- ``fresh``: what is published between two ticks; the journal's own bound on what is uncommitted is above it.
- a ``latest`` accumulator: one entry a series.
- an ``every`` accumulator: :data:`EVERY_MAX` readings; beyond it the subscriber is moved to ``latest`` and told.
- a subscriber's socket: :data:`PENDING_MAX` bytes and one frame.  ``every``: moved to ``latest`` and told.  ``latest``:
  passed by until it has read, its accumulator keeps the newest values and counts the rest in ``skipped``.
- ``recent``: the last :data:`RECENT_MAX` readings, for resuming; older ones are forgotten, and a resume says so.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import msgspec

from .devices import Device, DeviceBook
from .reading import Reading, Value

__all__ = [
    "EVERY_MAX",
    "GRID_S",
    "PENDING_MAX",
    "RECENT_MAX",
    "Hub",
    "Member",
    "Selection",
    "Subscription",
    "point",
    "presence_of",
    "wire_value",
]

GRID_S = 0.05
PENDING_MAX = {"every": 512 * 1024, "latest": 128 * 1024}
EVERY_MAX = 16_384
RECENT_MAX = 8_192
PRESENCE_ONLY = ("none",)  # the list of metrics that subscribes to presence alone
SAFE_INTEGER = (1 << 53) - 1

Frame = TypeVar("Frame")
Frame_contra = TypeVar("Frame_contra", contravariant=True)


def wire_value(value: Value) -> Value:
    """The value for JSON that browsers read: integers beyond 2^53-1 as strings of digits."""
    if type(value) is int and not -SAFE_INTEGER <= value <= SAFE_INTEGER:
        return str(value)
    return value


def globs(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A predicate that matches any of the globs (``*``, ``?``); no globs match all."""
    wanted = list(patterns)
    if not wanted or "*" in wanted:
        return lambda name: True
    parts = (re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".") for glob in wanted)
    match = re.compile("|".join(parts), re.DOTALL).fullmatch
    return lambda name: match(name) is not None


class Subscription(msgspec.Struct, frozen=True):
    """What a dashboard asked for; equal ones share a group.  ``ticks`` is the interval in units of the grid."""

    id: str
    devices: tuple[str, ...]
    metrics: tuple[str, ...]
    mode: str
    ticks: int
    format: str


class Series(msgspec.Struct, gc=False):
    """The newest reading of each metric of a device, and the greatest time among them."""

    newest: dict[str, Reading]
    time: int = 0


class Selection:
    """Which series a subscription covers; remembers its answers (bound: the series there are)."""

    def __init__(self, subscription: Subscription) -> None:
        self._device = globs(subscription.devices)
        presence_only = subscription.metrics == PRESENCE_ONLY
        self._metric = (lambda name: False) if presence_only else globs(subscription.metrics)
        self._devices: dict[str, bool] = {}
        self._metrics: dict[str, bool] = {}
        self.all_devices = not subscription.devices or "*" in subscription.devices
        self.all_metrics = not subscription.metrics or "*" in subscription.metrics

    def device(self, name: str) -> bool:
        """Whether the device is covered."""
        if self.all_devices:
            return True
        known = self._devices.get(name)
        if known is None:
            known = self._devices[name] = self._device(name)
        return known

    def metric(self, name: str) -> bool:
        """Whether the metric is covered."""
        if self.all_metrics:
            return True
        known = self._metrics.get(name)
        if known is None:
            known = self._metrics[name] = self._metric(name)
        return known

    def metrics(self, values: dict[str, Value]) -> Iterable[str]:
        """The covered ones of a reading's metrics."""
        return values if self.all_metrics else [name for name in values if self.metric(name)]


class Accumulator:
    """What is to be sent next: all readings (``every``) or the newest of each series (``latest``)."""

    __slots__ = ("every", "latest", "offset", "passed", "readings", "selection")

    def __init__(self, selection: Selection, every: bool) -> None:
        self.selection = selection
        self.every = every
        self.readings: list[Reading] = []
        self.latest: dict[str, dict[str, Reading]] = {}
        self.passed = 0  # values taken in, to know how many were passed over
        self.offset = -1

    def fold(self, fresh: list[tuple[int, Reading]]) -> None:
        """Take in published readings, in order."""
        if not fresh:
            return
        self.offset = fresh[-1][0]
        selection = self.selection
        if self.every:
            if selection.all_devices:
                self.readings += [reading for _, reading in fresh]
            else:
                self.readings += [reading for _, reading in fresh if selection.device(reading.device)]
            return
        latest = self.latest
        for _, reading in fresh:
            device = reading.device
            if not selection.all_devices and not selection.device(device):
                continue
            names = selection.metrics(reading.values)
            newest = latest.get(device)
            if newest is None:
                newest = latest[device] = {}
            update_newest(newest, names, reading)
            self.passed += len(reading.values) if selection.all_metrics else len(names)  # type: ignore[arg-type]

    def copy(self, every: bool) -> Accumulator:
        """An independent one with the same content; from ``every`` to ``latest`` keeps the newest of each series."""
        copy = Accumulator(self.selection, every)
        copy.offset = self.offset
        copy.passed = self.passed
        if every:
            copy.readings = list(self.readings)
        elif self.every:
            copy.fold([(self.offset, reading) for reading in self.readings])
        else:
            copy.latest = {device: dict(newest) for device, newest in self.latest.items()}
        return copy

    def take(self) -> tuple[dict[str, dict[str, list[list[Value]]]], int, int] | None:
        """The data to send, the offset it reaches to and how many values were passed over; None without any."""
        data = self._every() if self.every else self._latest()
        skipped = 0 if self.every else self.passed - sum(map(len, data.values()))
        self.clear()
        return (data, self.offset, skipped) if data else None

    def clear(self) -> None:
        """Forget what was taken in."""
        self.readings, self.latest, self.passed = [], {}, 0

    def _every(self) -> dict[str, dict[str, list[list[Value]]]]:
        data: dict[str, dict[str, list[list[Value]]]] = {}
        for reading in self.readings:
            for name in self.selection.metrics(reading.values):
                points = data.setdefault(reading.device, {}).setdefault(name, [])
                points.append(point(reading, name))
        return data

    def _latest(self) -> dict[str, dict[str, list[list[Value]]]]:
        return {
            device: {name: [point(reading, name)] for name, reading in newest.items()}
            for device, newest in self.latest.items()
            if newest
        }


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


class Member(Protocol[Frame_contra]):
    """A dashboard's connection, as the hub sees it."""

    def send(self, frame: Frame_contra) -> None:
        """Send without waiting; a member that cannot take it is not told, but see :attr:`pending_bytes`."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that the peer has not taken yet, socket buffer included."""


class Subscriber(Generic[Frame]):
    """One subscription of one member."""

    __slots__ = ("held", "member", "own")

    def __init__(self, member: Member[Frame], own: Accumulator | None) -> None:
        self.member = member
        self.own = own
        self.held = False  # nothing is sent until its history has been


class Group(Generic[Frame]):
    """All subscribers of equal subscriptions."""

    __slots__ = ("due", "every", "selection", "shared", "subscribers", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.selection = Selection(subscription)
        self.every = subscription.mode == "every"
        self.shared = Accumulator(self.selection, self.every)
        self.subscribers: dict[Member[Frame], Subscriber[Frame]] = {}
        self.due = subscription.ticks


class Hub(Generic[Frame]):
    """The live side of the gateway.  All methods are called on the loop; none waits.

    ``encode(format, message)`` gives a frame that any number of members can be sent.
    """

    def __init__(self, book: DeviceBook, encode: Callable[[str, dict[str, object]], Frame]) -> None:
        self._book = book
        self._encode = encode
        self._groups: dict[Subscription, Group[Frame]] = {}
        self._fresh: list[tuple[int, Reading]] = []
        self.series: dict[str, Series] = {}
        self.recent: deque[tuple[int, Reading]] = deque(maxlen=RECENT_MAX)
        self.offset = -1  # of the last item published
        self.floor = 0  # offsets from here on are in `recent`
        self.frames = 0  # encoder calls, which do not rise with the number of dashboards
        self.downgraded = 0

    # -- the stream ----------------------------------------------------------------------------------------------

    def publish(self, reading: Reading, offset: int) -> None:
        """Show a reading; ``offset`` is its place in the journal."""
        entry = (offset, reading)
        recent = self.recent
        if len(recent) == RECENT_MAX:
            self.floor = recent[0][0] + 1
        recent.append(entry)
        self.offset = offset
        if self._groups:
            self._fresh.append(entry)
        self._note(reading)

    def restore(self, reading: Reading) -> None:
        """Take in a reading found at start: it is newest, not news."""
        self._note(reading)

    def _note(self, reading: Reading) -> None:
        series = self.series.get(reading.device)
        if series is None:
            series = self.series[reading.device] = Series({})
        if reading.time >= series.time:
            series.time = reading.time
            series.newest.update(dict.fromkeys(reading.values, reading))
        else:
            update_newest(series.newest, reading.values, reading)

    def begin(self, offset: int) -> None:
        """Offsets below ``offset`` are of an earlier run: nothing of them is in ``recent``."""
        self.offset = offset - 1
        self.floor = offset

    def presence(self, device: Device) -> None:
        """Tell of a device's changed state."""
        for group in self._groups.values():
            if group.selection.device(device.name):
                frame = self._frame(
                    group.subscription,
                    {
                        "type": "presence",
                        "id": group.subscription.id,
                        "devices": {device.name: presence_of(device)},
                    },
                )
                for member in group.subscribers:
                    member.send(frame)

    def tick(self) -> None:
        """To be called every :data:`GRID_S`: fold what was published since, and send what is due."""
        if not self._groups:
            return
        self._collect()
        for group in list(self._groups.values()):
            group.due -= 1
            if group.due <= 0:
                group.due = group.subscription.ticks
                self._emit(group)

    def _collect(self) -> None:
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        for group in list(self._groups.values()):
            group.shared.fold(fresh)
            for subscriber in list(group.subscribers.values()):
                own = subscriber.own
                if own is not None:
                    own.fold(fresh)
                    if len(own.readings) > EVERY_MAX:
                        self._downgrade(group, subscriber)

    def _emit(self, group: Group[Frame]) -> None:
        bound = PENDING_MAX[group.subscription.mode]
        current: list[Member[Frame]] = []
        for member, subscriber in list(group.subscribers.items()):
            if subscriber.held:
                continue
            if member.pending_bytes > bound:
                if subscriber.own is None:
                    subscriber.own = group.shared.copy(group.every)
                if group.every:
                    self._downgrade(group, subscriber)
            elif subscriber.own is not None:
                frame = self._update(group, subscriber.own)
                subscriber.own = None
                if frame is not None:
                    member.send(frame)
            else:
                current.append(member)
        if not current:
            group.shared.clear()
            return
        frame = self._update(group, group.shared)
        if frame is not None:
            for member in current:
                member.send(frame)

    def _update(self, group: Group[Frame], accumulator: Accumulator) -> Frame | None:
        taken = accumulator.take()
        if taken is None:
            return None
        data, offset, skipped = taken
        message: dict[str, object] = {
            "type": "update",
            "id": group.subscription.id,
            "offset": offset,
            "data": data,
        }
        if skipped:
            message["skipped"] = skipped
        return self._frame(group.subscription, message)

    def _frame(self, subscription: Subscription, message: dict[str, object]) -> Frame:
        self.frames += 1
        return self._encode(subscription.format, message)

    def _downgrade(self, group: Group[Frame], subscriber: Subscriber[Frame]) -> None:
        """Move a subscriber that falls behind from ``every`` to ``latest``."""
        self.downgraded += 1
        del group.subscribers[subscriber.member]
        assert subscriber.own is not None  # it differs from its group, or it would not be behind
        subscription = msgspec.structs.replace(group.subscription, mode="latest")
        slower = self._group(subscription)
        subscriber.own = subscriber.own.copy(False)
        slower.subscribers[subscriber.member] = subscriber
        self._drop_if_empty(group)
        subscriber.member.send(
            self._frame(subscription, {"type": "mode", "id": subscription.id, "mode": "latest", "reason": "slow"})
        )

    # -- subscriptions -------------------------------------------------------------------------------------------

    def subscribe(self, member: Member[Frame], subscription: Subscription, after: int | None) -> bool:
        """Add a subscription, send its snapshot; returns whether all since ``after`` is in the answer.

        Nothing further is sent until :meth:`release`: the caller may send history in between.
        """
        self._collect()
        group = self._group(subscription)
        own = Accumulator(group.selection, group.every)
        # The snapshot holds the newest of each series, whatever was missed; all values only `recent` has.
        recovered = after is not None and 0 <= after <= self.offset and (not group.every or after >= self.floor - 1)
        if recovered and group.every:
            own.fold([entry for entry in self.recent if entry[0] > after])  # type: ignore[operator]
        subscriber = Subscriber(member, own)
        subscriber.held = True
        group.subscribers[member] = subscriber
        member.send(self._frame(subscription, self._snapshot(group, recovered)))
        return recovered

    def release(self, member: Member[Frame], subscription: Subscription) -> None:
        """History was sent: updates may follow."""
        for group in self._groups_of(subscription):
            subscriber = group.subscribers.get(member)
            if subscriber is not None:
                subscriber.held = False

    def unsubscribe(self, member: Member[Frame], subscription: Subscription) -> None:
        """End a subscription, whichever mode it is in by now."""
        for group in self._groups_of(subscription):
            group.subscribers.pop(member, None)
            self._drop_if_empty(group)

    def since(self, after: int, subscription: Subscription) -> tuple[list[Reading], bool]:
        """Readings published after offset ``after`` that the subscription covers, and whether those are all."""
        selection = Selection(subscription)
        found = [reading for offset, reading in self.recent if offset > after and selection.device(reading.device)]
        return found, after >= self.floor - 1

    def _groups_of(self, subscription: Subscription) -> list[Group[Frame]]:
        moved = msgspec.structs.replace(subscription, mode="latest")
        return [self._groups[key] for key in {subscription, moved} if key in self._groups]

    def _group(self, subscription: Subscription) -> Group[Frame]:
        group = self._groups.get(subscription)
        if group is None:
            group = self._groups[subscription] = Group(subscription)
        return group

    def _drop_if_empty(self, group: Group[Frame]) -> None:
        if not group.subscribers:
            self._groups.pop(group.subscription, None)
            if not self._groups:
                self._fresh.clear()

    def _snapshot(self, group: Group[Frame], recovered: bool) -> dict[str, object]:
        selection = group.selection
        devices: dict[str, object] = {}
        for device in self._book:
            if device.status is None or not selection.device(device.name):
                continue
            series = self.series.get(device.name)
            shown = presence_of(device)
            shown["values"] = (
                {}
                if series is None
                else {name: point(r, name) for name, r in series.newest.items() if selection.metric(name)}
            )
            devices[device.name] = shown
        return {
            "type": "snapshot",
            "id": group.subscription.id,
            "offset": self.offset,
            "recovered": recovered,
            "devices": devices,
        }

    def stats(self) -> dict[str, float]:
        """Counters and sizes."""
        return {
            "series": sum(len(series.newest) for series in self.series.values()),
            "groups": len(self._groups),
            "subscribers": sum(len(group.subscribers) for group in self._groups.values()),
            "frames": self.frames,
            "downgraded": self.downgraded,
        }


def presence_of(device: Device) -> dict[str, object]:
    """A device's state for the wire: times in milliseconds."""
    status = device.status
    if status is None:
        return {"state": "offline", "since": 0, "last_seen": device.last_seen // 1_000_000}
    shown: dict[str, object] = {
        "state": status.state,
        "since": status.since // 1_000_000,
        "last_seen": device.last_seen // 1_000_000,
    }
    if status.reason:
        shown["reason"] = status.reason
    if not status.confirmed:
        shown["confirmed"] = False
    return shown

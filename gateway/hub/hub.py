"""The hub: newest values by series, and groups of like subscriptions.

Readings are shown as they are accepted, before they are durable.  ``publish`` only notes a reading; a tick every
:data:`GRID_S` folds what came since the last one into groups.  All subscribers that asked for the same share a group,
and what a group sends is built, encoded and framed once.

A subscriber has an accumulator of its own only while it differs from its group: from joining until the group's next
emission (so that its snapshot and its updates join exactly), while its history is being read, and while it is too slow
to take the group's updates.  Bounds:

- ``fresh``: what is published between two ticks; the journal's bound on what is not durable stands before it.
- ``latest``: one entry a series.
- ``every``, of one subscriber: :data:`EVERY_MAX` readings or :data:`EVERY_BYTES`; beyond it is moved to ``latest`` and
  told.
- a subscriber's socket: :data:`PENDING_MAX` bytes and one frame.  ``every``: moved to ``latest`` and told.  ``latest``:
  passed by until it has read; its accumulator keeps the newest values and counts the others, and presence is sent then.
- ``recent``: the last :data:`RECENT_MAX` readings, :data:`RECENT_BYTES` of messages at most, for resuming; older ones
  are forgotten, and a resume says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from ..devices import Device, DeviceBook
from ..reading import Reading
from .accumulator import PIECE_BYTES, Accumulator, Every, Latest, point, update_newest
from .selection import Selection, Subscription

__all__ = ["EVERY_BYTES", "EVERY_MAX", "GRID_S", "PENDING_MAX", "RECENT_MAX", "Hub", "Member", "presence_of"]

GRID_S = 0.05
PENDING_MAX = {"every": 512 * 1024, "latest": 128 * 1024}
EVERY_MAX = 16_384
EVERY_BYTES = 1 << 20
RECENT_MAX = 8_192
RECENT_BYTES = 4 << 20
FOLD = 256  # readings folded at once into an `every` group, before it is looked whether they fill a frame

Frame = TypeVar("Frame")
Frame_contra = TypeVar("Frame_contra", contravariant=True)


class Member(Protocol[Frame_contra]):
    """A dashboard's connection, as the hub sees it."""

    def send(self, frame: Frame_contra) -> None:
        """Send without waiting; a member that cannot take it is not told, but see :attr:`pending_bytes`."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that the peer has not taken yet, socket buffer included."""


class Series(msgspec.Struct, gc=False):
    """The newest reading of each metric of a device, and the greatest time among them (nanoseconds)."""

    newest: dict[str, Reading]
    time: int = 0


class Subscriber(Generic[Frame]):
    """One subscription of one member."""

    __slots__ = ("held", "member", "own", "unseen")

    def __init__(self, member: Member[Frame], own: Accumulator | None) -> None:
        self.member = member
        self.own = own
        self.held = False  # no updates are sent until its history has been
        self.unseen: set[str] = set()  # devices whose presence it could not be told


class Group(Generic[Frame]):
    """All subscribers of equal subscriptions."""

    __slots__ = ("due", "selection", "shared", "subscribers", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.selection = Selection(subscription)
        self.shared = self.accumulator()
        self.subscribers: dict[Member[Frame], Subscriber[Frame]] = {}
        self.due = subscription.ticks

    @property
    def every(self) -> bool:
        """Whether all values are sent."""
        return self.subscription.mode == "every"

    def accumulator(self) -> Accumulator:
        """An empty one of the group's kind."""
        return Every(self.selection) if self.every else Latest(self.selection)


class Hub(Generic[Frame]):
    """The live side of the gateway.  All methods are called on the loop; none waits.

    ``encode(format, message)`` gives a frame that any number of members can be sent.
    """

    def __init__(self, book: DeviceBook, encode: Callable[[str, dict[str, object]], Frame]) -> None:
        self._book = book
        self._encode = encode
        self._groups: dict[Subscription, Group[Frame]] = {}
        self._fresh: list[tuple[int, Reading]] = []
        self._late = False  # among the fresh is one older than another of its device
        self.series: dict[str, Series] = {}
        self.recent: deque[tuple[int, Reading]] = deque()
        self._sizes: deque[int] = deque()  # of the recent ones
        self._recent_bytes = 0
        self.offset = -1  # of the last reading published
        self.floor = 0  # all that was ever published at this offset or above is in `recent`
        self.frames = 0  # encoder calls, which do not rise with the number of dashboards
        self.downgraded = 0

    # -- the stream ---------------------------------------------------------------------------------------------------

    def publish(self, reading: Reading, offset: int, size: int = 0) -> None:
        """Show a reading; ``offset`` is its place in the journal, ``size`` its share of a message's bytes."""
        entry = (offset, reading)
        recent = self.recent
        recent.append(entry)
        self._sizes.append(size)
        self._recent_bytes += size
        while len(recent) > RECENT_MAX or self._recent_bytes > RECENT_BYTES:
            self.floor = recent.popleft()[0] + 1
            self._recent_bytes -= self._sizes.popleft()
        self.offset = offset
        if self._groups:
            self._fresh.append(entry)
        if not self.restore(reading):
            self._late = True

    def restore(self, reading: Reading) -> bool:
        """Note a reading as newest where it is; by itself for one found at start, which is not news.

        False for one that is older than another of its device.
        """
        series = self.series.get(reading.device)
        if series is None:
            series = self.series[reading.device] = Series({})
        if reading.time >= series.time:
            series.time = reading.time
            series.newest.update(dict.fromkeys(reading.values, reading))
            return True
        update_newest(series.newest, reading.values, reading)
        return False

    def begin(self, offset: int, floor: int) -> None:
        """This run's first offset will be ``offset``; earlier runs have nothing at or above ``floor``."""
        self.offset = offset - 1
        self.floor = floor

    def presence(self, device: Device) -> None:
        """Tell of a device's changed state."""
        for group in self._groups.values():
            if not group.selection.device(device.name):
                continue
            frame = self._presence(group, [device])
            bound = PENDING_MAX[group.subscription.mode]
            for member, subscriber in group.subscribers.items():
                if member.pending_bytes > bound:
                    subscriber.unseen.add(device.name)
                else:
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

    @property
    def oldest_received(self) -> int | None:
        """When the oldest reading that the next tick will fold was received (nanoseconds)."""
        return self._fresh[0][1].received if self._fresh else None

    def _collect(self) -> None:
        fresh, self._fresh = self._fresh, []
        late, self._late = self._late, False
        if not fresh:
            return
        for group in list(self._groups.values()):
            if not group.every:
                self._fold(group, fresh, late)
                continue
            for start in range(0, len(fresh), FOLD):
                self._fold(group, fresh[start : start + FOLD], late)
                if isinstance(group.shared, Every) and group.shared.size >= PIECE_BYTES:
                    self._emit(group)

    def _fold(self, group: Group[Frame], fresh: list[tuple[int, Reading]], late: bool) -> None:
        group.shared.fold(fresh, late)
        for subscriber in list(group.subscribers.values()):
            own = subscriber.own
            if own is not None:
                own.fold(fresh, late)
                if isinstance(own, Every) and (own.size > EVERY_BYTES or len(own.entries) > EVERY_MAX):
                    self._downgrade(group, subscriber)

    def _emit(self, group: Group[Frame]) -> None:
        bound = PENDING_MAX[group.subscription.mode]
        current: list[Subscriber[Frame]] = []
        for subscriber in list(group.subscribers.values()):
            if subscriber.held:
                continue
            if subscriber.member.pending_bytes > bound:
                if subscriber.own is None:
                    subscriber.own = group.shared.copy()
                if group.every:
                    self._downgrade(group, subscriber)
                continue
            if subscriber.unseen:
                self._catch_up(group, subscriber)
            if subscriber.own is not None:
                self._emit_own(group, subscriber, bound)
            else:
                current.append(subscriber)
        shared = group.shared
        while current and (piece := shared.take()):
            frame = self._update(group, piece.data, piece.offset, piece.skipped)
            for subscriber in current:
                subscriber.member.send(frame)
            if shared:
                slow = [subscriber for subscriber in current if subscriber.member.pending_bytes > bound]
                for subscriber in slow:
                    subscriber.own = shared.copy()
                current = [subscriber for subscriber in current if subscriber.own is None]
        shared.clear()

    def _emit_own(self, group: Group[Frame], subscriber: Subscriber[Frame], bound: int) -> None:
        own = subscriber.own
        while own and subscriber.member.pending_bytes <= bound:
            piece = own.take()
            if piece is not None:
                subscriber.member.send(self._update(group, piece.data, piece.offset, piece.skipped))
        if not own:
            subscriber.own = None

    def _catch_up(self, group: Group[Frame], subscriber: Subscriber[Frame]) -> None:
        devices = [device for name in subscriber.unseen if (device := self._book.get(name)) is not None]
        subscriber.unseen = set()
        subscriber.member.send(self._presence(group, devices))

    def _presence(self, group: Group[Frame], devices: list[Device]) -> Frame:
        states = {device.name: presence_of(device) for device in devices}
        return self._frame(group.subscription, {"type": "presence", "id": group.subscription.id, "devices": states})

    def _update(self, group: Group[Frame], data: object, offset: int, skipped: int) -> Frame:
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
        assert subscriber.own is not None  # it differs from its group, or it would not be behind
        self.downgraded += 1
        subscriber.own = subscriber.own.latest()
        del group.subscribers[subscriber.member]
        self._drop_if_empty(group)
        subscription = msgspec.structs.replace(group.subscription, mode="latest")
        self._group(subscription).subscribers[subscriber.member] = subscriber
        subscriber.member.send(
            self._frame(subscription, {"type": "mode", "id": subscription.id, "mode": "latest", "reason": "slow"})
        )

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def subscribe(self, member: Member[Frame], subscription: Subscription, after: int | None) -> bool:
        """Add a subscription, send its snapshot; returns whether all since offset ``after`` is in the answer.

        No update is sent until :meth:`release`: the caller may send history in between.
        """
        self._collect()
        group = self._group(subscription)
        own = group.accumulator()
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

    def since(self, after: int, subscription: Subscription) -> tuple[list[tuple[int, Reading]], bool]:
        """What was published behind offset ``after`` and the subscription covers, and whether that is all of it."""
        selection = Selection(subscription)
        found = [entry for entry in self.recent if entry[0] > after and selection.device(entry[1].device)]
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
            if not selection.device(device.name):
                continue
            series = self.series.get(device.name)
            newest = series.newest if series is not None else {}
            shown = presence_of(device)
            shown["values"] = {name: point(r, name) for name, r in newest.items() if selection.metric(name)}
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
    shown: dict[str, object] = {"state": "offline", "since": 0, "last_seen": device.last_seen // 1_000_000}
    status = device.status
    if status is not None:
        shown["state"], shown["since"] = status.state, status.since // 1_000_000
        if status.reason:
            shown["reason"] = status.reason
        if not status.confirmed:
            shown["confirmed"] = False
    return shown

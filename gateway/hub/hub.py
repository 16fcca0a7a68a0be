"""The hub: newest values by series, and groups of like subscriptions.

Readings are shown as they are accepted, before they are durable.  ``publish`` only notes a reading; a tick every
:data:`GRID_S` tells the groups what came since the last one.  All subscribers that asked for the same share a group,
and what a group sends is built, encoded and framed once.

A subscriber differs from its group only from joining until the group's next emission (so that its snapshot and its
updates join exactly), while its history is being read, and while it is too slow to take the group's updates.  What it
lacks is then built for it alone, and for all others that lack the same, see ``copies``.

All sending is done in *steps* of about :data:`PIECE_BYTES`, a few milliseconds each: a tick takes the first, the caller
takes the others, and turns its loop in between.  Each step first collects what was published, so that within it the
newest values, the groups and their subscribers stand at one offset.

Bounds:

- ``fresh``: what is published between two steps; the journal's bound on what is not durable stands before it.
- ``series``: two values a series beside each device's last reading; :class:`Changes`: an entry a device at most.
- what a subscription covers, and where its snapshot stands: a byte a device, see ``selection``, and a place.
- ``every``: what a member's subscriptions hold for it alone, and what it has not taken, see ``holders``; beyond, those
  that hold the most are moved to ``latest`` and told.  What a group holds is sent, whatever its interval, before
  ``recent`` lets go of it.
- a subscriber's socket: :data:`PENDING_MAX` bytes and one frame.  ``every``: moved to ``latest`` and told.  ``latest``:
  passed by until it has read; then it is sent what has changed by then, and how many values it was not.
- ``recent``: the last :data:`RECENT_MAX` readings, :data:`RECENT_BYTES` of messages at most, for resuming; older ones
  are forgotten, and a resume says so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from itertools import islice
from operator import itemgetter
from typing import Generic

import msgspec

from ..devices import DeviceBook
from ..reading import Reading
from .accumulator import PIECE_BYTES, Changes, Data, Entry, Every
from .copies import Copies
from .group import PENDING_MAX, Frame, Group, Member, Subscriber
from .holders import Holders
from .presence import States
from .selection import Names, Subscription
from .series import Series
from .snapshot import snapshot_of

__all__ = ["GRID_S", "PENDING_MAX", "RECENT_MAX", "Hub"]

GRID_S = 0.05
RECENT_MAX = 8_192
RECENT_BYTES = 4 << 20
FOLD = 256  # readings folded at once into an `every` group, before it is looked whether they fill a frame
TURN, LOOK = 1_000, 50  # what it costs to send a frame, to see that a peer is slow; in bytes of a frame's content

_offset = itemgetter(0)


class Hub(Generic[Frame]):
    """The live side of the gateway.  All methods are called on the loop; none waits.

    ``encode(format, message)`` gives a frame that any number of members can be sent.
    """

    def __init__(self, book: DeviceBook, encode: Callable[[str, dict[str, object]], Frame]) -> None:
        self._book = book
        self._encode = encode
        self._groups: dict[Subscription, Group[Frame]] = {}
        self._fresh: list[Entry] = []
        self._batch: list[Entry] = []  # taken from the fresh, with
        self._batch_devices: dict[str, None] = {}  # devices and
        self._batch_values = 0  # so many values, and
        self._left: list[Group[Frame]] = []  # who has still to be told of it
        self._behind: list[Subscriber[Frame]] = []  # to be moved to `latest`
        self._holders: Holders[Frame] = Holders()
        self._copies: Copies[Frame] = Copies()
        self._queue: deque[Group[Frame] | Subscriber[Frame]] = deque()
        self._states = States(book)
        self.presence = self._states.changed
        self.names = Names()
        self.series: dict[str, Series] = {}
        self.recent: deque[Entry] = deque()
        self._sizes: deque[int] = deque()  # of the recent ones
        self._recent_bytes = 0
        self.offset = -1  # of the last reading published
        self.floor = 0  # all that was ever published at this offset or above is in `recent`
        self.frames = 0  # encoder calls, which do not rise with the number of dashboards
        self.downgraded = 0
        self.failures = 0  # of ticks and steps, counted by their caller

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
        series = self.series.get(reading.device)
        if series is None:
            self.series[reading.device] = Series(reading, offset, offset)
        else:
            series.take(reading, offset)

    def restore(self, reading: Reading) -> None:
        """Note a reading found at start as newest where it is; it is not news."""
        series = self.series.get(reading.device)
        if series is None:
            self.series[reading.device] = Series(reading, -1, -1)
        else:
            series.take(reading, -1)

    def begin(self, offset: int, floor: int) -> None:
        """This run's first offset will be ``offset``; earlier runs have nothing at or above ``floor``."""
        self.offset = offset - 1
        self.floor = floor

    def since(self, after: int) -> list[Entry]:
        """What was published behind offset ``after`` and is remembered."""
        return list(islice(self.recent, bisect_right(self.recent, after, key=_offset), None))

    # -- ticks and steps ----------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """To be called every :data:`GRID_S`: what is due is queued, and the first step taken; returns as that."""
        self._copies.tick()
        for group in self._groups.values():
            group.due -= 1
            if group.due <= 0:
                group.due = group.subscription.ticks
                group.sending = True
            if group.sending or group.failed or group.told != self._states.changes:
                self._enqueue(group)
        for group in self._groups.values():
            for subscriber in group.subscribers.values():
                if self._waits(subscriber):
                    self._enqueue(subscriber)
        return self.step()

    def step(self) -> bool:
        """Send about :data:`PIECE_BYTES`; returns whether there is more that can be sent at once.

        If it raises, whoever was to be served is served again after the next tick, the others first.  Those in
        ``latest`` get the newest values all the same; those in ``every`` lack what was to be sent.
        """
        self._collect()
        room = PIECE_BYTES
        while self._queue and room > 0:
            item = self._queue.popleft()
            item.queued = False
            room -= self._serve_group(item, room) if isinstance(item, Group) else self._serve(item, room)
        return bool(self._queue)

    @property
    def oldest_received(self) -> int | None:
        """When the oldest reading that the next step will collect was received (nanoseconds)."""
        return self._fresh[0][1].received if self._fresh else None

    def _enqueue(self, item: Group[Frame] | Subscriber[Frame]) -> None:
        if not item.queued:
            item.queued = True
            self._queue.append(item)

    def _waits(self, subscriber: Subscriber[Frame]) -> bool:
        """Whether there is something for this subscriber alone, were it to read."""
        return (
            subscriber.rest is not None
            or (subscriber.due and not subscriber.held)
            or subscriber.told != subscriber.group.told
        )

    def _collect(self) -> None:
        """Tell all groups of what was published.

        Where one raises, the next call goes on with the others, and without that one, so that they are served.
        """
        while self._left or self._fresh:
            if not self._left:
                self._batch, self._fresh = self._fresh, []
                self._batch_devices = dict.fromkeys([reading.device for _, reading in self._batch])
                self._batch_values = sum([len(reading.values) for _, reading in self._batch])
                self._left = list(self._groups.values())
            while self._left:
                group = self._left.pop()
                if group.failed:
                    continue
                group.failed = True
                if group.every:
                    self._fold(group, self._batch)
                else:
                    self._note(group, self._batch)
                group.failed = False
        self._batch = []
        self._behind += self._holders.excess(self.floor)
        self._downgrade_all()

    def _recover(self, group: Group[Frame]) -> None:
        """Let it go on from where all stands; until then it is told of nothing."""
        if group.every:
            group.shared.clear()
        else:
            group.changes.restart(self.series, self.offset)
        group.failed = False

    def _note(self, group: Group[Frame], batch: list[Entry]) -> None:
        selection, changes = group.selection, group.changes
        upto = batch[-1][0]
        if selection.no_metrics:
            changes.note((), upto)
            return
        if selection.all_metrics and selection.all_devices:
            changes.note(self._batch_devices, upto)
            group.passed += self._batch_values
            return
        devices: dict[str, None] = {}
        for _, reading in batch:
            if selection.device(reading.device) and (names := selection.metrics(reading.values)):
                devices[reading.device] = None
                group.passed += len(names)
        changes.note(devices, upto)

    def _fold(self, group: Group[Frame], batch: list[Entry]) -> None:
        for subscriber in group.subscribers.values():
            own = subscriber.own
            if own is not None:
                own.fold(batch)
        shared, sent = group.shared, False
        for start in range(0, len(batch), FOLD):
            shared.fold(batch[start : start + FOLD])
            if shared.length >= PIECE_BYTES:
                self._emit_every(group, batch[start + FOLD :])
                sent = True
        if shared and shared.entries[0][0] < self.floor:
            self._emit_every(group, [])
            sent = True
        if sent:
            self._call_others(group)

    # -- what a group is sent -----------------------------------------------------------------------------------------

    def _serve_group(self, group: Group[Frame], room: int) -> int:
        if self._groups.get(group.subscription) is not group:
            return 0
        if group.failed:
            self._recover(group)
        spent = TURN + (self._tell_group(group) if group.told != self._states.changes else 0)
        if group.sending:
            if group.every:
                group.sending = False
                spent += group.shared.length
                self._emit_every(group, [])
                self._downgrade_all()
            else:
                spent += self._emit_latest(group, room)
            if not group.sending:
                self._call_others(group)
        if group.sending or group.told != self._states.changes:
            self._enqueue(group)
        return spent

    def _call_others(self, group: Group[Frame]) -> None:
        """Those that differ from the group are to get what it got."""
        for subscriber in group.subscribers.values():
            if not subscriber.current:
                subscriber.due = True
                if not subscriber.held:
                    self._enqueue(subscriber)

    def _emit_every(self, group: Group[Frame], rest: list[Entry]) -> None:
        """``rest`` is what those that part from the group here lack of the batch that is being folded."""
        current = [
            subscriber for subscriber in group.subscribers.values() if subscriber.current and not subscriber.held
        ]
        shared = group.shared
        for subscriber in [subscriber for subscriber in current if subscriber.slow]:
            self._part(subscriber, rest)
            self._behind.append(subscriber)
        while (current := [subscriber for subscriber in current if subscriber.current]) and (piece := shared.take()):
            frame = self._update(group, *piece, 0)
            for subscriber in current:
                subscriber.member.send(frame)
            if shared:
                for subscriber in current:
                    if subscriber.slow:
                        self._part(subscriber, rest)
        shared.clear()

    def _part(self, subscriber: Subscriber[Frame], rest: list[Entry]) -> None:
        subscriber.own = subscriber.group.shared.copy()
        subscriber.own.fold(rest)
        self._holders.add(subscriber)

    def _emit_latest(self, group: Group[Frame], room: int) -> int:
        changes = group.changes
        if not changes.left:
            changes.left = len(changes.known)
        current = [
            subscriber for subscriber in group.subscribers.values() if subscriber.current and not subscriber.held
        ]
        for subscriber in current:
            if subscriber.slow:
                subscriber.behind = changes.unsent()
        current = [subscriber for subscriber in current if subscriber.current]
        spent = 0
        if not current:
            changes.known.clear()
            changes.left = 0
            changes.sent_to = changes.upto
            changes.skipped(group.passed)
        elif changes.known:
            group.failed = True
            data, spent = changes.take(self.series, group.selection, room)
            skipped = 0 if changes.known else changes.skipped(group.passed)
            if data:
                frame = self._update(group, data, changes.reached, skipped)
                for subscriber in current:
                    subscriber.member.send(frame)
            changes.sent_to = changes.reached
            group.failed = False
        group.sending = changes.left > 0
        return spent

    def _tell_group(self, group: Group[Frame]) -> int:
        known = group.told
        frame, group.told, spent = self._presence(group, known)
        for subscriber in group.subscribers.values():
            if subscriber.told == known and not (frame is not None and subscriber.slow):
                subscriber.told = group.told
                if frame is not None:
                    subscriber.member.send(frame)
        return spent

    def _presence(self, group: Group[Frame], known: int) -> tuple[Frame | None, int, int]:
        states, reached, spent = self._states.behind(known, group.selection)
        if not states:
            return None, reached, spent
        message: dict[str, object] = {"type": "presence", "id": group.subscription.id, "devices": states}
        return self._frame(group.subscription, message), reached, spent

    def _update(self, group: Group[Frame], data: Data, offset: int, skipped: int) -> Frame:
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

    # -- what one subscriber is sent ----------------------------------------------------------------------------------

    def _serve(self, subscriber: Subscriber[Frame], room: int) -> int:
        group = subscriber.group
        if group.subscribers.get(subscriber.member) is not subscriber:
            return 0
        if subscriber.slow:
            if subscriber.due and not subscriber.held and subscriber.rest is None and group.every:
                self._behind.append(subscriber)
                self._downgrade_all()
            return LOOK
        spent = 0
        if subscriber.rest is not None:
            spent = self._send_snapshot(subscriber, subscriber.rest, room)
        elif subscriber.told != group.told:
            frame, subscriber.told, spent = self._presence(group, subscriber.told)
            if frame is not None:
                subscriber.member.send(frame)
        elif subscriber.due and not subscriber.held:
            if subscriber.own is not None:
                spent = self._send_own(subscriber, subscriber.own)
            elif subscriber.behind is not None:
                spent = self._send_changes(subscriber, subscriber.behind, room)
            else:
                subscriber.due = False
        if self._waits(subscriber) and not subscriber.slow:
            self._enqueue(subscriber)
        return TURN + spent

    def _send_own(self, subscriber: Subscriber[Frame], own: Every) -> int:
        group = subscriber.group
        spent = 0
        frame = self._copies.piece(group.subscription, own)
        if frame is None and own:
            spent = min(own.length, PIECE_BYTES)
            first = own.entries[0][0]
            if (piece := own.take()) is not None:
                frame = self._update(group, *piece, 0)
                self._copies.add_piece(group.subscription, own, first, frame)
        if frame is not None:
            subscriber.member.send(frame)
        if not own:
            subscriber.due = False
            if not group.shared:
                subscriber.own = None
        return spent

    def _send_changes(self, subscriber: Subscriber[Frame], behind: Changes, room: int) -> int:
        group = subscriber.group
        if subscriber.failed:
            behind.restart(self.series, self.offset)
        else:
            behind.catch_up(self.series, self.offset)
        subscriber.failed = True
        if not behind.left:
            behind.left = len(behind.known)
        frame, found = self._copies.changes(group.subscription, self.offset, group.passed, behind)
        spent = 0
        if not found:
            before = behind.copy_all()
            data, spent = behind.take(self.series, group.selection, room)
            skipped = 0 if behind.known else behind.skipped(group.passed)
            frame = self._update(group, data, behind.reached, skipped) if data else None
            behind.sent_to = behind.reached
            self._copies.add_changes(group.subscription, self.offset, group.passed, before, behind, frame)
        if frame is not None:
            subscriber.member.send(frame)
        subscriber.failed = False
        subscriber.due = behind.left > 0
        if not behind.known and not group.changes.known and not group.failed:
            group.changes.sent_to = group.changes.upto
            subscriber.behind = None
        return spent + 2 * len(self.series)

    def _send_snapshot(self, subscriber: Subscriber[Frame], rest: list[str], room: int) -> int:
        """The next piece: what is newest now of devices that have not been shown."""
        group, behind = subscriber.group, subscriber.behind
        if behind is not None:
            behind.catch_up(self.series, self.offset)
        devices, place, spent = snapshot_of(
            self._book, self.series, group.selection, rest, range(subscriber.place, subscriber.end), room
        )
        message: dict[str, object] = {
            "type": "snapshot",
            "id": group.subscription.id,
            "offset": subscriber.start,
            "recovered": subscriber.recovered,
            "devices": devices,
        }
        if place < subscriber.end:
            message["more"] = True
        subscriber.member.send(self._frame(group.subscription, message))
        if not subscriber.whole:
            subscriber.shown(rest[subscriber.place : place])
        subscriber.place = place
        if place >= subscriber.end:
            subscriber.rest = None
            if behind is not None and not subscriber.whole:
                behind.skipped(group.passed)
        return spent

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        member: Member[Frame],
        subscription: Subscription,
        after: int | None,
        *,
        history: bool = False,
        held: bool = False,
    ) -> bool:
        """Add one, send the first piece of its snapshot; returns whether all since offset ``after`` is in the answer.

        No update is sent until :meth:`release`: the caller may send history in between, once :meth:`joining` is over,
        from :meth:`rejoin` on.
        Updates begin behind the hub's ``offset`` now; for ``every``, where all since ``after`` is in the answer, behind
        ``after``.  ``history``: exactly there, also where the snapshot takes several steps and shows later values.
        ``held``: the caller has all behind ``after``, and will send what is not remembered, see :meth:`follows`.
        """
        self._collect()
        group = self._group(subscription)
        known = not group.every or held
        recovered = after is not None and 0 <= after <= self.offset and (known or after >= self.floor - 1)
        resumed = recovered and group.every
        start = after if resumed and after is not None else self.offset
        subscriber = Subscriber(member, group, start, self._states.changes)
        subscriber.recovered = recovered
        subscriber.whole = history or resumed
        if group.every:
            subscriber.own = Every(group.selection, self.offset)
            self._holders.add(subscriber)
            if resumed and start >= self.floor - 1:
                subscriber.own.fold(self.since(start))
        else:
            subscriber.behind = Changes(self.offset, group.passed)
        subscriber.rest, subscriber.end = self._states.names(), len(self._book)
        group.subscribers[member] = subscriber
        self._send_snapshot(subscriber, subscriber.rest, PIECE_BYTES)
        return recovered

    def joining(self, member: Member[Frame], subscription: Subscription) -> bool:
        """Whether a part of its snapshot has still to be sent."""
        return any(subscriber.rest is not None for subscriber in self._found(member, subscription))

    def rejoin(
        self, member: Member[Frame], subscription: Subscription, covers: Callable[[int], bool]
    ) -> tuple[int, list[Entry]]:
        """Let the updates begin behind what is shown by now: all before that is in a history that is made now, if it
        ``covers`` the reading's time; what it does not stays in updates.

        Returns the offset behind which they begin; where all since an offset is to be in updates, what is in them, too.
        """
        self._collect()
        for subscriber in self._found(member, subscription):
            if subscriber.own is None:
                subscriber.rejoin(self.offset, self.since(subscriber.start), self.floor, covers)
            elif subscriber.recovered:
                return subscriber.start, list(subscriber.own.entries)
            else:
                subscriber.own.leave(covers)
        return self.offset, []

    def follows(self, member: Member[Frame], subscription: Subscription, offset: int) -> bool:
        """Whether the updates follow what was sent up to an offset, from memory; if not, nothing is held for them."""
        self._collect()
        follows = self.floor - 1 <= offset
        for subscriber in self._found(member, subscription):
            if subscriber.own is None:
                subscriber.behind = Changes(min(offset, self.offset), subscriber.group.passed)
                return True
            subscriber.own = Every(subscriber.group.selection, self.offset)
            if follows:
                subscriber.own.fold(self.since(offset))
        return follows

    def release(self, member: Member[Frame], subscription: Subscription) -> None:
        """History was sent: updates may follow."""
        for subscriber in self._found(member, subscription):
            subscriber.held = False

    def unsubscribe(self, member: Member[Frame], subscription: Subscription) -> None:
        """End a subscription, whichever mode it is in by now."""
        for subscriber in self._found(member, subscription):
            del subscriber.group.subscribers[member]
            self._drop_if_empty(subscriber.group)

    def _found(self, member: Member[Frame], subscription: Subscription) -> list[Subscriber[Frame]]:
        keys = {subscription, msgspec.structs.replace(subscription, mode="latest")}
        groups = [self._groups[key] for key in keys if key in self._groups]
        return [group.subscribers[member] for group in groups if member in group.subscribers]

    def _group(self, subscription: Subscription) -> Group[Frame]:
        group = self._groups.get(subscription)
        if group is None:
            group = self._groups[subscription] = Group(subscription, self.names, self.offset, self._states.changes)
        return group

    def _drop_if_empty(self, group: Group[Frame]) -> None:
        if not group.subscribers:
            self._groups.pop(group.subscription, None)
            if not self._groups:
                self._fresh.clear()

    def _downgrade_all(self) -> None:
        """Move those that fall behind from ``every`` to ``latest``."""
        behind, self._behind = self._behind, []
        for subscriber in behind:
            group = subscriber.group
            if subscriber.own is not None and group.subscribers.get(subscriber.member) is subscriber:
                self._downgrade(subscriber, group, subscriber.own)

    def _downgrade(self, subscriber: Subscriber[Frame], group: Group[Frame], own: Every) -> None:
        self.downgraded += 1
        del group.subscribers[subscriber.member]
        self._drop_if_empty(group)
        subscription = msgspec.structs.replace(group.subscription, mode="latest")
        subscriber.group = latest = self._group(subscription)
        latest.subscribers[subscriber.member] = subscriber
        subscriber.behind = own.changes(latest.passed)
        subscriber.own = None
        if latest.moved is None:
            message: dict[str, object] = {"type": "mode", "id": subscription.id, "mode": "latest", "reason": "slow"}
            latest.moved = self._frame(subscription, message)
        subscriber.member.send(latest.moved)

    def stats(self) -> dict[str, float]:
        """Counters and sizes."""
        return {
            "series": sum(map(len, self.series.values())),
            "groups": len(self._groups),
            "subscribers": sum(len(group.subscribers) for group in self._groups.values()),
            "frames": self.frames,
            "downgraded": self.downgraded,
            "failures": self.failures,
        }

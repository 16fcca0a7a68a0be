"""The device book: what the gateway knows of each device, and what of it survives a restart.

The book lives in memory; the journal is its write-ahead log.  A snapshot (``devices.msgpack`` in the state directory)
is replaced whole and synced every :data:`SNAPSHOT_S` seconds and at a clean stop; it names the journal offset that it
reflects, and at start the journal is replayed from there.  A snapshot claims only what is durable, so that after a
crash counts may be lower than what was announced, never higher.

Its layout is told in ``bookfile``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from . import liveness
from .bookfile import GONE, BookFile, Row, pack
from .clock import Clock
from .errors import Overloaded
from .ledger import Ledger
from .limit import SlidingWindow, TokenBucket
from .liveness import Rhythm, Status
from .past import EMPTY, Change, broken_off, noted, unpack
from .past import pack as pack_past
from .reading import ASSIGNED, Batch, Description, Mark, Presence, Reading
from .session import Session

__all__ = ["SNAPSHOT_S", "Device", "DeviceBook", "Link", "Relay"]

SNAPSHOT_S = 60.0
FORGOTTEN = 1_000  # names of devices that were forgotten, the oldest out
REPLACEMENTS = 3  # of one device's connection within REPLACEMENT_WINDOW_S, before newcomers are slowed down
REPLACEMENT_WINDOW_S = 10.0


class Link(Protocol):
    """A device's connection, as the book sees it: its own, or that of the concentrator ``via``."""

    @property
    def via(self) -> str:
        """The concentrator's name; empty for a connection of its own."""

    def committed(self, seq: int) -> None:
        """Everything up to ``seq`` of the current session is durably decided."""

    @property
    def paused(self) -> bool:
        """Whether nothing is read of it now."""

    def can_take(self) -> bool:
        """Whether it reads what it is sent."""

    def command(self, message: dict[str, object]) -> None:
        """Send it a command."""

    def replaced(self, contested: bool) -> None:
        """Another connection of the same device took over; ``contested``: the two keep replacing each other."""


Token = tuple[int, int, Session]


class Device:
    """One device.  It is the journal's waiter for its own readings: a token is (readings accepted, seq, session)."""

    __slots__ = (
        "bucket",
        "clock",
        "described",
        "last_seen",
        "ledger",
        "link",
        "metrics",
        "name",
        "packed_past",
        "replacements",
        "rhythm",
        "session",
        "status",
        "via",
    )

    def __init__(self, name: str, bucket: TokenBucket) -> None:
        self.name = name
        self.bucket = bucket
        self.ledger = Ledger()
        self.session = Session("", resumable=False)
        self.status: Status | None = None
        self.packed_past = EMPTY
        self.last_seen = 0  # ns
        self.clock = Clock()
        self.rhythm = Rhythm()
        self.described: dict[str, object] = {}  # changed by ``describe`` alone
        self.metrics: set[str] = set()  # every metric it has sent; bounded by the endpoint
        self.link: Link | None = None
        self.via = ""  # the concentrator that it was heard through last, empty where it came by itself
        self.replacements = SlidingWindow(REPLACEMENTS, REPLACEMENT_WINDOW_S)

    def committed(self, token: Token) -> None:
        """Called by the journal on the loop, once a commit, with the last token of it."""
        accepted, seq, session = token
        ledger = self.ledger
        if accepted > ledger.stored:  # else a relay that was told before knew of later ones
            ledger.stored = accepted
        if session.decided(seq) and session is self.session and self.link is not None:
            self.link.committed(seq)

    def begin(self, session_id: str | None, fresh_id: str) -> bool:
        """A connection asks for a session; returns whether a known one is resumed."""
        if session_id is not None and self.session.resumable and self.session.id == session_id:
            return True
        self.session = Session(session_id if session_id is not None else fresh_id, resumable=session_id is not None)
        return False

    @property
    def past(self) -> tuple[Change, ...]:
        """The states that it has had."""
        return unpack(self.packed_past)

    def note(self, status: Status, now: int) -> None:
        """It has changed to this state, which is told (``now`` in nanoseconds)."""
        self.packed_past = pack_past(noted(self.past, Change(status.since, status.state, status.reason), now))

    def describe(self, body: dict[str, object]) -> None:
        """Take what it says it is."""
        self.described = body
        interval = body.get("interval_s")
        self.rhythm.stated = float(interval) if isinstance(interval, int | float) else 0.0

    @property
    def display_name(self) -> str:
        """The name it gave itself, else its own."""
        name = self.described.get("name")
        return name if isinstance(name, str) and name else self.name


class Relay:
    """What a concentrator's connection brings of its sub-devices: the journal's waiter for their readings.

    The sequence is the concentrator's (``device``), each ledger its sub-device's.  A token is (readings given, seq,
    session).  Bound: what the journal holds that is not durable.
    """

    __slots__ = ("_given", "device", "given")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.given = 0
        self._given: deque[tuple[Device, int]] = deque()  # not durable yet: whose, and how many it has had accepted

    def give(self, device: Device) -> None:
        """A reading of ``device`` was taken by the journal."""
        self.given += 1
        accepted = device.ledger.accepted = device.ledger.accepted + 1
        self._given.append((device, accepted))

    def committed(self, token: Token) -> None:
        """As :meth:`Device.committed`: all that was given up to the token's count is durable."""
        count, seq, session = token
        given = self._given
        for _ in range(len(given) - (self.given - count)):
            device, accepted = given.popleft()
            if accepted > device.ledger.stored:
                device.ledger.stored = accepted
        concentrator = self.device
        if session.decided(seq) and session is concentrator.session and concentrator.link is not None:
            concentrator.link.committed(seq)


class DeviceBook:
    """All devices by name.  Bound: ``max_devices``; at the bound a new name is refused (:class:`Overloaded`)."""

    def __init__(
        self,
        path: Path,
        *,
        rate: float,
        burst: float,
        max_devices: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = BookFile(path)
        self._rate = rate
        self._burst = burst
        self._max_devices = max_devices
        self._clock = clock
        self._devices: dict[str, Device] = {}
        self.forgotten: dict[str, None] = {}
        """Devices that were forgotten and have not come back: what a broker retains of them is to be cleared, also
        where it was away then."""
        self.offset: int | None = None  # journal offset that the loaded snapshot reflects; None without one

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def get(self, name: str) -> Device | None:
        """The device of that name, or None."""
        return self._devices.get(name)

    def open(self, name: str) -> Device:
        """The device of that name, made if it is new; raises :class:`Overloaded` at the bound."""
        self.check_room(name)
        return self._known(name)

    def check_room(self, name: str) -> None:
        """Raises :class:`Overloaded` if the device is new and there are as many as there may be."""
        if name not in self._devices and len(self._devices) >= self._max_devices:
            raise Overloaded(f"{self._max_devices} devices are known, no more are taken", retry_after_ms=60_000)

    def limit(self, *, rate: float, burst: float, max_devices: int) -> None:
        """Other limits from now on, also for the devices that are known."""
        self._rate, self._burst, self._max_devices = rate, burst, max_devices
        for device in self._devices.values():
            device.bucket.rate, device.bucket.burst = rate, burst

    def _known(self, name: str) -> Device:
        device = self._devices.get(name)
        if device is None:
            device = self._devices[name] = Device(name, TokenBucket(self._rate, self._burst, clock=self._clock))
            self.forgotten.pop(name, None)
        return device

    def forget(self, name: str) -> None:
        """Take the device of that name out; one that comes under it later is a new one."""
        self._devices.pop(name, None)
        self._note_forgotten(name)

    def _note_forgotten(self, name: str) -> None:
        self.forgotten[name] = None
        if len(self.forgotten) > FORGOTTEN:
            del self.forgotten[next(iter(self.forgotten))]

    # -- what survives a restart ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises :class:`GatewayError` for a snapshot of a later version, before anything is changed on disk."""
        self._file.check()

    def load(self, epoch: str) -> None:
        """Read the snapshot, if there is one that can be used; raises :class:`GatewayError` for a later version's.

        A damaged one, or that of another journal (``epoch``), is set aside: ``problems`` says so, and the journal is
        replayed as far as it reaches.
        """
        loaded = self._file.load(epoch)
        if loaded is not None:
            self.offset, rows = loaded
            for row in rows:
                self._restore(row)

    def problems(self) -> list[str]:
        """What was found wrong with the snapshot at the start, in words."""
        return self._file.problems

    def _restore(self, row: Row) -> None:
        if row.state == GONE:
            self._note_forgotten(row.name)
            return
        device = self._known(row.name)
        device.session = Session(row.session, resumable=row.resumable, highest=row.seq)
        device.session.heard = max(row.heard, row.seq)
        device.session.gaps = list(row.gaps)
        if row.held > row.seq:
            device.session.hold(row.held, self._clock())
        device.status = liveness.restored(row.state, row.since, row.reason) if row.state else None
        device.packed_past = pack_past(unpack(row.past))
        if device.status is not None and not device.past:  # of a version that kept none
            device.note(device.status, row.since)
        device.last_seen = row.last_seen
        device.clock = Clock(row.last_time)
        device.clock.old, device.clock.future = row.old, row.future
        device.rhythm = Rhythm(row.learned)
        if row.counts:
            device.ledger = Ledger(row.counts)
        device.describe(row.described or {})
        device.via = row.via

    def replay(self, batch: Batch, skip_below: int = 0) -> None:
        """Take in journalled items that the snapshot does not reflect (offsets from ``skip_below``)."""
        for index, item in enumerate(batch.items):
            if batch.base + index < skip_below:
                continue
            device = self._known(item.device)
            kind = type(item)
            if kind is Reading:
                self._replay_reading(device, item)  # type: ignore[arg-type]
            elif kind is Mark:
                self._replay_sequence(device, item)  # type: ignore[arg-type]
            elif kind is Presence:
                device.status = liveness.restored(item.state, item.since, item.reason)  # type: ignore[union-attr]
                device.note(device.status, item.since)  # type: ignore[union-attr]
                if item.session:  # type: ignore[union-attr]
                    self._replay_session(device, item.session)  # type: ignore[union-attr]
            elif kind is Description:
                device.describe(item.body)  # type: ignore[union-attr]

    def go_on(self) -> None:
        """All that is known of before this start has been taken in."""
        for device in self._devices.values():
            if device.status is not None and device.status.state != liveness.OFFLINE:
                device.packed_past = pack_past(broken_off(device.past, device.last_seen))

    def _replay_session(self, device: Device, session_id: str) -> None:
        if device.session.id != session_id:
            device.session = Session(session_id)

    def _replay_sequence(self, device: Device, item: Reading | Mark) -> None:
        self._replay_session(device, item.session)
        session = device.session
        if item.seq > session.highest:
            session.accept(item.seq)
        session.decided(item.seq)
        # What was refused or is missing is counted by the snapshot alone: it may have been counted there when this was
        # still on its way to disk.

    def _replay_reading(self, device: Device, item: Reading) -> None:
        self._replay_sequence(self._known(item.via) if item.via else device, item)
        device.via = item.via
        ledger = device.ledger
        ledger.received += 1
        ledger.accepted += 1
        ledger.stored += 1
        device.last_seen = max(device.last_seen, item.received)
        if item.flags & ASSIGNED:
            device.clock.last = max(device.clock.last, item.time)

    def snapshot(self, epoch: str, offset: int) -> bytes:
        """The snapshot that reflects everything below ``offset`` (the journal's durable end)."""
        rows = [
            Row(
                device.name,
                device.session.id,
                device.session.durable,
                device.session.resumable,
                device.status.state if device.status else "",
                device.status.since if device.status else 0,
                device.status.reason if device.status else "",
                device.last_seen,
                device.clock.last,
                device.ledger.settled(),
                device.described or None,
                device.rhythm.learned,
                device.clock.old,
                device.clock.future,
                device.session.heard,
                device.session.held,
                device.session.gaps,
                device.via,
                msgspec.Raw(device.packed_past),
            )
            for device in self._devices.values()
        ]
        rows += [Row(name, state=GONE) for name in self.forgotten]
        return pack(epoch, offset, rows)

    async def save(self, epoch: str, offset: int) -> None:
        """Write and sync the snapshot; raises ``OSError``."""
        data = self.snapshot(epoch, offset)
        await asyncio.to_thread(self._file.write, data, offset)

    def is_integer(self, device: str, metric: str) -> bool:
        """Whether the device declared the metric an integer.  May be called from any thread: it only looks up."""
        known = self._devices.get(device)
        metrics = known.described.get("metrics") if known is not None else None
        about = metrics.get(metric) if isinstance(metrics, dict) else None
        return isinstance(about, dict) and about.get("integer") is True

    def totals(self) -> Ledger:
        """The sum of all devices' ledgers."""
        total = Ledger()
        for device in self._devices.values():
            total.add(device.ledger)
        return total

    def by_state(self) -> dict[str, int]:
        """How many devices are in each state."""
        counts = {liveness.ONLINE: 0, liveness.STALE: 0, liveness.OFFLINE: 0}
        for status in self._statuses():
            counts[status.state] += 1
        return counts

    def _statuses(self) -> Iterable[Status]:
        return (device.status for device in self._devices.values() if device.status is not None)

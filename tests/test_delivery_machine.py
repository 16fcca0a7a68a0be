"""The client's outbox against the gateway's own endpoint, session, book and ledger, over a link that cuts and loses.

Real on both sides: :class:`gateway.client.outbox.Outbox`, :class:`gateway.server.connection.Connection` and all behind
it.  Played by the test: the socket (delays, cuts, loses, never reorders), the journal (commits, crashes, is full) and
the sinks (what they have taken).  The device may be a concentrator whose readings are of several; one of these speaks
for itself as well.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.client.outbox import Outbox
from gateway.client.wire import Wire
from gateway.delivery import Delivery
from gateway.devices import DeviceBook
from gateway.errors import Overloaded
from gateway.ledger import FIELDS
from gateway.pipeline import Pipeline
from gateway.reading import Batch, Reading
from gateway.server.connection import Connection
from gateway.server.device import DeviceEndpoint, Settings
from gateway.ws import Message

EPOCH = "5f" * 16
NAME = "pump-1"
NAMES = (NAME, "sub-1", "sub-2")
OLDEST_MAIL_S = 4.0  # below the ten seconds after which a device counts as one that ignores its mail


class Journal:
    """What the pipeline needs of a journal: items are durable at ``commit``, gone at ``crash`` if they were not."""

    def __init__(self, durable: list[Any], base: int) -> None:
        self.durable = durable
        self.base = base  # of this start; what lies below was made durable by earlier ones
        self.pending: list[tuple[Any, Any, Any]] = []
        self.refusals = 0

    def append(self, item: Any, waiter: Any = None, token: Any = 0) -> int:
        if self.refusals and type(item) is Reading:
            self.refusals -= 1
            raise Overloaded("the disk is full", retry_after_ms=500)
        self.pending.append((item, waiter, token))
        return len(self.durable) + len(self.pending) - 1

    @property
    def durable_offset(self) -> int:
        return len(self.durable)

    def commit(self) -> None:
        waiters = {waiter: token for _, waiter, token in self.pending if waiter is not None}
        self.durable += [item for item, _, _ in self.pending]
        self.pending.clear()
        for waiter, token in waiters.items():
            waiter.committed(token)


class Socket:
    """The gateway's end of a connection."""

    subprotocol = None
    close_code = 1006

    def __init__(self, query: dict[str, str], named: set[int]) -> None:
        self.query = query
        self.named = named
        self.state: dict[str, Any] = {}
        self.out: deque[bytes] = deque()
        self.pending_bytes = 0
        self.reason_lost = "connection reset"
        self.closed_with: int | None = None

    def try_send(self, message: Message) -> int:
        data = message.data if isinstance(message.data, bytes) else message.data.encode()
        self.out.append(data)
        reply = msgspec.json.decode(data)
        if reply["type"] == "error" and reply["code"] != "overloaded":
            self.named.add(reply["seq"])
        return 0

    def close_soon(self, code: int, reason: str = "") -> None:
        self.closed_with = code


class DeviceAndGateway(RuleBasedStateMachine):
    """``values["n"]`` is the reading's number, 1, 2, 3, .. in the order of ``put``; so is ``seq``."""

    names = 1  # of NAMES

    @initialize(
        rate=st.sampled_from([(20.0, 2.0), (20.0, 5.0), (1000.0, 100.0)]),
        level=st.sampled_from(["durable", "delivered"]),
        paced=st.booleans(),
        max_bytes=st.sampled_from([300, 65_536]),
    )
    def begin(self, rate, level, paced, max_bytes):
        self.wire = Wire("json")
        self.now = 1000.0
        self.rate = rate
        self.level = level
        self.max_bytes = max_bytes
        self.outbox = Outbox(self.wire.empty, max_unacked=200, level=level, paced=paced)
        self.directory = tempfile.mkdtemp()
        self.path = Path(self.directory) / "devices.msgpack"
        self.durable: list[Any] = []
        self.taken = 0
        self.arrived = dict.fromkeys(NAMES, 0)  # readings of each that came to the gateway, over all its starts
        self.own: Connection | None = None  # that of the one which speaks for itself
        self.good: list[int] = []
        self.bad: set[int] = set()
        self.named: set[int] = set()  # refused by an error that was sent, whether it arrived or was lost with the link
        self.up: deque[bytes] = deque()
        self.socket: Socket | None = None
        self.mail_age = 0.0
        self._start()
        self.connect()

    # The gateway

    def _start(self):
        self.journal = Journal(self.durable, len(self.durable))
        rate, burst = self.rate
        self.book = DeviceBook(self.path, rate=rate, burst=burst, clock=lambda: self.now)
        self.book.load(EPOCH)
        since = self.book.offset or 0
        self.book.replay(Batch(0, self.durable, 0), skip_below=since)
        hub: Any = SimpleNamespace(publish=lambda *_: None, presence=lambda *_: None)
        self.delivery = Delivery(lambda: self.journal.durable_offset, lambda: self.taken)
        self.endpoint = DeviceEndpoint(
            self.book,
            Pipeline(self.journal, hub),  # type: ignore[arg-type]
            self.delivery,
            Settings(rate=rate, burst=burst, max_message_bytes=self.max_bytes),
            now=lambda: int(self.now * 1e9),
            monotonic=lambda: self.now,
        )

    def _save(self):
        self.path.write_bytes(self.book.snapshot(EPOCH, self.journal.durable_offset))

    @rule(down=st.integers(0, 3))
    def commit(self, down):
        self.journal.commit()
        self._arrive_down(down)

    @rule(count=st.sampled_from([1, 2, 3, 20]), down=st.integers(0, 3))
    def take(self, count, down):
        """The sinks take something of what is durable."""
        self.taken = min(self.journal.durable_offset, self.taken + count)
        self.delivery.advance()
        self._arrive_down(down)

    @rule()
    def save(self):
        self._save()

    @rule(count=st.integers(1, 3))
    def overload(self, count):
        self.journal.refusals = count

    @rule(up=st.integers(0, 5), commit=st.booleans(), again=st.booleans())
    def crash(self, up, commit, again):
        """What was not committed is gone, and what was may not have been acked; no more was told than is true."""
        self._arrive_up(up)
        if commit:
            self.journal.commit()
        self.own = None
        self._end(told=False)
        self._start()
        for name, counts in self._ledgers().items():
            assert counts["stored"] == self._stored(name)
            assert counts["received"] <= self.arrived[name]
            self.arrived[name] = counts["received"]
        if again:
            self.connect()

    @rule(again=st.booleans())
    def restart(self, again):
        """A clean stop and a start: the counts are what they were."""
        self.endpoint.stopping = True
        self._end(told=True)
        if self.own is not None:
            self.own.closed()
            self.own = None
        self.journal.commit()
        self._save()
        before = self._ledgers()
        self._start()
        assert self._ledgers() == before
        if again:
            self.connect()

    def _ledgers(self):
        devices = {name: self.book.get(name) for name in NAMES}
        nothing = dict.fromkeys((*FIELDS, "missing"), 0)
        return {name: nothing if device is None else device.ledger.as_dict() for name, device in devices.items()}

    def _stored(self, name):
        return sum(type(item) is Reading and item.device == name for item in self.durable)

    # The device

    @rule(
        count=st.integers(1, 8),
        bad=st.sampled_from([False, False, True]),
        messages=st.integers(0, 4),
        up=st.integers(0, 4),
        gap=st.sampled_from([0.0, 0.02, 0.1]),
    )
    def send(self, count, bad, messages, up, gap):
        """Readings are put in, some messages written, and some of those arrive, ``gap`` seconds apart."""
        for _ in range(count):
            if self.outbox.full:
                break
            seq = self.outbox.next_seq
            reading = {"seq": seq, "values": {"bad": [seq]} if bad else {"n": seq}}
            if (name := NAMES[seq % self.names]) != NAME:
                reading["device"] = name
            payload = msgspec.json.encode(reading)
            assert self.outbox.put(payload, self.now) == seq
            if bad:
                self.bad.add(seq)
            else:
                self.good.append(seq)
            if messages and seq % 2:
                self._write(1)
        self._write(messages)
        self._arrive_up(up, gap)

    @rule(messages=st.integers(0, 4), up=st.integers(0, 5), gap=st.sampled_from([0.0, 0.02, 0.1]))
    def flow(self, messages, up, gap):
        self._write(messages)
        self._arrive_up(up, gap)

    def _write(self, messages):
        for _ in range(messages if self.socket is not None else 0):
            batch = self.outbox.take(self.now)
            if not batch:
                return
            message = self.wire.join(batch)
            assert len(message) <= self.max_bytes
            self.up.append(message)

    # The link

    def _arrive_up(self, count, gap=0.0):
        for _ in range(min(count, len(self.up))):
            self.now += gap
            message = self.up.popleft()
            decoded = msgspec.json.decode(message)
            for reading in decoded if isinstance(decoded, list) else [decoded]:
                self.arrived[reading.get("device", NAME)] += 1
            self.connection.message(Message.text(message.decode()))
            if self.socket.closed_with is not None:
                # Overloaded for long: sent away, to come again later.
                assert self.socket.closed_with == 1013
                self._arrive_down(len(self.socket.out))
                self._end(told=True)
                return

    def _arrive_down(self, count):
        out = self.socket.out if self.socket is not None else ()
        for _ in range(min(count, len(out))):
            reply = msgspec.json.decode(out.popleft())
            kind = reply["type"]
            if kind == "ack":
                self.outbox.ack(reply["seq"], self.now)
            elif kind == "throttled":
                self.outbox.held_back(reply["seq"], reply["retry_after_ms"] / 1000, self.now)
            elif reply["code"] == "overloaded":
                self.outbox.held_back(reply["seq"], reply["retry_after_ms"] / 1000, self.now, overloaded=True)
            else:
                self.outbox.refuse(reply["seq"])
        if not out:
            self.mail_age = 0.0

    @precondition(lambda self: self.names > 1)
    @rule(count=st.integers(0, 3), hang_up=st.booleans())
    def speak_for_itself(self, count, hang_up):
        """A sub-device has a connection of its own for a while, with a sequence of its own."""
        name = NAMES[1]
        if self.own is None:
            self.own = Connection(self.endpoint, Socket({}, set()), self.book.open(name))  # type: ignore[arg-type]
        for _ in range(count):
            self.arrived[name] += 1
            self.own.message(Message.text('{"own":1}'))
        if hang_up:
            self.own.closed()
            self.own = None

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 3.0]))
    def wait(self, seconds):
        if self.up or (self.socket is not None and self.socket.out):
            self.mail_age += seconds
            if self.mail_age > OLDEST_MAIL_S:
                self._arrive_up(len(self.up))
                if self.socket is not None:
                    self._arrive_down(len(self.socket.out))
                self.mail_age = 0.0
        self.now += seconds

    @precondition(lambda self: self.socket is not None)
    @rule(up=st.integers(0, 5), down=st.integers(0, 5), again=st.booleans())
    def cut(self, up, down, again):
        """Some of what is under way still arrives, the rest never."""
        self._arrive_up(up)
        self._arrive_down(down)
        self._end(told=True)
        if again:
            self.connect()

    def _end(self, *, told):
        if self.socket is None:
            return
        self.up.clear()
        self.mail_age = 0.0
        if told:
            self.connection.closed()
        self.outbox.lost()
        self.socket = None

    @precondition(lambda self: self.socket is None)
    @rule()
    def connect(self):
        self.socket = Socket({"session": "boot1", "ack": self.level}, self.named)
        self.connection = Connection(self.endpoint, self.socket, self.book.open(NAME))  # type: ignore[arg-type]
        welcome = msgspec.json.decode(self.socket.out.popleft())
        assert welcome["type"] == "welcome"
        rate = welcome["rate"]
        given_up = self.outbox.welcome(
            welcome["last_seq"],
            self.now,
            per_s=rate["per_s"],
            burst=rate["burst"],
            max_bytes=welcome["max_message_bytes"],
        )
        assert given_up == []

    # What must hold

    @invariant()
    def what_is_durable_is_in_order_and_there_once(self):
        if hasattr(self, "durable"):
            readings = [item for item in self.durable if type(item) is Reading and "n" in item.values]
            stored = [reading.seq for reading in readings]
            assert stored == sorted(set(stored))
            assert all(reading.values == {"n": reading.seq} for reading in readings)
            assert all(reading.device == NAMES[reading.seq % self.names] for reading in readings)

    @invariant()
    def what_the_device_let_go_of_is_decided(self):
        if hasattr(self, "durable"):
            kept = {entry[0] for entry in (*self.outbox._flight, *self.outbox._queue)}
            gone = set(range(1, self.outbox.next_seq)) - kept
            limit = self.taken if self.level == "delivered" else len(self.durable)
            assert gone <= {item.seq for item in self.durable[:limit] if type(item) is Reading} | self.named

    @invariant()
    def the_ledger_adds_up(self):
        for name, counts in self._ledgers().items() if hasattr(self, "book") else ():
            assert counts["received"] == sum(counts[field] for field in FIELDS[1:])
            assert all(count >= 0 for count in counts.values())
            assert counts["received"] == self.arrived[name]
            assert counts["stored"] == self._stored(name)

    @invariant()
    def presence_is_that_of_the_connection(self):
        if not hasattr(self, "book"):
            return
        for name in NAMES[1:]:
            device = self.book.get(name)
            if device is not None and device.link is not None:
                assert device.status.state == "online"
                assert (
                    (device.link is self.own) if self.own is not None and name == NAMES[1] else device.link.via == NAME
                )
                assert self.socket is not None or device.link is self.own
            elif device is not None and device.status is not None and device.status.confirmed:
                assert device.status.state == "offline"

    def teardown(self):
        """On a link that holds, all is decided in the end."""
        if not hasattr(self, "durable"):
            return
        shutil.rmtree(self.directory)
        self.journal.refusals = 0
        if self.socket is None:
            self.connect()
        for _ in range(5000):
            if self.socket is None:
                self.connect()
            self._arrive_up(len(self.up))
            if self.socket is None:
                continue
            self.commit(0)
            self.take(1000, 0)
            self._arrive_down(len(self.socket.out))
            if not len(self.outbox):
                break
            wait = self.outbox.wait(self.now)
            self.now += 0.01 if wait is None else wait + 1e-6
            self._write(4)
        assert len(self.outbox) == 0
        assert [i.seq for i in self.durable if type(i) is Reading and "n" in i.values] == self.good
        assert self.named >= self.bad
        self.the_ledger_adds_up()


class ConcentratorAndGateway(DeviceAndGateway):
    """Two readings of three are of sub-devices."""

    names = 3


TestDeviceAndGateway = DeviceAndGateway.TestCase
TestDeviceAndGateway.settings = settings(max_examples=150, stateful_step_count=100, deadline=None)
TestConcentratorAndGateway = ConcentratorAndGateway.TestCase
TestConcentratorAndGateway.settings = settings(max_examples=100, stateful_step_count=100, deadline=None)

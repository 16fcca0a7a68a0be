"""The outbox and a model of the gateway over a link that delays, cuts and loses, but does not reorder."""

from __future__ import annotations

from collections import deque

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.client.outbox import Outbox
from gateway.client.wire import Wire

from .model import GatewayModel

OLDEST_MAIL_S = 4.0  # below the ten seconds after which a device counts as one that ignores its mail


class Delivery(RuleBasedStateMachine):
    """``values["n"]`` is the reading's number, 1, 2, 3, .. in the order of ``put``; so is ``seq``."""

    @initialize(
        format=st.sampled_from(["json", "msgpack"]),
        rate=st.sampled_from([None, {"per_s": 20.0, "burst": 5.0}, {"per_s": 1000.0, "burst": 100.0}]),
        max_bytes=st.sampled_from([120, 400, 65_536]),
        repeat_notice=st.booleans(),
        paced=st.booleans(),
    )
    def begin(self, format, rate, max_bytes, repeat_notice, paced):
        self.wire = Wire(format)
        self.now = 1000.0
        self.model = GatewayModel(rate=rate, max_message_bytes=max_bytes, repeat_notice=repeat_notice)
        self.outbox = Outbox(self.wire.empty, max_unacked=200, paced=paced)
        self.up: deque[bytes] = deque()
        self.down: deque[dict] = deque()
        self.mail_age = 0.0
        self.connected = False
        self.good: list[int] = []
        self.bad: set[int] = set()

    # The device

    @rule(count=st.integers(1, 8), bad=st.booleans())
    def put(self, count, bad):
        for _ in range(count):
            if self.outbox.full:
                return
            seq = self.outbox.next_seq
            values = {"bad": seq} if bad else {"n": seq}
            assert self.outbox.put(self.wire.reading(seq, None, values, None), self.now) == seq
            if bad:
                self.bad.add(seq)
            else:
                self.good.append(seq)

    @precondition(lambda self: self.connected)
    @rule(messages=st.integers(1, 4))
    def write(self, messages):
        for _ in range(messages):
            batch = self.outbox.take(self.now)
            if not batch:
                return
            message = self.wire.join(batch)
            assert len(message) <= self.model.max_message_bytes
            self.up.append(message)

    # The link

    def _arrive_up(self, count):
        for _ in range(min(count, len(self.up))):
            message = self.up.popleft()
            decoded = msgspec.json.decode(message) if self.wire.text else msgspec.msgpack.decode(message)
            self.down.extend(self.model.receive(decoded, self.now))

    def _arrive_down(self, count):
        for _ in range(min(count, len(self.down))):
            reply = self.down.popleft()
            kind = reply["type"]
            if kind == "ack":
                self.outbox.ack(reply["seq"], self.now)
            elif kind == "throttled" or reply.get("code") == "overloaded":
                self.outbox.held_back(reply["seq"], reply["retry_after_ms"] / 1000, self.now)
            else:
                self.outbox.refuse(reply["seq"])
        if not self.down:
            self.mail_age = 0.0

    @rule(count=st.integers(1, 5))
    def arrive_up(self, count):
        self._arrive_up(count)

    @rule(count=st.integers(1, 5))
    def arrive_down(self, count):
        self._arrive_down(count)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 3.0]))
    def wait(self, seconds):
        if self.up or self.down:
            self.mail_age += seconds
            if self.mail_age > OLDEST_MAIL_S:
                self._arrive_up(len(self.up))
                self._arrive_down(len(self.down))
                self.mail_age = 0.0
        self.now += seconds

    @precondition(lambda self: self.connected)
    @rule(up=st.integers(0, 5), down=st.integers(0, 5))
    def cut(self, up, down):
        """Some of what is under way still arrives, the rest never."""
        self._arrive_up(up)
        self._arrive_down(down)
        self._end()

    def _end(self):
        self.up.clear()
        self.down.clear()
        self.mail_age = 0.0
        self.outbox.lost()
        self.connected = False

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self):
        welcome = self.model.connect("session1")
        rate = welcome.get("rate", {})
        assert (
            self.outbox.welcome(
                welcome["last_seq"],
                self.now,
                per_s=rate.get("per_s", 0.0),
                burst=rate.get("burst", 0.0),
                max_bytes=welcome["max_message_bytes"],
            )
            == []
        )
        self.connected = True

    # The gateway

    @rule()
    def commit(self):
        acks = self.model.commit()
        if self.connected:
            self.down.extend(acks)

    @rule(
        count=st.integers(1, 3),
        code=st.sampled_from(["throttled", "overloaded"]),
        retry=st.sampled_from([0, 50, 2000]),
    )
    def hold(self, count, code, retry):
        self.model.hold(count, code, retry)

    @rule(up=st.integers(0, 5))
    def crash(self, up):
        self._arrive_up(up)
        self.model.crash()
        self._end()

    # What must hold

    @invariant()
    def order_is_kept_and_nothing_is_stored_twice(self):
        if hasattr(self, "model"):
            stored = [reading["seq"] for reading in self.model.store]
            assert stored == sorted(set(stored))
            assert all(reading["values"] == {"n": reading["seq"]} for reading in self.model.store)

    @invariant()
    def what_the_device_let_go_of_is_decided(self):
        if hasattr(self, "model"):
            kept = {entry[0] for entry in (*self.outbox._flight, *self.outbox._queue)}
            gone = set(range(1, self.outbox.next_seq)) - kept
            assert gone <= {reading["seq"] for reading in self.model.store} | self.model.refused

    @invariant()
    def the_counts_add_up(self):
        if hasattr(self, "model"):
            outbox = self.outbox
            assert outbox.taken == outbox.acked + outbox.refused + len(outbox)
            assert outbox.sent <= outbox.taken

    def teardown(self):
        """On a link that holds, all is decided in the end."""
        if not hasattr(self, "model"):
            return
        self.model.holding = 0
        if not self.connected:
            self.connect()
        for _ in range(5000):
            self._arrive_up(len(self.up))
            self.commit()
            self._arrive_down(len(self.down))
            if not len(self.outbox):
                break
            wait = self.outbox.wait(self.now)
            self.now += 0.01 if wait is None else wait + 1e-6
            self.write(4)
        assert len(self.outbox) == 0
        assert [reading["seq"] for reading in self.model.store] == self.good
        assert self.model.refused == self.bad


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)

"""The live side: groups, conflation, exact joins, bounds."""

import json
import random
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from gateway.codecs import codec_for
from gateway.devices import DeviceBook
from gateway.hub import MSGPACK, Hub, Selection, Subscription, accumulator, holders, presence
from gateway.hub import hub as hub_module
from gateway.hub.series import Series, point
from gateway.liveness import Status
from gateway.reading import Reading

MS = 1_000_000


class Member:
    """A dashboard that keeps what it is sent; ``pending_bytes`` is set by the test."""

    def __init__(self) -> None:
        self.frames: list[dict] = []
        self.pending_bytes = 0

    def send(self, frame: dict) -> None:
        self.frames.append(frame)

    def take(self, kind: str) -> list[dict]:
        """The frames of a kind, and forget all."""
        found = [frame for frame in self.frames if frame["type"] == kind]
        self.frames = []
        return found


class Bench:
    """A hub with a book and a counter of offsets."""

    def __init__(self) -> None:
        self.book = DeviceBook(Path("/nonexistent"), rate=1, burst=1)
        self.encoded: list[dict] = []
        self.hub: Hub[dict] = Hub(self.book, self._encode)
        self.hub.begin(100, floor=100)
        self.offset = 99

    def _encode(self, format: str, message: dict) -> dict:
        self.encoded.append(message)
        return message

    def publish(self, device: str, ms: int, **values: object) -> int:
        if self.book.get(device) is None:
            self.book.open(device).status = Status("online", 5 * MS)
        self.offset += 1
        self.hub.publish(Reading(device, "s", 0, ms * MS, ms * MS, values), self.offset)
        return self.offset

    def tick(self) -> None:
        """A tick and all its steps."""
        more = self.hub.tick()
        while more:
            more = self.hub.step()

    def join(self, member: Member, after: int | None = None, **options: object) -> Subscription:
        fields = {"id": "main", "devices": (), "metrics": (), "mode": "latest", "ticks": 1, "format": "json", **options}
        subscription = Subscription(**fields)
        self.hub.subscribe(member, subscription, after)
        self.hub.release(member, subscription)
        return subscription


@pytest.fixture
def bench():
    """A hub of its own."""
    return Bench()


def test_latest_conflates_and_counts(bench):
    """At most one update a tick, the newest of each series, and how many were passed over."""
    member = Member()
    bench.join(member)
    for n in range(5):
        last = bench.publish("a", n, t=n, u=-n)
    bench.publish("b", 9, t=9)
    last += 1
    bench.tick()
    (update,) = member.take("update")
    assert update["data"] == {"a": {"t": [[4, 4]], "u": [[4, -4]]}, "b": {"t": [[9, 9]]}}
    assert (update["skipped"], update["offset"], update["id"]) == (8, last, "main")
    bench.tick()
    assert member.frames == []


def test_late_reading_does_not_push_out_a_newer_one(bench):
    """Newest means greatest time, then last received; a late metric that has no newer value is shown."""
    member = Member()
    bench.join(member)
    bench.publish("a", 10, t=1)
    bench.publish("a", 5, t=2, u=3)
    bench.publish("a", 10, t=4)
    bench.tick()
    (update,) = member.take("update")
    assert update["data"] == {"a": {"t": [[10, 4]], "u": [[5, 3]]}}
    late = Member()
    bench.join(late)
    assert late.take("snapshot")[0]["devices"]["a"]["values"] == {"t": [10, 4], "u": [5, 3]}


def test_every_carries_all_in_order(bench):
    """No value is left out."""
    member = Member()
    bench.join(member, mode="every")
    for n in range(3):
        bench.publish("a", n, t=n)
    bench.tick()
    (update,) = member.take("update")
    assert update["data"] == {"a": {"t": [[0, 0], [1, 1], [2, 2]]}}
    assert "skipped" not in update


def test_intervals(bench):
    """A subscription of three ticks gets one update every three ticks."""
    member = Member()
    bench.join(member, ticks=3)
    for n in range(6):
        bench.publish("a", n, t=n)
        bench.tick()
    assert [update["data"]["a"]["t"][0][1] for update in member.take("update")] == [2, 5]


def test_globs_select_devices_and_metrics(bench):
    """Only what was asked for is sent and counted; other characters of a glob stand for themselves."""
    member = Member()
    bench.join(member, devices=("pump-?", "c.*"), metrics=("t*",))
    bench.publish("pump-1", 1, t=1, x=2)
    bench.publish("pump-10", 1, t=1)
    bench.publish("c.1", 1, temp=3)
    bench.publish("cx1", 1, temp=3)
    bench.publish("c.2", 1, x=3)
    bench.tick()
    (update,) = member.take("update")
    assert update["data"] == {"pump-1": {"t": [[1, 1]]}, "c.1": {"temp": [[1, 3]]}}
    assert "skipped" not in update


def test_presence_alone(bench):
    """The metric list none subscribes to presence alone."""
    member = Member()
    bench.publish("a", 1, none=1)
    bench.join(member, metrics=("none",))
    bench.publish("a", 2, none=2)
    bench.tick()
    assert member.frames[0]["devices"]["a"]["values"] == {}
    assert len(member.frames) == 1
    device = bench.book.get("a")
    device.status = Status("offline", 7 * MS, "ping timeout")
    bench.hub.presence(device)
    bench.tick()
    assert member.frames[1] == {
        "type": "presence",
        "id": "main",
        "devices": {"a": {"state": "offline", "since": 7, "last_seen": 0, "reason": "ping timeout"}},
    }


def test_snapshot_and_updates_join_exactly(bench):
    """One that joins between two emissions of its group sees each reading once, in snapshot or update."""
    first, second = Member(), Member()
    bench.join(first, ticks=4)
    bench.publish("a", 1, t=1)
    bench.tick()
    bench.publish("a", 2, t=2)
    bench.join(second, ticks=4)
    assert second.take("snapshot")[0]["devices"]["a"]["values"] == {"t": [2, 2]}
    bench.publish("b", 3, t=3)
    for _ in range(3):
        bench.tick()
    assert second.take("update")[0]["data"] == {"b": {"t": [[3, 3]]}}
    assert first.take("update")[0]["data"] == {"a": {"t": [[2, 2]]}, "b": {"t": [[3, 3]]}}


def test_encoder_calls_do_not_rise_with_members(bench):
    """A hundred like subscriptions cost one encoding a tick."""
    members = [Member() for _ in range(100)]
    for member in members:
        bench.join(member)
    bench.publish("a", 1, t=1)
    bench.tick()  # the first emission after joining is each one's own
    bench.encoded.clear()
    bench.publish("a", 2, t=2)
    bench.tick()
    assert len(bench.encoded) == 1
    assert all(member.frames[-1] is bench.encoded[0] for member in members)


def test_slow_latest_member_is_passed_by_and_catches_up(bench):
    """While its socket is full it is sent nothing; then the newest of all it missed, with the count."""
    slow, fast = Member(), Member()
    bench.join(slow)
    bench.join(fast)
    bench.publish("a", 0, t=0)
    bench.tick()
    slow.frames.clear()
    slow.pending_bytes = 10**6
    for n in range(1, 6):
        bench.publish("a", n, t=n)
        bench.publish("b", n, t=n)
        bench.tick()
    assert slow.frames == []
    slow.pending_bytes = 0
    bench.tick()
    (update,) = slow.take("update")
    assert update["data"] == {"a": {"t": [[5, 5]]}, "b": {"t": [[5, 5]]}}
    assert update["skipped"] == 8
    assert len(fast.take("update")) == 6


def test_slow_every_member_is_moved_to_latest_and_told(bench):
    """It keeps the newest of what it missed, and its group goes on without it."""
    slow, fast = Member(), Member()
    bench.join(slow, mode="every")
    bench.join(fast, mode="every")
    bench.publish("a", 0, t=0)
    bench.tick()
    slow.frames.clear()
    slow.pending_bytes = 10**6
    bench.publish("a", 1, t=1)
    bench.publish("a", 2, t=2)
    bench.tick()
    assert slow.take("mode") == [{"type": "mode", "id": "main", "mode": "latest", "reason": "slow"}]
    slow.pending_bytes = 0
    bench.tick()
    (update,) = slow.take("update")
    assert update["data"] == {"a": {"t": [[2, 2]]}}
    assert update["skipped"] == 1
    assert bench.hub.stats()["downgraded"] == 1
    bench.publish("a", 3, t=3)
    bench.tick()
    assert slow.take("update")[0]["data"] == {"a": {"t": [[3, 3]]}}
    assert [len(update["data"]["a"]["t"]) for update in fast.take("update")] == [1, 2, 1]


def test_held_every_member_is_bounded(bench, monkeypatch):
    """One that waits for its history is moved to latest when too much gathers for it."""
    monkeypatch.setattr(holders, "EVERY_BYTES", 10 * accumulator.SLOT_BYTES)
    member = Member()
    subscription = Subscription("main", (), (), "every", 1, "json")
    bench.hub.subscribe(member, subscription, None)
    for n in range(30):
        bench.publish("a", n, t=n)
        bench.tick()
    assert [frame["type"] for frame in member.frames] == ["snapshot", "mode"]
    bench.hub.release(member, subscription)
    bench.tick()
    update = member.frames[-1]
    assert (update["data"], update["skipped"]) == ({"a": {"t": [[29, 29]]}}, 29)


def test_a_members_subscriptions_have_one_bound(bench, monkeypatch):
    """What all of them hold and what it has not read count together; the largest is moved first, others' stay."""
    monkeypatch.setattr(holders, "EVERY_BYTES", 40 * accumulator.SLOT_BYTES)
    member, other = Member(), Member()
    for name in "abc":
        bench.hub.subscribe(member, Subscription(name, (name,), (), "every", 1, "json"), None)
    bench.hub.subscribe(other, Subscription("a", ("a",), (), "every", 1, "json"), None)
    for n in range(16):
        for name in "aab":
            bench.publish(name, n, t=n)
        bench.tick()
        if n == 12:
            assert not member.take("mode")
    assert [frame["id"] for frame in member.take("mode")] == ["a"]
    member.pending_bytes = 30 * accumulator.SLOT_BYTES
    bench.tick()
    assert [frame["id"] for frame in member.take("mode")] == ["b"]
    assert not other.take("mode")
    assert bench.hub.stats()["downgraded"] == 2


def test_a_reading_counts_whole_once_nobody_else_remembers_it(bench, monkeypatch):
    """Until then it costs a place in a list; a member that has been sent all holds nothing."""
    monkeypatch.setattr(hub_module, "RECENT_MAX", 50)
    member = Member()
    subscription = Subscription("main", (), (), "every", 1, "json")
    bench.hub.subscribe(member, subscription, None)
    (group,) = bench.hub._groups.values()
    sizes = []
    for n in range(80):
        bench.publish("a", n, t=n, text="x" * 1000)
        bench.tick()
        sizes.append(group.subscribers[member].own.size)
    assert sizes[:50] == [n * accumulator.SLOT_BYTES for n in range(1, 51)]
    assert all(b - a > 1500 for a, b in pairwise(sizes[50:]))
    bench.hub.release(member, subscription)
    bench.tick()
    assert len(member.take("update")[0]["data"]["a"]["t"]) == 80
    assert group.subscribers[member].own is None


@pytest.mark.parametrize(("metrics", "name", "text"), [(1, 8, 0), (4, 8, 0), (4, 100, 0), (30, 8, 0), (4, 8, 200)])
def test_a_reading_weighs_what_it_takes(metrics, name, text):
    """What is counted is not below what Python allocates for readings as they come, nor above it twice and a half."""
    names = [f"m{n:02}".ljust(name, "x") for n in range(metrics)]
    messages = [
        json.dumps({"seq": n, "ts": n, **{one: "é" * text + str(n) if text else n + 0.5 for one in names}})
        for n in range(1000, 2000)
    ]
    codec = codec_for(None, text=True)

    def folded() -> tuple[int, accumulator.Every]:
        own = accumulator.Every(Selection(Subscription("main", (), (), "every", 1, "json")), 0)
        tracemalloc.start()
        for offset, message in enumerate(messages, 10**6):
            (draft,) = codec.decode(message)
            own.fold([(offset, Reading("a", "s", draft.seq, draft.time, 10**18 + offset, draft.values))])
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken, own

    # What other threads of this process allocate is counted too: the least has nothing of it.
    taken, own = min((folded() for _ in range(3)), key=lambda each: each[0])
    own.weigh(10**9)
    assert taken <= own.size <= 2.5 * taken
    own.forget({"a"})
    assert own.size == 0


def test_a_long_interval_ends_before_its_readings_are_forgotten(bench, monkeypatch):
    """A group sends what nobody would remember for it; who joins then is sent all too, and not called slow."""
    monkeypatch.setattr(hub_module, "RECENT_MAX", 50)
    monkeypatch.setattr(holders, "EVERY_BYTES", 4096)
    first, late = Member(), Member()
    bench.join(first, mode="every", ticks=70_000)
    for n in range(500):
        if n == 20:
            bench.join(late, mode="every", ticks=70_000)
        bench.publish("a", n, t=n)
        bench.tick()
        (group,) = bench.hub._groups.values()
        assert not group.shared or group.shared.entries[0][0] >= bench.hub.floor
    for member, begin in ((first, 0), (late, 20)):
        assert not [frame for frame in member.frames if frame["type"] == "mode"]
        shown = values_of(member, "a", "t")
        assert shown == list(range(begin, begin + len(shown)))
        assert len(shown) + begin >= 450
        assert len(member.frames) < 20


def test_resume(bench, monkeypatch):
    """after: every gets all it missed where memory reaches back, latest the newest; both say so truly."""
    start = bench.publish("a", 1, t=1)
    bench.publish("a", 2, t=2)
    bench.publish("a", 3, t=3)
    member = Member()
    bench.join(member, after=start, mode="every")
    assert member.take("snapshot")[0]["recovered"] is True
    bench.tick()
    assert member.take("update")[0]["data"] == {"a": {"t": [[2, 2], [3, 3]]}}
    for after, mode, recovered in (
        (98, "every", False),
        (99, "every", True),
        (5, "latest", True),
        (10**9, "latest", False),
        (None, "latest", False),
    ):
        other = Member()
        bench.join(other, after=after, mode=mode, id="x")
        assert other.take("snapshot")[0]["recovered"] is recovered, (after, mode)


def test_memory_for_resuming_is_bounded(bench):
    """Beyond its bound the oldest are forgotten, and a resume from there says so."""
    for n in range(hub_module.RECENT_MAX + 10):
        bench.publish("a", n, t=n)
    assert len(bench.hub.recent) == hub_module.RECENT_MAX
    member = Member()
    bench.join(member, after=108, mode="every")
    assert member.frames[0]["recovered"] is False
    member = Member()
    bench.join(member, after=109, mode="every", id="y")
    assert member.frames[0]["recovered"] is True


def test_memory_for_resuming_is_bounded_in_bytes(bench):
    """Large readings push each other out."""
    for n in range(200):
        bench.book.open("a").status = Status("online", 1)
        bench.hub.publish(Reading("a", "s", 0, n, n, {"t": n}), n + 100, size=64 * 1024)
    assert len(bench.hub.recent) == hub_module.RECENT_BYTES // (64 * 1024)
    assert bench.hub.floor == bench.hub.recent[0][0]


def test_unsubscribe_ends_the_stream_and_its_costs(bench):
    """Nothing is kept for nobody."""
    member = Member()
    subscription = bench.join(member)
    bench.publish("a", 1, t=1)
    bench.hub.unsubscribe(member, subscription)
    bench.publish("a", 2, t=2)
    bench.tick()
    assert [frame["type"] for frame in member.frames] == ["snapshot"]
    assert (bench.hub.stats()["groups"], bench.hub._fresh) == (0, [])


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_large_integers_are_digits_in_json_alone(bench, mode):
    """What a browser cannot hold is sent as digits: newest, kept aside, late or in a snapshot; MessagePack holds it."""
    large = {"n": 2**53, "m": 2**53 - 1, "k": -(2**53), "f": 2.0**60, "b": True}
    digits = large | {"n": str(2**53), "k": str(-(2**53))}
    members = {"json": Member(), MSGPACK: Member()}
    for format, member in members.items():
        bench.join(member, format=format, mode=mode)
    for n in range(3):  # `kept` is in no later reading than the first, `late` is older than what is there
        bench.publish("a", 10 + n, **large, **({"kept": 2**60} if n == 0 else {}))
        bench.publish("a", 5, n=-(2**62))
        bench.tick()
    for format, want in (("json", digits), (MSGPACK, large)):
        wire = str if format == "json" else int
        for n, update in enumerate(members[format].take("update")):
            data = update["data"]["a"]
            newest = [[10 + n, want["n"]]] if mode == "latest" else [[10 + n, want["n"]], [5, wire(-(2**62))]]
            kept = {"kept": [[10, wire(2**60)]]} if n == 0 else {}
            assert repr(data) == repr({name: [[10 + n, value]] for name, value in want.items()} | {"n": newest} | kept)
        late = Member()
        bench.join(late, format=format, mode=mode)
        shown = late.take("snapshot")[0]["devices"]["a"]["values"]
        assert shown == {name: [12, value] for name, value in want.items()} | {"kept": [10, wire(2**60)]}
    # A value that only came late.
    bench.publish("a", 6, n=2**61, only=2**61)
    bench.tick()
    for format, member in members.items():
        wire = str if format == "json" else int
        data = member.take("update")[-1]["data"]["a"]
        assert data == {"n": [[6, wire(2**61)]], "only": [[6, wire(2**61)]]}


def test_formats_do_not_share_and_each_is_encoded_once(bench):
    """One frame a tick for all of a format, whatever number of subscribers."""
    for format in ("json", MSGPACK):
        for _ in range(10):
            bench.join(Member(), format=format)
    bench.publish("a", 1, n=2**60)
    bench.tick()
    bench.tick()
    before = bench.hub.frames
    bench.publish("a", 2, n=2**60)
    bench.tick()
    assert bench.hub.frames == before + 2


def test_large_updates_come_in_pieces(bench):
    """No frame is large: a burst for every, and very many series for latest, are cut; nothing is left out."""
    every, latest = Member(), Member()
    bench.join(every, mode="every")
    bench.join(latest)
    bench.tick()
    for n in range(2000):
        bench.publish(f"d{n % 700}", n, s="x" * 1000, n=n)
    bench.tick()
    for member in (every, latest):
        member.frames = [frame for frame in member.frames if frame["type"] == "update"]
        assert len(member.frames) > 3
        assert all(len(msgspec.json.encode(frame)) < 400_000 for frame in member.frames)
        offsets = [frame["offset"] for frame in member.frames]
        assert offsets == sorted(offsets)
        assert offsets[-1] == bench.offset
    seen = [v for frame in every.frames for series in frame["data"].values() for _, v in series["n"]]
    assert sorted(seen) == list(range(2000))
    newest = {d: series["n"][0][1] for frame in latest.frames for d, series in frame["data"].items()}
    assert newest == {f"d{n % 700}": n for n in range(2000)}
    assert sum(frame.get("skipped", 0) for frame in latest.frames) == 2 * (2000 - 700)


def test_presence_waits_for_a_slow_member(bench):
    """What it could not be told of presence is told when it has read, as it is by then."""
    member = Member()
    bench.join(member)
    bench.publish("a", 1, t=1)
    bench.tick()
    member.frames.clear()
    member.pending_bytes = 10**6
    device = bench.book.get("a")
    for n, state in enumerate(("offline", "online", "offline")):
        device.status = Status(state, n * MS)
        bench.hub.presence(device)
        bench.tick()
    assert member.frames == []
    member.pending_bytes = 0
    bench.tick()
    (presence,) = member.take("presence")
    assert presence["devices"]["a"]["state"] == "offline"


def values_of(member: Member, device: str, metric: str) -> list:
    """The values of one series in the updates that a member was sent."""
    updates = [frame for frame in member.frames if frame["type"] == "update"]
    return [v for update in updates for _, v in update["data"].get(device, {}).get(metric, [])]


def test_every_behind_much_that_was_not_asked_for(bench):
    """Readings without any metric of the subscription, however many, hold up none that has one."""
    member = Member()
    bench.join(member, mode="every", metrics=("temp",))
    bench.publish("a", 0, temp=-1)
    bench.tick()
    for n in range(12):
        bench.publish("a", n, **{f"log{i}": "x" * 1000 for i in range(10)})
    for n in range(50):
        bench.publish("a", 100 + n, temp=n)
    bench.publish("a", 200, other=1)
    bench.tick()
    assert values_of(member, "a", "temp") == list(range(-1, 50))
    assert member.frames[-1]["offset"] == bench.offset


@pytest.mark.parametrize("ahead", [False, True])
def test_moved_to_latest_within_a_tick(bench, ahead):
    """Wherever in a tick a subscriber falls behind, it is shown the newest of all series in the end."""
    slow, fast, other = Member(), Member(), Member()
    if ahead:
        bench.join(other)  # the group that it is moved to is there already
    bench.join(slow, mode="every")
    bench.join(fast, mode="every")
    bench.publish("a", 0, m0=-1)
    bench.tick()
    slow.frames.clear()
    slow.pending_bytes = 1 << 20
    for n in range(2000):
        bench.publish("a", n, **{f"m{i}": n for i in range(4)})
    bench.publish("rare", 5000, door=True)
    bench.tick()
    assert [frame["type"] for frame in slow.frames] == ["mode"]
    slow.pending_bytes = 0
    bench.tick()
    bench.tick()
    assert values_of(slow, "a", "m3")[-1:] == [1999]
    assert values_of(slow, "rare", "door") == [True]
    assert sum(frame.get("skipped", 0) for frame in slow.frames) == 1999 * 4
    assert values_of(fast, "a", "m3") == list(range(2000))


def test_parted_from_its_group_within_a_tick(bench):
    """One whose socket fills up while a burst is sent gets every value of the rest when it has read."""

    class Filling(Member):
        """Its socket is full when it is looked at first after an update."""

        def __init__(self):
            self.full = 0
            super().__init__()

        def send(self, frame):
            super().send(frame)
            self.full = 600_000 if frame["type"] == "update" else 0

        @property
        def pending_bytes(self):
            full, self.full = self.full, 0
            return full

        @pending_bytes.setter
        def pending_bytes(self, value):
            self.full = value

    member = Filling()
    bench.join(member, mode="every")
    bench.publish("a", 0, m0=-1)
    bench.tick()
    member.frames.clear()
    member.full = 0
    for n in range(1400):
        bench.publish("a", n, **{f"m{i}": n for i in range(4)})
    for n in range(300):
        bench.publish("b", n, m0=n)
    bench.tick()
    while values_of(member, "b", "m0")[-1:] != [299]:
        bench.tick()
    assert values_of(member, "a", "m3") == list(range(1400))
    assert values_of(member, "b", "m0") == list(range(300))
    assert bench.hub.downgraded == 0


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_offsets_never_go_back(bench, mode):
    """From the snapshot on, whatever pieces an answer takes, each frame reaches as far as those before it."""
    member = Member()
    start = bench.publish("z", 1, t=1)
    for n in range(2, 5):
        bench.publish("z", n, t=n)
    bench.join(member, mode=mode, after=start)
    for d in range(1000):
        bench.publish(f"d{d}", 10, **{f"m{i}": 1 for i in range(10)})
    bench.tick()
    bench.publish("z", 9, t=9)
    bench.tick()
    offsets = [frame["offset"] for frame in member.frames if "offset" in frame]
    assert len(offsets) > 4
    assert all(a <= b for a, b in pairwise(offsets))
    assert offsets[0] >= start
    assert offsets[-1] == bench.offset


def test_newest_values_keep_no_old_readings_alive(bench):
    """A device whose metrics come and go: what is held is a value a series, not every reading that had one."""
    readings = [Reading("a", "s", 0, n * MS, n * MS, {f"m{k}": n for k in range(n, n + 20)}) for n in range(300)]
    bench.book.open("a")
    loose = sys.getrefcount(readings[0])
    for n, reading in enumerate(readings):
        bench.hub.publish(reading, n + 100)
    del reading
    bench.hub.recent.clear()
    assert sum(sys.getrefcount(reading) > loose + 1 for reading in readings) <= 2
    member = Member()
    bench.join(member)
    values = member.frames[0]["devices"]["a"]["values"]
    assert values == {f"m{k}": [min(k, 299), min(k, 299)] for k in range(319)}
    assert bench.hub.stats()["series"] == 319


def test_late_value_is_shown_while_no_newer_one_came(bench):
    """A reading older than what was shown is an update of its series too, whoever is served by the group or alone."""
    member, joiner = Member(), Member()
    bench.join(member)
    bench.publish("a", 10, t=1, u=1)
    bench.tick()
    bench.join(joiner)
    bench.publish("a", 5, t=2)
    bench.tick()
    assert member.frames[-1]["data"] == {"a": {"t": [[5, 2]]}}
    assert joiner.frames[-1]["data"] == {"a": {"t": [[5, 2]]}}
    bench.publish("a", 6, t=3)
    bench.publish("a", 11, t=4)
    bench.tick()
    assert member.frames[-1] is joiner.frames[-1]
    assert member.frames[-1]["data"] == {"a": {"t": [[11, 4]]}}
    bench.publish("a", 9, u=5, w=6)
    bench.publish("a", 8, w=7)
    late = Member()
    bench.join(late)
    assert late.frames[0]["devices"]["a"]["values"] == {"t": [11, 4], "u": [10, 1], "w": [9, 6]}


def test_what_changed_is_found_among_very_many_metrics():
    """In whatever order readings come, it is the same as what a look at every value finds."""
    rng = random.Random(3)
    selection = Selection(Subscription("main", (), (), "latest", 1, "json"))
    series = Series(Reading("a", "", 0, 0, 0, {f"m{n}": 0 for n in range(500)}), 0, 0)
    known = 0
    for offset in range(1, 3_000):
        late = rng.random() < 0.2
        time = (offset - rng.randrange(20) if late else offset) * MS
        series.take(Reading("a", "", 0, time, time, {f"m{rng.randrange(500)}": offset for _ in range(3)}), offset)
        if rng.random() < 0.2:
            assert series.changed(known, selection) == changed(series, known)
            known = offset


def changed(series: Series, known: int) -> dict[str, list]:
    """By a look at every value."""
    last, found = series.last, {}
    if series.at > known:
        found = {name: [point(last.time, value)] for name, value in last.values.items()}
    for kept, but in ((series.older, last.values), (series.late, found)):
        but = set(but)
        found |= {
            name: [point(time, value)]
            for name, (time, value, offset, _) in kept.items()
            if offset > known and name not in but
        }
    return found


def test_presence_is_gathered_until_the_tick(bench):
    """A storm of changes is one frame a tick and group, encoded once, with each device as it is by then."""
    members = [Member() for _ in range(50)]
    for n in range(1000):
        bench.publish(f"d{n}", 1, t=1)
    for member in members:
        bench.join(member)
    bench.tick()
    bench.encoded.clear()
    for member in members:
        member.frames.clear()
    for state in ("offline", "online"):
        for n in range(1000):
            device = bench.book.get(f"d{n}")
            device.status = Status(state, 7 * MS)
            bench.hub.presence(device)
    bench.tick()
    assert len(bench.encoded) == 1000 / presence.PRESENCES
    for member in members:
        assert member.frames == bench.encoded
        states = {name: shown["state"] for frame in member.frames for name, shown in frame["devices"].items()}
        assert states == {f"d{n}": "online" for n in range(1000)}
    bench.tick()
    assert len(bench.encoded) == 1000 / presence.PRESENCES


def test_presence_comes_at_the_tick_whatever_the_interval(bench):
    """A subscription to one update a minute is told of a change at once, one that joined since as well; once."""
    member, joiner, other = Member(), Member(), Member()
    bench.join(member, ticks=1200)
    bench.publish("a", 1, t=1)
    bench.tick()
    device = bench.book.get("a")
    device.status = Status("stale", 7 * MS)
    bench.hub.presence(device)
    bench.join(joiner, ticks=1200)
    bench.join(other, ticks=1200, devices=("b",))
    bench.tick()
    assert [shown["a"]["state"] for shown in [frame["devices"] for frame in member.take("presence")]] == ["stale"]
    assert [frame["type"] for frame in joiner.frames] == ["snapshot"]
    assert joiner.frames[0]["devices"]["a"]["state"] == "stale"
    device.status = Status("offline", 8 * MS)
    bench.hub.presence(device)
    bench.tick()
    assert [frame["devices"]["a"]["state"] for frame in joiner.take("presence")] == ["offline"]
    bench.hub.presence(bench.book.open("c"))
    bench.tick()
    assert [list(frame["devices"]) for frame in joiner.take("presence")] == [["c"]]
    assert [frame["type"] for frame in other.frames] == ["snapshot"]


def sizes(frames: list[dict]) -> list[int]:
    """Bytes of each frame as JSON."""
    return [len(msgspec.json.encode(frame)) for frame in frames]


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_snapshot_of_very_many_series(bench, mode):
    """It comes in several frames, all but the last say that there is more, and updates join each device's part."""
    for d in range(3000):
        bench.publish(f"device-{d}", 10, **{f"metric-{i}": 1.5 for i in range(10)})
    member = Member()
    subscription = Subscription("main", (), (), mode, 1, "json")
    bench.hub.subscribe(member, subscription, None)
    bench.hub.release(member, subscription)
    assert len(member.frames) == 1
    assert bench.hub.joining(member, subscription)
    # One that is shown already, and one that is not.
    bench.publish("device-0", 11, **{"metric-0": 2.5})
    bench.publish("device-2999", 11, **{"metric-0": 3.5})
    bench.tick()
    assert not bench.hub.joining(member, subscription)
    snapshots = [frame for frame in member.frames if frame["type"] == "snapshot"]
    assert len(snapshots) > 4
    assert max(sizes(snapshots)) < 300_000
    assert [frame.get("more", False) for frame in snapshots] == [True] * (len(snapshots) - 1) + [False]
    assert len({frame["offset"] for frame in snapshots}) == 1
    shown = [name for frame in snapshots for name in frame["devices"]]
    assert shown == [f"device-{d}" for d in range(3000)]
    assert snapshots[-1]["devices"]["device-2999"]["values"]["metric-0"] == [11, 3.5]
    bench.tick()
    assert [frame["type"] for frame in member.frames[len(snapshots) :]] == ["update"]
    assert member.frames[-1]["data"] == {"device-0": {"metric-0": [[11, 2.5]]}}
    assert "skipped" not in member.frames[-1]


def test_updates_begin_at_the_subscription_where_history_goes_before(bench):
    """With history, what the later parts of a snapshot show is an update too: the history ends at the subscription."""
    for d in range(3000):
        bench.publish(f"device-{d}", 10, **{f"metric-{i}": 1.5 for i in range(10)})
    members = {}
    for mode in ("latest", "every"):
        members[mode] = member = Member()
        subscription = Subscription("main", (), (), mode, 1, "json")
        bench.hub.subscribe(member, subscription, None, history=True)
        bench.publish("device-2999", 11, **{"metric-0": 3.5})
        bench.tick()
        bench.hub.release(member, subscription)
        bench.tick()
        assert values_of(member, "device-2999", "metric-0") == [3.5]


def test_slow_reader_of_a_large_snapshot_costs_one_frame_at_a_time(bench):
    """No part is sent to one that has not read the part before; others go on."""
    for d in range(3000):
        bench.publish(f"device-{d}", 10, **{f"metric-{i}": 1.5 for i in range(10)})
    slow, fast = Member(), Member()
    bench.join(slow)
    slow.pending_bytes = 1 << 20
    bench.join(fast)
    bench.tick()
    assert len(slow.frames) == 1
    assert len(fast.frames) > 4
    slow.pending_bytes = 0
    bench.tick()
    assert {name for frame in slow.frames for name in frame["devices"]} == {f"device-{d}" for d in range(3000)}


def test_a_step_is_small(bench):
    """However many are to be sent however much, one step sends about one frame's worth."""
    members = [Member() for _ in range(20)]
    for d in range(2000):
        bench.publish(f"device-{d}", 10, **{f"metric-{i}": 1.5 for i in range(10)})
    for n, member in enumerate(members):
        bench.join(member, id=f"s{n}")
    bench.encoded.clear()
    more, most, last = bench.hub.tick(), 0, 0
    while more:
        more = bench.hub.step()
        most, last = max(most, sum(sizes(bench.encoded[last:]))), len(bench.encoded)
    assert most < 400_000
    assert all(not member.frames[-1].get("more") for member in members)


def test_patterns_are_tried_in_steps(bench):
    """A subscription by many patterns tries them against some of many names in a step, not against all at once."""
    tried = []
    for d in range(4000):
        bench.book.open(f"device-{d}")
    member = Member()
    patterns = tuple(f"*{n}*x" for n in range(100))
    subscription = Subscription("main", patterns, (), "latest", 1, "json")
    bench.hub.subscribe(member, subscription, None)
    selection = bench.hub._groups[subscription].selection
    tried.append(len(selection._devices))
    more = bench.hub.tick()
    tried.append(len(selection._devices))
    while more:
        more = bench.hub.step()
        tried.append(len(selection._devices))
    assert tried[-1] == 4000
    assert all(later - earlier < 300 for earlier, later in pairwise([0, *tried]))


def test_nothing_is_done_for_those_that_do_not_read(bench):
    """A dashboard that never reads costs no work a reading, and no memory a series."""
    members = [Member() for _ in range(20)]
    for member in members:
        bench.join(member)
    bench.publish("a", 0, t=0)
    bench.tick()
    for member in members:
        member.pending_bytes = 1 << 20
        member.frames.clear()
    calls = []
    bench.hub._groups[Subscription("main", (), (), "latest", 1, "json")].selection.price = calls.append
    for n in range(100):
        bench.publish(f"d{n}", n, t=n)
        bench.tick()
    assert calls == []
    (group,) = bench.hub._groups.values()
    assert group.changes.known == {}
    assert sum(len(subscriber.behind.known) for subscriber in group.subscribers.values()) <= 20


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_a_failing_group_does_not_stop_the_others(bench, mode):
    """What one subscription's frame raises is raised by the step; the next ones serve everybody else."""
    good, bad = [Member(), Member()], Member()
    bench.join(good[0], mode=mode, id="a")
    bench.join(bad, mode=mode, id="bad")
    bench.join(good[1], mode=mode, id="z")
    encode = bench.hub._encode

    def failing(format: str, message: dict) -> dict:
        if message["id"] == "bad":
            raise RuntimeError("cannot be encoded")
        return encode(format, message)

    bench.hub._encode = failing
    failures = 0
    for n in range(10):
        bench.publish("a", n, t=n)
        try:
            bench.tick()
        except RuntimeError:
            failures += 1
    assert failures > 3
    for member in good:
        assert values_of(member, "a", "t")[-1] >= 8
    bench.hub._encode = encode
    bench.tick()
    bench.tick()
    for member in good:
        assert values_of(member, "a", "t")[-1] == 9
        if mode == "every":
            assert values_of(member, "a", "t") == list(range(10))


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_a_failing_fold_does_not_stop_the_others(bench, mode):
    """What is published reaches all other groups when one of them cannot take it in, once or ever."""
    members = [Member() for _ in range(5)]
    for n, member in enumerate(members):
        bench.join(member, id=f"s{n}", devices=("a",), mode=mode)
    bench.tick()
    bad = list(bench.hub._groups.values())[2]
    bad.shared = bad.changes = None
    bad.selection = None
    failures = 0
    for n in range(10):
        bench.publish("a", n, t=n)
        try:
            bench.tick()
        except AttributeError:
            failures += 1
    assert failures > 3
    for n, member in enumerate(members):
        if n != 2:
            assert values_of(member, "a", "t")[-1] >= 6
            if mode == "every":
                assert values_of(member, "a", "t") == list(range(values_of(member, "a", "t")[-1] + 1))


def test_a_snapshot_in_parts_makes_no_reader_slow(bench):
    """A subscriber to every value reads its snapshot at its own pace, and is not moved to latest for it."""

    class Reading64(Member):
        """Takes 64 KiB between two ticks."""

        def send(self, frame):
            super().send(frame)
            self.pending_bytes += len(msgspec.json.encode(frame))

    for d in range(3000):
        bench.publish(f"device-{d}", 10, **{f"metric-{i}": 1.5 for i in range(10)})
    member, most = Reading64(), 0
    bench.join(member, mode="every")
    for n in range(100):
        most = max(most, member.pending_bytes)
        member.pending_bytes = max(0, member.pending_bytes - 65_536)
        bench.publish("device-0", 11 + n, **{"metric-0": n})
        bench.tick()
    assert bench.hub.downgraded == 0
    assert most < hub_module.PENDING_MAX["every"]
    assert [frame["type"] for frame in member.frames[-1:]] == ["update"]
    assert values_of(member, "device-0", "metric-0") == list(range(100))


@pytest.mark.parametrize("moment", ["note", "emit", "own", "snapshot"])
def test_after_a_failure_the_newest_values_are_shown(bench, moment):
    """Whatever a step was at when it failed, a dashboard in latest is not left with an old value until the next one."""
    member = Member()
    bench.publish("a", 0, t=0)
    encode, failing = bench.hub._encode, True

    def fail(format: str, message: dict) -> dict:
        if failing and moment == "emit" and len(member.frames) > 1:
            raise RuntimeError("cannot be encoded")
        if failing and moment == "own" and message["type"] == "update":
            raise RuntimeError("cannot be encoded")
        if failing and moment == "snapshot" and member.frames:
            raise RuntimeError("cannot be encoded")
        return encode(format, message)

    bench.hub._encode = fail
    if moment == "snapshot":
        for d in range(3000):
            bench.publish(f"device-{d}", 10, **{f"metric-{i}": 1.5 for i in range(10)})
    bench.join(member, devices=("*", "a"), metrics=("?*", "t"))
    if moment in ("note", "emit"):
        bench.publish("a", 1, t=1)
        bench.tick()
    bench.publish("a", 2, t=2)
    bench.publish("b", 2, t=2)
    (group,) = bench.hub._groups.values()
    note = bench.hub._note
    if moment == "note":
        bench.hub._note = None
    with pytest.raises((RuntimeError, TypeError)):
        bench.tick()
    bench.hub._note, failing = note, False
    bench.tick()
    bench.tick()
    assert not group.failed
    assert not bench.hub.joining(member, group.subscription)
    if moment == "snapshot":
        shown = [name for frame in member.frames if frame["type"] == "snapshot" for name in frame["devices"]]
        assert sorted(shown) == sorted([device.name for device in bench.book if device.name != "b"])
    assert values_of(member, "a", "t")[-1] == 2
    assert values_of(member, "b", "t") == [2] or moment == "snapshot"

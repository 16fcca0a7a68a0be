"""The live side: groups, conflation, exact joins, bounds."""

from pathlib import Path

import msgspec
import pytest

from gateway.devices import DeviceBook
from gateway.hub import Hub, Subscription
from gateway.hub import hub as hub_module
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
    bench.hub.tick()
    (update,) = member.take("update")
    assert update["data"] == {"a": {"t": [[4, 4]], "u": [[4, -4]]}, "b": {"t": [[9, 9]]}}
    assert (update["skipped"], update["offset"], update["id"]) == (8, last, "main")
    bench.hub.tick()
    assert member.frames == []


def test_late_reading_does_not_push_out_a_newer_one(bench):
    """Newest means greatest time, then last received; a late metric that has no newer value is shown."""
    member = Member()
    bench.join(member)
    bench.publish("a", 10, t=1)
    bench.publish("a", 5, t=2, u=3)
    bench.publish("a", 10, t=4)
    bench.hub.tick()
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
    bench.hub.tick()
    (update,) = member.take("update")
    assert update["data"] == {"a": {"t": [[0, 0], [1, 1], [2, 2]]}}
    assert "skipped" not in update


def test_intervals(bench):
    """A subscription of three ticks gets one update every three ticks."""
    member = Member()
    bench.join(member, ticks=3)
    for n in range(6):
        bench.publish("a", n, t=n)
        bench.hub.tick()
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
    bench.hub.tick()
    (update,) = member.take("update")
    assert update["data"] == {"pump-1": {"t": [[1, 1]]}, "c.1": {"temp": [[1, 3]]}}
    assert "skipped" not in update


def test_presence_alone(bench):
    """The metric list none subscribes to presence alone."""
    member = Member()
    bench.publish("a", 1, none=1)
    bench.join(member, metrics=("none",))
    bench.publish("a", 2, none=2)
    bench.hub.tick()
    assert member.frames[0]["devices"]["a"]["values"] == {}
    assert len(member.frames) == 1
    device = bench.book.get("a")
    device.status = Status("offline", 7 * MS, "ping timeout")
    bench.hub.presence(device)
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
    bench.hub.tick()
    bench.publish("a", 2, t=2)
    bench.join(second, ticks=4)
    assert second.take("snapshot")[0]["devices"]["a"]["values"] == {"t": [2, 2]}
    bench.publish("b", 3, t=3)
    for _ in range(3):
        bench.hub.tick()
    assert second.take("update")[0]["data"] == {"b": {"t": [[3, 3]]}}
    assert first.take("update")[0]["data"] == {"a": {"t": [[2, 2]]}, "b": {"t": [[3, 3]]}}


def test_encoder_calls_do_not_rise_with_members(bench):
    """A hundred like subscriptions cost one encoding a tick."""
    members = [Member() for _ in range(100)]
    for member in members:
        bench.join(member)
    bench.publish("a", 1, t=1)
    bench.hub.tick()  # the first emission after joining is each one's own
    bench.encoded.clear()
    bench.publish("a", 2, t=2)
    bench.hub.tick()
    assert len(bench.encoded) == 1
    assert all(member.frames[-1] is bench.encoded[0] for member in members)


def test_slow_latest_member_is_passed_by_and_catches_up(bench):
    """While its socket is full it is sent nothing; then the newest of all it missed, with the count."""
    slow, fast = Member(), Member()
    bench.join(slow)
    bench.join(fast)
    bench.publish("a", 0, t=0)
    bench.hub.tick()
    slow.frames.clear()
    slow.pending_bytes = 10**6
    for n in range(1, 6):
        bench.publish("a", n, t=n)
        bench.publish("b", n, t=n)
        bench.hub.tick()
    assert slow.frames == []
    slow.pending_bytes = 0
    bench.hub.tick()
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
    bench.hub.tick()
    slow.frames.clear()
    slow.pending_bytes = 10**6
    bench.publish("a", 1, t=1)
    bench.publish("a", 2, t=2)
    bench.hub.tick()
    assert slow.take("mode") == [{"type": "mode", "id": "main", "mode": "latest", "reason": "slow"}]
    slow.pending_bytes = 0
    bench.hub.tick()
    (update,) = slow.take("update")
    assert update["data"] == {"a": {"t": [[2, 2]]}}
    assert update["skipped"] == 1
    assert bench.hub.stats()["downgraded"] == 1
    bench.publish("a", 3, t=3)
    bench.hub.tick()
    assert slow.take("update")[0]["data"] == {"a": {"t": [[3, 3]]}}
    assert [len(update["data"]["a"]["t"]) for update in fast.take("update")] == [1, 2, 1]


def test_held_every_member_is_bounded(bench, monkeypatch):
    """One that waits for its history is moved to latest when too much gathers for it."""
    monkeypatch.setattr(hub_module, "EVERY_MAX", 10)
    member = Member()
    subscription = Subscription("main", (), (), "every", 1, "json")
    bench.hub.subscribe(member, subscription, None)
    for n in range(30):
        bench.publish("a", n, t=n)
        bench.hub.tick()
    assert [frame["type"] for frame in member.frames] == ["snapshot", "mode"]
    bench.hub.release(member, subscription)
    bench.hub.tick()
    update = member.frames[-1]
    assert (update["data"], update["skipped"]) == ({"a": {"t": [[29, 29]]}}, 29)


def test_resume(bench, monkeypatch):
    """after: every gets all it missed where memory reaches back, latest the newest; both say so truly."""
    start = bench.publish("a", 1, t=1)
    bench.publish("a", 2, t=2)
    bench.publish("a", 3, t=3)
    member = Member()
    bench.join(member, after=start, mode="every")
    assert member.take("snapshot")[0]["recovered"] is True
    bench.hub.tick()
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
    bench.hub.tick()
    assert [frame["type"] for frame in member.frames] == ["snapshot"]
    assert (bench.hub.stats()["groups"], bench.hub._fresh) == (0, [])


def test_large_integers_are_digits(bench):
    """What a browser cannot hold is sent as digits."""
    member = Member()
    bench.join(member)
    bench.publish("a", 1, n=2**53, m=2**53 - 1, k=-(2**53))
    bench.hub.tick()
    assert member.take("update")[0]["data"]["a"] == {
        "n": [[1, str(2**53)]],
        "m": [[1, 2**53 - 1]],
        "k": [[1, str(-(2**53))]],
    }


def test_large_updates_come_in_pieces(bench):
    """No frame is large: a burst for every, and very many series for latest, are cut; nothing is left out."""
    every, latest = Member(), Member()
    bench.join(every, mode="every")
    bench.join(latest)
    bench.hub.tick()
    for n in range(2000):
        bench.publish(f"d{n % 700}", n, s="x" * 1000, n=n)
    bench.hub.tick()
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
    bench.hub.tick()
    member.frames.clear()
    member.pending_bytes = 10**6
    device = bench.book.get("a")
    for n, state in enumerate(("offline", "online", "offline")):
        device.status = Status(state, n * MS)
        bench.hub.presence(device)
    assert member.frames == []
    member.pending_bytes = 0
    bench.hub.tick()
    (presence,) = member.take("presence")
    assert presence["devices"]["a"]["state"] == "offline"

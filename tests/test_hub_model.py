"""The hub against what was published, over random histories with small frames."""

import random
from contextlib import suppress
from itertools import pairwise

import pytest

from gateway.hub import Subscription, accumulator, holders, presence
from gateway.hub import hub as hub_module
from gateway.liveness import Status
from tests.test_hub import MS, Bench, Member


class Failure(Exception):
    """Of an encoding."""


DEVICES = [f"d{n}" for n in range(12)]
METRICS = ["t", "u", "v"]


class Watcher(Member):
    """A member with what it has to be sent."""

    def __init__(self, subscription: Subscription, devices: set[str], metrics: set[str], whole: bool) -> None:
        super().__init__()
        self.subscription = subscription
        self.devices = devices
        self.metrics = metrics
        self.whole = whole
        self.held = False
        self.before: dict[tuple[str, str], int] = {}  # published of each series when it joined, or where it resumed

        self.filling = 0.0  # how often a frame fills its socket for a moment
        self.rng = random.Random(0)

    def send(self, frame: dict) -> None:
        super().send(frame)
        if self.rng.random() < self.filling:
            self.brief = True

    @property
    def pending_bytes(self) -> int:
        """Bytes to be read: for a while, as the test says, or at the next look only."""
        brief, self.brief = self.brief, False
        return 1 << 20 if brief else self.pending

    @pending_bytes.setter
    def pending_bytes(self, pending: int) -> None:
        self.pending, self.brief = pending, False

    def values(self, device: str, metric: str) -> list[int]:
        return [
            v
            for frame in self.frames
            if frame["type"] == "update"
            for _, v in frame["data"].get(device, {}).get(metric, [])
        ]

    def shown(self, device: str, metric: str) -> list[int]:
        return [
            known["values"][metric][1]
            for frame in self.frames
            if frame["type"] == "snapshot"
            for name, known in frame["devices"].items()
            if name == device and metric in known["values"]
        ]


class World:
    """A hub, what was published to it, and its watchers."""

    def __init__(self, seed: int, failures: float) -> None:
        self.rng = random.Random(seed)
        self.bench = Bench()
        self.failures = failures  # how often an encoding fails
        self.encode, self.bench.hub._encode = self.bench.hub._encode, self.encode_or_fail
        self.published: dict[tuple[str, str], list[int]] = {}
        self.offsets: dict[int, int] = {}  # of each offset the count
        self.watchers: list[Watcher] = []
        self.count = 0

    def encode_or_fail(self, format: str, message: dict) -> dict:
        if self.rng.random() < self.failures:
            raise Failure
        return self.encode(format, message)

    def publish(self) -> None:
        rng = self.rng
        for _ in range(rng.choice([1, 1, 5, 30])):
            self.count += 1
            device = rng.choice(DEVICES)
            values = {name: self.count for name in METRICS if rng.random() < 0.6} or {"t": self.count}
            self.offsets[self.bench.publish(device, self.count, **values)] = self.count
            for name in values:
                self.published.setdefault((device, name), []).append(self.count)

    def join(self) -> None:
        rng = self.rng
        number = rng.randrange(4)
        globs, devices = [((), set(DEVICES)), (("d1*", "d2"), {"d1", "d10", "d11", "d2"})][number % 2]
        wanted, metrics = [((), set(METRICS)), (("u",), {"u"})][number // 2]
        mode = rng.choice(["latest"] if self.failures else ["every", "latest"])
        subscription = Subscription(f"s{number}", globs, wanted, mode, rng.choice([1, 3]), "json")
        history = rng.random() < 0.3
        after = rng.choice(list(self.offsets)[-20:]) if self.offsets and rng.random() < 0.3 else None
        resumed = mode == "every" and after is not None
        watcher = Watcher(subscription, devices, metrics, history or resumed)
        upto = self.offsets[after] if resumed else self.count
        watcher.before = {key: sum(n <= upto for n in values) for key, values in self.published.items()}
        failures, self.failures = self.failures, 0
        self.bench.hub.subscribe(watcher, subscription, after, history=history)
        self.failures = failures
        watcher.held = history
        watcher.rng, watcher.filling = rng, rng.choice([0, 0.1, 0.5])
        if not history:
            self.bench.hub.release(watcher, subscription)
        self.watchers.append(watcher)

    def change(self) -> None:
        device = self.bench.book.get(self.rng.choice(DEVICES))
        if device is not None:
            self.count += 1
            device.status = Status(self.rng.choice(["online", "stale", "offline"]), self.count * MS)
            self.bench.hub.presence(device)

    def act(self) -> None:
        rng, hub = self.rng, self.bench.hub
        action = rng.random()
        if action < 0.35:
            self.publish()
        elif action < 0.6:
            hub.tick()
        elif action < 0.75:
            hub.step()
        elif action < 0.8 and len(self.watchers) < 12:
            self.join()
        elif action < 0.85:
            self.change()
        elif action < 0.95 and self.watchers:
            rng.choice(self.watchers).pending_bytes = rng.choice([0, 0, 1 << 20])
        elif self.watchers:
            watcher = rng.choice(self.watchers)
            if watcher.held:
                watcher.held = False
                hub.release(watcher, watcher.subscription)
            elif rng.random() < 0.2:
                hub.unsubscribe(watcher, watcher.subscription)
                self.watchers.remove(watcher)
                sent = len(watcher.frames)
                self.bench.tick()
                assert len(watcher.frames) == sent

    def settle(self) -> None:
        self.bench.hub._encode = self.encode
        for watcher in self.watchers:
            watcher.pending_bytes = watcher.filling = 0
            self.bench.hub.release(watcher, watcher.subscription)
        for _ in range(8):
            self.bench.tick()

    def check(self, watcher: Watcher) -> None:
        latest = watcher.subscription.mode == "latest" or any(frame["type"] == "mode" for frame in watcher.frames)
        covered: dict[tuple[str, str], list[int]] = {}
        for (device, metric), published in self.published.items():
            values, shown = watcher.values(device, metric), watcher.shown(device, metric)
            if device not in watcher.devices or metric not in watcher.metrics:
                assert not values
                assert not shown
                continue
            begin = watcher.before.get((device, metric), 0)
            if not watcher.whole and shown:
                begin = published.index(shown[0]) + 1
            expected = covered[device, metric] = published[begin:]
            if latest:
                assert all(a < b or (self.failures and a == b) for a, b in pairwise(values))
                assert set(values) <= set(
                    published[watcher.before.get((device, metric), 0) :] if self.failures else expected
                )
                assert values[-1:] == expected[-1:]
            else:
                assert values == expected
        offsets = [frame["offset"] for frame in watcher.frames if "offset" in frame]
        assert all(a <= b for a, b in pairwise(offsets))
        self.check_offsets(watcher, covered)
        known: dict[str, str] = {}
        for frame in watcher.frames:
            if frame["type"] in ("snapshot", "presence"):
                known |= {name: shown["state"] for name, shown in frame["devices"].items()}
        for name, state in known.items():
            assert state == self.bench.book.get(name).status.state
        shown = [name for frame in watcher.frames if frame["type"] == "snapshot" for name in frame["devices"]]
        assert len(shown) == len(set(shown))
        assert [frame.get("more") for frame in watcher.frames if frame["type"] == "snapshot"][-1] is None

    def check_offsets(self, watcher: Watcher, covered: dict[tuple[str, str], list[int]]) -> None:
        """An update's offset says what was sent: nothing up to there is still to come, but for what is passed over."""
        place = {count: offset for offset, count in self.offsets.items()}
        last = dict.fromkeys(covered, 0)
        due = {key: iter(values) for key, values in covered.items()}
        ahead = {key: next(values, 0) for key, values in due.items()}
        for frame in watcher.frames:
            if frame["type"] == "update":
                for device, series in frame["data"].items():
                    for metric, points in series.items():
                        last[device, metric] = points[-1][1]
                for key, number in ahead.items():
                    while number and place[number] <= frame["offset"]:
                        assert number <= last[key]
                        number = ahead[key] = next(due[key], 0)


@pytest.mark.parametrize(("seed", "failures"), [*((n, 0.0) for n in range(40)), *((n, 0.1) for n in range(20))])
def test_random_histories(seed, failures, monkeypatch):
    """Whoever joins, resumes, stops reading and reads again: each value once, or the newest and none twice.

    Where steps fail, the newest all the same.
    """
    monkeypatch.setattr(accumulator, "PIECE_BYTES", 1500)
    monkeypatch.setattr(hub_module, "PIECE_BYTES", 1500)
    monkeypatch.setattr(hub_module, "TURN", 200)
    monkeypatch.setattr(hub_module, "FOLD", 7)
    monkeypatch.setattr(presence, "PRESENCES", 3)
    monkeypatch.setattr(holders, "EVERY_BYTES", 150 * accumulator.SLOT_BYTES)
    world = World(seed, failures)
    for _ in range(500):
        with suppress(Failure):
            world.act()
    world.settle()
    assert world.watchers
    for watcher in world.watchers:
        world.check(watcher)
    hub = world.bench.hub
    for group in hub._groups.values():
        for subscriber in group.subscribers.values():
            assert subscriber.current

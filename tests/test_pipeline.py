"""The fork: what it tells of a device that flaps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gateway.devices import Device
from gateway.limit import TokenBucket
from gateway.liveness import OFFLINE, ONLINE, Status
from gateway.pipeline import CHANGES, CHANGES_WINDOW_S, DAMPED_S, Pipeline
from gateway.reading import Presence


class Rig:
    """A pipeline on a clock of the test's own; ``told`` are the states that were journalled and told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.journal: list[Any] = []
        self.told: list[str] = []
        journal: Any = SimpleNamespace(append=self.journal.append)
        hub: Any = SimpleNamespace(presence=self.tell)
        self.pipeline = Pipeline(journal, hub, monotonic=lambda: self.now)
        self.device = Device("d", TokenBucket(1, 1))

    def tell(self, device: Device) -> None:
        assert device.status is not None
        self.told.append(device.status.state)

    def change(self, state: str) -> None:
        self.pipeline.presence(self.device, Status(state, int(self.now * 1e9)))

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1.0
            self.pipeline.settle()


def test_the_first_changes_are_told_at_once():
    """A device that comes, goes and comes is told as it is."""
    rig = Rig()
    for state in (ONLINE, OFFLINE, ONLINE):
        rig.change(state)
    assert rig.told == [ONLINE, OFFLINE, ONLINE]
    assert [type(item) for item in rig.journal] == [Presence] * 3


def test_a_device_that_flaps_floods_nobody():
    """A change a second for ten minutes: at most twelve tellings a minute, and in the end the truth."""
    rig = Rig()
    for second in range(600):
        rig.change(ONLINE if second % 2 else OFFLINE)
        rig.wait(1)
    assert rig.device.status is not None
    assert rig.device.status.state == ONLINE
    assert len(rig.told) <= 600 / CHANGES_WINDOW_S * (CHANGES + CHANGES_WINDOW_S / DAMPED_S) + 1
    rig.wait(DAMPED_S + 1)
    assert rig.told[-1] == ONLINE
    rig.change(OFFLINE)
    rig.wait(DAMPED_S + 1)
    assert rig.told[-1] == OFFLINE
    assert len(rig.journal) == len(rig.told)


def test_after_a_quiet_time_a_change_is_told_at_once():
    """And nothing is remembered of devices that are quiet."""
    rig = Rig()
    for second in range(20):
        rig.change(ONLINE if second % 2 else OFFLINE)
        rig.wait(1)
    rig.wait(CHANGES_WINDOW_S + DAMPED_S + 5)
    assert not rig.pipeline._changes
    assert not rig.pipeline._damped
    before = len(rig.told)
    rig.change(OFFLINE)
    assert rig.told[before:] == [OFFLINE]


def test_who_has_settled_is_forgotten_behind_one_that_has_not() -> None:
    """One that changed first and again later does not keep others that have settled since."""
    rig = Rig()
    other = Device("other", TokenBucket(1, 1))
    rig.change(ONLINE)
    rig.wait(CHANGES_WINDOW_S / 2)
    rig.pipeline.presence(other, Status(ONLINE, int(rig.now * 1e9)))
    rig.wait(CHANGES_WINDOW_S / 4)
    rig.change(OFFLINE)
    rig.wait(CHANGES_WINDOW_S * 0.8)
    assert list(rig.pipeline._changes) == [rig.device]
    rig.wait(CHANGES_WINDOW_S)
    assert list(rig.pipeline._changes) == []

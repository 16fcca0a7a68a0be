"""When Home Assistant is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.devices import Device, DeviceBook
from gateway.homeassistant import Announcer, Maker
from gateway.homeassistant.announcer import COMPONENTS_AT_ONCE, KINDS_AT_ONCE
from gateway.hub import Series
from gateway.reading import Reading, Value


class Door:
    """The runner's: what was set, and asked for anew."""

    def __init__(self) -> None:
        self.set: list[tuple[tuple[str, ...], bytes | None]] = []
        self.renewed: list[str] = []

    def set_state(self, key: tuple[str, ...], value: bytes | None) -> None:
        """Note it."""
        self.set.append((key, value))

    def renew(self, kind: str) -> None:
        """Note it."""
        self.renewed.append(kind)

    def take(self) -> dict[str, Any]:
        """What was set since the last time, by device; a device told twice is a fault."""
        told: dict[str, Any] = {}
        for (kind, topic), value in self.set:
            assert kind == "topic"
            name = topic.split("/")[2].removeprefix("gw_-")
            assert name not in told
            told[name] = json.loads(value) if value is not None else None
        self.set.clear()
        return told


class Rig:
    """An announcer and what it looks at."""

    def __init__(self, tmp_path: Path) -> None:
        self.book = DeviceBook(tmp_path / "book", rate=1, burst=1)
        self.series: dict[str, Series] = {}
        self.announcer = Announcer(self.book, self.series, Maker(gateway="gw"))
        self.door = Door()
        self.announcer.runner = self.door
        self._time = 0

    def send(self, name: str, **values: Value) -> Device:
        """A device's reading, as the endpoint and the hub take it."""
        device = self.book.open(name)
        if not device.metrics.issuperset(values):
            device.metrics = device.metrics.union(values)
        self._time += 1
        reading = Reading(name, "", 0, self._time, self._time, values)
        if name in self.series:
            self.series[name].take(reading, self._time)
        else:
            self.series[name] = Series(reading, self._time, self._time)
        return device

    def look(self) -> dict[str, Any]:
        """What is told in a look."""
        list(self.announcer.look())
        return self.door.take()


def test_a_device_is_told_once_until_it_changes(tmp_path: Path) -> None:
    """With its first metrics, with others, and with another description; a reading alone is nothing new."""
    rig = Rig(tmp_path)
    rig.book.open("silent")
    device = rig.send("pump", t=1)
    assert list(rig.look()["pump"]["components"]) == ["t"]
    rig.send("pump", t=2.5)
    assert rig.look() == {}
    rig.send("pump", door=True)
    rig.send("pump", mode="auto")
    assert list(rig.look()["pump"]["components"]) == ["door_b", "mode", "t"]
    device.describe({"name": "Boiler pump", "interval_s": 10.0, "metrics": {"t": {"unit": "Cel"}}})
    told = rig.look()["pump"]
    assert told["device"]["name"] == "Boiler pump"
    assert told["components"]["t"]["unit_of_measurement"] == "°C"
    assert told["components"]["t"]["expire_after"] == 30
    assert rig.look() == {}


def test_a_metric_of_several_kinds_becomes_a_text(tmp_path: Path) -> None:
    """And what it was is removed, where that was of another platform; it does not change back with each reading."""
    rig = Rig(tmp_path)
    rig.send("pump", x=True)
    assert list(rig.look()["pump"]["components"]) == ["x_b"]
    rig.send("pump", x=3)
    told = rig.look()["pump"]["components"]
    assert told["x_b"] == {"platform": "binary_sensor"}
    assert told["x"]["platform"] == "sensor"
    assert "state_class" not in told["x"]
    rig.send("pump", x=False)
    assert rig.look() == {}


def test_what_the_device_says_moves_a_metric(tmp_path: Path) -> None:
    """Numbers of a class of on and off become a binary sensor, and come back."""
    rig = Rig(tmp_path)
    device = rig.send("pump", x=1)
    rig.look()
    device.describe({"metrics": {"x": {"class": "door"}}})
    told = rig.look()["pump"]["components"]
    assert told["x"] == {"platform": "sensor"}
    assert told["x_b"]["device_class"] == "door"
    device.describe({})
    told = rig.look()["pump"]["components"]
    assert told["x_b"] == {"platform": "binary_sensor"}
    assert told["x"]["state_class"] == "measurement"


def test_its_start_is_heard(tmp_path: Path) -> None:
    """``online`` has all told anew, once a look however often it is said; other words nothing."""
    rig = Rig(tmp_path)
    ((topic, heard),) = rig.announcer.inbound.items()
    assert topic == "homeassistant/status"
    heard(topic, b"offline")
    rig.look()
    assert rig.door.renewed == []
    for _ in range(3):
        heard(topic, b"online")
    rig.look()
    rig.look()
    assert rig.door.renewed == ["topic"]


def test_a_forgotten_device_is_cleared(tmp_path: Path) -> None:
    """And told anew when it comes back."""
    rig = Rig(tmp_path)
    rig.send("pump", t=1)
    rig.look()
    rig.book.forget("pump")
    rig.announcer.forget("pump")
    assert rig.door.take() == {"pump": None}
    assert rig.look() == {}
    rig.send("pump", t=1)
    assert list(rig.look()) == ["pump"]


def test_a_look_has_bounds(tmp_path: Path) -> None:
    """Many devices are told over several looks, each once; the kinds of all are looked at in turns."""
    rig = Rig(tmp_path)
    many = 3 * KINDS_AT_ONCE
    metrics = {f"m{number}": number for number in range(COMPONENTS_AT_ONCE // 100)}
    for number in range(many):
        rig.send(f"d{number}", **metrics)
    told: list[str] = []
    looks = 0
    while len(told) < many:
        some = rig.look()
        assert 0 < len(some) * len(metrics) <= COMPONENTS_AT_ONCE
        told += some
        looks += 1
    assert looks == many * len(metrics) // COMPONENTS_AT_ONCE
    assert len(set(told)) == many
    rig.send(f"d{many - 1}", m0="text")
    assert any(rig.look() for _ in range(many // KINDS_AT_ONCE + 1))

"""What is told, held against Home Assistant itself, where its package is installed (it needs a newer Python).

Run for releases 2025.4 and 2026.2: ``python -m pytest tests/homeassistant/test_schema.py`` in an environment that has
``homeassistant`` and ``paho-mqtt``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.homeassistant.classes import BINARY, INCREASING, SENSORS, TEXTS, TOTAL, TOTALS
from gateway.homeassistant.meaning import of_number
from gateway.homeassistant.payload import BINARY as SWITCH
from gateway.homeassistant.payload import NUMBER, TEXT, Facts, Maker

pytest.importorskip("homeassistant", reason="Home Assistant's package is not installed.")

from homeassistant.components import binary_sensor, sensor
from homeassistant.components.mqtt import binary_sensor as mqtt_binary_sensor
from homeassistant.components.mqtt import sensor as mqtt_sensor
from homeassistant.components.mqtt.schemas import DEVICE_DISCOVERY_SCHEMA
from homeassistant.components.sensor.const import DEVICE_CLASS_STATE_CLASSES, DEVICE_CLASS_UNITS
from homeassistant.core import HomeAssistant
from homeassistant.helpers import frame

SCHEMAS: dict[str, Any] = {
    "sensor": mqtt_sensor.DISCOVERY_SCHEMA,
    "binary_sensor": mqtt_binary_sensor.DISCOVERY_SCHEMA,
}
MICRO = str.maketrans("\u03bc", "\u00b5")


def test_each_class_and_unit_is_one_of_its_own() -> None:
    """Each pair of the table, each class of texts and of switches."""
    for name, units in SENSORS.items():
        known = {"" if unit is None else str(unit).translate(MICRO) for unit in DEVICE_CLASS_UNITS[name]}
        assert units <= known, name
    assert set(TEXTS) < {str(name) for name in sensor.SensorDeviceClass}
    assert set(BINARY) == {str(name) for name in binary_sensor.BinarySensorDeviceClass}


def test_each_state_class_goes_with_its_class() -> None:
    """Of measurements, of meters, and of what is a total or not."""
    for name in SENSORS:
        allowed = {str(state_class) for state_class in DEVICE_CLASS_STATE_CLASSES[name]}
        assert of_number("x", "", name).state_class in allowed or not of_number("x", "", name).device_class
        assert of_number("x_total", next(iter(SENSORS[name])), name).state_class in allowed, name
    assert {*INCREASING, *TOTAL, *TOTALS} - {""} <= SENSORS.keys()


@pytest.mark.parametrize("layout", ["flat", "batch", "values"])
def test_configurations_are_taken_whole(layout: str, tmp_path: Path) -> None:
    """Every class with each of its units, each kind, and what is gone: the schemas drop nothing and change none."""

    async def check() -> None:
        frame.async_setup(HomeAssistant(str(tmp_path)))
        _check(layout)

    asyncio.run(check())


def _check(layout: str) -> None:
    pairs = [(name, unit) for name, units in SENSORS.items() for unit in units]
    described: dict[str, object] = {
        f"n{number}": {"unit": unit, "class": name, "integer": number % 2 == 0}
        for number, (name, unit) in enumerate(pairs)
    }
    described |= {f"b{number}": {"class": name} for number, name in enumerate(sorted(BINARY))}
    described |= {f"t{number}": {"class": name} for number, name in enumerate(sorted(TEXTS))}
    kinds = {name: {"n": NUMBER, "b": SWITCH, "t": TEXT}[name[0]] for name in described}
    kinds |= {"plain": NUMBER, "a.b:c/d": NUMBER, "on": SWITCH, "words": TEXT}
    maker = Maker(
        gateway="gw",
        layout="batch" if layout == "batch" else "flat",
        topic="{prefix}/{device}/metric/{metric}" if layout == "values" else "{prefix}/{device}/telemetry",
    )
    facts = Facts("pump-1.a:b", "Boiler pump", kinds, described, 60.0, {"gone_b": "binary_sensor"})
    told = json.loads(maker.config(facts))
    checked = DEVICE_DISCOVERY_SCHEMA(json.loads(maker.config(facts)))
    assert len(checked["components"]) == len(kinds) + 1
    assert checked["components"].pop("gone_b") == {"platform": "binary_sensor"}
    shared = {key: told[key] for key in ("availability", "availability_mode", "qos", "state_topic") if key in told}
    for key, component in checked["components"].items():
        config = dict(component)
        platform = config.pop("platform")
        taken = SCHEMAS[platform]({**shared, **config, "device": checked["device"], "origin": checked["origin"]})
        for name, value in config.items():
            seen = getattr(taken[name], "template", taken[name])
            seen = seen.translate(MICRO) if isinstance(seen, str) else seen
            assert seen == value, (key, name)
    classes = [component.get("device_class") for component in told["components"].values()]
    assert set(itertools.chain(SENSORS, BINARY, TEXTS)) <= set(classes)

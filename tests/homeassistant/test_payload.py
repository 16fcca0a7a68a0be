"""The configuration of one device."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.homeassistant.payload import BINARY, NUMBER, TEXT, Facts, Maker, identifier
from gateway.reading import Reading, Value
from gateway.sinks.layouts import layout
from gateway.topics import TEMPLATE, Topics
from tests.homeassistant.reader import Entities

VALUE_TOPIC = "{prefix}/{device}/metric/{metric}"
FORMS = {"flat": ("flat", TEMPLATE), "batch": ("batch", TEMPLATE), "values": ("flat", VALUE_TOPIC)}
MIXED = {"t": NUMBER, "a/b.c:d_e-f": NUMBER, "door": BINARY, "valve": NUMBER, "mode": TEXT}
DESCRIBED = {"valve": {"class": "opening"}, "t": {"unit": "Cel", "integer": True}, "mode": {"class": "enum"}}

devices = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", fullmatch=True)
metrics = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}", fullmatch=True)
crowded = st.text("a_.:/-dcs", min_size=1, max_size=6).map(lambda text: "a" + text)


def maker(form: str = "flat", gateway: str = "gw", **options: Any) -> Maker:
    """One for a layout or topic template."""
    name, topic = FORMS[form]
    return Maker(gateway=gateway, layout=name, topic=topic, version="1.0", **options)


def publish(form: str, entities: Entities, *readings: Mapping[str, Value], device: str = "pump-1") -> None:
    """Let ``entities`` hear readings as the layout publishes them in one batch."""
    name, topic = FORMS[form]
    items = [Reading(device, "s", 0, 10**18 + at, 10**18, dict(values)) for at, values in enumerate(readings)]
    made = layout(name, gateway="gw", per_value=form == "values").messages(items, Topics("gateway", topic), 10_000)
    for message in made:
        entities.hear(message.topic, message.payload.decode())


def entities_of(form: str, kinds: Mapping[str, str], **facts: Any) -> Entities:
    """What becomes of a device that is there."""
    entities = Entities(maker(form).config(Facts("pump-1", "Pump", kinds, **facts)))
    entities.hear("gateway/status", "online")
    entities.hear("gateway/pump-1/presence", "online")
    return entities


@pytest.mark.parametrize("form", FORMS)
def test_values_arrive(form: str) -> None:
    """Numbers, switches and texts are read from what the layout publishes; what a reading lacks stays as it is."""
    entities = entities_of(form, MIXED, described=DESCRIBED)
    publish(form, entities, {"t": 22.5, "a/b.c:d_e-f": -3, "door": True, "valve": 0, "mode": "a \"b\" 'c' {{ 1 }} ü"})
    assert entities.states == {
        "t": "22.5",
        "a_sb_dc_cd__e-f": "-3",
        "door_b": "on",
        "valve_b": "off",
        "mode": "a \"b\" 'c' {{ 1 }} ü",
    }
    publish(form, entities, {"door": False, "valve": 2}, {"t": 1e-7})
    assert entities.states == {**entities.states, "t": "1e-07", "door_b": "off", "valve_b": "on"}
    assert entities.states["mode"].startswith("a ")
    publish(form, entities, {"mode": "x" * 300, "t": 9007199254740993})
    assert (entities.states["mode"], entities.states["t"]) == ("x" * 255, "9007199254740993")


@pytest.mark.parametrize("form", FORMS)
def test_another_kind_is_not_taken(form: str) -> None:
    """A text in a metric of numbers, before that is told anew, changes nothing."""
    entities = entities_of(form, {"t": NUMBER, "door": BINARY})
    publish(form, entities, {"t": 1, "door": True})
    publish(form, entities, {"t": "n/a", "door": "ajar"})
    assert entities.states == {"t": "1", "door_b": "on"}


def test_the_last_of_a_batch_counts() -> None:
    """The last reading of a batch that has the metric."""
    entities = entities_of("batch", {"t": NUMBER, "mode": TEXT})
    publish("batch", entities, {"t": 1, "mode": "a"}, {"t": 2}, {"t": 3, "mode": "b"}, {"mode": "c"})
    assert entities.states == {"t": "3", "mode": "c"}


def test_a_text_is_unknown_until_it_comes() -> None:
    """A reading without it does not show the words for no state as a text."""
    entities = entities_of("flat", {"t": NUMBER, "mode": TEXT})
    publish("flat", entities, {"t": 1})
    assert entities.states["mode"] == "unknown"
    publish("flat", entities, {"mode": "auto"})
    entities.hear("gateway/pump-1/presence", "offline")
    publish("flat", entities, {"t": 2})
    assert entities.states["mode"] == "unknown"


def test_availability() -> None:
    """There while it is online or stale, and the gateway is."""
    entities = entities_of("flat", MIXED)
    assert entities.available
    for payload, available in (("stale", True), ("offline", False), ("online", True), ("", False), ("online", True)):
        entities.hear("gateway/pump-1/presence", payload)
        assert entities.available is available
    entities.hear("gateway/status", "offline")
    assert not entities.available


def test_what_is_told() -> None:
    """Names, class, unit, state class, no decimals for integers, and when a value is too old."""
    made = json.loads(
        maker(delay_s=0.25).config(
            Facts("pump-1", "Boiler pump", {"water.temp": NUMBER}, {"water.temp": {"unit": "Cel", "integer": True}}, 60)
        )
    )
    assert made["device"] == {"identifiers": ["gw_-pump-1"], "name": "Boiler pump"}
    assert made["origin"] == {"name": "Telemetry Gateway", "sw_version": "1.0"}
    assert made["state_topic"] == "gateway/pump-1/telemetry"
    assert made["components"] == {
        "water_dtemp": {
            "platform": "sensor",
            "unique_id": "gw_-pump-1_-water_dtemp",
            "name": "Water temp",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "state_class": "measurement",
            "suggested_display_precision": 0,
            "expire_after": 181,
            "value_template": "{{ value_json['water.temp'] if value_json['water.temp'] is number else '' }}",
        }
    }
    assert maker().topic("pump-1") == "homeassistant/device/gw_-pump-1/config"


def test_what_is_gone_is_told_by_its_platform_alone() -> None:
    """That is how a component is removed."""
    made = json.loads(maker().config(Facts("p", "P", {"x": NUMBER}, gone={"x_b": "binary_sensor"})))
    assert made["components"]["x_b"] == {"platform": "binary_sensor"}


@given(st.lists(st.one_of(devices, crowded.map(lambda name: name.replace("/", "_"))), min_size=2, max_size=4))
def test_no_two_devices_share_a_topic(names: list[str]) -> None:
    """Whatever their names, and of whichever gateways; and Home Assistant takes each topic."""
    pairs = {(gateway, device) for gateway in names[:2] for device in names}
    topics = {maker(gateway=gateway).topic(device) for gateway, device in pairs}
    assert len(topics) == len(pairs)
    assert all(re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", topic) for topic in topics)


@given(st.lists(st.one_of(metrics, crowded), min_size=1, max_size=5, unique=True))
def test_no_two_entities_share_an_id(names: list[str]) -> None:
    """Whatever the metrics' names, as numbers and as switches."""
    ids, keys = set(), set()
    for kind in (NUMBER, BINARY):
        for key, component in json.loads(maker().config(Facts("d", "D", dict.fromkeys(names, kind))))[
            "components"
        ].items():
            keys.add(key)
            ids.add(component["unique_id"])
    assert len(keys) == len(ids) == 2 * len(names)
    assert len({identifier(name) for name in names}) == len(names)


def test_a_layout_that_it_does_not_read_is_refused() -> None:
    """In words."""
    with pytest.raises(ValueError, match="does not read the layout influx"):
        Maker(gateway="gw", layout="influx")

"""What a metric is taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.homeassistant.classes import BINARY, SENSORS, TEXTS, fits
from gateway.homeassistant.meaning import label, of_binary, of_number, of_text

metrics = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}", fullmatch=True)
WORDS = "temperature temp battery voltage co2 pm2 5 pressure water energy total kwh c a % current door open 1 PH"
words = st.sampled_from(WORDS.split())
names = st.lists(words, min_size=1, max_size=4).flatmap(
    lambda some: st.sampled_from("_.:/-").map(lambda separator: separator.join(some))
)
units = st.one_of(st.text(max_size=8), st.sampled_from(sorted({unit for some in SENSORS.values() for unit in some})))


@pytest.mark.parametrize(
    ("metric", "unit", "device_class", "meant"),
    [
        # SenML's units.
        ("t", "Cel", "", ("temperature", "°C", "measurement")),
        ("h", "%RH", "", ("humidity", "%", "measurement")),
        ("b", "%EL", "", ("battery", "%", "measurement")),
        ("l", "lx", "", ("illuminance", "lx", "measurement")),
        ("p", "Pa", "", ("pressure", "Pa", "measurement")),
        ("p", "hPa", "", ("pressure", "hPa", "measurement")),
        ("u", "V", "", ("voltage", "V", "measurement")),
        ("i", "A", "", ("current", "A", "measurement")),
        ("p", "W", "", ("power", "W", "measurement")),
        ("e", "kWh", "", ("energy", "kWh", "total_increasing")),
        ("v", "m/s", "", ("speed", "m/s", "measurement")),
        ("x", "pH", "", ("ph", "", "measurement")),
        ("s", "W/m2", "", ("irradiance", "W/m²", "measurement")),
        ("q", "m3/h", "", ("volume_flow_rate", "m³/h", "measurement")),
        ("rate", "1/min", "", ("", "rpm", "measurement")),
        ("r", "Ohm", "", ("", "Ω", "measurement")),
        # A unit is one thing beside one name and another beside another.
        ("wind.speed", "m/s", "", ("wind_speed", "m/s", "measurement")),
        ("water", "m3", "", ("water", "m³", "total_increasing")),
        ("gas", "m3", "", ("gas", "m³", "total_increasing")),
        ("soil_moisture", "%", "", ("moisture", "%", "measurement")),
        ("cpu/load", "%", "", ("", "%", "measurement")),
        ("voc", "ppb", "", ("volatile_organic_compounds_parts", "ppb", "measurement")),
        ("voc", "ug/m3", "", ("volatile_organic_compounds", "µg/m³", "measurement")),
        ("charge", "C", "", ("", "C", "measurement")),
        ("temp", "C", "", ("temperature", "°C", "measurement")),
        ("temperature", "hPa", "", ("pressure", "hPa", "measurement")),
        # No unit.
        ("temperature", "", "", ("temperature", "°C", "measurement")),
        ("temp_f", "", "", ("temperature", "°F", "measurement")),
        ("boilerTemp2", "", "", ("temperature", "°C", "measurement")),
        ("battery_voltage", "", "", ("voltage", "V", "measurement")),
        ("battery-level", "", "", ("battery", "%", "measurement")),
        ("power_a", "", "", ("power", "W", "measurement")),
        ("energy_kwh", "", "", ("energy", "kWh", "total_increasing")),
        ("pm2.5", "", "", ("pm25", "µg/m³", "measurement")),
        ("pH", "", "", ("ph", "", "measurement")),
        ("temperature_current", "", "", ("temperature", "°C", "measurement")),
        ("pressure", "", "", ("", "", "measurement")),
        ("energy", "", "", ("", "", "measurement")),
        ("phase_a", "", "", ("", "", "measurement")),
        ("requests_total", "", "", ("", "", "total_increasing")),
        ("1.2", "", "", ("", "", "measurement")),
        # The device says it.
        ("x", "", "temperature", ("temperature", "°C", "measurement")),
        ("x", "Cel", "none", ("", "°C", "measurement")),
        ("x_f", "", "temperature", ("temperature", "°F", "measurement")),
        ("temperature", "V", "temperature", ("", "V", "measurement")),
        ("x", "m3", "volume_storage", ("volume_storage", "m³", "measurement")),
        ("x", "l", "volume", ("volume", "L", "total")),
        ("temperature", "", "warmth", ("", "", "measurement")),
    ],
)
def test_a_number_is_taken_for_what_it_is(metric: str, unit: str, device_class: str, meant: tuple[str, ...]) -> None:
    """Class, unit and state class, by what is described, else by unit and name."""
    assert tuple(of_number(metric, unit, device_class)) == meant


@given(st.one_of(metrics, names), units, st.one_of(st.just(""), st.text(max_size=8), st.sampled_from(sorted(SENSORS))))
def test_a_class_always_goes_with_its_unit(metric: str, unit: str, device_class: str) -> None:
    """Whatever is described or guessed, Home Assistant takes the pair."""
    meaning = of_number(metric, unit, device_class)
    assert not meaning.device_class or fits(meaning.device_class, meaning.unit)
    assert meaning.state_class in ("measurement", "total", "total_increasing")
    assert of_binary(metric, device_class).device_class in {"", *BINARY}
    assert of_text(device_class).device_class in {"", *TEXTS}
    assert label(metric)


@pytest.mark.parametrize(
    ("metric", "device_class", "meant"),
    [
        ("door", "", "door"),
        ("frontDoorOpen", "", "door"),
        ("door_closed", "", ""),
        ("battery.low", "", "battery"),
        ("pir1", "", "motion"),
        ("water/leak", "", "moisture"),
        ("x", "window", "window"),
        ("door", "none", ""),
        ("door", "gate", ""),
        ("on", "", ""),
    ],
)
def test_what_is_on_or_off(metric: str, device_class: str, meant: str) -> None:
    """A class where its meaning of on is that of true."""
    assert of_binary(metric, device_class) == (meant, "", "")


def test_a_text_has_a_class_where_it_is_told() -> None:
    """And never one of numbers."""
    assert of_text("timestamp").device_class == "timestamp"
    assert of_text("temperature").device_class == of_text("").device_class == ""

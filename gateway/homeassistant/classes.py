"""What Home Assistant knows: device classes, and the units and state classes that each may have.  Pure.

The pairs are those that every release from 2024.11 (the first with device discovery) to 2026.11 accepts: later ones
refuse a component whose unit does not go with its class.  They are taken from ``homeassistant/components/sensor`` and
``binary_sensor`` (https://github.com/home-assistant/core, Apache License 2.0).  Home Assistant writes micro as U+03BC
since 2025.9, and takes the older U+00B5, which stands here, for the same.
"""

from __future__ import annotations

__all__ = ["BINARY", "INCREASING", "SENSORS", "TEXTS", "TOTAL", "TOTALS", "fits"]

_ENERGY = "GJ Gcal J MJ MWh Mcal Wh cal kJ kWh kcal"
_PRESSURE = "Pa bar cbar hPa inHg kPa mbar mmHg psi"
_MICROGRAMS = "µg/m³"

_UNITS = {
    "apparent_power": "VA",
    "atmospheric_pressure": _PRESSURE,
    "battery": "%",
    "carbon_dioxide": "ppm",
    "carbon_monoxide": "ppm",
    "current": "A mA",
    "data_rate": "B/s GB/s Gbit/s GiB/s KiB/s MB/s Mbit/s MiB/s bit/s kB/s kbit/s",
    "data_size": "B EB EiB GB Gbit GiB KiB MB Mbit MiB PB PiB TB TiB YB YiB ZB ZiB bit kB kbit",
    "distance": "cm ft in km m mi mm nmi yd",
    "duration": "d h min ms s",
    "energy": _ENERGY,
    "energy_storage": _ENERGY,
    "frequency": "GHz Hz MHz kHz",
    "gas": "CCF ft³ m³",
    "humidity": "%",
    "illuminance": "lx",
    "irradiance": "BTU/(h⋅ft²) W/m²",
    "moisture": "%",
    "nitrogen_dioxide": _MICROGRAMS,
    "nitrogen_monoxide": _MICROGRAMS,
    "nitrous_oxide": _MICROGRAMS,
    "ozone": _MICROGRAMS,
    "pm1": _MICROGRAMS,
    "pm10": _MICROGRAMS,
    "pm25": _MICROGRAMS,
    "power": "W kW",
    "power_factor": "%",
    "precipitation": "cm in mm",
    "precipitation_intensity": "in/d in/h mm/d mm/h",
    "pressure": _PRESSURE,
    "reactive_power": "var",
    "signal_strength": "dB dBm",
    "sound_pressure": "dB dBA",
    "speed": "Beaufort ft/s in/d in/h in/s km/h kn m/s mm/d mm/h mm/s mph",
    "sulphur_dioxide": _MICROGRAMS,
    "temperature": "K °C °F",
    "volatile_organic_compounds": _MICROGRAMS,
    "volatile_organic_compounds_parts": "ppb ppm",
    "voltage": "V mV",
    "volume": "CCF L ft³ gal mL m³",
    "volume_flow_rate": "L/min ft³/min gal/min m³/h",
    "volume_storage": "CCF L ft³ gal mL m³",
    "water": "CCF L ft³ gal m³",
    "weight": "g kg lb mg oz st µg",
    "wind_speed": "Beaufort ft/s in/s km/h kn m/s mm/s mph",
}
_BARE = {"aqi", "ph", "power_factor"}  # that may have none

SENSORS: dict[str, frozenset[str]] = {
    name: frozenset([*_UNITS.get(name, "").split(), *([""] if name in _BARE else [])]) for name in {*_UNITS, *_BARE}
}
"""The device classes of numbers, and the units of each; the empty one is none."""

_BINARY = (
    "battery battery_charging carbon_monoxide cold connectivity door garage_door gas heat light lock moisture motion "
    "moving occupancy opening plug power presence problem running safety smoke sound tamper update vibration window"
)

TEXTS = frozenset({"date", "enum", "timestamp"})
"""The device classes of texts; none has a unit."""

BINARY = frozenset(_BINARY.split())
"""The device classes of what is on or off."""

INCREASING = frozenset({"energy", "gas", "water"})
"""Classes of meters: no measurement of now, but a total that grows."""
TOTAL = frozenset({"volume"})
"""Classes of totals that may also fall."""
TOTALS = frozenset({"", "data_size", "distance", "duration", "precipitation", "weight"})
"""Classes, and none, that may be either."""


def fits(name: str, unit: str) -> bool:
    """Whether Home Assistant takes numbers of this class in this unit, the empty one for none."""
    return unit in SENSORS.get(name, ())

"""What a metric is, as Home Assistant says it: its device class, unit and state class.  Pure.

Told by the device's description; what it leaves out is guessed from unit and name.  Units are written as SenML has them
(RFC 8428, 12.1; RFC 8798), as people do, or as Home Assistant does.  A guess from the name stands only where the unit
goes with it; the unit is guessed where a class has one that nearly everybody means.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from .classes import BINARY, INCREASING, SENSORS, TEXTS, TOTAL, TOTALS, fits

__all__ = ["Meaning", "label", "of_binary", "of_number", "of_text", "says_binary"]

KEPT = 4_096  # answers that are remembered: most devices have metrics that others have, too
NOTHING = "none"  # the class of what shall have none, and not be guessed either


class Meaning(NamedTuple):
    """Empty: none."""

    device_class: str = ""
    unit: str = ""
    state_class: str = ""


# A unit as it is given -> as Home Assistant has it, and the class that it tells beside it.
_UNITS = {
    "Cel": ("°C", "temperature"),
    "degC": ("°C", "temperature"),
    "celsius": ("°C", "temperature"),
    "Celsius": ("°C", "temperature"),
    "℃": ("°C", "temperature"),
    "degF": ("°F", "temperature"),
    "fahrenheit": ("°F", "temperature"),
    "Fahrenheit": ("°F", "temperature"),
    "℉": ("°F", "temperature"),
    "%RH": ("%", "humidity"),
    "%rh": ("%", "humidity"),
    "%EL": ("%", "battery"),
    "pH": ("", "ph"),
    "dBA": ("dBA", "sound_pressure"),
    "dB(A)": ("dBA", "sound_pressure"),
    "/100": ("%", ""),
    "percent": ("%", ""),
    "count": ("", ""),
    "1": ("", ""),
    "/": ("", ""),
    "l": ("L", ""),
    "ml": ("mL", ""),
    "m2": ("m²", ""),
    "m^2": ("m²", ""),
    "m3": ("m³", ""),
    "m^3": ("m³", ""),
    "l/s": ("L/s", ""),
    "l/min": ("L/min", ""),
    "l/h": ("L/h", ""),
    "m3/s": ("m³/s", ""),
    "m3/h": ("m³/h", ""),
    "m^3/h": ("m³/h", ""),
    "m/s2": ("m/s²", ""),
    "W/m2": ("W/m²", ""),
    "W/m^2": ("W/m²", ""),
    "kg/m3": ("kg/m³", ""),
    "ug/m3": ("µg/m³", ""),
    "ug/m^3": ("µg/m³", ""),
    "µg/m3": ("µg/m³", ""),
    "μg/m³": ("µg/m³", ""),
    "μg/m3": ("µg/m³", ""),
    "ug": ("µg", ""),
    "μg": ("µg", ""),
    "lux": ("lx", ""),
    "volt": ("V", ""),
    "volts": ("V", ""),
    "amps": ("A", ""),
    "watt": ("W", ""),
    "watts": ("W", ""),
    "Ohm": ("Ω", ""),
    "ohm": ("Ω", ""),
    "deg": ("°", ""),
    "beat/min": ("bpm", ""),
    "1/min": ("rpm", ""),
    "VAr": ("var", ""),
    "VAR": ("var", ""),
    "kvarh": ("kvarh", ""),
    "sec": ("s", ""),
    "seconds": ("s", ""),
    "minutes": ("min", ""),
    "hours": ("h", ""),
    "bytes": ("B", ""),
    "kph": ("km/h", ""),
    "kmh": ("km/h", ""),
    "in-Hg": ("inHg", ""),
}

# Units that nothing but one class is measured in, as good as always.
_BY_UNIT = {
    unit: name
    for name, units in {
        "apparent_power": "VA",
        "current": "A mA",
        "data_rate": "B/s kB/s MB/s GB/s KiB/s MiB/s GiB/s bit/s kbit/s Mbit/s Gbit/s",
        "data_size": "B kB MB GB TB KiB MiB GiB TiB",
        "distance": "mm cm m km in ft yd mi nmi",
        "duration": "ms s min h d",
        "energy": "J kJ MJ GJ Wh kWh MWh",
        "frequency": "Hz kHz MHz GHz",
        "illuminance": "lx",
        "irradiance": "W/m²",
        "power": "W kW",
        "precipitation_intensity": "mm/h mm/d",
        "pressure": "Pa hPa kPa bar mbar cbar mmHg inHg psi",
        "reactive_power": "var",
        "signal_strength": "dBm",
        "sound_pressure": "dBA",
        "speed": "m/s km/h mph kn ft/s mm/s",
        "temperature": "°C °F K",
        "voltage": "V mV",
        "volume_flow_rate": "L/min m³/h gal/min ft³/min",
        "weight": "mg g kg oz lb",
    }.items()
    for unit in units.split()
}

# Words of a name -> class, and the unit where none is told (None: no guess without a unit).  Two words go before one.
_NUMBERS: dict[str, tuple[str, str | None]] = {
    "temperature": ("temperature", "°C"),
    "temp": ("temperature", "°C"),
    "dewpoint": ("temperature", "°C"),
    "dew point": ("temperature", "°C"),
    "humidity": ("humidity", "%"),
    "rh": ("humidity", "%"),
    "moisture": ("moisture", "%"),
    "battery": ("battery", "%"),
    "soc": ("battery", "%"),
    "voltage": ("voltage", "V"),
    "volts": ("voltage", "V"),
    "vbat": ("voltage", "V"),
    "vcc": ("voltage", "V"),
    "current": ("current", "A"),
    "amps": ("current", "A"),
    "power": ("power", "W"),
    "watts": ("power", "W"),
    "apparent power": ("apparent_power", "VA"),
    "reactive power": ("reactive_power", "var"),
    "power factor": ("power_factor", ""),
    "energy": ("energy", None),
    "frequency": ("frequency", "Hz"),
    "freq": ("frequency", "Hz"),
    "illuminance": ("illuminance", "lx"),
    "lux": ("illuminance", "lx"),
    "irradiance": ("irradiance", None),
    "pressure": ("pressure", None),
    "barometer": ("atmospheric_pressure", None),
    "air pressure": ("atmospheric_pressure", None),
    "barometric pressure": ("atmospheric_pressure", None),
    "atmospheric pressure": ("atmospheric_pressure", None),
    "rssi": ("signal_strength", "dBm"),
    "signal": ("signal_strength", None),
    "snr": ("signal_strength", "dB"),
    "co2": ("carbon_dioxide", "ppm"),
    "co": ("carbon_monoxide", "ppm"),
    "voc": ("volatile_organic_compounds", None),
    "tvoc": ("volatile_organic_compounds", None),
    "pm1": ("pm1", "µg/m³"),
    "pm10": ("pm10", "µg/m³"),
    "pm25": ("pm25", "µg/m³"),
    "pm2 5": ("pm25", "µg/m³"),
    "no2": ("nitrogen_dioxide", None),
    "o3": ("ozone", None),
    "ozone": ("ozone", None),
    "so2": ("sulphur_dioxide", None),
    "aqi": ("aqi", ""),
    "ph": ("ph", ""),
    "rain": ("precipitation", None),
    "rainfall": ("precipitation", None),
    "precipitation": ("precipitation", None),
    "rain rate": ("precipitation_intensity", None),
    "wind": ("wind_speed", None),
    "wind speed": ("wind_speed", None),
    "gust": ("wind_speed", None),
    "speed": ("speed", None),
    "distance": ("distance", None),
    "weight": ("weight", None),
    "noise": ("sound_pressure", None),
    "sound": ("sound_pressure", None),
    "water": ("water", None),
    "gas": ("gas", None),
    "volume": ("volume_storage", None),
    "flow": ("volume_flow_rate", None),
}
# The class where the unit does not go with the first.
_ELSE = {"volatile_organic_compounds": "volatile_organic_compounds_parts"}

# A unit as the last word of a name; those of a letter only where a class of the name goes with it.
_ENDINGS = {
    "c": "°C",
    "f": "°F",
    "k": "K",
    "v": "V",
    "a": "A",
    "w": "W",
    "m": "m",
    "s": "s",
    "g": "g",
    "celsius": "°C",
    "fahrenheit": "°F",
    "pct": "%",
    "percent": "%",
    "mv": "mV",
    "ma": "mA",
    "kw": "kW",
    "wh": "Wh",
    "kwh": "kWh",
    "va": "VA",
    "hz": "Hz",
    "khz": "kHz",
    "lx": "lx",
    "lux": "lx",
    "pa": "Pa",
    "hpa": "hPa",
    "kpa": "kPa",
    "mbar": "mbar",
    "bar": "bar",
    "ppm": "ppm",
    "ppb": "ppb",
    "dbm": "dBm",
    "db": "dB",
    "rpm": "rpm",
    "ms": "ms",
    "seconds": "s",
    "mm": "mm",
    "cm": "cm",
    "km": "km",
    "kg": "kg",
    "kmh": "km/h",
    "bytes": "B",
}
_COUNTERS = {"total", "count", "counter", "pulses"}

_BINARIES = {
    "battery low": "battery",
    "low battery": "battery",
    "charging": "battery_charging",
    "co": "carbon_monoxide",
    "connected": "connectivity",
    "connectivity": "connectivity",
    "online": "connectivity",
    "door": "door",
    "door open": "door",
    "garage": "garage_door",
    "garage door": "garage_door",
    "gas": "gas",
    "leak": "moisture",
    "flood": "moisture",
    "wet": "moisture",
    "moisture": "moisture",
    "motion": "motion",
    "pir": "motion",
    "moving": "moving",
    "occupancy": "occupancy",
    "occupied": "occupancy",
    "open": "opening",
    "opening": "opening",
    "contact": "opening",
    "plug": "plug",
    "plugged": "plug",
    "power": "power",
    "presence": "presence",
    "problem": "problem",
    "fault": "problem",
    "error": "problem",
    "alarm": "problem",
    "running": "running",
    "smoke": "smoke",
    "sound": "sound",
    "noise": "sound",
    "tamper": "tamper",
    "vibration": "vibration",
    "window": "window",
    "window open": "window",
}
# Words that turn round what true means, or may.
_TURNED = {"closed", "clear", "disabled", "disconnected", "dry", "inactive", "locked", "no", "not", "off", "ok"}

_segments = re.compile(r"[_./:-]+").split
_humps = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+").findall


def _words(metric: str, known: dict[str, object]) -> list[str]:
    """A name's words in small letters, without a number behind them where that is not part of the word."""
    words = []
    for segment in _segments(metric):
        whole = segment.lower()
        parts = [whole] if whole in known or whole.isdigit() else [part.lower() for part in _humps(segment)]
        for part in parts:
            word = part.rstrip("0123456789")
            words.append(word if part not in known and word in known else part)
    return words


def _found(words: list[str], known: dict[str, object]) -> list[str]:
    """The words and pairs of words that are known, the last first: there stands what a thing is, before it which."""
    found = []
    for at in range(len(words) - 1, -1, -1):
        if at and (pair := f"{words[at - 1]} {words[at]}") in known:
            found.append(pair)
        if words[at] in known:
            found.append(words[at])
    return found


@lru_cache(KEPT)
def label(metric: str) -> str:
    """A metric's name for people: ``boiler.temp_in`` -> ``Boiler temp in``."""
    words = " ".join(filter(None, _segments(metric)))
    return words[:1].upper() + words[1:]


def says_binary(device_class: str) -> bool:
    """Whether a description's class is one of on and off alone: what it is told of may be numbers then."""
    return device_class in BINARY and device_class not in SENSORS


@lru_cache(KEPT)
def of_binary(metric: str, device_class: str) -> Meaning:
    """Of what is on or off; ``device_class`` as it was described, or empty."""
    if device_class:
        return Meaning(device_class if device_class in BINARY else "")
    words = _words(metric, _BINARIES)  # type: ignore[arg-type]
    if _TURNED.intersection(words):
        return Meaning()
    return Meaning(next((_BINARIES[found] for found in _found(words, _BINARIES)), ""))  # type: ignore[arg-type]


def of_text(device_class: str) -> Meaning:
    """Of a text."""
    return Meaning(device_class if device_class in TEXTS else "")


@lru_cache(KEPT)
def of_number(metric: str, unit: str, device_class: str) -> Meaning:
    """Of a number; ``unit`` and ``device_class`` as they were described, or empty.

    The class is one that Home Assistant takes together with the unit, or none.
    """
    words = _words(metric, _NUMBERS)  # type: ignore[arg-type]
    guesses = [_NUMBERS[found] for found in _found(words, _NUMBERS)]  # type: ignore[arg-type]
    unit, told = _unit(unit.strip(), guesses)
    if device_class:
        chosen, unit = _described(device_class, unit, told, words)
    elif told:
        chosen = told
    else:
        chosen, unit = _guessed(unit, guesses, words)
    return Meaning(chosen, unit, _state_class(chosen, words))


def _unit(unit: str, guesses: list[tuple[str, str | None]]) -> tuple[str, str]:
    """The unit as Home Assistant writes it, and the class that it tells."""
    if unit in ("C", "F") and any(name == "temperature" for name, _ in guesses):
        return f"°{unit}", "temperature"  # else these are coulomb and farad
    return _UNITS.get(unit, (unit, ""))


def _described(device_class: str, unit: str, told: str, words: list[str]) -> tuple[str, str]:
    if device_class == NOTHING:
        return "", unit
    usual = next((usual for name, usual in _NUMBERS.values() if name == device_class and usual), "")
    if not unit and not told and not fits(device_class, ""):
        unit = next((ending for ending in _ending(words) if fits(device_class, ending)), usual)
    return (device_class, unit) if fits(device_class, unit) else ("", unit)


def _ending(words: list[str]) -> list[str]:
    return [_ENDINGS[words[-1]]] if len(words) > 1 and words[-1] in _ENDINGS else []


def _guessed(unit: str, guesses: list[tuple[str, str | None]], words: list[str]) -> tuple[str, str]:
    names = [name for name, _ in guesses]
    names += [_ELSE[name] for name in names if name in _ELSE]
    given = [unit] if unit else _ending(words)
    for each in given:
        for name in names:
            if fits(name, each):
                return name, each
    if unit:
        return _BY_UNIT.get(unit, ""), unit
    for each in given:
        if len(words[-1]) > 1:
            return _BY_UNIT.get(each, ""), each
    if len(names) > 1:  # "current" may be of now
        guesses = [guess for guess in guesses if guess[0] != "current"] or guesses
    for name, usual in guesses:
        if usual is not None:
            return name, usual
    return "", ""


def _state_class(device_class: str, words: list[str]) -> str:
    if device_class in INCREASING or (device_class in TOTALS and _COUNTERS.intersection(words)):
        return "total_increasing"
    return "total" if device_class in TOTAL else "measurement"

"""Plausible signals of a plant: what the simulated devices measure.

Pure but for the random generator that is passed in.  A signal is a function from the time (seconds since the
epoch) to a value; ``None`` says that there is nothing to report this time (a status, while it does not
change).  Signals are closures, since they are called for every reading.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from ..reading import Value

    Signal = Callable[[float], Value | None]
    Maker = Callable[[random.Random], Signal]

__all__ = ["KINDS", "Kind", "Metric", "kind_of", "metrics_of"]

DAY_S = 86_400.0
STATUS_EVERY_S = 60.0  # an unchanged status is repeated so often


class Metric(NamedTuple):
    """A metric's name, how to make its signal, and what ``describe`` says of it."""

    name: str
    make: Maker
    unit: str = ""
    quantity: str = ""
    integer: bool = False

    def description(self) -> Mapping[str, object]:
        """The metric's entry in a ``describe`` message."""
        entry: dict[str, object] = {"integer": self.integer}
        if self.unit:
            entry["unit"] = self.unit
        if self.quantity:
            entry["class"] = self.quantity
        return entry


class Kind(NamedTuple):
    """A kind of device: the start of its name, what people call it, and its metrics, the most telling
    first.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]


def steady(mean: float, noise: float, drift: float, digits: int = 2) -> Maker:
    """Around ``mean``: uniform noise upon a slow walk that stays within about ``drift``."""

    def make(rng: random.Random) -> Signal:
        draw = rng.random
        walk = (draw() - 0.5) * drift
        step = drift * 0.08

        def signal(t: float) -> float:
            nonlocal walk
            walk = walk * 0.998 + (draw() - 0.5) * step
            return round(mean + walk + (draw() - 0.5) * noise, digits)

        return signal

    return make


def daily(low: float, high: float, peak_hour: float, noise: float, digits: int = 2) -> Maker:
    """A day's curve (UTC) from ``low`` to ``high`` at ``peak_hour``."""

    def make(rng: random.Random) -> Signal:
        draw = rng.random
        middle, half = (low + high) / 2, (high - low) / 2
        offset = (draw() - 0.5) * half * 0.2
        peak = (peak_hour + draw() - 0.5) * 3600.0

        def signal(t: float) -> float:
            curve = math.cos((t - peak) * (2 * math.pi / DAY_S))
            return round(middle + offset + half * curve + (draw() - 0.5) * noise, digits)

        return signal

    return make


def sunlit(high: float, noise: float, digits: int = 1) -> Maker:
    """Nothing by night, a hump by day, clouds that pass."""

    def make(rng: random.Random) -> Signal:
        draw = rng.random
        cloud = draw()

        def signal(t: float) -> float:
            nonlocal cloud
            cloud = min(1.0, max(0.0, cloud + (draw() - 0.5) * 0.1))
            sun = math.sin((t % DAY_S) * (2 * math.pi / DAY_S) - math.pi / 2)
            if sun <= 0.0:
                return 0.0
            return round(max(0.0, sun * high * (1.0 - 0.6 * cloud) + (draw() - 0.5) * noise), digits)

        return signal

    return make


def level(low: float, high: float, period_s: float, noise: float, digits: int = 1) -> Maker:
    """A tank that is drawn from evenly and filled in a tenth of the period."""

    def make(rng: random.Random) -> Signal:
        draw = rng.random
        period = period_s * (0.8 + 0.4 * draw())
        phase = draw() * period
        span = high - low

        def signal(t: float) -> float:
            part = ((t + phase) % period) / period
            height = 1.0 - part / 0.9 if part < 0.9 else (part - 0.9) * 10.0
            return round(low + span * height + (draw() - 0.5) * noise, digits)

        return signal

    return make


def switch(on_s: float, off_s: float) -> Maker:
    """On and off for exponential times of these means: a door, a valve."""

    def make(rng: random.Random) -> Signal:
        on = rng.random() < on_s / (on_s + off_s)
        until = 0.0

        def signal(t: float) -> bool:
            nonlocal on, until
            if t >= until:
                if until:
                    on = not on
                until = t + rng.expovariate(1.0 / (on_s if on else off_s))
            return on

        return signal

    return make


def counter(per_s: float) -> Maker:
    """A meter that only rises."""

    def make(rng: random.Random) -> Signal:
        # A meter shows what it counted before this began.
        base = rng.randrange(10_000, 1_000_000)
        begin = -1.0

        def signal(t: float) -> int:
            nonlocal begin
            if begin < 0.0:
                begin = t
            return base + int((t - begin) * per_s)

        return signal

    return make


def status(usual: str, others: tuple[str, ...], mean_s: float) -> Maker:
    """Mostly ``usual``; told when it changes, and once a minute."""

    def make(rng: random.Random) -> Signal:
        now, until, tell = usual, 0.0, 0.0

        def signal(t: float) -> str | None:
            nonlocal now, until, tell
            if t >= until:
                if until:
                    now = usual if now != usual else rng.choice(others)
                until = t + rng.expovariate(1.0 / (mean_s if now == usual else mean_s / 10))
                tell = 0.0
            if t < tell:
                return None
            tell = t + STATUS_EVERY_S
            return now

        return signal

    return make


KINDS: tuple[Kind, ...] = (
    Kind(
        "boiler-pump",
        "Boiler pump",
        (
            Metric("temperature", steady(68.0, 0.4, 5.0), "Cel", "temperature"),
            Metric("pressure", steady(2.4, 0.02, 0.2, 3), "bar", "pressure"),
            Metric("running", switch(900, 90), "", "running"),
            Metric("status", status("ok", ("cavitation", "bearing warm", "filter due"), 600)),
            Metric("flow", steady(31.0, 0.6, 3.0), "l/min", "volume_flow_rate"),
            Metric("speed", steady(2900, 8, 60, 0), "1/min", "speed"),
            Metric("power", steady(740, 12, 60, 1), "W", "power"),
        ),
    ),
    Kind(
        "cold-store",
        "Cold store",
        (
            Metric("temperature", level(-21.5, -17.5, 1500, 0.15, 2), "Cel", "temperature"),
            Metric("humidity", steady(62.0, 0.8, 8.0, 1), "%RH", "humidity"),
            Metric("door", switch(25, 400), "", "door"),
            Metric("status", status("ok", ("defrost", "door open", "sensor check"), 800)),
            Metric("compressor-current", steady(7.8, 0.2, 0.8), "A", "current"),
            Metric("energy", counter(0.35), "Wh", "energy", True),
        ),
    ),
    Kind(
        "milk-tank",
        "Milk tank",
        (
            Metric("level", level(8.0, 94.0, 3600, 0.2), "%", "volume"),
            Metric("temperature", steady(3.9, 0.06, 0.4), "Cel", "temperature"),
            Metric("agitator", switch(120, 600), "", "running"),
            Metric("status", status("ok", ("cleaning", "filling", "inspection"), 900)),
            Metric("conductivity", steady(4.7, 0.02, 0.1, 3), "mS/cm", "conductivity"),
            Metric("weight", level(420, 4900, 3600, 3.0), "kg", "weight"),
        ),
    ),
    Kind(
        "weather-mast",
        "Weather mast",
        (
            Metric("temperature", daily(6.0, 21.0, 15, 0.2), "Cel", "temperature"),
            Metric("wind-speed", steady(5.2, 1.8, 4.0), "m/s", "wind_speed"),
            Metric("rain", switch(300, 3000), "", "moisture"),
            Metric("humidity", daily(85.0, 45.0, 15, 1.0, 1), "%RH", "humidity"),
            Metric("solar", sunlit(870, 6.0), "W/m2", "irradiance"),
            Metric("wind-direction", steady(225, 20, 80, 0), "deg", "wind_direction"),
            Metric("pressure", steady(1013.0, 0.1, 6.0), "hPa", "atmospheric_pressure"),
        ),
    ),
    Kind(
        "compressor",
        "Air compressor",
        (
            Metric("pressure", level(7.1, 8.6, 240, 0.02, 3), "bar", "pressure"),
            Metric("temperature", steady(81.0, 0.5, 7.0), "Cel", "temperature"),
            Metric("loaded", switch(60, 180), "", "running"),
            Metric("status", status("ok", ("oil low", "drain stuck"), 1200)),
            Metric("vibration", steady(2.1, 0.3, 0.5, 3), "mm/s", "vibration"),
            Metric("hours", counter(1 / 3600), "h", "duration", True),
        ),
    ),
    Kind(
        "solar-inverter",
        "Solar inverter",
        (
            Metric("power", sunlit(9800, 40.0), "W", "power"),
            Metric("voltage", steady(231.0, 0.6, 3.0, 1), "V", "voltage"),
            Metric("feeding", switch(3000, 200), "", "running"),
            Metric("status", status("ok", ("grid fault", "derated"), 1500)),
            Metric("frequency", steady(50.0, 0.02, 0.03, 3), "Hz", "frequency"),
            Metric("energy", counter(2.6), "Wh", "energy", True),
        ),
    ),
)


def kind_of(index: int) -> tuple[Kind, int]:
    """The kind of the device with this index, from 0, and its number among its kind, from 1."""
    return KINDS[index % len(KINDS)], index // len(KINDS) + 1


def metrics_of(kind: Kind, count: int) -> list[Metric]:
    """The first ``count`` metrics of a kind; beyond those it has, further temperature probes."""
    metrics = list(kind.metrics[:count])
    for number in range(1, count - len(metrics) + 1):
        metrics.append(Metric(f"probe-{number}", steady(20 + number % 40, 0.3, 4.0), "Cel", "temperature"))
    return metrics

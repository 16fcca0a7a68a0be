"""How much of everything there may be: each on a gateway of its own, with small limits."""

from __future__ import annotations

from .corpus import Case


def keys(number: int, count: int) -> dict[str, int]:
    return {f"d{number}-{key}": 1 for key in range(count)}


def limited(name: str, door: str, sent: object, *expected: str, check: str, **limits: object) -> Case:
    return Case("flood", name, door, sent, expected, check, limits=limits)


LIVE = "/v1/live"

CASES = [
    limited(
        "metrics of all devices",
        "crowd",
        [keys(n, 40) for n in range(6)],
        "served",
        "too_many_series",
        check="series",
        max_series=100,
    ),
    limited(
        "metrics described by all devices",
        "crowd",
        [{"type": "describe", "metrics": {name: {} for name in keys(n, 40)}} for n in range(6)],
        "served",
        "too_many_series",
        check="series described",
        max_series=100,
    ),
    limited(
        "devices",
        "hold",
        [f"/v1/devices/d{n}" for n in range(4)],
        "101 x 2",
        "503 x 2",
        check="devices",
        max_devices=2,
    ),
    limited("connections", "hold", [LIVE] * 4, "101 x 2", "503 x 2", check="connections", max_connections=2),
    limited(
        "connections of an address",
        "hold",
        [LIVE] * 4,
        "101 x 2",
        "429 x 2",
        check="per address",
        max_per_address=2,
    ),
    limited(
        "readings beyond the rate",
        "device",
        [{"a": n} for n in range(20)],
        "throttled x 2",
        check="rate",
        device_rate=0.01,
        device_burst=3,
    ),
    limited(
        "bad readings beyond the rate",
        "device",
        [{"a b": n} for n in range(20)],
        "bad_name x 3",
        "throttled x 2",
        check="rate of refusals",
        device_rate=0.01,
        device_burst=3,
    ),
    limited(
        "descriptions beyond the rate",
        "device",
        tuple({"type": "describe", "name": f"n{n}"} for n in range(4)),
        "rate x 2",
        "throttled",
        check="rate of controls",
        device_rate=0.01,
        device_burst=2,
    ),
]

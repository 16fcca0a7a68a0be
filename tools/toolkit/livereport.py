"""What ``tools/bench live`` says: the targets, tables."""

from __future__ import annotations

from typing import Any

import msgspec

from .about import sentence

__all__ = ["LATE_MS", "MEMORY", "SLOW_S", "as_json", "further", "table", "targets"]

SLOW_S, MEMORY, LATE_MS = 10.0, 1 << 20, 250.0  # what is asked of the feed
FURTHER_US = 0.1  # of CPU a reading, for each further dashboard


def targets(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is asked of the feed: (of what, measured, target, met)."""
    one, costs = result["stalled"], result["dashboards"]
    who = f"{one['stalled']} of {one['dashboards']} stop reading, in `every`, and ask for history"
    slow = one["slow_s"]
    moved = len(slow) == one["stalled"] == one["told"] and one["back"]
    said = f"{max(slow):.1f} s" if len(slow) == one["stalled"] else f"{len(slow)} of {one['stalled']}"
    rows = [
        (f"{who}: until each is on `latest`", said, f"<= {SLOW_S:g} s", moved and max(slow) <= SLOW_S),
        (
            "memory for one of them, kernel's included",
            f"{one['bytes_max'] / 1024:.0f} KiB",
            f"<= {MEMORY >> 10:,} KiB",
            0 < one["bytes_max"] <= MEMORY,
        ),
    ]
    for mode in ("latest", "every"):
        p50, p99 = one["latency_ms"][mode]
        met = 0 < p99 <= LATE_MS and not one["told_others"] and not one["lost"] and one["every_whole"]
        rows.append(
            (
                f"the others in `{mode}`, device to dashboard, p50 / p99",
                f"{p50:.0f} / {p99:.0f} ms",
                f"<= {LATE_MS:g} ms",
                met,
            )
        )
    calls = [row["encoded_per_s"] for row in costs]
    # A heartbeat every five seconds, and a frame cut in two now and then.
    rows.append(
        (
            f"encoder calls a second with {' / '.join(str(row['dashboards']) for row in costs)} dashboards",
            " / ".join(f"{call:.1f}" for call in calls),
            "no more",
            max(calls) <= 1.2 * calls[0] + 1,
        )
    )
    reading = further(costs)[2]
    name = "each further dashboard of the same subscription, CPU a reading"
    rows.append((name, f"{reading:.3f} µs", f"<= {FURTHER_US:g} µs", reading <= FURTHER_US))
    busy, taken, rate = costs[-1]["cpu_percent"], costs[-1]["taken_per_s"], result["rate"]
    rows.append(
        (
            f"{costs[-1]['dashboards']} dashboards on all devices at {rate:,} readings a second: core busy, taken",
            f"{busy:.0f} %, {taken:,.0f}",
            "one core, all",
            busy < 100 and taken >= 0.99 * rate,
        )
    )
    return rows


def further(costs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """What each further dashboard costs: percent of a core, microseconds of CPU an update, and a reading."""
    first, last = costs[0], costs[-1]
    percent = (last["cpu_percent"] - first["cpu_percent"]) / max(1, last["dashboards"] - first["dashboards"])
    updates, taken = last["updates_per_s"] / last["dashboards"], last["taken_per_s"]
    update, reading = (percent * 1e4 / each if each else 0.0 for each in (updates, taken))
    return round(percent, 3), round(update, 1), round(reading, 4)


def table(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    one, costs = result["stalled"], result["dashboards"]
    lines = [
        sentence(result["machine"], result["load_after"]),
        "",
        f"{result['devices']} devices, {result['rate']:,} readings a second of four metrics",
        "",
        "| dashboards | core busy | encoder calls/s | updates/s | bytes an update | readings taken/s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['dashboards']} | {row['cpu_percent']:.0f} % | {row['encoded_per_s']:.1f} | {row['updates_per_s']:,.0f}"
        f" | {row['update_bytes']:,} | {row['taken_per_s']:,.0f} |"
        for row in costs
    ]
    percent, update, reading = further(costs)
    lines += [
        "",
        f"Each further dashboard of the same subscription: {percent:.2f} % of a core, {update:.0f} µs an update,"
        f" {reading:.3f} µs a reading.",
        "",
        "| | measured | target | |",
        "| --- | ---: | ---: | --- |",
    ]
    lines += [f"| {name} | {got} | {want} | {'' if met else 'missed'} |" for name, got, want, met in targets(result)]
    again = ", ".join(f"`{mode}` {p50:.0f} / {p99:.0f} ms" for mode, (p50, p99) in one["latency_again_ms"].items())
    lines += [
        "",
        f"Not read by each in {one['seconds']:g} s: {one['not_read_bytes'] / 1e6:.1f} MB. The most one held:"
        f" {one['buffered_max'] / 1024:.0f} KiB in buffers, {one['kernel_max'] / 1024:.0f} KiB in the kernel; the"
        f" process grew by {one['resident_growth'] / 1e6:.1f} MB. {one['told']} were told `mode`;"
        f" {'all' if one['back'] else 'NOT all'} ended with the newest of each device. The others, while they came"
        f" back: {again}.",
        f"Gateway {one['cpu_percent']:.0f} %, load generator {one['generator_percent']:.0f} % of a core each; they"
        f" waited for their cores {one['waited_percent'][0]:.0f} and {one['waited_percent'][1]:.0f} % of the time, the"
        f" generator was at most {result['generator_late_ms']:.0f} ms late. {result['sent']:,} readings sent,"
        f" {result['lost']} lost.",
    ]
    lines += ["", "The gateway's log:", *result["log"]] if result["log"] else []
    return "\n".join(lines)


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()

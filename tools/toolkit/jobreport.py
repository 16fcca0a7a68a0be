"""What ``tools/bench job`` says: the middle of several runs, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import msgspec

from .about import sentence

__all__ = ["Figures", "as_json", "middle", "table"]


@dataclass(frozen=True)
class Figures:
    """What was measured at one rate."""

    who: str
    rate: int
    achieved_per_s: float
    cpu_us_per_reading: float
    cpu_percent: float
    ack_p50_ms: float  # zeros where there are no acks
    ack_p99_ms: float
    live_p50_ms: float
    live_p99_ms: float
    resident_mb: float  # after MEMORY_AFTER_S of load
    resident_end_mb: float
    written_per_byte: float  # to the disk, from start to clean stop, a byte of reading
    bytes_per_reading: float
    sent: int
    lost: int
    mqtt_received: int
    mqtt_missing: int
    throttled: int
    held: int
    errors: dict[str, int]
    closed: dict[str, int]
    generator_percent: float
    generator_late_ms: float
    runs: int = 1
    cpu_us_lowest: float = 0.0  # of the runs
    cpu_us_highest: float = 0.0


COUNTS = ("sent", "lost", "mqtt_received", "mqtt_missing", "throttled", "held", "errors", "closed")


def middle(runs: list[Figures]) -> Figures:
    """The median of each figure over runs of the same job and rate, and the sum of what is counted."""
    found: dict[str, Any] = {}
    for field in fields(Figures):
        values = [getattr(one, field.name) for one in runs]
        if field.name in COUNTS:
            found[field.name] = _sum(values)
        elif isinstance(values[0], float):
            found[field.name] = statistics.median(values)
    costs = [one.cpu_us_per_reading for one in runs]
    found |= {"runs": len(runs), "cpu_us_lowest": min(costs), "cpu_us_highest": max(costs)}
    return replace(runs[0], **found)


def _sum(counts: list[Any]) -> Any:
    if not isinstance(counts[0], dict):
        return sum(counts)
    names = sorted({name for one in counts for name in one})
    return {name: sum(one.get(name, 0) for one in counts) for name in names}


COLUMNS: list[tuple[str, Callable[[Figures], str]]] = [
    ("readings/s", lambda f: f"{f.rate:,}"),
    ("", lambda f: f.who),
    ("taken/s", lambda f: f"{f.achieved_per_s:,.0f}"),
    ("CPU µs/reading", lambda f: f"{f.cpu_us_per_reading:.1f}"),
    ("of runs", lambda f: f"{f.cpu_us_lowest:.1f} to {f.cpu_us_highest:.1f}"),
    ("core busy", lambda f: f"{f.cpu_percent:.0f} %"),
    ("ack p50 / p99 ms", lambda f: f"{f.ack_p50_ms:.0f} / {f.ack_p99_ms:.0f}" if f.ack_p99_ms else "no acks"),
    ("dashboard p50 / p99 ms", lambda f: f"{f.live_p50_ms:.0f} / {f.live_p99_ms:.0f}"),
    ("memory MB, 15 s / end", lambda f: f"{f.resident_mb:.0f} / {f.resident_end_mb:.0f}"),
    ("disk bytes/byte", lambda f: f"{f.written_per_byte:.1f}"),
    ("lost", lambda f: str(f.lost)),
    ("missing on MQTT", lambda f: str(f.mqtt_missing)),
    ("throttled", lambda f: str(f.throttled)),
    ("held", lambda f: str(f.held)),
    ("load late ms", lambda f: f"{f.generator_late_ms:.0f}"),
]


def table(result: dict[str, Any]) -> str:
    """The machine, and the figures as a Markdown table, with what each costs of what the first costs."""
    figures: list[Figures] = result["results"]
    firsts = {}
    for one in figures:
        firsts.setdefault(one.rate, one)
    columns = list(COLUMNS)
    if len(figures) > len(firsts):
        ratio = lambda f: f"{f.cpu_us_per_reading / max(0.1, firsts[f.rate].cpu_us_per_reading):.2f}"  # noqa: E731
        columns.insert(5, ("of the first", ratio))
    if all(one.runs == 1 for one in figures):
        columns = [column for column in columns if column[0] != "of runs"]
    rows = [[name for name, _ in columns], ["---:" for _ in columns]]
    rows += [[show(one) for _, show in columns] for one in figures]
    runs = f", median of {figures[0].runs} runs" if figures[0].runs > 1 else ""
    return "\n".join(
        [
            sentence(result["machine"], result["load_after"]) + runs,
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
    )


def as_json(result: dict[str, Any]) -> str:
    whole = result | {"results": [asdict(one) for one in result["results"]]}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()

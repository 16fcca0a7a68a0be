"""``tools/bench history``: how fast a backlog is taken, what a value costs on disk, how long a question takes.

- *drain*: a journal that holds a backlog, and a gateway that starts with it: on core 0, everything else on core
  1.  Once alone; once with devices that send meanwhile, whose acks are compared with those of the time after.
- *disk*: signals of several kinds, one metric a reading, in a file of their own each: its bytes, rollups and all, when
  nothing more is to be merged.
- *query*: one metric at 1 Hz, from a device whose readings come to the second and from one whose do not quite.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import msgspec

from gateway.history import History
from gateway.journal import Journal
from gateway.reading import Batch, Reading

from .about import load, machine, sentence
from .load import Device, Meter, Pacer, samples
from .proc import cpu_seconds
from .servers import HOST, Daemon, Failed

__all__ = ["PARTS", "QUICK", "Past", "as_json", "run", "table", "targets"]

DAEMON_CORE, OTHER_CORE = 0, 1
PARTS = ("drain", "disk", "query")
SECOND = 10**9
DAY_S = 86_400
LOOK_S = 0.1
DRAIN_S = 120.0
BATCH = 1000
GROUP = 1000  # items of the backlog committed together: what 20,000 a second come to
METRICS = 4

VALUES_PER_S, ACK_MS, BYTES, DAY_MS, MONTH_MS = 500_000, 10.0, 12.0, 20.0, 200.0  # what is asked of the history


@dataclass(frozen=True)
class Past:
    """What to run; the rate in readings a second over all devices."""

    backlog: int = 1_000_000  # readings, of four values each
    devices: int = 200  # from which it is
    live: int = 20  # devices that send meanwhile
    rate: int = 1000
    days: int = 2  # of each signal, at 1 Hz
    month: int = 30  # days that are asked for
    repeat: int = 5


QUICK = Past(backlog=150_000, devices=20, live=5, rate=200, days=1, month=2, repeat=2)


def run(past: Past, parts: tuple[str, ...] = PARTS) -> dict[str, Any]:
    """Measure; raises :class:`Failed`."""
    result: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        directory = Path(name)
        if "drain" in parts:
            result["drain"] = {
                name: asyncio.run(_drain(past, directory / name, live))
                for name, live in (("alone", 0), ("beside", past.live))
            }
        if "disk" in parts:
            result["disk"] = {
                name: asyncio.run(_disk(past, directory / f"{name}.db", signal)) for name, signal in SIGNALS.items()
            }
        if "query" in parts:
            result["query"] = asyncio.run(_query(past, directory / "query.db"))
    result["load_after"] = load()
    return result


# -- a backlog ---------------------------------------------------------------------------------------------------------


async def _fill(past: Past, state: Path) -> None:
    """A journal with readings of the last minutes, which nothing has taken yet."""
    state.mkdir(parents=True)
    values = [msgspec.json.decode(b"{%s}" % sample) for sample in samples()]
    journal = Journal(state / "journal", max_bytes=16 << 30)
    await journal.open()
    start, step = time.time_ns() - past.backlog * 50_000, 50_000  # 20,000 a second
    for number in range(past.backlog):
        device, at = number % past.devices, (start + number * step) // 1_000_000 * 1_000_000
        sample = values[(number // past.devices + device * 37) % len(values)] | {"sent": number / 1e6}
        journal.append(Reading(f"past-{device:03}", "s", 1 + number // past.devices, at, at + 1_000_000, sample))
        if number % GROUP == GROUP - 1:
            await journal.flush()
    await journal.flush()
    await journal.close()


def _look(daemon: Daemon) -> tuple[float, int, int]:
    """When, and how many readings the history has been given since the start, and how many it has on disk."""
    page, found = daemon.get("/metrics")[1], []
    for name in (rb"taken", rb"delivered"):
        match = re.search(rb'^gateway_sink_%s_total\{sink="history"\} (\S+)$' % name, page, re.MULTILINE)
        if match is None:
            raise Failed("the gateway does not say how many readings the history has")
        found.append(int(float(match[1])))
    return time.monotonic(), found[0], found[1]


async def _drain(past: Past, directory: Path, live: int) -> dict[str, Any]:
    directory.mkdir()
    await _fill(past, directory / "state")
    settings = {
        "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
        "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
        "GATEWAY_LOG__LEVEL": "warning",
        "GATEWAY_JOURNAL__MAX_BYTES": str(16 << 30),
    }
    began = time.monotonic()
    daemon = await asyncio.to_thread(Daemon(directory, settings, core=DAEMON_CORE).start)
    try:
        return await _watch(past, daemon, live) | {"ready_s": round(time.monotonic() - began, 1)}
    finally:
        await asyncio.to_thread(daemon.stop)


async def _watch(past: Past, daemon: Daemon, live: int) -> dict[str, Any]:
    """Until all of the backlog is taken; with ``live`` devices for as long again."""
    meter = Meter()
    meter.measuring = True
    values = samples()
    looks, cpu = [await asyncio.to_thread(_look, daemon)], cpu_seconds(daemon.pid)
    begin, before, _ = looks[0]
    devices = [Device(f"{HOST}:{daemon.port}", f"live-{n}", meter, values, n * 37) for n in range(live)]
    for device in devices:
        await asyncio.get_running_loop().create_connection(partial(_same, device), HOST, daemon.port)
        await asyncio.wait_for(device.opened, 10)
    pacer = Pacer(devices, past.rate)
    sending = asyncio.create_task(pacer.run(DRAIN_S)) if devices else None
    while looks[-1][1] < past.backlog:
        if time.monotonic() - begin > DRAIN_S:
            raise Failed(f"{looks[-1][1]:,} of {past.backlog:,} readings were taken within {DRAIN_S:g} s")
        await asyncio.sleep(LOOK_S)
        looks.append(await asyncio.to_thread(_look, daemon))
    took, used = looks[-1][0] - begin, cpu_seconds(daemon.pid) - cpu
    taken = looks[-1][1]
    figures = {
        "readings": taken - before,
        "values_per_s": round(_rate(looks) * METRICS),
        "cpu_us_per_value": round(used * 1e6 / max(1, taken - before) / METRICS, 2),
        "seconds": round(took, 2),
    }
    if sending is None:
        return figures
    during = len(meter.ack_latency)
    await asyncio.sleep(max(took, 1.0))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    deadline = time.monotonic() + 10
    while meter.acked < meter.sent and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    for device in devices:
        device.close()
    latency = [one * 1000 for one in meter.ack_latency]
    if meter.errors or not latency[:during] or not latency[during:]:
        raise Failed(f"{meter.acked} readings were acked; errors: {meter.errors}, closed: {meter.closed}")
    return figures | {
        "ack_ms": _percentiles(latency[:during]),
        "ack_after_ms": _percentiles(latency[during:]),
        "lost": meter.sent - meter.acked,
        "generator_late_ms": round(pacer.latest_s * 1000, 1),
    }


def _rate(looks: list[tuple[float, int, int]]) -> float:
    """Readings that came to the disk in a second; the first and the last that did so mark the time."""
    steps = [(at, safe) for (at, _, safe), (_, _, before) in zip(looks[1:], looks, strict=False) if safe > before]
    steps.insert(0, (looks[0][0], looks[0][2]))
    return (steps[-1][1] - steps[0][1]) / max(steps[-1][0] - steps[0][0], LOOK_S)


def _same(device: Device) -> Device:
    return device


def _percentiles(found: list[float]) -> list[float]:
    """p50 and p99."""
    found.sort()
    return [round(found[int(part * (len(found) - 1))], 1) for part in (0.5, 0.99)]


# -- on disk -----------------------------------------------------------------------------------------------------------


def _walk() -> Iterator[float]:
    rng, value = random.Random(1), 20.0
    while True:
        value += rng.gauss(0, 0.05)
        yield round(value, 2)


def _noise() -> Iterator[float]:
    rng = random.Random(2)
    while True:
        yield rng.random()


SIGNALS: dict[str, Callable[[], Iterator[float]]] = {
    "random walk, two decimals": _walk,
    "counter": count,
    "noise, all digits of a float": _noise,
}


def _readings(device: str, days: int, signal: Callable[[], Iterator[float]], jitter_ms: int) -> Iterator[Reading]:
    """One a second, up to now; the time of receipt differs, and the device's with ``jitter_ms``."""
    rng = random.Random(3)
    begin = time.time_ns() // (DAY_S * SECOND) * DAY_S * SECOND - days * DAY_S * SECOND
    for number, value in zip(range(days * DAY_S), signal(), strict=False):
        at = begin + number * SECOND + rng.randint(-jitter_ms, jitter_ms) * 1_000_000
        yield Reading(device, "s", number + 1, at, at + rng.randint(2, 9) * 1_000_000, {"value": value})


async def _store(history: History, readings: Iterator[Reading]) -> None:
    while batch := list(islice(readings, BATCH)):
        await history.write(Batch(history.end, list(batch), len(batch)))


async def _settle(history: History) -> None:
    """Until all is on disk, merged, and in rollups."""
    await history.flush()
    while history._store is None or history._store.busy:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)


async def _disk(past: Past, path: Path, signal: Callable[[], Iterator[float]]) -> dict[str, Any]:
    history = History(path, retention_days=0)
    await history.open()
    await _store(history, _readings("device", past.days, signal, 20))
    await _settle(history)
    await history.close()
    values = past.days * DAY_S
    return {"values": values, "bytes_per_value": round(path.stat().st_size / values, 2)}


# -- questions ---------------------------------------------------------------------------------------------------------


async def _query(past: Past, path: Path) -> dict[str, Any]:
    history = History(path, retention_days=0)
    await history.open()
    for device, jitter in (("regular", 0), ("irregular", 20)):
        await _store(history, _readings(device, past.month, _walk, jitter))
    await _settle(history)
    end = time.time_ns() // (DAY_S * SECOND) * DAY_S * SECOND
    result = {
        device: {
            f"{days} days": await _ask(past, history, device, end - days * DAY_S * SECOND, end)
            for days in (1, past.month)
        }
        for device in ("regular", "irregular")
    }
    await history.close()
    return result


async def _ask(past: Past, history: History, device: str, start: int, end: int) -> dict[str, Any]:
    """As 1,000 points: how many there are, and the median time of some questions in milliseconds."""
    took = []
    for _ in range(past.repeat):
        begin = time.perf_counter()
        rows, _ = await history.query(devices=device, metrics="value", start=start, end=end, step=(end - start) // 1000)
        took.append(time.perf_counter() - begin)
    return {"points": len(rows), "ms": round(statistics.median(took) * 1000, 1)}


# -- what it says ------------------------------------------------------------------------------------------------------


def targets(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is asked of the history: (of what, measured, target, met)."""
    rows: list[tuple[str, str, str, bool]] = []
    if "drain" in result:
        alone, beside = result["drain"]["alone"], result["drain"]["beside"]
        for name, one in (("", alone), (", devices sending meanwhile", beside)):
            rate = one["values_per_s"]
            rows.append(
                (
                    f"a backlog, four values a reading{name}",
                    f"{rate:,}/s",
                    f">= {VALUES_PER_S:,}/s",
                    rate >= VALUES_PER_S,
                )
            )
        during, after = beside["ack_ms"][1], beside["ack_after_ms"][1]
        moved = during - after
        rows.append(
            (
                "ack p99 of these, with the backlog / without",
                f"{during:.0f} / {after:.0f} ms",
                f"<= {ACK_MS:g} ms apart",
                moved <= ACK_MS and not beside["lost"],
            )
        )
    for name, one in result.get("disk", {}).items():
        size = one["bytes_per_value"]
        rows.append((f"a value on disk: {name}", f"{size:.1f} bytes", f"<= {BYTES:g} bytes", size <= BYTES))
    for device, found in result.get("query", {}).items():
        for span, one in found.items():
            most = DAY_MS if span == "1 days" else MONTH_MS
            what = f"{span.replace('1 days', '24 h')} at 1 Hz as 1,000 points, {device} times"
            rows.append((what, f"{one['ms']:.0f} ms", f"<= {most:g} ms", one["points"] >= 1000 and one["ms"] <= most))
    return rows


def table(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    lines = [
        sentence(result["machine"], result["load_after"]),
        "",
        "| | measured | target | |",
        "| --- | ---: | ---: | --- |",
    ]
    lines += [f"| {name} | {got} | {want} | {'' if met else 'missed'} |" for name, got, want, met in targets(result)]
    if "drain" in result:
        alone, beside = result["drain"]["alone"], result["drain"]["beside"]
        lines += [
            "",
            f"{alone['readings'] * METRICS:,} values in {alone['seconds']:g} s, {alone['cpu_us_per_value']:.2f} µs of"
            f" CPU each; beside devices in {beside['seconds']:g} s. Ack p50 {beside['ack_ms'][0]:.0f} /"
            f" {beside['ack_after_ms'][0]:.0f} ms; the generator was at most {beside['generator_late_ms']:.0f} ms"
            " late.",
        ]
    return "\n".join(lines)


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()

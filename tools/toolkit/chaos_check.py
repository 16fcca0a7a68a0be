"""What is checked after every fault: acks, history, MQTT, ledgers.  Faults are sentences; no sentence, no fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .chaos_device import FIRST_MS, Device, wrong_values
from .servers import Daemon, Failed

__all__ = [
    "Far",
    "History",
    "ledger_faults",
    "missing",
    "number",
    "overclaimed",
    "said",
    "shortened",
    "sinks",
    "states",
    "stored_claims",
]

SHOWN = 5  # of faults of one kind; the rest is a number
LEDGER = ("stored", "rejected", "duplicate", "throttled", "dropped", "in_flight")
ROWS_MAX = 100_000
SINK_LEDGER = ("delivered", "pending", "dead_lettered", "overflowed", "lost")
END_MS = FIRST_MS + 10 * 365 * 86_400_000


class Far:
    """What a far side got of each device: each reading as it was sent, and the first time behind all before it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: dict[str, set[int]] = {}
        self.repeats = 0
        self.faults: list[str] = []
        self._highest: dict[str, int] = {}

    @property
    def count(self) -> int:
        """Different readings."""
        return sum(map(len, self.got.values()))

    def on_message(self, topic: bytes, payload: bytes) -> None:
        """A message of MQTT, in layout ``flat`` or ``batch``."""
        device = topic.split(b"/")[1].decode()
        try:
            found = msgspec.json.decode(payload)
            for each in found if isinstance(found, list) else [found]:
                values = each["values"] if "values" in each else {k: v for k, v in each.items() if k != "ts"}
                self.take(device, values["n"], values, each["ts"])
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            self.faults.append(f"{self.name} got {payload[:80]!r}: {error!r}")

    def take(self, device: str, n: int, values: dict[str, Any], time_ms: int) -> None:
        """One reading."""
        if wrong := wrong_values(device, n, values, time_ms):
            self.faults.append(f"{self.name} got {wrong}")
            return
        got = self.got.setdefault(device, set())
        if n in got:
            self.repeats += 1
            return
        got.add(n)
        highest = self._highest.get(device, 0)
        if n < highest:
            self.faults.append(f"{self.name} got {device} {n} after {highest}")
        self._highest[device] = max(n, highest)


class History:
    """What the gateway's own history holds, asked for over HTTP."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.got: dict[str, set[int]] = {}
        self.faults: list[str] = []

    @property
    def count(self) -> int:
        return sum(map(len, self.got.values()))

    def read(self, devices: Iterable[Device], metrics: Iterable[str] = ("n", "half", "mark")) -> None:
        """Read all rows of the devices anew."""
        self.got, self.faults = {device.name: set() for device in devices}, []
        for metric in metrics:
            found = self._read(metric)
            if metric == "n":
                self.got = found
                continue
            for name, numbers in found.items():
                if differs := len(numbers ^ self.got[name]):
                    self.faults.append(f"history holds n of {name} and not {metric}, or without it, {differs} times")

    def _read(self, metric: str) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {name: set() for name in self.got}
        rows = self._ask("*", metric, 0)
        if len(rows) < ROWS_MAX:
            self._take(found, metric, rows)
            return found
        for name in found:
            since = 0
            while True:
                rows = self._ask(name, metric, since)
                self._take(found, metric, rows)
                if len(rows) < ROWS_MAX:
                    break
                # A device sends one reading in each millisecond, so that none is cut in two.
                since = rows[-1]["time"] + 1
        return found

    def _ask(self, name: str, metric: str, since: int) -> list[dict[str, Any]]:
        status, body = self._daemon.get(f"/api/v1/history?device={name}&metric={metric}&from={since}&to={END_MS}")
        if status != 200:
            self.faults.append(f"history answers {status}: {body[:200].decode(errors='replace')}")
            return []
        rows: list[dict[str, Any]] = msgspec.json.decode(body)
        return rows

    def _take(self, found: dict[str, set[int]], metric: str, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            name, n = row["device"], row["time"] - FIRST_MS
            numbers = found.get(name)
            if numbers is None:
                continue  # of an earlier round
            if wrong := wrong_values(name, n, {metric: row["value"]}):
                self.faults.append(f"history holds {wrong}")
            if n in numbers:
                self.faults.append(f"history holds {name} {n} twice")
            numbers.add(n)


def missing(
    devices: Iterable[Device], got: dict[str, set[int]], where: str, excused: set[tuple[str, int]]
) -> list[str]:
    """Each reading that was acked and is not in ``got``, but for the excused ones."""
    faults = []
    for device in devices:
        held = got.get(device.name, set())
        gone = [n for n in range(1, device.acked + 1) if n not in held and (device.name, n) not in excused]
        faults += [f"{device.name} {n}: acked and {where}" for n in gone]
    return faults


def shortened(faults: list[str]) -> list[str]:
    """The first few, and how many more there are."""
    return [*faults[:SHOWN], f"and {len(faults) - SHOWN} more of these"] if len(faults) > SHOWN else faults


def ledger_faults(daemon: Daemon) -> list[str]:
    """Ledgers of devices and sinks that do not add up."""
    faults = []
    for row in _json(daemon, "/api/v1/devices"):
        ledger, name = row["ledger"], row["device"]
        if ledger["received"] != sum(ledger[part] for part in LEDGER):
            faults.append(f"the ledger of {name} does not add up: {ledger}")
    for sink in sinks(daemon):
        ledger = sink.get("ledger")
        if ledger and ledger["stored"] != sum(ledger.get(part, 0) for part in SINK_LEDGER):
            faults.append(f"the ledger of sink {sink['name']} does not add up: {ledger}")
    return faults


def stored_claims(daemon: Daemon) -> dict[str, int]:
    """How many readings the ledger of each device claims to be stored."""
    return {row["device"]: row["ledger"]["stored"] for row in _json(daemon, "/api/v1/devices")}


def states(daemon: Daemon) -> dict[str, str]:
    """The state of each device."""
    return {row["device"]: row["state"] for row in _json(daemon, "/api/v1/devices")}


def said(daemon: Daemon) -> list[str]:
    """What the gateway says of damage: problems of ``/healthz``, and files set aside."""
    found = [problem["text"] for problem in _json(daemon, "/healthz")["problems"]]
    return found + [path.name for path in daemon.state.rglob("*.damaged-*")]


def overclaimed(claims: dict[str, int], got: dict[str, set[int]]) -> list[str]:
    """Each device of which more is claimed than there is."""
    return [
        f"the ledger of {name} claims {count} stored, there are {len(got[name])}"
        for name, count in claims.items()
        if name in got and count > len(got[name])
    ]


def sinks(daemon: Daemon) -> list[dict[str, Any]]:
    """The sinks as ``/healthz`` shows them."""
    found: list[dict[str, Any]] = _json(daemon, "/healthz")["sinks"]
    return found


def number(daemon: Daemon, name: str) -> int:
    """One of the numbers of ``/metrics``, by its whole name."""
    _, body = daemon.get("/metrics")
    for line in body.decode().splitlines():
        if line.startswith(f"{name} "):
            return int(float(line.removeprefix(f"{name} ")))
    raise Failed(f"/metrics names no {name}")


def _json(daemon: Daemon, target: str) -> Any:
    status, body = daemon.get(target)
    if status != 200:
        raise Failed(f"{target} answers {status}: {body[:200].decode(errors='replace')}")
    return msgspec.json.decode(body)

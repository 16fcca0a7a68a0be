"""What GET addresses answer (PROTOCOL, section 1)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .fields import Count, DeviceName, MetricName, Milliseconds, State, Value

__all__ = [
    "AckDelay",
    "ClockDetail",
    "DashboardsHealth",
    "DeviceRow",
    "Health",
    "HistoryHealth",
    "Ingest",
    "JournalHealth",
    "KnockRow",
    "LedgerRow",
    "MetricAbout",
    "PresenceRow",
    "Problem",
    "SinkHealth",
    "SinkLedger",
    "States",
    "ValueRow",
]


class LedgerRow(msgspec.Struct, frozen=True):
    """Readings: ``received`` is the sum of the six behind it.  ``missing``: gaps in the sequence, never received.

    Integers beyond 2^53-1 are strings of digits.
    """

    received: int
    stored: int
    rejected: int
    duplicate: int
    throttled: int
    dropped: int
    in_flight: int
    missing: int | str


class ClockDetail(msgspec.Struct, frozen=True):
    """How far a device's clock is ahead of ours (milliseconds, null: not known), and how many times were off."""

    skew_ms: int | None
    old: Count
    future: Count


class MetricAbout(msgspec.Struct, frozen=True):
    """What the device said of a metric."""

    unit: str | UnsetType = UNSET
    class_: str | UnsetType = msgspec.field(default=UNSET, name="class")
    integer: bool | UnsetType = UNSET


class DeviceRow(msgspec.Struct, frozen=True):
    """A device; ``metrics`` and ``interval_s`` where it said so, ``via`` the concentrator that it was heard through."""

    device: DeviceName
    name: str
    state: State
    since: Milliseconds
    last_seen: Milliseconds
    reason: str
    confirmed: bool
    session: str
    ledger: LedgerRow
    clock: ClockDetail
    metrics: dict[MetricName, MetricAbout] | UnsetType = UNSET
    interval_s: float | UnsetType = UNSET
    via: DeviceName | UnsetType = UNSET


class ValueRow(msgspec.Struct, frozen=True):
    """A value of a series at a time."""

    time: Milliseconds
    device: DeviceName
    metric: MetricName
    value: Value


class PresenceRow(msgspec.Struct, frozen=True):
    """A device was in a state ``until`` then (null: it is still); between two rows the gateway knew nothing of it."""

    device: DeviceName
    state: State
    since: Milliseconds
    until: Milliseconds | None
    reason: str


class KnockRow(msgspec.Struct, frozen=True):
    """A device that named itself and was not let in.

    ``fingerprint``: of the secret that it presented, empty where that could not become its token.
    """

    device: DeviceName
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]*$")]
    first: Milliseconds
    last: Milliseconds
    count: Annotated[int, Meta(ge=1)]
    address: str


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a part, in words, and what to do about it."""

    part: str
    text: str
    hint: str


class States(msgspec.Struct, frozen=True):
    """Devices by state."""

    online: Count
    stale: Count
    offline: Count


class Ingest(msgspec.Struct, frozen=True):
    """What comes in now; ``received`` are readings, over restarts."""

    readings_per_s: float
    messages_per_s: float
    received: Count


class AckDelay(msgspec.Struct, frozen=True):
    """From a reading's receipt until it is synced, in milliseconds."""

    p50: float
    p99: float


class JournalHealth(msgspec.Struct, frozen=True):
    """The journal; ``pending`` are readings that are not synced yet."""

    bytes: Count
    segments: Count
    ack_ms: AckDelay
    pending: Count
    state: Literal["ok", "failing"]
    reason: str


class SinkLedger(msgspec.Struct, frozen=True):
    """Readings, over restarts: ``stored`` is the sum of the five behind it."""

    stored: Count
    delivered: Count
    pending: Count
    dead_lettered: Count
    overflowed: Count
    lost: Count


class SinkHealth(msgspec.Struct, frozen=True):
    """A sink; ``behind`` are readings that wait for it beside those of the last moment."""

    name: str
    title: str
    state: Literal["ok", "waiting", "stopped"]
    pending: Count
    behind: Count
    reason: str
    hint: str
    next_try_s: float | None
    delivered: Count
    dead_lettered: Count
    ledger: SinkLedger


class HistoryHealth(msgspec.Struct, frozen=True):
    """The embedded history."""

    pending: Count
    retention_days: float
    bytes: Count


class DashboardsHealth(msgspec.Struct, frozen=True):
    """Dashboards, and for how long readings waited until they were sent to them (milliseconds)."""

    clients: Count
    p99_ms: float


class Health(msgspec.Struct, frozen=True):
    """Every part, what is wrong first.  ``auth``: whether tokens are asked for."""

    status: Literal["ok", "degraded", "failing"]
    id: str
    version: str
    epoch: str
    time: Milliseconds
    uptime_s: float
    problems: list[Problem]
    devices: States
    ingest: Ingest
    ledger: LedgerRow
    journal: JournalHealth
    sinks: list[SinkHealth]
    history: HistoryHealth
    dashboards: DashboardsHealth
    auth: Literal["none", "token"]

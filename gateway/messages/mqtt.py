"""What goes to a broker and comes from it (PROTOCOL, section 6)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .fields import DeviceName, MetricName, Milliseconds, Params, Value

__all__ = [
    "Availability",
    "Batch",
    "CommandRequest",
    "Component",
    "Discovery",
    "DiscoveryDevice",
    "DiscoveryOrigin",
    "FlatPayload",
    "HostState",
    "InfluxLines",
    "PlainValue",
    "SparkplugPayload",
    "Status",
    "ThingsBoardDevice",
    "ThingsBoardTelemetry",
    "TimedValues",
    "UserProperties",
]

FlatPayload = Annotated[
    dict[MetricName, Value],
    Meta(
        title="FlatPayload",
        description="One reading: its time, and its values by metric.",
        extra_json_schema={"properties": {"ts": {"$ref": "#/components/schemas/Milliseconds"}}, "required": ["ts"]},
        examples=[{"ts": 1764000000000, "temperature": 22.5}],
    ),
]


class TimedValues(msgspec.Struct, frozen=True):
    """One reading of several."""

    ts: Milliseconds
    values: dict[MetricName, Value]


Batch = Annotated[
    list[TimedValues],
    Meta(title="Batch", description="A device's readings in the order in which they came.", min_length=1),
]
InfluxLines = Annotated[
    str,
    Meta(
        title="InfluxLines",
        description="InfluxDB line protocol, one line a reading, times in nanoseconds.",
        pattern="^[^\\n ]+,device=",
        examples=["telemetry,device=pump-1 temperature=22.5 1764000000000000000"],
    ),
]
PlainValue = Annotated[
    str, Meta(title="PlainValue", description="A value as JSON writes it, a text as it is.", examples=["22.5", "true"])
]
Status = Annotated[
    Literal["online", "offline"],
    Meta(title="Status", description="Whether it is there; `offline` is its Last Will, and said on a clean stop."),
]
ThingsBoardTelemetry = Annotated[
    dict[DeviceName, list[TimedValues]],
    Meta(title="ThingsBoardTelemetry", description="Readings of several devices, by device."),
]


class ThingsBoardDevice(msgspec.Struct, frozen=True):
    """A device that is there, or gone."""

    device: DeviceName


class UserProperties(msgspec.Struct, frozen=True):
    """User properties of MQTT 5.  ``historical``: received well before it is published, no news.  ``via``: the
    concentrator of a sub-device, whose session and seq they are.

    ``ts`` where a message is one value alone: milliseconds since the epoch.
    """

    gateway: str | UnsetType = UNSET
    session: str | UnsetType = UNSET
    seq: Annotated[str, Meta(pattern="^[0-9]+$")] | UnsetType = UNSET
    ts: Annotated[str, Meta(pattern="^[0-9]+$")] | UnsetType = UNSET
    historical: Literal["true"] | UnsetType = UNSET
    via: DeviceName | UnsetType = UNSET


class CommandRequest(msgspec.Struct, frozen=True):
    """A command for the topic's device, which expires after ``ttl_s`` seconds; ``ref`` comes back with its states."""

    name: str
    params: Params = {}
    ttl_s: float = 60.0
    ref: str = ""


SparkplugPayload = Annotated[
    str,
    Meta(
        title="SparkplugPayload",
        description="Payload of Sparkplug B 3.0 in Protocol Buffers: org.eclipse.tahu.protobuf.Payload.",
        extra_json_schema={"format": "binary"},
    ),
]


class HostState(msgspec.Struct, frozen=True):
    """Whether a host application is there, and since when."""

    online: bool
    timestamp: Milliseconds


class DiscoveryDevice(msgspec.Struct, frozen=True):
    """A device, for Home Assistant."""

    identifiers: list[str]
    name: str


class DiscoveryOrigin(msgspec.Struct, frozen=True):
    """Who tells of it."""

    name: str
    sw_version: str


class Availability(msgspec.Struct, frozen=True):
    """A topic that says whether it is there, and how that is read."""

    topic: str
    value_template: str | UnsetType = UNSET


class Component(msgspec.Struct, frozen=True):
    """An entity, for a metric; with ``platform`` alone it is gone."""

    platform: Literal["sensor", "binary_sensor"]
    unique_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    state_topic: str | UnsetType = UNSET
    value_template: str | UnsetType = UNSET
    device_class: str | UnsetType = UNSET
    unit_of_measurement: str | UnsetType = UNSET
    state_class: str | UnsetType = UNSET
    suggested_display_precision: int | UnsetType = UNSET
    expire_after: int | UnsetType = UNSET
    payload_on: str | UnsetType = UNSET
    payload_off: str | UnsetType = UNSET


class Discovery(msgspec.Struct, frozen=True):
    """A device as Home Assistant's discovery has it, with its entities (device discovery, since 2024.11)."""

    device: DiscoveryDevice
    origin: DiscoveryOrigin
    availability: list[Availability]
    availability_mode: Literal["all"]
    qos: Literal[0, 1]
    components: dict[str, Component]
    state_topic: str | UnsetType = UNSET

"""What a device and the gateway say to each other on ``/v1/devices/{device}`` (PROTOCOL, section 3)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..codecs.model import MAX_READINGS
from .fields import Count, DeviceName, MetricName, Milliseconds, Params, Sequence, SparseValues, Timestamp, Value

__all__ = [
    "Ack",
    "DeviceCommand",
    "DeviceError",
    "DeviceHeartbeat",
    "FlatReading",
    "Lines",
    "Rate",
    "Reading",
    "Readings",
    "Result",
    "SenmlPack",
    "SenmlRecord",
    "Throttled",
    "Welcome",
]

Id = Annotated[str, Meta(description="Of a command, as it was sent.")]

# -- to the gateway ----------------------------------------------------------------------------------------------------

_FIELDS = {
    "ts": {"anyOf": [{"$ref": "#/components/schemas/Timestamp"}, {"type": "null"}]},
    "seq": {"anyOf": [{"$ref": "#/components/schemas/Sequence"}, {"type": "null"}]},
    "device": {"anyOf": [{"$ref": "#/components/schemas/DeviceName"}, {"type": "null"}]},
    "type": False,
    "values": False,
}

FlatReading = Annotated[
    dict[MetricName, Value | None],
    Meta(
        title="FlatReading",
        description="Values by metric, at one time; `ts`, `seq` and `device` as in an envelope.",
        extra_json_schema={"properties": _FIELDS},
    ),
]


class Reading(msgspec.Struct, frozen=True):
    """Values of one time in an envelope.  One without values only moves the sequence: so a device gives a number up."""

    values: SparseValues
    ts: Timestamp | UnsetType | None = UNSET
    seq: Sequence | UnsetType | None = UNSET
    device: DeviceName | UnsetType | None = UNSET


Readings = Annotated[
    list[Any],
    Meta(
        title="Readings",
        description="Several, in order; one that is refused leaves the others.",
        max_length=MAX_READINGS,
        extra_json_schema={
            "items": {"anyOf": [{"$ref": "#/components/schemas/FlatReading"}, {"$ref": "#/components/schemas/Reading"}]}
        },
    ),
]


class DeviceHeartbeat(msgspec.Struct, tag="heartbeat", tag_field="type", frozen=True):
    """Alive, nothing to report; of a sub-device, if ``device`` names one."""

    device: DeviceName | UnsetType | None = UNSET


class Result(msgspec.Struct, tag="result", tag_field="type", frozen=True):
    """The answer to a command: whether it was carried out, and what came of it; ``device`` as in the command."""

    id: Id
    ok: bool
    value: Any = None
    device: DeviceName | UnsetType | None = UNSET


class SenmlRecord(msgspec.Struct, frozen=True):
    """RFC 8428: base fields hold for it and the records behind it.  In CBOR labels are the integers of table 4."""

    bn: str | UnsetType = UNSET
    bt: float | UnsetType = UNSET
    bu: str | UnsetType = UNSET
    bv: float | UnsetType = UNSET
    bver: int | UnsetType = UNSET
    n: str | UnsetType = UNSET
    u: str | UnsetType = UNSET
    v: float | UnsetType = UNSET
    vs: str | UnsetType = UNSET
    vb: bool | UnsetType = UNSET
    t: float | UnsetType = UNSET
    ut: float | UnsetType = UNSET


SenmlPack = Annotated[
    list[SenmlRecord],
    Meta(
        title="SenmlPack",
        description="Records of one time in a row are a reading, without a sequence.  Sums and data are refused.",
        max_length=MAX_READINGS,
    ),
]
Lines = Annotated[
    str,
    Meta(
        title="Lines",
        description="InfluxDB line protocol, one or more lines.",
        examples=["telemetry,host=pump-1 temperature=22.5,door=true 1764000000000000000"],
    ),
]

# -- to the device -----------------------------------------------------------------------------------------------------


class Rate(msgspec.Struct, frozen=True):
    """Readings a second that are taken, and at once."""

    per_s: float
    burst: float


class Welcome(msgspec.Struct, tag="welcome", tag_field="type", frozen=True):
    """The first message.  Readings behind ``last_seq`` (0: nothing yet) are to be sent, those up to it are safe."""

    device: DeviceName
    session: str
    resumed: bool
    last_seq: Count
    heartbeat_s: float
    max_message_bytes: int
    rate: Rate
    time: Milliseconds


class Ack(msgspec.Struct, tag="ack", tag_field="type", frozen=True):
    """Every reading of the session up to ``seq`` is decided: safe at the level asked for, or named in an ``error``."""

    seq: Sequence


class Throttled(msgspec.Struct, tag="throttled", tag_field="type", frozen=True):
    """``seq`` was not kept, nor what came behind it: go on from there after ``retry_after_ms``."""

    dropped: Annotated[int, Meta(ge=1)]
    retry_after_ms: Annotated[int, Meta(ge=1)]
    seq: Sequence | UnsetType = UNSET


class DeviceError(msgspec.Struct, tag="error", tag_field="type", frozen=True):
    """A message or reading was refused for good; with ``retry_after_ms`` (code ``overloaded``) it is to come again.

    ``index`` is its place in an array, ``device`` the sub-device whose it was.
    """

    code: Annotated[str, Meta(examples=["bad_value", "bad_name", "bad_message", "undecodable", "overloaded"])]
    detail: Annotated[str, Meta(max_length=512)]
    seq: Sequence | UnsetType = UNSET
    index: Count | UnsetType = UNSET
    device: DeviceName | UnsetType = UNSET
    retry_after_ms: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class DeviceCommand(msgspec.Struct, tag="command", tag_field="type", frozen=True):
    """To be carried out before ``expires``, and answered by a ``result``.

    ``again``: it went out before and was not answered, so that it may have been carried out already.  ``device``: it is
    for that sub-device.
    """

    id: Id
    name: str
    params: Params
    expires: Milliseconds
    again: bool = False
    device: DeviceName | UnsetType = UNSET

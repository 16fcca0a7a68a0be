"""What the gateway says to dashboards on ``/v1/live`` (PROTOCOL, section 5); what it takes: ``server.live``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .fields import Count, DeviceName, MetricName, Milliseconds, Offset, Point, Series, State

__all__ = [
    "CommandState",
    "DeviceState",
    "DeviceView",
    "Hello",
    "History",
    "Limits",
    "LiveError",
    "LiveHeartbeat",
    "ModeChange",
    "PresenceChange",
    "Snapshot",
    "Update",
]

Id = Annotated[str, Meta(title="SubscriptionId", description="Of the subscription.", max_length=64)]


class Limits(msgspec.Struct, frozen=True):
    """Of a connection: its subscriptions, globs in a list, bytes of a message, and what intervals are multiples of."""

    subscriptions: int
    globs: int
    max_message_bytes: int
    grid_ms: int


class Hello(msgspec.Struct, tag="hello", tag_field="type", frozen=True):
    """The first message.  ``auth``: ``required`` where the dashboard has to say who it is within five seconds."""

    epoch: str
    offset: Offset
    heartbeat_s: float
    auth: Literal["ok", "required"]
    time: Milliseconds
    limits: Limits


class DeviceState(msgspec.Struct, frozen=True):
    """``confirmed`` is false from the gateway's restart until the device is seen or a grace time ends."""

    state: State
    since: Milliseconds
    last_seen: Milliseconds
    reason: str = ""
    confirmed: bool = True


class DeviceView(DeviceState, frozen=True, kw_only=True):
    """A device's state, and the newest value of each metric."""

    values: dict[MetricName, Point]


class Snapshot(msgspec.Struct, tag="snapshot", tag_field="type", frozen=True):
    """How things stand; updates follow it.  ``recovered``: a resume missed nothing.  ``more``: others follow it."""

    id: Id
    offset: Offset
    recovered: bool
    devices: dict[DeviceName, DeviceView]
    more: bool = False


class History(msgspec.Struct, tag="history", tag_field="type", frozen=True):
    """A piece of the past; ``last`` ends it, and says whether it joins what follows without a hole (``complete``)."""

    id: Id
    data: Series
    last: bool
    complete: bool = True


class Update(msgspec.Struct, tag="update", tag_field="type", frozen=True):
    """What came since; ``skipped`` counts the values that were passed over for newer ones."""

    id: Id
    offset: Offset
    data: Series
    skipped: Count = 0


class PresenceChange(msgspec.Struct, tag="presence", tag_field="type", frozen=True):
    """Devices whose state changed."""

    id: Id
    devices: dict[DeviceName, DeviceState]


class ModeChange(msgspec.Struct, tag="mode", tag_field="type", frozen=True):
    """The subscription goes on in another mode, since the dashboard does not keep up."""

    id: Id
    mode: Literal["latest"]
    reason: str


class LiveHeartbeat(msgspec.Struct, tag="heartbeat", tag_field="type", frozen=True):
    """The gateway is there: a page cannot see pings."""

    time: Milliseconds


class LiveError(msgspec.Struct, tag="error", tag_field="type", frozen=True):
    """A request was refused; ``id`` or ``ref`` say which, where that can be told."""

    code: Annotated[str, Meta(examples=["bad_request", "forbidden", "too_many_subscriptions", "history_failed"])]
    detail: Annotated[str, Meta(max_length=512)]
    id: str | UnsetType = UNSET
    ref: str | UnsetType = UNSET


class CommandState(msgspec.Struct, tag="command_state", tag_field="type", frozen=True):
    """How a command stands; ``done``, ``failed`` and ``expired`` are its end.  ``times`` says how often it went out.

    One that could not be understood has no ``id``.
    """

    device: DeviceName
    state: Literal["queued", "sent", "done", "failed", "expired"]
    id: str | UnsetType = UNSET
    ref: str | UnsetType = UNSET
    value: Any = None
    times: Annotated[int, Meta(ge=2)] | UnsetType = UNSET

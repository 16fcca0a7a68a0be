"""The two WebSocket channels: their messages, by whom they are sent, and what a handshake may hold.  Pure."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from ..codecs import CODECS, SUBPROTOCOLS
from ..hub import MSGPACK
from ..messages import device, live
from ..messages.fields import DeviceName
from ..reading import DEVICE
from ..server import live as feed
from ..server.describing import Described
from ..server.device import ACKS
from ..session import MAX_SESSION
from .kinds import TEXT, Channel, Kind, Operation

__all__ = [
    "CHANNELS",
    "DEVICE_QUERY",
    "FORMATS",
    "FROM_DASHBOARD",
    "OPERATIONS",
    "TO_DASHBOARD",
    "TO_DEVICE",
    "TO_GATEWAY",
    "TYPES",
]


class Describe(Described, tag="describe", tag_field="type", frozen=True):
    """What the device is, or the sub-device that ``device`` names; kept, shown, and used for units and staleness."""

    device: DeviceName | UnsetType | None = UNSET


def ws_binding(query: dict[str, Any] | None, subprotocols: tuple[str, ...]) -> dict[str, Any]:
    """Of a WebSocket channel: what the handshake may hold."""
    protocol = {"type": "string", "enum": list(subprotocols), "description": "One that is known; none: JSON."}
    binding: dict[str, Any] = {"method": "GET"}
    if query:
        binding["query"] = {"type": "object", "properties": query}
    binding["headers"] = {"type": "object", "properties": {"Sec-WebSocket-Protocol": protocol}}
    return {"ws": {**binding, "bindingVersion": "0.1.0"}}


DEVICE_QUERY: dict[str, dict[str, Any]] = {
    "session": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_SESSION,
        "description": "The device's boot: sequence and acks go on where it is the same. None: one of its own.",
    },
    "ack": {
        "type": "string",
        "enum": list(ACKS),
        "default": ACKS[0],
        "description": "When a reading is acked: synced to disk; taken by every sink as well; never.",
    },
    "format": {
        "type": "string",
        "enum": list(SUBPROTOCOLS),
        "description": "The subprotocol, for clients that cannot set one.",
    },
}
CLOSE_CODES = {
    "1001": "the gateway is stopping",
    "1003": "a kind of frame that the subprotocol does not use",
    "1007": "text that is not UTF-8",
    "1008": "policy: the rate, or a token that is not valid any more; do not come back by yourself",
    "1009": "a message that is too large",
    "1011": "too many messages in a row that cannot be decoded",
    "1013": "no room; the reason says retry_after_ms=N",
    "4001": "another connection of the same device took over; do not come back by yourself",
}
FORMATS = {subprotocol: CODECS[subprotocol].about for subprotocol in sorted(SUBPROTOCOLS)}

TO_GATEWAY = {
    "flatReading": Kind("FlatReading"),
    "reading": Kind("Reading"),
    "readings": Kind("Readings"),
    "senmlPack": Kind("SenmlPack", "application/senml+json", more="With the subprotocols of SenML."),
    "lines": Kind("Lines", TEXT, more="With subprotocol gateway.v1.influx."),
    "heartbeat": Kind("DeviceHeartbeat"),
    "describe": Kind("Describe"),
    "result": Kind("Result"),
}
TO_DEVICE = {
    "welcome": Kind("Welcome"),
    "ack": Kind("Ack"),
    "throttled": Kind("Throttled"),
    "error": Kind("DeviceError"),
    "command": Kind("DeviceCommand"),
}
FROM_DASHBOARD = {
    "subscribe": Kind("Subscribe"),
    "unsubscribe": Kind("Unsubscribe"),
    "auth": Kind("Auth"),
    "command": Kind("Command"),
    "alive": Kind("Heartbeat"),
}
TO_DASHBOARD = {
    "hello": Kind("Hello"),
    "snapshot": Kind("Snapshot"),
    "history": Kind("History"),
    "update": Kind("Update"),
    "presence": Kind("PresenceChange"),
    "mode": Kind("ModeChange"),
    "heartbeat": Kind("LiveHeartbeat"),
    "error": Kind("LiveError"),
    "commandState": Kind("CommandState"),
}

CHANNELS = {
    "device": Channel(
        "/v1/devices/{device}",
        "Telemetry in, acks and commands out. Without a subprotocol text is JSON and binary is MessagePack, and "
        "replies are JSON. A second connection of the same device takes the place of the first.",
        {**TO_GATEWAY, **TO_DEVICE},
        {"device": f"The device's name: {DEVICE}."},
        {"bindings": ws_binding(DEVICE_QUERY, SUBPROTOCOLS), "x-close-codes": CLOSE_CODES, "x-subprotocols": FORMATS},
        ("gateway", "gatewayTls"),
    ),
    "live": Channel(
        "/v1/live",
        "The feed for dashboards: what they ask for, and what becomes of it. JSON, or MessagePack by its subprotocol.",
        {**FROM_DASHBOARD, **TO_DASHBOARD},
        {},
        {"bindings": ws_binding(None, ("gateway.v1.json", MSGPACK))},
        ("gateway", "gatewayTls"),
    ),
}

OPERATIONS = {
    "takeReadings": Operation(
        "receive",
        "device",
        "Readings; those with a sequence are acked.",
        ("flatReading", "reading", "readings", "senmlPack", "lines"),
        ("ack", "throttled", "error"),
    ),
    "takeSignsOfLife": Operation("receive", "device", "A device is alive.", ("heartbeat",)),
    "takeDescription": Operation("receive", "device", "What a device is.", ("describe",), ("error",)),
    "greetDevice": Operation("send", "device", "The first message of each connection.", ("welcome",)),
    "answerDevice": Operation("send", "device", "What became of readings.", ("ack", "throttled", "error")),
    "commandDevice": Operation("send", "device", "A command, to be answered.", ("command",), ("result",)),
    "takeResult": Operation("receive", "device", "The answer to a command.", ("result",)),
    "authenticate": Operation("receive", "live", "Who a dashboard is, as its first message.", ("auth",)),
    "subscribe": Operation("receive", "live", "What a dashboard wants to see.", ("subscribe",), ("snapshot", "error")),
    "unsubscribe": Operation("receive", "live", "What it does not want any more.", ("unsubscribe",), ("error",)),
    "commandFromDashboard": Operation(
        "receive", "live", "A command for a device.", ("command",), ("commandState", "error")
    ),
    "takeSignsOfDashboards": Operation("receive", "live", "A dashboard is alive.", ("alive",)),
    "feed": Operation("send", "live", "What a dashboard is told.", tuple(TO_DASHBOARD)),
}

TYPES = [
    device.FlatReading,
    device.Reading,
    device.Readings,
    device.SenmlPack,
    device.Lines,
    device.DeviceHeartbeat,
    Describe,
    device.Result,
    device.Welcome,
    device.Ack,
    device.Throttled,
    device.DeviceError,
    device.DeviceCommand,
    feed.Subscribe,
    feed.Unsubscribe,
    feed.Auth,
    feed.Command,
    feed.Heartbeat,
    live.Hello,
    live.Snapshot,
    live.History,
    live.Update,
    live.PresenceChange,
    live.ModeChange,
    live.LiveHeartbeat,
    live.LiveError,
    live.CommandState,
]

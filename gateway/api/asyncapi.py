"""The AsyncAPI document: the two WebSocket channels, and the topics of MQTT.

https://www.asyncapi.com/docs/reference/specification/v3.0.0.  Operations are the gateway's: it *receives* readings and
*sends* acks.  Schemas are in the words of draft 7, as an AsyncAPI Schema Object has them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codecs import SUBPROTOCOLS
from ..hub import MSGPACK
from ..messages import device, live, mqtt
from ..reading import DEVICE, METRIC
from ..server import live as feed
from ..server.describing import Described
from ..server.device import ACKS
from ..session import MAX_SESSION
from ..sinks.layouts import JSON
from ..topics import TEMPLATE
from .common import DESCRIPTION, INFO, SCHEMES, SECURITY, needed
from .examples import EXAMPLES
from .schemas import Schemas, as_draft_7

__all__ = ["document"]

TEXT, PROTOBUF = "text/plain", "application/protobuf"


class Describe(Described, tag="describe", tag_field="type", frozen=True):
    """What the device is; kept, shown, and used for units and staleness."""


class Kind(NamedTuple):
    """A kind of message: the name of its schema, and how it is sent."""

    schema: str
    content_type: str = JSON
    headers: bool = False
    more: str = ""  # said of it beside its schema's words


class Channel(NamedTuple):
    """An address and its messages by their names."""

    address: str
    description: str
    messages: dict[str, Kind]
    parameters: dict[str, str] = {}
    more: dict[str, Any] = {}
    servers: tuple[str, ...] = ("broker",)


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
FORMATS = {
    "gateway.v1.json": "JSON in text frames, and replies",
    "gateway.v1.msgpack": "the same in MessagePack, in binary frames, and replies",
    "gateway.v1.cbor": "the same in CBOR (RFC 8949), in binary frames, and replies",
    "gateway.v1.senml-json": "packs of RFC 8428 in text frames; replies in JSON",
    "gateway.v1.senml-cbor": "packs of RFC 8428 in binary frames; replies in CBOR",
    "gateway.v1.influx": "line protocol in text frames; replies in JSON",
}

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
TELEMETRY = {
    "flat": Kind("FlatPayload", headers=True, more="Layout `flat`: one message a reading."),
    "batch": Kind("Batch", headers=True, more="Layout `batch`: one message a device and flush."),
    "influx": Kind("InfluxLines", TEXT, headers=True, more="Layout `influx`."),
}
PREFIX = "GATEWAY_MQTT__PREFIX."
ONE_DEVICE = {"prefix": PREFIX, "device": f"A device's name: {DEVICE}."}

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
    "telemetry": Channel(TEMPLATE, "Readings, by GATEWAY_MQTT__LAYOUT.", TELEMETRY, ONE_DEVICE),
    "value": Channel(
        "{prefix}/{device}/metric/{metric}",
        "One value a topic, where GATEWAY_MQTT__TOPIC is this: layout `flat` with the metric in the topic.",
        {"value": Kind("PlainValue", TEXT, headers=True)},
        {**ONE_DEVICE, "metric": f"A metric's name, its slashes written as dots: {METRIC}."},
    ),
    "presence": Channel(
        "{prefix}/{device}/presence",
        "A device's state; empty where it is forgotten.",
        {"presence": Kind("State", TEXT, more="To be read together with the gateway's status.")},
        ONE_DEVICE,
    ),
    "status": Channel(
        "{prefix}/status", "Whether the gateway is there.", {"status": Kind("Status", TEXT)}, {"prefix": PREFIX}
    ),
    "command": Channel(
        "{prefix}/{device}/command", "Commands for a device.", {"command": Kind("CommandRequest")}, ONE_DEVICE
    ),
    "commandState": Channel(
        "{prefix}/{device}/command/state",
        "How commands stand that came by MQTT.",
        {"commandState": Kind("CommandState")},
        ONE_DEVICE,
    ),
    "discovery": Channel(
        "{discoveryPrefix}/device/{id}/config",
        "For Home Assistant, where GATEWAY_HOMEASSISTANT__ENABLED is set; empty where the device is forgotten.",
        {"discovery": Kind("Discovery")},
        {"discoveryPrefix": "GATEWAY_HOMEASSISTANT__PREFIX.", "id": "Of the gateway and the device."},
    ),
    "homeAssistant": Channel(
        "{discoveryPrefix}/status",
        "Home Assistant says that it is there: then it is told of all devices anew.",
        {"status": Kind("Status", TEXT)},
        {"discoveryPrefix": "GATEWAY_HOMEASSISTANT__PREFIX."},
    ),
    "thingsboardTelemetry": Channel(
        "v1/gateway/telemetry",
        "Layout `thingsboard`, the gateway API of ThingsBoard: readings.",
        {"telemetry": Kind("ThingsBoardTelemetry")},
    ),
    "thingsboardConnect": Channel(
        "v1/gateway/connect",
        "Layout `thingsboard`: a device is there.",
        {"connect": Kind("ThingsBoardDevice")},
    ),
    "thingsboardDisconnect": Channel(
        "v1/gateway/disconnect",
        "Layout `thingsboard`: a device is gone.",
        {"disconnect": Kind("ThingsBoardDevice")},
    ),
}

# Sparkplug's verbs: what they say of node or device, and the quality of service that is prescribed.
SPARKPLUG = {
    "NBIRTH": ("The node is there; births of its devices follow.", 0),
    "NDEATH": ("The node is gone: its Will, and said on a stop.", 1),
    "DBIRTH": ("A device is there, with its metrics and their aliases.", 0),
    "DDATA": ("Readings of a device, by alias; `is_historical` where they come late.", 0),
    "DDEATH": ("A device is gone.", 0),
    "NCMD": ("What a host asks of the node: births anew.", 1),
}
ENABLED = "Where GATEWAY_SPARKPLUG__ENABLED is set."
NODE = {"group": "GATEWAY_SPARKPLUG__GROUP.", "node": "GATEWAY_SPARKPLUG__NODE."}


def sparkplug(verb: str) -> Channel:
    """The topic of a verb."""
    of_device = verb.startswith("D")
    address = f"spBv1.0/{{group}}/{verb}/{{node}}" + ("/{device}" if of_device else "")
    parameters = {**NODE, "device": "A device's name."} if of_device else NODE
    return Channel(address, ENABLED, {verb: Kind("SparkplugPayload", PROTOBUF)}, parameters)


CHANNELS |= {f"sparkplug{verb}": sparkplug(verb) for verb in SPARKPLUG}
CHANNELS["sparkplugSTATE"] = Channel(
    "spBv1.0/STATE/{host}",
    "Whether the primary host is there. Where GATEWAY_SPARKPLUG__PRIMARY_HOST is set.",
    {"STATE": Kind("HostState")},
    {"host": "GATEWAY_SPARKPLUG__PRIMARY_HOST."},
)


class Operation(NamedTuple):
    """What the gateway does at a channel, with which messages; ``reply``: with which it answers, or is answered."""

    action: str
    channel: str
    summary: str
    messages: tuple[str, ...] = ()  # none: all of the channel
    reply: tuple[str, ...] = ()
    retain: bool = False
    mqtt: bool = False
    qos: int = 1


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
    "authenticate": Operation("receive", "live", "Who a dashboard is, as its first message.", ("auth",), ("hello",)),
    "subscribe": Operation("receive", "live", "What a dashboard wants to see.", ("subscribe",), ("snapshot", "error")),
    "unsubscribe": Operation("receive", "live", "What it does not want any more.", ("unsubscribe",), ("error",)),
    "commandFromDashboard": Operation(
        "receive", "live", "A command for a device.", ("command",), ("commandState", "error")
    ),
    "takeSignsOfDashboards": Operation("receive", "live", "A dashboard is alive.", ("alive",)),
    "feed": Operation("send", "live", "What a dashboard is told.", tuple(TO_DASHBOARD)),
    "relay": Operation("send", "telemetry", "Readings of a device.", mqtt=True),
    "relayValue": Operation("send", "value", "A value of a device.", mqtt=True),
    "tellPresence": Operation("send", "presence", "A device's state.", retain=True, mqtt=True),
    "tellStatus": Operation("send", "status", "The gateway's own.", retain=True, mqtt=True),
    "commandFromBroker": Operation("receive", "command", "A command for a device.", mqtt=True),
    "tellCommandState": Operation("send", "commandState", "How a command stands.", mqtt=True),
    "tellHomeAssistant": Operation("send", "discovery", "A device, and its entities.", retain=True, mqtt=True),
    "hearHomeAssistant": Operation("receive", "homeAssistant", "Home Assistant has started.", mqtt=True),
    "relayToThingsBoard": Operation("send", "thingsboardTelemetry", "Readings of devices.", mqtt=True),
    "connectInThingsBoard": Operation("send", "thingsboardConnect", "A device is there.", mqtt=True),
    "disconnectInThingsBoard": Operation("send", "thingsboardDisconnect", "A device is gone.", mqtt=True),
}
OPERATIONS |= {
    ("take" if verb == "NCMD" else "tell") + verb: Operation(
        "receive" if verb == "NCMD" else "send", f"sparkplug{verb}", words, mqtt=True, qos=qos
    )
    for verb, (words, qos) in SPARKPLUG.items()
}
OPERATIONS["takeSTATE"] = Operation("receive", "sparkplugSTATE", "Nothing is sent while it is offline.", mqtt=True)

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
    mqtt.FlatPayload,
    mqtt.Batch,
    mqtt.InfluxLines,
    mqtt.PlainValue,
    mqtt.Status,
    mqtt.ThingsBoardTelemetry,
    mqtt.ThingsBoardDevice,
    mqtt.UserProperties,
    mqtt.CommandRequest,
    mqtt.Discovery,
    mqtt.SparkplugPayload,
    mqtt.HostState,
]


def document() -> dict[str, Any]:
    """The document as plain data."""
    schemas = Schemas(TYPES)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": INFO["title"],
            "version": INFO["version"],
            "description": DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": JSON,
        "servers": _servers(),
        "channels": {name: _channel(schemas, channel) for name, channel in CHANNELS.items()},
        "operations": {name: _operation(operation) for name, operation in OPERATIONS.items()},
        "components": {
            "schemas": as_draft_7(schemas.components),
            "securitySchemes": {
                **SCHEMES,
                "certificate": {"type": "X509", **SCHEMES["certificate"]},
                "session": {"type": "httpApiKey", **SCHEMES["session"]},
                "broker": {"type": "userPassword", "description": "GATEWAY_MQTT__USERNAME and GATEWAY_MQTT__PASSWORD."},
            },
        },
    }


def _servers() -> dict[str, Any]:
    will = {"topic": "gateway/status", "qos": 1, "message": "offline", "retain": True}
    binding = {"cleanSession": True, "lastWill": will, "keepAlive": 15, "bindingVersion": "0.2.0"}
    return {
        "gateway": {
            "host": "localhost:8080",
            "protocol": "ws",
            "description": "GATEWAY_LISTEN__HOST and GATEWAY_LISTEN__PORT.",
        },
        "gatewayTls": {
            "host": "localhost:8080",
            "protocol": "wss",
            "description": "The same, where GATEWAY_TLS__CERT is set.",
        },
        "broker": {
            "host": "localhost:1883",
            "protocol": "mqtt",
            "protocolVersion": "5.0",
            "description": "GATEWAY_MQTT__URL; the gateway is its client. Nothing goes there where that is empty.",
            "security": [{"$ref": "#/components/securitySchemes/broker"}],
            "bindings": {"mqtt": binding},
        },
    }


def _channel(schemas: Schemas, channel: Channel) -> dict[str, Any]:
    made: dict[str, Any] = {
        "address": channel.address,
        "description": channel.description,
        "servers": [{"$ref": f"#/servers/{name}"} for name in channel.servers],
    }
    if channel.parameters:
        defaults = {"prefix": {"default": "gateway"}, "discoveryPrefix": {"default": "homeassistant"}}
        made["parameters"] = {
            name: {"description": words, **defaults.get(name, {})} for name, words in channel.parameters.items()
        }
    made["messages"] = {name: _message(schemas, name, kind) for name, kind in channel.messages.items()}
    return made | channel.more


def _message(schemas: Schemas, name: str, kind: Kind) -> dict[str, Any]:
    summary = " ".join(filter(None, (kind.more, schemas.text(kind.schema))))
    made: dict[str, Any] = {"name": name, "summary": summary, "contentType": kind.content_type}
    if kind.headers:
        made["headers"] = schemas.ref("UserProperties")
    made["payload"] = schemas.ref(kind.schema)
    if examples := EXAMPLES[kind.schema]:
        made["examples"] = [{"payload": example} for example in examples]
    return made


def _operation(operation: Operation) -> dict[str, Any]:
    channel = CHANNELS[operation.channel]
    made: dict[str, Any] = {
        "action": operation.action,
        "channel": {"$ref": f"#/channels/{operation.channel}"},
        "summary": operation.summary,
    }
    if operation.mqtt:
        binding: dict[str, Any] = {"qos": operation.qos}
        if operation.action == "send":
            binding["retain"] = operation.retain
        made["bindings"] = {"mqtt": {**binding, "bindingVersion": "0.2.0"}}
    else:
        schemes = SECURITY[needed(channel.address)]
        made["security"] = [{"$ref": f"#/components/securitySchemes/{scheme}"} for scheme in schemes]
    made["messages"] = _references(operation.channel, operation.messages or tuple(channel.messages))
    if operation.reply:
        made["reply"] = {
            "channel": {"$ref": f"#/channels/{operation.channel}"},
            "messages": _references(operation.channel, operation.reply),
        }
    return made


def _references(channel: str, messages: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]

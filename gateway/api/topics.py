"""The topics of MQTT, and their messages: by layout, for Home Assistant, for ThingsBoard, and of Sparkplug.  Pure."""

from __future__ import annotations

from ..messages import mqtt
from ..reading import DEVICE, METRIC
from ..topics import TEMPLATE
from .kinds import TEXT, Channel, Kind, Operation

__all__ = ["CHANNELS", "OPERATIONS", "PROTOBUF", "TYPES"]

PROTOBUF = "application/protobuf"
TELEMETRY = {
    "flat": Kind("FlatPayload", headers=True, more="Layout `flat`: one message a reading."),
    "batch": Kind("Batch", headers=True, more="Layout `batch`: one message a device and flush."),
    "influx": Kind("InfluxLines", TEXT, headers=True, more="Layout `influx`."),
}
PREFIX = "GATEWAY_MQTT__PREFIX."
ONE_DEVICE = {"prefix": PREFIX, "device": f"A device's name: {DEVICE}."}

CHANNELS = {
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

OPERATIONS = {
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

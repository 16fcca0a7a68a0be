"""The AsyncAPI document: the two WebSocket channels, and the topics of MQTT.

https://www.asyncapi.com/docs/reference/specification/v3.0.0.  Operations are the gateway's: it *receives* readings and
*sends* acks.  Schemas are in the words of draft 7, as an AsyncAPI Schema Object has them.
"""

from __future__ import annotations

from typing import Any

from . import sockets, topics
from .common import DESCRIPTION, INFO, SCHEMES, SECURITY, needed
from .examples import EXAMPLES
from .kinds import JSON, Channel, Kind, Operation
from .schemas import Schemas, as_draft_7

__all__ = ["CHANNELS", "OPERATIONS", "document"]

CHANNELS = sockets.CHANNELS | topics.CHANNELS
OPERATIONS = sockets.OPERATIONS | topics.OPERATIONS


def document() -> dict[str, Any]:
    """The document as plain data."""
    schemas = Schemas([*sockets.TYPES, *topics.TYPES])
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

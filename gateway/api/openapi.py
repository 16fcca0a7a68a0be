"""The OpenAPI document: every GET and POST address, the handshakes of the WebSocket channels among them.

https://spec.openapis.org/oas/v3.1.1.  Which answer has which body stands in :data:`PATHS`; what an address needs, and
how it says so, comes from the table of access.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..codecs import SUBPROTOCOLS
from ..messages import answers
from ..server.access import Need
from ..server.pages import AGGREGATES, FORMATS, GLOB_MAX, ROWS_MAX
from .common import DESCRIPTION, INFO, SCHEMES, SECURITY, needed
from .schemas import Schemas
from .sockets import DEVICE_QUERY

__all__ = ["document"]

JSON, YAML, TEXT, CSV, HTML = "application/json", "application/yaml", "text/plain", "text/csv", "text/html"
OPEN_METRICS = "application/openmetrics-text"
SCOPES = {
    Need.DEVICE: ["device:<glob>"],
    Need.LIVE: ["live:read", "live:command"],
    Need.READ: ["live:read"],
    Need.COMMAND: ["live:command"],
    Need.METRICS: ["metrics"],
    Need.LOGIN: ["live:read", "live:command"],
}
TEXT_BODY = {TEXT: {"schema": {"type": "string"}}}
RETRY = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}

# A refusal's body says why, in words.
REFUSALS: dict[str, dict[str, Any]] = {
    "BadRequest": {"description": "A parameter, or the request, is none; which, and why.", "content": TEXT_BODY},
    "Unauthorized": {
        "description": "No token, or one that is not valid, or not any more.",
        "headers": {"WWW-Authenticate": {"description": "RFC 6750, and RFC 7617.", "schema": {"type": "string"}}},
        "content": TEXT_BODY,
    },
    "Forbidden": {"description": "Not with this token, from this page, or under this name.", "content": TEXT_BODY},
    "TooMany": {"description": "Too many attempts, or connections of a token.", "headers": RETRY, "content": TEXT_BODY},
    "Unavailable": {"description": "No room now.", "headers": RETRY, "content": TEXT_BODY},
    "Refused": {"description": "Another refusal (405, 413, 414, 426, 431).", "content": TEXT_BODY},
}
STATUSES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 429: "TooMany", 503: "Unavailable"}

TAGS = {
    "data": "Devices and their values.",
    "health": "For supervisors, people and Prometheus.",
    "access": "Who may come in.",
    "sockets": "Handshakes of WebSocket connections; what goes over them is described in /asyncapi.yaml.",
    "page": "The dashboard, and these descriptions.",
}


class Address(NamedTuple):
    """What an address answers: ``good`` by status, and ``refusals`` beside those that its need brings along."""

    summary: str
    good: dict[int, dict[str, Any]]
    parameters: tuple[str, ...] = ()
    refusals: tuple[int, ...] = ()
    method: str = "get"
    tag: str = "data"


def rows(name: str) -> dict[str, Any]:
    """An array of rows."""
    return {JSON: {"schema": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}}}


def file(content_type: str, description: str) -> dict[int, dict[str, Any]]:
    """A file that can be asked for anew by its tag."""
    tag = {"ETag": {"description": "Of the content.", "schema": {"type": "string"}}}
    return {
        200: {"description": description, "headers": tag, "content": {content_type: {"schema": {"type": "string"}}}},
        304: {"description": "As `If-None-Match` has it.", "headers": tag},
    }


CUT = {"X-Truncated": {"$ref": "#/components/headers/X-Truncated"}}
NOT_WHOLE = {**CUT, "X-Whole-From": {"$ref": "#/components/headers/X-Whole-From"}}
OK = {200: {"description": "All is well: `ok`.", "content": TEXT_BODY}}
UPGRADE = {
    101: {
        "description": "The connection is a WebSocket from now on: see /asyncapi.yaml.",
        "headers": {"Sec-WebSocket-Protocol": {"description": "The one chosen.", "schema": {"type": "string"}}},
    }
}

PATHS: dict[str, Address] = {
    "/v1/devices/{device}": Address(
        "A device's connection, a WebSocket (RFC 6455).",
        UPGRADE,
        ("deviceName", "session", "ack", "deviceFormat", "deviceProtocols"),
        (400, 503),
        tag="sockets",
    ),
    "/v1/live": Address(
        "A dashboard's feed, a WebSocket (RFC 6455). Who shows nothing says who it is in its first message.",
        UPGRADE,
        ("liveProtocols",),
        tag="sockets",
    ),
    "/livez": Address("Whether the loop and the journal's writer turn.", OK, (), (503,), tag="health"),
    "/readyz": Address("Whether the journal can be written and listeners are up.", OK, (), (503,), tag="health"),
    "/healthz": Address(
        "Every part, what is wrong first; problems name devices that one may read alone.",
        {
            200: {
                "description": "How it is.",
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Health"}}},
            }
        },
        tag="health",
    ),
    "/metrics": Address(
        "Metrics for Prometheus, in OpenMetrics where `Accept` names it.",
        {
            200: {
                "description": "The exposition.",
                "content": {TEXT: {"schema": {"type": "string"}}, OPEN_METRICS: {"schema": {"type": "string"}}},
            }
        },
        tag="health",
    ),
    "/api/v1/devices": Address(
        "The devices that one may read.",
        {200: {"description": "One row a device.", "content": rows("DeviceRow")}},
        ("device",),
        (400, 503),
    ),
    "/api/v1/latest": Address(
        "The newest value of each series: of the greatest time, then the last that came.",
        {200: {"description": "Ascending in time.", "headers": CUT, "content": rows("ValueRow")}},
        ("device", "metric"),
        (400, 503),
    ),
    "/api/v1/history": Address(
        "Values of a stretch of time, raw or downsampled.",
        {
            200: {
                "description": "Ascending in time. CSV has the same four columns, with their names in the first line.",
                "headers": NOT_WHOLE,
                "content": {**rows("ValueRow"), CSV: {"schema": {"type": "string"}}},
            }
        },
        ("device", "metric", "from", "to", "step", "agg", "format"),
        (400, 503),
    ),
    "/api/v1/presence": Address(
        "The states that devices were in during a stretch of time, as far as their last changes reach.",
        {200: {"description": "Ascending in time for each device.", "headers": CUT, "content": rows("PresenceRow")}},
        ("device", "from", "to"),
        (400, 503),
    ),
    "/api/v1/pending": Address(
        "Unknown devices that asked to be let in, the last one first; those that one may send commands to.",
        {200: {"description": "One row a device and secret.", "content": rows("KnockRow")}},
        tag="access",
    ),
    "/login": Address(
        "A browser's session for a token. Without a body.",
        {
            204: {
                "description": "The session's cookie is set, where tokens are asked for.",
                "headers": {"Set-Cookie": {"description": "The session.", "schema": {"type": "string"}}},
            }
        },
        (),
        (503,),
        "post",
        "access",
    ),
    "/logout": Address(
        "The end of a browser's session. Without a body.",
        {
            204: {
                "description": "The session's cookie is taken away.",
                "headers": {"Set-Cookie": {"description": "An empty one.", "schema": {"type": "string"}}},
            }
        },
        method="post",
        tag="access",
    ),
    "/": Address(
        "The dashboard; its scripts and styles beside it are no part of this.",
        file(HTML, "The page."),
        tag="page",
    ),
    "/asyncapi.yaml": Address("What goes over WebSocket and MQTT.", file(YAML, "AsyncAPI 3.0."), tag="page"),
    "/openapi.yaml": Address("This document.", file(YAML, "OpenAPI 3.1."), tag="page"),
}


def parameter(name: str, place: str, description: str, **schema: Any) -> dict[str, Any]:
    """A parameter of strings."""
    made: dict[str, Any] = {"name": name, "in": place, "description": description}
    if place == "path":
        made["required"] = True
    examples = schema.pop("examples", None)
    made["schema"] = {"type": "string", **schema}
    if examples:
        made["examples"] = {f"example{number}": {"value": text} for number, text in enumerate(examples, 1)}
    return made


def of_query(name: str) -> dict[str, Any]:
    """One that a device's handshake has in common with the channel."""
    schema = {key: value for key, value in DEVICE_QUERY[name].items() if key != "description"}
    return parameter(name, "query", str(DEVICE_QUERY[name]["description"]), **schema)


GLOB = {"maxLength": GLOB_MAX, "default": "*"}
TIME = "Milliseconds since the epoch, ISO 8601 (UTC where it says nothing else), `now`, or relative such as -1h."
PARAMETERS: dict[str, dict[str, Any]] = {
    "device": parameter("device", "query", "A glob (`*`, `?`) of devices.", **GLOB, examples=["pump-*"]),
    "metric": parameter("metric", "query", "A glob (`*`, `?`) of metrics.", **GLOB, examples=["temperature"]),
    "from": parameter("from", "query", f"{TIME} An hour ago where it is left out.", examples=["-1h", "1764000000000"]),
    "to": parameter("to", "query", f"{TIME} Now where it is left out.", examples=["now", "2025-11-24T16:00:00Z"]),
    "step": parameter("step", "query", "Downsampled to this; raw without it.", examples=["10s", "1m"]),
    "agg": parameter("agg", "query", "What a step has.", enum=list(AGGREGATES), default=AGGREGATES[0]),
    "format": parameter("format", "query", "Of the answer.", enum=list(FORMATS), default=FORMATS[0]),
    "deviceName": parameter("device", "path", "The device's name."),
    "session": of_query("session"),
    "ack": of_query("ack"),
    "deviceFormat": of_query("format"),
    "deviceProtocols": parameter(
        "Sec-WebSocket-Protocol", "header", "One or more, of which one is chosen.", examples=list(SUBPROTOCOLS)
    ),
    "liveProtocols": parameter(
        "Sec-WebSocket-Protocol",
        "header",
        "One or more, of which one is chosen.",
        examples=["gateway.v1.json", "gateway.v1.msgpack"],
    ),
}

TYPES = [answers.DeviceRow, answers.ValueRow, answers.PresenceRow, answers.KnockRow, answers.Health]


def document() -> dict[str, Any]:
    """The document as plain data."""
    schemas = Schemas(TYPES)
    # The path's parameter is a device's name whole.
    device = {**PARAMETERS["deviceName"], "schema": schemas.ref("DeviceName")}
    return {
        "openapi": "3.1.1",
        "info": {**INFO, "summary": "What the gateway answers over HTTP.", "description": DESCRIPTION},
        "servers": [{"url": "/", "description": "The gateway that this document was read from."}],
        "tags": [{"name": name, "description": words} for name, words in TAGS.items()],
        "paths": {path: {address.method: _operation(path, address)} for path, address in PATHS.items()},
        "components": {
            "schemas": schemas.components,
            "parameters": {**PARAMETERS, "deviceName": device},
            "headers": {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
                "X-Truncated": {
                    "description": f"There are more than {ROWS_MAX:,} rows, and the answer is cut.",
                    "schema": {"type": "string", "enum": ["true"]},
                },
                "X-Whole-From": {
                    "description": "Milliseconds: what was asked for of before is not kept as it came any more. With a"
                    " step the rows are of a minute or an hour there; without one there are none of then.",
                    "schema": {"type": "string", "pattern": "^[0-9]+$"},
                },
            },
            "responses": REFUSALS,
            "securitySchemes": {
                **SCHEMES,
                "certificate": {"type": "mutualTLS", **SCHEMES["certificate"]},
                "session": {"type": "apiKey", **SCHEMES["session"]},
            },
        },
    }


def _operation(path: str, address: Address) -> dict[str, Any]:
    need = needed(path)
    refusals = {403, *address.refusals}
    if need not in (Need.NOTHING, Need.LOGOUT):
        refusals |= {401, 429}
    security: list[dict[str, list[str]]] = [{scheme: SCOPES[need]} for scheme in SECURITY[need]]
    if need is Need.LIVE:
        security.append({})  # its first message says
    made: dict[str, Any] = {
        "operationId": _name(path, address.method),
        "summary": address.summary,
        "description": f"Access: {need.value}.",
        "tags": [address.tag],
        "security": security,
    }
    if address.parameters:
        made["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in address.parameters]
    made["responses"] = {
        **{str(status): answer for status, answer in address.good.items()},
        **{str(status): {"$ref": f"#/components/responses/{STATUSES[status]}"} for status in sorted(refusals)},
        "default": {"$ref": "#/components/responses/Refused"},
    }
    return made


def _name(path: str, method: str) -> str:
    """A name for programs: ``getApiV1Devices``."""
    words = path.replace("{", "").replace("}", "").replace(".", "/").split("/")
    return method + ("".join(word.capitalize() for word in words) or "Page")

"""Holds all that goes over connections against the API's description, and notes which messages were seen."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import cbor2
import msgspec
from paho.mqtt.client import MQTTMessage
from websockets.asyncio.client import ClientConnection

from gateway.api.asyncapi import CHANNELS, OPERATIONS
from gateway.api.kinds import JSON, Channel
from gateway.api.sockets import TO_DASHBOARD, TO_DEVICE
from gateway.api.topics import PROTOBUF
from gateway.codecs.senml import LABELS
from gateway.sinks.sparkplug_b_pb2 import Payload
from tests.api.documents import answers, asyncapi_document, messages, openapi_document
from tests.running import TIMEOUT

REFUSED = range(400, 600)
SOMETIMES = ("X-Truncated", "X-Whole-From", "Set-Cookie", "Sec-WebSocket-Protocol")


class Recorder:
    """``faults`` are in words; ``seen`` are messages as ``channel.message`` and answers as (method, path, status)."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.seen: set[str] = set()
        self.answers: set[tuple[str, str, int]] = set()

    def check(self, channel: str, name: str, data: object) -> None:
        """One message of the kind ``name``."""
        self.seen.add(f"{channel}.{name}")
        payload = asyncapi_document()["channels"][channel]["messages"][name]["payload"]
        self.faults += [f"{channel}.{name}: {fault} in {str(data)[:200]}" for fault in messages().faults(payload, data)]

    # -- WebSocket -----------------------------------------------------------------------------------------------

    def told(self, channel: str, data: Any) -> None:
        """What the gateway said."""
        kinds = TO_DEVICE if channel == "device" else TO_DASHBOARD
        self._typed(channel, list(kinds), data)

    def said(self, channel: str, data: Any) -> None:
        """What was said to the gateway, and is understood by it."""
        if isinstance(data, dict) and "type" in data:
            kinds = [*CHANNELS[channel].messages]
            own = TO_DEVICE if channel == "device" else TO_DASHBOARD
            self._typed(channel, [name for name in kinds if name not in own], data)
        elif isinstance(data, str):
            self.check(channel, "lines", data)
        elif isinstance(data, list):
            self.check(channel, "readings", data)
        else:
            self.check(channel, "reading" if "values" in data else "flatReading", data)

    def _typed(self, channel: str, names: list[str], data: Any) -> None:
        for name in names:
            schema = CHANNELS[channel].messages[name].schema
            fields = asyncapi_document()["components"]["schemas"][schema].get("properties", {})
            if fields.get("type") == {"enum": [data["type"]]}:
                self.check(channel, name, data)
                return
        self.faults.append(f"{channel}: {data['type']} is not described")

    # -- MQTT ----------------------------------------------------------------------------------------------------

    def relayed(self, message: MQTTMessage) -> None:
        """A message that a broker has passed on."""
        found = [name for name, one in CHANNELS.items() if "broker" in one.servers and _matches(one, message.topic)]
        if len(found) != 1:
            self.faults.append(f"{message.topic} is described as {found}")
            return
        name, channel = found[0], CHANNELS[found[0]]
        if not message.payload and "empty" in channel.description:
            return
        content_type = getattr(message.properties, "ContentType", "")
        kinds = channel.messages
        if name == "telemetry":
            kinds = {kind: one for kind, one in kinds.items() if kind == _layout(message.payload)}
        ((kind, described),) = kinds.items()
        if content_type and content_type != described.content_type:
            self.faults.append(f"{message.topic}: {content_type}")
        self.check(name, kind, _read(message.payload, described.content_type))
        properties = dict(getattr(message.properties, "UserProperty", []))
        headers = asyncapi_document()["channels"][name]["messages"][kind].get("headers")
        faults = messages().faults(headers, properties) if headers else [*properties]
        self.faults += [f"{message.topic}: {fault} in {properties}" for fault in faults]
        quality = {operation.qos for operation in OPERATIONS.values() if operation.channel == name}
        if message.qos not in quality:
            self.faults.append(f"{message.topic}: QoS {message.qos}")

    def kept(self, message: MQTTMessage) -> None:
        """A message that a broker gives to whoever comes later: is it said that it does?"""
        kept = {operation.channel for operation in OPERATIONS.values() if operation.retain}
        if not any(_matches(CHANNELS[name], message.topic) for name in kept):
            self.faults.append(f"{message.topic} is retained")
        self.relayed(message)

    # -- HTTP ----------------------------------------------------------------------------------------------------

    def answered(self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The answer of an address, given as the document has it; names of headers in lower case."""
        self.answers.add((method, path, status))
        where = f"{method} {path}: {status}"
        described = openapi_document()["paths"][path][method]["responses"]
        answer = described.get(str(status), described["default"])
        if "$ref" in answer:
            answer = openapi_document()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        elif status in REFUSED:
            self.faults.append(f"{where} is no refusal")
        for name in answer.get("headers", {}):
            if name.lower() not in headers and name not in SOMETIMES:
                self.faults.append(f"{where} has no {name}")
        if "x-truncated" in headers and "X-Truncated" not in answer.get("headers", {}):
            self.faults.append(f"{where} may be cut")
        content = answer.get("content")
        if not content:
            self.faults += [f"{where} has a body"] if body else []
            return
        kind = headers.get("content-type", "").partition(";")[0]
        if kind not in content:
            self.faults.append(f"{where} is {kind}")
            return
        data = json.loads(body) if kind == "application/json" else body.decode()
        self.faults += [f"{where}: {fault}" for fault in answers().faults(content[kind]["schema"], data)]


def _read(payload: bytes, content_type: str) -> Any:
    if content_type == PROTOBUF:
        assert Payload.FromString(payload).ListFields()
        return ""
    text = payload.decode()
    return json.loads(text) if content_type == JSON else text


def _layout(payload: bytes) -> str:
    return {b"{": "flat", b"[": "batch"}.get(payload[:1], "influx")


def _matches(channel: Channel, topic: str) -> bool:
    address = channel.address.replace("{prefix}", "gateway").replace("{discoveryPrefix}", "homeassistant")
    pattern = re.sub(r"\\\{[A-Za-z]+\\\}", "[^/]+", re.escape(address))
    return re.fullmatch(pattern, topic) is not None


class Wire:
    """A WebSocket connection, recorded; ``format`` is what is sent and received."""

    def __init__(self, recorder: Recorder, channel: str, ws: ClientConnection, format: str = "json") -> None:
        self.ws = ws
        self._recorder = recorder
        self._channel = channel
        self._format = format

    async def send(self, data: Any) -> None:
        """Something that is understood."""
        if self._format.startswith("senml"):
            self._recorder.check(self._channel, "senmlPack", data)
        else:
            self._recorder.said(self._channel, data)
        await self.ws.send(self._encoded(data))

    def _encoded(self, data: Any) -> str | bytes:
        if self._format == "msgpack":
            return msgspec.msgpack.encode(data)
        if self._format == "cbor":
            return cbor2.dumps(data)
        if self._format == "senml-cbor":
            numbers = {label: number for number, label in LABELS.items()}
            return cbor2.dumps([{numbers[label]: value for label, value in record.items()} for record in data])
        return data if isinstance(data, str) else json.dumps(data)

    async def receive(self, kind: str) -> dict[str, Any]:
        """The next message of a type; all are held against the description."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                data = await self.ws.recv()
                if isinstance(data, str):
                    message = json.loads(data)
                else:
                    message = cbor2.loads(data) if "cbor" in self._format else msgspec.msgpack.decode(data)
                self._recorder.told(self._channel, message)
                assert not self._recorder.faults, self._recorder.faults
                if message["type"] == kind:
                    return message  # type: ignore[no-any-return]

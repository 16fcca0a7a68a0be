"""A hand-written MQTT 5 broker that misbehaves as told, and a subscriber for real ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


class Packet(NamedTuple):
    kind: int  # the packet type in the upper half of the first byte
    flags: int
    body: bytes


class Published(NamedTuple):
    topic: str
    payload: bytes
    mid: int
    qos: int
    retain: bool


def length(number: int) -> bytes:
    out = bytearray()
    while True:
        number, digit = number >> 7, number & 127
        out.append(digit | 128 if number else digit)
        if not number:
            return bytes(out)


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first]) + length(len(body)) + body


def connack(code: int = 0, props: bytes = b"") -> bytes:
    return packet(0x20, bytes([0, code]) + length(len(props)) + props)


def puback(mid: int, code: int | None = None) -> bytes:
    return packet(0x40, mid.to_bytes(2, "big") + (b"" if code is None else bytes([code])))


class FakeBroker:
    """Listens on 127.0.0.1; ``on_connect`` and ``on_publish`` say what is answered, in bytes, None for nothing.

    An answer that ends in ``CUT`` closes the connection after it.
    """

    CUT = b"\xff\xff\xff\xff\xff"

    def __init__(self) -> None:
        self.on_connect: Callable[[], bytes] = connack
        self.on_publish: Callable[[Published], bytes] = lambda published: puback(published.mid)
        self.answers_pings = True
        self.connects: list[Packet] = []
        self.published: list[Published] = []
        self.subscribes: list[Packet] = []
        self.suback: int | None = 1  # the reason code of each SUBACK; None for no answer
        self.disconnects: list[Packet] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"mqtt://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> FakeBroker:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self.server.wait_closed()
        await asyncio.sleep(0)

    def send(self, data: bytes) -> None:
        """Send out of turn, on the newest connection."""
        self._answer(self.writers[-1], data)

    def _answer(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if data.endswith(self.CUT):
            writer.write(data[: -len(self.CUT)])
            writer.close()
        elif data:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                found = await self._read(reader)
                if found.kind == 1:
                    self.connects.append(found)
                    self._answer(writer, self.on_connect())
                elif found.kind == 3:
                    published = parse_publish(found)
                    self.published.append(published)
                    if published.qos or published.mid:
                        self._answer(writer, self.on_publish(published))
                elif found.kind == 8:
                    self.subscribes.append(found)
                    if self.suback is not None:
                        writer.write(packet(0x90, found.body[:2] + bytes([0, self.suback])))
                elif found.kind == 12 and self.answers_pings:
                    writer.write(packet(0xD0))
                elif found.kind == 14:
                    self.disconnects.append(found)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Packet:
        first = (await reader.readexactly(1))[0]
        size = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return Packet(first >> 4, first & 15, await reader.readexactly(size))


def parse_publish(found: Packet) -> Published:
    body, qos = found.body, found.flags >> 1 & 3
    size = int.from_bytes(body[:2], "big")
    topic, at = body[2 : 2 + size].decode(), 2 + size
    mid = 0
    if qos:
        mid, at = int.from_bytes(body[at : at + 2], "big"), at + 2
    size = shift = 0
    while True:
        byte, at = body[at], at + 1
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return Published(topic, body[at + size :], mid, qos, bool(found.flags & 1))


class Subscriber:
    """Collects what a real broker sends, in a thread of paho's own; reconnects by itself."""

    def __init__(self, port: int, topic: str = "#", **credentials: str) -> None:
        self.messages: list[MQTTMessage] = []
        self.subscribed = threading.Event()
        self._client = client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        if credentials:
            client.username_pw_set(credentials["username"], credentials["password"])
        client.reconnect_delay_set(1, 1)

        def on_connect(client: Client, *rest: Any) -> None:
            client.subscribe(topic, 1)

        client.on_connect = on_connect
        client.on_subscribe = lambda *rest: self.subscribed.set()
        client.on_message = lambda client, data, message: self.messages.append(message)
        client.connect("127.0.0.1", port, clean_start=True)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(10)

    def __enter__(self) -> Subscriber:
        self._client.loop_start()
        assert self.subscribed.wait(5)
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in list(self.messages) if message.topic == topic]

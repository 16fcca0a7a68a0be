"""Devices and dashboards that load a gateway and measure it, for a fraction of what they cost it.

One process, one event loop; a frame costs a format, a mask and a system call.  A device numbers its readings from 1
without a gap and follows the contract after a refusal: it goes on from the refused sequence number.  Each reading
carries the monotonic clock at which it was sent, so that whoever sees it in this process knows its age.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from array import array
from typing import Any, cast

import msgspec

from .frames import CLOSE, PING, PONG, TEXT, FrameReader, client_frame, upgrade_request

__all__ = ["Client", "Dashboard", "Device", "Meter", "Pacer"]

READING = b'{"ts":%d,"seq":%d,"values":{%s,"sent":%.6f}}'
SENML = b'{"bt":%.3f},%s,{"n":"sent","v":%.6f}'  # without a sequence: no acks
SAMPLES = 1024
TICK_S = 0.001
# A device whose unsent bytes pass this is skipped until they are gone: the gateway does not keep up.
BACKLOG_BYTES = 16 * 1024


def samples(seed: int = 1) -> list[bytes]:
    """Three plausible metrics, as the inside of a JSON object: random walks with as many digits as sensors give."""
    rng = random.Random(seed)
    temperature, humidity, pressure = 21.0, 45.0, 1013.0
    found = []
    for _ in range(SAMPLES):
        temperature += rng.gauss(0, 0.05)
        humidity += rng.gauss(0, 0.1)
        pressure += rng.gauss(0, 0.02)
        found.append(b'"temperature":%.2f,"humidity":%.2f,"pressure":%.2f' % (temperature, humidity, pressure))
    return found


def _records(values: bytes) -> bytes:
    """The inside of a JSON object as SenML records, without their time."""
    return re.sub(rb'"(\w+)":([^,]+)', rb'{"n":"\1","v":\2}', values)


class Meter:
    """What all devices and dashboards together saw; latencies in seconds, only while ``measuring``."""

    def __init__(self) -> None:
        self.measuring = False
        self.sent = 0
        self.acked = 0
        self.payload_bytes = 0
        self.throttled = 0
        self.errors: dict[str, int] = {}
        self.closed: dict[str, int] = {}
        self.held = 0  # sends put off because the gateway had not taken the earlier ones
        self.updates = 0
        self.skipped = 0
        self.ack_latency = array("d")
        self.live_latency = array("d")


class Client(asyncio.Protocol):
    """The client's end of one WebSocket connection; ``opened`` is done after the handshake."""

    def __init__(self, host: str, target: str, meter: Meter, subprotocol: str = "") -> None:
        self._request = upgrade_request(host, target, subprotocol)
        self._reader = FrameReader()
        self._head = b""
        self._upgraded = False
        self.meter = meter
        self.paused = False
        self.closing = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(BACKLOG_BYTES)
        self.transport.write(self._request)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.paused = True
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError(self._head.decode(errors="replace")[:200]))
        elif not self.closing:
            self._count_close("connection lost")

    def close(self) -> None:
        self.closing = True
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._upgraded:
            self._head += data
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.transport.close()
                return
            self._upgraded = True
            self.upgraded()
            data = rest
        for opcode, payload in self._reader.feed(data):
            if opcode == PING:
                self.transport.write(client_frame(payload, PONG))
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
                self._count_close(f"{code} {payload[2:].decode(errors='replace')}".strip())
                self.closing = True
                self.transport.close()
            else:
                self.message(payload)

    def upgraded(self) -> None:
        """The handshake is done."""

    def message(self, payload: bytes) -> None:
        raise AssertionError("for the subclass")

    def _count_close(self, why: str) -> None:
        self.meter.closed[why] = self.meter.closed.get(why, 0) + 1


class Device(Client):
    """Sends a message whenever :meth:`send` is called, and takes acks; ``opened`` is done after ``welcome``.

    ``readings`` in a message: one as an object, several as an array, a millisecond apart; ``senml``: as a pack, which
    gets no acks.  All of a message were sent at the same time.
    """

    def __init__(
        self,
        host: str,
        name: str,
        meter: Meter,
        values: list[bytes],
        offset: int = 0,
        *,
        readings: int = 1,
        senml: bool = False,
        target: str = "",
    ) -> None:
        target = target or f"/v1/devices/{name}?session=load"
        super().__init__(host, target, meter, "gateway.v1.senml-json" if senml else "")
        self.values = [_records(one) for one in values] if senml else values  # in turn
        self._offset = offset
        self._readings = readings
        self._form = self._pack if senml else self._array if readings > 1 else self._one
        self._sent_at = array("d")  # by sequence number, from 1
        self._held_until = 0.0
        self.next = 1
        self.acked = 0

    def send(self, now: float, wall_ms: int) -> bool:
        """One message; false when it has to wait (refused before, or the gateway does not take any)."""
        if self.paused or now < self._held_until:
            self.meter.held += 1
            return False
        seq, sent_at = self.next, self._sent_at
        payload = self._form(wall_ms, seq, now)
        self.transport.write(client_frame(payload))
        self.next = seq + self._readings
        new = max(0, self.next - 1 - len(sent_at))
        sent_at[seq - 1 : self.next - 1] = array("d", [now]) * self._readings
        self.meter.sent += new
        self.meter.payload_bytes += len(payload) * new // self._readings
        return True

    def _one(self, wall_ms: int, seq: int, now: float) -> bytes:
        return READING % (wall_ms, seq, self.values[(seq + self._offset) % len(self.values)], now)

    def _array(self, wall_ms: int, seq: int, now: float) -> bytes:
        first = wall_ms - self._readings + 1
        return b"[%s]" % b",".join([self._one(first + n, seq + n, now) for n in range(self._readings)])

    def _pack(self, wall_ms: int, seq: int, now: float) -> bytes:
        first, start = wall_ms - self._readings + 1, seq + self._offset
        return b"[%s]" % b",".join(
            [
                SENML % ((first + n) / 1000, self.values[(start + n) % len(self.values)], now)
                for n in range(self._readings)
            ]
        )

    def message(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"ack","seq":'):
            self._ack(int(payload[20:-1]))
            return
        message = msgspec.json.decode(payload, type=dict[str, Any])
        kind = message["type"]
        if kind == "ack":
            self._ack(message["seq"])
        elif kind == "welcome":
            if not self.opened.done():
                self.opened.set_result(None)
        elif kind == "throttled" or (kind == "error" and message["code"] == "overloaded"):
            self.meter.throttled += 1
            self.next = min(self.next, message.get("seq", self.next))
            self._held_until = time.monotonic() + message.get("retry_after_ms", 1000) / 1000
        elif kind == "error":
            self.meter.errors[message["code"]] = self.meter.errors.get(message["code"], 0) + 1

    def _ack(self, seq: int) -> None:
        meter = self.meter
        if meter.measuring:
            now = time.monotonic()
            sent_at = self._sent_at
            for index in range(self.acked, seq):
                meter.ack_latency.append(now - sent_at[index])
        meter.acked += seq - self.acked
        self.acked = seq


class _Live(msgspec.Struct):
    """What a dashboard looks at in a message of the live feed."""

    type: str
    data: dict[str, dict[str, list[Any]]] = {}
    skipped: int = 0


class Dashboard(Client):
    """Subscribes to everything in mode ``latest``; ``opened`` is done after the snapshot."""

    _decode = msgspec.json.Decoder(_Live).decode

    def __init__(self, host: str, meter: Meter, interval_ms: int = 100) -> None:
        super().__init__(host, "/v1/live", meter)
        request = {
            "type": "subscribe",
            "id": "main",
            "devices": ["*"],
            "metrics": ["*"],
            "mode": "latest",
            "interval_ms": interval_ms,
        }
        self._subscribe = client_frame(msgspec.json.encode(request), TEXT)

    def message(self, payload: bytes) -> None:
        message = self._decode(payload)
        if message.type == "update":
            meter = self.meter
            if meter.measuring:
                now = time.monotonic()
                meter.updates += 1
                meter.skipped += message.skipped
                for metrics in message.data.values():
                    for point in metrics.get("sent", ()):
                        meter.live_latency.append(now - point[1])
        elif message.type == "hello":
            self.transport.write(self._subscribe)
        elif message.type == "snapshot" and not self.opened.done():
            self.opened.set_result(None)


class Pacer:
    """Makes ``devices`` send ``rate`` messages a second together, evenly, one device after the other."""

    def __init__(self, devices: list[Device], rate: float) -> None:
        self._devices = devices
        self._rate = rate
        self._at = 0
        self.latest_s = 0.0  # how far behind its plan the generator itself ever was

    async def run(self, seconds: float) -> None:
        """Send for ``seconds``; what a device could not send is not made up for."""
        begin = time.monotonic()
        planned = 0
        devices, count = self._devices, len(self._devices)
        while (now := time.monotonic()) - begin < seconds:
            due = int((now - begin) * self._rate) - planned
            self.latest_s = max(self.latest_s, due / self._rate)
            wall_ms = time.time_ns() // 1_000_000
            for _ in range(due):
                devices[self._at].send(time.monotonic(), wall_ms)
                self._at = (self._at + 1) % count
            planned += due
            await asyncio.sleep(TICK_S)

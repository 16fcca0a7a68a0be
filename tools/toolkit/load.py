"""Devices and dashboards that load a gateway and measure it, for a fraction of what they cost it.

One process, one event loop; a frame costs a format, a mask and a system call.  A device numbers its readings from 1
without a gap and follows the contract after a refusal: it goes on from the refused sequence number.  Each reading
carries the monotonic clock at which it was sent, so that whoever sees it in this process knows its age.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from typing import Any, cast

import msgspec

from .frames import CLOSE, PING, PONG, TEXT, FrameReader, client_frame, upgrade_request

__all__ = ["Client", "Dashboard", "Device", "Meter", "Pacer"]

READING = b'{"ts":%d,"seq":%d,"values":{%s,"sent":%.6f}}'
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

    def __init__(self, host: str, target: str, meter: Meter) -> None:
        self._request = upgrade_request(host, target)
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

    def message(self, payload: bytes) -> None:
        raise AssertionError("for the subclass")

    def _count_close(self, why: str) -> None:
        self.meter.closed[why] = self.meter.closed.get(why, 0) + 1


class Device(Client):
    """Sends a reading whenever :meth:`send` is called, and takes acks; ``opened`` is done after ``welcome``."""

    def __init__(self, host: str, name: str, meter: Meter, values: list[bytes], offset: int = 0) -> None:
        super().__init__(host, f"/v1/devices/{name}?session=load", meter)
        self._values = values
        self._offset = offset
        self._sent_at = array("d")  # by sequence number, from 1
        self._held_until = 0.0
        self.next = 1
        self.acked = 0

    def send(self, now: float, wall_ms: int) -> bool:
        """One reading; false when it has to wait (refused before, or the gateway does not take any)."""
        if self.paused or now < self._held_until:
            self.meter.held += 1
            return False
        seq = self.next
        payload = READING % (wall_ms, seq, self._values[(seq + self._offset) % SAMPLES], now)
        self.transport.write(client_frame(payload))
        self.next = seq + 1
        if seq > len(self._sent_at):
            self._sent_at.append(now)
            self.meter.sent += 1
            self.meter.payload_bytes += len(payload)
        else:
            self._sent_at[seq - 1] = now
        return True

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
            self.next = min(self.next, message["seq"])
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
    """Makes ``devices`` send ``rate`` readings a second together, evenly, one device after the other."""

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

"""Devices that outlive every fault: they number what they send, obey the gateway, and remember what it acked.

A reading is ``{"ts": FIRST_MS + n, "seq": n, "values": {"n": n, "half": n / 2, "mark": "DEVICE-n."}}``: whoever holds a
value, or a time, knows what the others have to be.  One session over all connections.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import msgspec

from .frames import client_frame
from .load import Client, Meter

__all__ = ["FIRST_MS", "HOST", "Device", "Fleet", "wrong_values"]

HOST = "127.0.0.1"
# An hour ago: within what the history keeps.
FIRST_MS = int(time.time() * 1000) - 3_600_000
READING = b'{"ts":%d,"seq":%d,"values":{"n":%d,"half":%s,"mark":"%s-%d."%s}}'
PADS = {f"pad-{n}": "x" * 1000 for n in range(4)}
RECONNECT_S = 0.05
TICK_S = 0.004


def wrong_values(device: str, n: int, values: dict[str, Any], time_ms: int | None = None) -> str:
    """What is wrong with a reading that claims to be the ``n``-th of ``device``, in words; empty if nothing is."""
    expected = {"n": n, "half": n / 2, "mark": f"{device}-{n}.", **PADS}
    for metric, value in values.items():
        if value != expected.get(metric):
            return f"{device} {n}: {metric} is {value!r}"
    if time_ms is not None and time_ms != FIRST_MS + n:
        return f"{device} {n}: its time is {time_ms - FIRST_MS} ms after the first"
    return ""


class _Link(Client):
    """One connection of a device; ``opened`` is done after ``welcome``, ``ended`` when it is over."""

    def __init__(self, device: Device, port: int) -> None:
        super().__init__(f"{HOST}:{port}", f"/v1/devices/{device.name}?session=boot-1", Meter())
        self._device = device
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.set()
        for why in self.meter.closed:
            self._device.closed[why] += 1

    def message(self, payload: bytes) -> None:
        device = self._device
        if payload.startswith(b'{"type":"ack","seq":'):
            device.take_ack(int(payload[20:-1]))
            return
        message = msgspec.json.decode(payload, type=dict[str, Any])
        if message["type"] == "ack":
            device.take_ack(message["seq"])
        elif message["type"] == "welcome":
            device.welcome(message["last_seq"])
            if not self.opened.done():
                self.opened.set_result(None)
        elif message["type"] == "throttled" or message.get("code") == "overloaded":
            device.refused(message.get("seq", 0), message.get("retry_after_ms", 1000) / 1000)
        else:
            device.faults.append(f"{device.name} was told {message}")


class Device:
    """``sent`` and ``acked`` are the highest numbers; ``faults`` what the gateway did that it must not do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = 0
        self.acked = 0
        self.next = 1
        self.refusals = 0
        self.refused_at = 0.0  # monotonic, of the last refusal
        self.acked_at = 0.0
        self.welcomed_at = 0.0
        self.closed: Counter[str] = Counter()
        self.faults: list[str] = []
        self.pad = b""
        self.latencies: list[float] | None = None
        """Where to note how long acks took, in seconds, while anybody wants to know."""
        self._sent_at: dict[int, float] = {}
        self._held_until = 0.0
        self._link: _Link | None = None

    @property
    def online(self) -> bool:
        """Whether it was welcomed on a connection that stands."""
        link = self._link
        return link is not None and link.opened.done() and not link.ended.is_set()

    async def keep_connected(self, port: int) -> None:
        """Connect, and again whenever the connection is over, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            link = self._link = _Link(self, port)
            try:
                await loop.create_connection(lambda link=link: link, HOST, port)  # type: ignore[misc]
                await link.opened
                await link.ended.wait()
            except OSError:
                pass
            finally:
                if not link.ended.is_set() and hasattr(link, "transport"):
                    link.close()
                if link.opened.done() and not link.opened.cancelled():
                    link.opened.exception()
            await asyncio.sleep(RECONNECT_S)

    def send(self, now: float) -> bool:
        """The next reading, if one can be sent now."""
        link = self._link
        if link is None or not self.online or link.paused or now < self._held_until:
            return False
        n, name = self.next, self.name.encode()
        half = b"%d" % (n // 2) if n % 2 == 0 else b"%d.5" % (n // 2)
        link.transport.write(client_frame(READING % (FIRST_MS + n, n, n, half, name, n, self.pad)))
        self.next = n + 1
        self.sent = max(self.sent, n)
        if self.latencies is not None:
            self._sent_at[n] = now
        return True

    # What the gateway says

    def welcome(self, last: int) -> None:
        if last < self.acked:
            self.faults.append(f"{self.name}: acked up to {self.acked}, remembered up to {last}")
        if last > self.sent:
            self.faults.append(f"{self.name}: sent up to {self.sent}, remembered up to {last}")
        self.next = last + 1
        self.welcomed_at = time.monotonic()

    def take_ack(self, seq: int) -> None:
        if seq > self.sent:
            self.faults.append(f"{self.name}: sent up to {self.sent}, acked up to {seq}")
        now = time.monotonic()
        if self._sent_at:
            for n in range(self.acked + 1, seq + 1):
                at = self._sent_at.pop(n, None)
                if at is not None and self.latencies is not None:
                    self.latencies.append(now - at)
        self.acked = max(self.acked, seq)
        self.acked_at = now

    def refused(self, seq: int, wait_s: float) -> None:
        now = time.monotonic()
        self.refusals += 1
        self.refused_at = now
        if seq <= self.acked:
            self.faults.append(f"{self.name}: {seq} was refused after {self.acked} had been acked")
        self.next = min(self.next, seq)
        self._held_until = now + wait_s


class Fleet:
    """Devices on connections of their own, which they keep up; :meth:`send` makes them send evenly."""

    def __init__(self, count: int, prefix: str = "pump") -> None:
        self.devices = [Device(f"{prefix}-{n}") for n in range(count)]
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: asyncio.Task[None] | None = None
        self._at = 0

    def widen(self) -> None:
        """Send long texts with each reading, four kilobytes in all."""
        for device in self.devices:
            device.pad = b"," + msgspec.json.encode(PADS)[1:-1]

    @property
    def sent(self) -> int:
        return sum(device.sent for device in self.devices)

    @property
    def acked(self) -> int:
        return sum(device.acked for device in self.devices)

    @property
    def refusals(self) -> int:
        return sum(device.refusals for device in self.devices)

    @property
    def online(self) -> int:
        return sum(device.online for device in self.devices)

    @property
    def closed(self) -> Counter[str]:
        """How the gateway ended connections, and how often."""
        return sum((device.closed for device in self.devices), Counter())

    def connect(self, port: int) -> None:
        """Keep all devices connected from now on."""
        self._tasks = [asyncio.create_task(device.keep_connected(port)) for device in self.devices]

    async def disconnect(self) -> None:
        """Stop sending, and close all connections for good."""
        await self.quiet()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def send(self, rate: float) -> None:
        """Send ``rate`` readings a second, all devices together, until :meth:`quiet`."""
        self._sending = asyncio.create_task(self._send(rate))

    async def quiet(self) -> None:
        """Send no more."""
        task, self._sending = self._sending, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _send(self, rate: float) -> None:
        devices = self.devices
        begin, done = time.monotonic(), 0
        while True:
            now = time.monotonic()
            due = int((now - begin) * rate) - done
            for _ in range(due):
                devices[self._at].send(now)
                self._at = (self._at + 1) % len(devices)
            done += due
            await asyncio.sleep(TICK_S)

    async def all_online(self, timeout: float = 10.0) -> bool:
        """Wait until every device is welcomed; false when that took longer."""
        return await until(lambda: self.online == len(self.devices), timeout)

    async def all_acked(self, timeout: float = 10.0) -> bool:
        """Wait until all that was sent is acked, what is held back being sent again; false when that took longer."""
        return await until(lambda: all(d.acked >= d.sent or not self._again(d) for d in self.devices), timeout)

    @staticmethod
    def _again(device: Device) -> bool:
        if device.next <= device.sent:
            device.send(time.monotonic())
        return device.acked < device.sent


async def until(condition: Any, timeout: float) -> bool:
    """Wait until ``condition()`` holds; false when that took longer than ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(TICK_S)
    return True

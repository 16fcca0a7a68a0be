"""Devices that keep a ledger of acks, a daemon that is killed under their load, and what is left afterwards.

A reading is ``{"n": seq, "mark": "<device>-<seq>."}`` at a time of its own, so that whoever holds it can be found out.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.servers import Mosquitto
from tools.toolkit.mqtt import Subscriber
from tools.toolkit.servers import Daemon

__all__ = ["Device", "Killing", "launcher"]

# An hour ago: within what the history keeps.
FIRST_TIME_MS = int(time.time() * 1000) - 3_600_000
SETTLE_S = 15.0


def launcher(patch: str) -> list[str]:
    """What to give Python instead of ``-m gateway``, so that ``patch`` runs before the command line."""
    return ["-c", f"import sys\nfrom gateway.cli import main\n{patch}\nsys.exit(main())"]


class Device:
    """Numbers its readings from 1 in one session over all connections; remembers what was acked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = 0
        self.acked = 0
        self.forgotten: list[str] = []
        """Where ``welcome`` named a lower number than had been acked."""

    async def run(self, port: int, every_s: float, until: int | None = None) -> None:
        """Send a reading every ``every_s`` until the connection ends, or until all up to ``until`` is acked."""
        url = f"ws://127.0.0.1:{port}/v1/devices/{self.name}?session=boot-1"
        try:
            async with connect(url, compression=None, proxy=None, ping_interval=None) as connection:
                welcome = json.loads(await connection.recv())
                last = welcome["last_seq"]
                if last < self.acked:
                    self.forgotten.append(f"{self.name}: acked up to {self.acked}, remembered up to {last}")
                sending = asyncio.create_task(self._send(connection, last, every_s, until))
                try:
                    async for message in connection:
                        answer = json.loads(message)
                        assert answer["type"] == "ack", answer
                        self.acked = max(self.acked, answer["seq"])
                        if until is not None and self.acked >= until:
                            return
                finally:
                    sending.cancel()
        except (ConnectionClosed, OSError):
            return

    async def _send(self, connection: Any, last: int, every_s: float, until: int | None) -> None:
        seq = last
        while until is None or seq < until:
            seq += 1
            values = {"n": seq, "mark": f"{self.name}-{seq}."}
            reading = {"ts": FIRST_TIME_MS + seq, "seq": seq, "values": values}
            await connection.send(json.dumps(reading))
            self.sent = max(self.sent, seq)
            if every_s:
                await asyncio.sleep(every_s)


class Killing:
    """Rounds of load and SIGKILL on one state directory, with one broker and one subscriber all along."""

    def __init__(self, directory: Path, mosquitto: Mosquitto, *, devices: int = 4, patch: str = "", **settings: str):
        self.mosquitto = mosquitto
        self.devices = [Device(f"pump-{n}") for n in range(devices)]
        self.relayed: set[tuple[str, int]] = set()
        self.settled = asyncio.Event()
        given = {
            "GATEWAY_MQTT__URL": mosquitto.url,
            "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
            "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
            **settings,
        }
        self.daemon = Daemon(directory, given, launcher=launcher(patch) if patch else None)
        self._rng = random.Random(7)

    async def __aenter__(self) -> Killing:
        self._subscriber = Subscriber("gateway/+/telemetry", self._relay)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._subscriber, "127.0.0.1", self.mosquitto.port)
        await asyncio.wait_for(self._subscriber.subscribed, 5)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._subscriber.close()
        await asyncio.to_thread(self.daemon.kill)
        await asyncio.sleep(0)

    def _relay(self, topic: bytes, payload: bytes) -> None:
        reading = msgspec.json.decode(payload)
        if "n" in reading:
            self.relayed.add((topic.split(b"/")[1].decode(), reading["n"]))

    async def round(self, seconds: tuple[float, float], *, broker_frozen: bool = False) -> None:
        """Start the daemon, load it, and kill it at a moment between ``seconds`` after its start."""
        await asyncio.to_thread(self.daemon.start)
        if broker_frozen:
            self.mosquitto.freeze()
        running = [asyncio.create_task(device.run(self.daemon.port, 0.003)) for device in self.devices]
        await asyncio.sleep(self._rng.uniform(*seconds))
        os.kill(self.daemon.pid, signal.SIGKILL)
        await asyncio.to_thread(self.daemon.kill)
        await asyncio.gather(*running)
        if broker_frozen:
            self.mosquitto.thaw()

    async def settle(self) -> list[str]:
        """Start the daemon again, let it hand over what it holds, and say what is wrong with what is left."""
        await asyncio.to_thread(self.daemon.start)
        wanted = {(device.name, n) for device in self.devices for n in range(1, device.acked + 1)}
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while True:
            rows = await asyncio.to_thread(self._rows)
            faults = [fault for device in self.devices for fault in device.forgotten]
            faults += [f"{name} {n}: acked and not in history" for name, n in sorted(wanted - set(rows))]
            faults += [f"{name} {n}: {rows[name, n]} times in history" for name, n in rows if rows[name, n] > 1]
            faults += [f"{name} {n}: acked and missing on MQTT" for name, n in sorted(wanted - self.relayed)]
            # What is behind comes; what stands twice, or was lost while it was not ours any more, does not go away.
            if not faults or asyncio.get_running_loop().time() > deadline or await self._is_caught_up():
                return faults
            await asyncio.sleep(0.1)

    async def _is_caught_up(self) -> bool:
        """Whether the broker has confirmed all that the journal holds (the history says so only now and then)."""
        _, body = await asyncio.to_thread(self.daemon.get, "/metrics")
        pending = [line for line in body.decode().splitlines() if line.startswith('gateway_sink_pending{sink="mqtt"}')]
        assert pending, body.decode()
        caught_up = all(float(line.split()[-1]) == 0 for line in pending)
        if caught_up:
            await asyncio.sleep(0.5)  # what the broker was given is on its way to the subscriber
        return caught_up

    def _rows(self) -> Counter[tuple[str, int]]:
        found: Counter[tuple[str, int]] = Counter()
        for device in self.devices:
            status, body = self.daemon.get(f"/api/v1/history?device={device.name}&metric=n&from=0")
            assert status == 200, body
            found.update((device.name, row["value"]) for row in msgspec.json.decode(body))
        return found

"""Many devices at once, each over a connection of its own, cheap enough for a thousand of them in a test."""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType

from tools.toolkit.servers import HOST, Daemon

__all__ = ["Crowd"]

UNIT = {"unit": "Cel"}
START_S = 30.0


def frame(body: object) -> bytes:
    """A text message of a client; its mask is zero, which leaves the payload as it is."""
    payload = json.dumps(body).encode()
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


def upgrade(daemon: Daemon, name: str) -> bytes:
    return (
        f"GET /v1/devices/{name} HTTP/1.1\r\nHost: {HOST}:{daemon.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


class Crowd:
    """Devices that stay connected, are described and report every ``every_s`` seconds; what they are told is dropped.

    ``leaving`` of them go away again after their first reading.
    """

    def __init__(self, daemon: Daemon, names: list[str], *, leaving: int = 0, every_s: float = 5.0) -> None:
        self._daemon = daemon
        self._names = names
        self._leaving = leaving
        self._every_s = every_s
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Crowd:
        self._thread.start()
        assert self._begun.wait(START_S), "the crowd has not gathered"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(10)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        links: list[asyncio.Transport] = []
        for number, name in enumerate(self._names):
            link, _ = await loop.create_connection(asyncio.Protocol, HOST, self._daemon.port)
            words = {"type": "describe", "name": f"Room {number + 1}", "metrics": {"temperature": UNIT}}
            link.write(upgrade(self._daemon, name) + frame(words) + frame(self._reading(number, 0)))
            links.append(link)
        await asyncio.sleep(0.5)
        for link in links[: self._leaving]:
            link.close()
        self._begun.set()
        step, share = 0, 20
        while not self._ended.is_set():
            step += 1
            for number in range(step % share, len(links), share):
                if not links[number].is_closing():
                    links[number].write(frame(self._reading(number, step)))
            await asyncio.sleep(self._every_s / share)
        for link in links:
            link.abort()

    @staticmethod
    def _reading(number: int, step: int) -> dict[str, object]:
        return {"temperature": 15 + (number * 7 + step) % 100 / 10, "open": number % 3 == 0}

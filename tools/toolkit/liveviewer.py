"""Dashboards that measure the live feed: what comes is timed as it arrives, and looked into only once a frame.

Dashboards of the same subscription are sent the same bytes, so that a frame is decoded when the first of them gets it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from array import array
from typing import Any

import msgspec

from .frames import TEXT, client_frame
from .load import Client, Meter
from .servers import HOST

__all__ = ["Gallery", "Viewer", "percentiles"]

MEMORY = 64  # frames remembered, decoded
SCALE = 10_000  # parts of a second that latencies are counted in
READING_AGAIN = 1 << 20


class _Message(msgspec.Struct):
    type: str
    data: dict[str, dict[str, list[list[Any]]]] = {}
    skipped: int = 0
    more: bool = False


class Frame:
    """An update, decoded: when its readings were sent, by device."""

    __slots__ = ("sent",)

    def __init__(self, message: _Message) -> None:
        self.sent = {
            device: array("d", [point[1] for point in metrics.get("sent", ())])
            for device, metrics in message.data.items()
        }


class Gallery:
    """What all dashboards together saw; ``arrivals`` has (when, of what) while ``measuring``."""

    def __init__(self) -> None:
        self.measuring = False
        self.arrivals: dict[str, list[tuple[float, Frame]]] = {}
        self.updates = 0
        self.bytes = 0
        self._known: dict[bytes, _Message | Frame] = {}

    def look(self, payload: bytes) -> _Message | Frame:
        """The message in a frame; an update's content only."""
        found = self._known.get(payload)
        if found is None:
            message = msgspec.json.decode(payload, type=_Message)
            found = Frame(message) if message.type == "update" else message
            self._known[payload] = found
            if len(self._known) > MEMORY:
                del self._known[next(iter(self._known))]
        return found


class Viewer(Client):
    """One dashboard: everything of all devices; ``opened`` is done after the snapshot.  With ``history_s`` there is a
    second subscription, in ``latest``, with so much history.

    ``moved`` is when it was told that it is in ``latest`` from now on, ``newest`` the newest reading of each device
    that it has seen (when that was sent), ``readings`` and ``bytes`` how much it has seen in all.
    """

    def __init__(
        self, port: int, gallery: Gallery, mode: str, interval_ms: int, label: str = "", history_s: float = 0
    ) -> None:
        super().__init__(f"{HOST}:{port}", "/v1/live", Meter())
        self._gallery = gallery
        self._label = label or mode
        requests: list[dict[str, Any]] = [{"id": "main", "mode": mode, "interval_ms": interval_ms}]
        if history_s:
            requests.append({"id": "past", "history_s": history_s})
        frames = [client_frame(msgspec.json.encode({"type": "subscribe", **one}), TEXT) for one in requests]
        self._subscribe = b"".join(frames)
        self._port = port
        self.moved = 0.0
        self.readings = 0
        self.bytes = 0
        self.newest: dict[str, float] = {}
        self.own_port = 0
        self._then_stop = False

    async def open(self, receive_buffer: int = 0, *, then_stop: bool = False) -> None:
        """Connect and subscribe; ``receive_buffer`` bounds what the kernel takes for it (SO_RCVBUF); ``then_stop``:
        read nothing behind the snapshot."""
        self._then_stop = then_stop
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (HOST, self._port))
        self._socket = sock
        self.own_port = sock.getsockname()[1]
        await loop.create_connection(lambda: self, sock=sock)
        await asyncio.wait_for(self.opened, 20)

    def read_again(self) -> None:
        """Read what there is, with room for it."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READING_AGAIN)
        self.transport.resume_reading()

    def message(self, payload: bytes) -> None:
        gallery = self._gallery
        found = gallery.look(payload)
        if isinstance(found, Frame):
            now = time.monotonic()
            if gallery.measuring:
                gallery.arrivals.setdefault(self._label, []).append((now, found))
            gallery.updates += 1
            gallery.bytes += len(payload)
            self.bytes += len(payload)
            for device, sent in found.sent.items():
                if sent:
                    self.newest[device] = sent[-1]
                    self.readings += len(sent)
        elif found.type == "mode":
            self.moved = time.monotonic()
        elif found.type == "hello":
            self.transport.write(self._subscribe)
        elif found.type == "snapshot" and not found.more and not self.opened.done():
            self.opened.set_result(None)
            if self._then_stop:
                self.transport.pause_reading()
        elif found.type == "error":
            raise ValueError(payload.decode())


def percentiles(arrivals: list[tuple[float, Frame]], parts: tuple[float, ...] = (0.5, 0.99)) -> list[float]:
    """Latencies from device to dashboard in milliseconds, over all readings that arrived; zeros where none did."""
    counts: dict[int, int] = {}
    for now, frame in arrivals:
        for sent in frame.sent.values():
            for one in sent:
                key = int((now - one) * SCALE)
                counts[key] = counts.get(key, 0) + 1
    total = sum(counts.values())
    found = []
    for part in parts:
        left, answer = total * part, 0
        for key in sorted(counts):
            answer = key
            left -= counts[key]
            if left <= 0:
                break
        found.append(round(answer / SCALE * 1000, 1))
    return found

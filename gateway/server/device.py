"""The device endpoint, ``/v1/devices/{device}``: section 3 of the contract.

Who may connect, what all connections share, and who has been silent for too long; what a device says is its
:class:`~gateway.server.connection.Connection`'s.  Everything runs in the WebSocket layer's inline callbacks: no task a
message, none a connection.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import msgspec

from .. import liveness
from ..clock import CLOCK_OFF_MS
from ..codecs import CODECS, SUBPROTOCOLS, Naming, codecs_by
from ..delivery import Delivery
from ..devices import Device, DeviceBook
from ..errors import Overloaded
from ..liveness import LEARNED_LEAST_S, Lookout, Losses
from ..pipeline import Pipeline
from ..reading import is_device
from ..session import MAX_SESSION
from ..ws import Connection as WebSocket
from ..ws import Message, Request, Response, Router, message_handler
from .access import Access
from .complaints import Complaints
from .connection import Connection
from .describing import metrics_described
from .downlink import Downlink
from .refusals import Refusals
from .subdevices import SubLink

__all__ = ["DeviceEndpoint"]

REPLACEMENT_DELAY_S = 3.0  # for a newcomer where two connections keep replacing each other
SLICE = 2_000  # devices looked at in one step of the loop
LATE_S = 3.0  # between two rounds of ``watch``: then the gateway itself was away
CLOCK_ROUNDS = 30  # of ``watch``, between two looks at the clocks
ACKS = ("durable", "delivered", "none")


class Settings(msgspec.Struct, frozen=True):
    """What the endpoint is told; rates in readings a second."""

    rate: float = 100.0
    burst: float = 200.0
    policy: str = "drop"
    max_message_bytes: int = 65_536
    max_metrics: int = 1_000
    max_series: int = 200_000
    heartbeat_s: float = 20.0
    drops_oldest: bool = False  # the journal may drop what a sink still lacks: then nothing can be promised of sinks
    naming: Naming = Naming()


class DeviceEndpoint:
    """All device connections.  ``stopping`` is set before the listeners close: a stop makes nobody offline."""

    def __init__(
        self,
        book: DeviceBook,
        pipeline: Pipeline,
        delivery: Delivery,
        settings: Settings,
        *,
        access: Access | None = None,
        downlink: Downlink | None = None,
        now: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.book = book
        self.pipeline = pipeline
        self.delivery = delivery
        self._access = access
        self.downlink = downlink
        self.results: set[asyncio.Task[None]] = set()  # answers to commands that are not on disk yet
        self.configure(settings)
        self.codecs = codecs_by(settings.naming)
        self.now = now
        self.monotonic = monotonic
        self.stopping = False
        self.connected = 0  # devices that have a connection
        self.heard_by: dict[Device, list[SubLink]] = {}  # sub-devices that several concentrators hear; the newest last
        self.losses = Losses()
        self._rounds = 0
        self.lookout: Lookout[Device] = Lookout()  # for silence
        self._watched = monotonic()
        self._clocks_off: list[tuple[str, int]] = []
        self.messages = 0
        self.notices_dropped = 0
        self.series = sum(len(device.metrics) for device in book)
        self.described = sum(metrics_described(device.described) for device in book)
        self.refusals: dict[str, int] = {}
        self.refused = Refusals()
        self.complaints = Complaints(monotonic)

    def configure(self, settings: Settings) -> None:
        """Other settings from now on; ``max_message_bytes`` and ``naming`` are those of the start all the same."""
        self.settings = settings
        self.delay = settings.policy == "delay"

    def forget(self, device: Device) -> None:
        """A device is no longer in the book: what it took of the bounds is there for others."""
        self.lookout.discard(device)
        self.series -= len(device.metrics)
        self.described -= metrics_described(device.described)

    def register(self, router: Router) -> None:
        """Add the address to a router."""
        router.middleware(self._admit, paths="/v1/devices/*")
        router.websocket(
            "/v1/devices/{device}",
            message_handler(self._message, inline=True, opened=self._opened, closed=self._closed),
            subprotocols=SUBPROTOCOLS,
            max_message_bytes=self.settings.max_message_bytes,
        )

    async def watch(self) -> None:
        """To be called once a second: who has been silent for too long is stale.  In slices, for the loop's sake."""
        now = self.monotonic()
        late, self._watched = now - self._watched > LATE_S, now
        for number, device in enumerate(list(self.book) if late else self.lookout.due(now), 1):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            link, rhythm = device.link, device.rhythm
            if link is None or device.status is None:
                continue
            if link.paused:
                self.lookout.soon(device)
                continue
            if late:  # we stood still: what waits in the sockets was not read yet
                rhythm.begin(now)
            if quiet := rhythm.silence(now):
                status = liveness.silent(device.status, quiet, rhythm.usual, self.now())
                if status is not None:
                    self.pipeline.presence(device, status)
            else:
                # One of whom nothing is known may speak, and be silent for too long that time later at the earliest.
                when = rhythm.silent_from
                self.lookout.at(device, when if when < math.inf else now + LEARNED_LEAST_S)
        if self._rounds % CLOCK_ROUNDS == 0:
            await self._look_at_clocks()
        self._rounds += 1
        self.complaints.settle()
        self.pipeline.settle()

    async def _look_at_clocks(self) -> None:
        off: list[tuple[str, int]] = []
        for number, device in enumerate(list(self.book), 1):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            if (skew := device.clock.skew_ms) is not None and abs(skew) > CLOCK_OFF_MS:
                off.append((device.name, skew))
        self._clocks_off = off

    def problems(self, may_read: Callable[[str], bool] = lambda _: True) -> list[tuple[str, str]]:
        """What is wrong with devices as a whole, and what to do about it, in words.

        ``may_read`` says which devices may be named.
        """
        found = []
        storm = self.losses.words(self.monotonic())
        if storm:
            found.append((storm, "Their network or an access point may have failed: nothing acked is lost by it."))
        off = [(name, skew) for name, skew in self._clocks_off if may_read(name)]
        if off:
            some = ", ".join(
                f"{name} ({liveness.span(abs(skew) / 1000)} {'ahead' if skew > 0 else 'behind'})"
                for name, skew in off[:3]
            )
            more = f" and {len(off) - 3:,} more" if len(off) > 3 else ""
            found.append(
                (
                    f"The times of {some}{more} are off",
                    "Set those clocks, let them send no ts, or see GATEWAY_CLOCK__OLD and GATEWAY_CLOCK__FUTURE.",
                )
            )
        return found

    async def _admit(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Check the name and the query before the upgrade."""
        name = request.path_params.get("device")
        if not isinstance(name, str):
            return await call_next(request)  # not an address of ours: 404
        if not is_device(name):
            return request.refuse(400, "a device's name is [A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", reason="device_name")
        session = request.query.get("session")
        if session is not None and (not 0 < len(session) <= MAX_SESSION or not session.isprintable() or " " in session):
            return request.refuse(400, f"session: 1 to {MAX_SESSION} visible characters", reason="device_query")
        level = request.query.get("ack", "durable")
        if level not in ACKS:
            return request.refuse(400, f"ack: one of {', '.join(ACKS)}", reason="device_query")
        if level == "delivered" and self.settings.drops_oldest:
            text = "ack=delivered cannot be kept where GATEWAY_JOURNAL__ON_FULL is drop_oldest"
            return request.refuse(400, text, reason="device_query")
        if request.query.get("format", SUBPROTOCOLS[0]) not in CODECS:
            return request.refuse(400, f"format: one of {', '.join(SUBPROTOCOLS)}", reason="device_query")
        try:
            self.book.check_room(name)
        except Overloaded as overloaded:
            headers = {"Retry-After": str(overloaded.retry_after_ms // 1000)}
            return request.refuse(503, f"{overloaded}", headers, reason="devices")
        device = self.book.get(name)
        link = device.link if device is not None else None
        if device is not None and link is not None and not link.via and not device.replacements.allow():
            request.state["contested"] = True
            await asyncio.sleep(REPLACEMENT_DELAY_S)
        return await call_next(request)

    def _opened(self, ws: WebSocket, device: str) -> None:
        try:
            known = self.book.open(device)
        except Overloaded as overloaded:  # others were quicker since the handshake was let through
            ws.close_soon(overloaded.close_code, f"retry_after_ms={overloaded.retry_after_ms}")
        else:
            connection = ws.state["connection"] = Connection(self, ws, known)
            if self._access is not None:
                self._access.enter(ws.state["grant"], device, connection.end, ws)

    def _message(self, ws: WebSocket, message: Message, device: str) -> None:
        self.messages += 1
        ws.state["connection"].message(message)

    def _closed(self, ws: WebSocket) -> None:
        connection = ws.state.get("connection")
        if connection is not None:
            connection.closed()

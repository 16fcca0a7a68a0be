"""A device's connection to the gateway, for asyncio programs.

::

    async with DeviceClient("ws://127.0.0.1:8080", "pump-1") as device:
        await device.send({"temperature": 22.5})

A reading handed to :meth:`DeviceClient.send` is kept until the gateway has acknowledged it; what the network
or the gateway does in between (cuts, restarts, throttling, full disks) is this module's business.  All
decisions about the sequence are made in :mod:`gateway.client.outbox`, those about connections in
:mod:`gateway.client.uplink`.

A reading is written from within ``send``, without a task switch.  Readings that could not be written at once
follow as arrays.  Everything runs on one event loop; for threads there is :mod:`gateway.client.sync`.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import random
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Self

import msgspec

from ..reading import is_device
from .backoff import Backoff
from .checks import Checks, Time, wire_time
from .commands import Commands, Handler
from .errors import Undelivered
from .histogram import Histogram
from .link import Ending, Link, write
from .outbox import Level, Outbox
from .uplink import State, Uplink
from .wire import Format, Incoming, Wire, decode, device_address

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from ..reading import Value

__all__ = ["DeviceClient", "Refused", "Stats"]

DEFAULT_RETRY_S = 1.0  # where the gateway asks for patience without saying how much
REFUSALS_KEPT = 100

logger = logging.getLogger(__name__)


class Refused(msgspec.Struct, frozen=True):
    """An ``error`` of the gateway: ``seq`` is 0 where it named none."""

    seq: int
    code: str
    detail: str
    index: int | None = None


class Stats(msgspec.Struct, frozen=True):
    """Counts since the client was made; readings, but for notices and connections."""

    taken: int  # handed to send()
    sent: int  # written, each once
    resent: int  # written again
    acked: int
    refused: int  # named in an error, or too big for the gateway: final
    throttled: int  # notices
    overloaded: int  # notices
    reconnects: int  # connections after the first
    unacked: int  # taken and not decided
    queued: int  # of these: not on the wire
    latency: Histogram  # from send() to the ack; the living one


class DeviceClient:
    """One device's session.

    ``url``: the gateway (``ws://``, ``wss://``, also ``http(s)://``).  ``session``: the name of this boot, 8
    random hex characters unless given; numbers start at 1 with each client, so a name is used once.  ``ack``:
    when a reading counts as safe, ``durable`` (on the gateway's disk), ``delivered`` (with every sink) or
    ``none`` (no acks: what was written is forgotten).  ``max_unacked`` bounds what is kept; at the bound
    ``send`` waits.  ``paced``: keep to the gateway's rate instead of being throttled.  ``check``: look at
    names and values before sending.

    ``on_command(command)`` answers commands, see :class:`gateway.client.commands.Commands`;
    ``on_refused(refused)`` and ``on_state(state, reason)`` are plain callbacks, called from the event loop.
    ``drain_timeout``: how long leaving the ``async with`` waits for acks; it raises :class:`Undelivered` when
    that did not suffice.  ``backoff``: first and greatest ceiling of the wait between attempts, seconds.
    ``connecting`` bounds simultaneous attempts of many clients, ``latency`` may be shared by them.
    ``clock``: monotonic seconds; ``wall``: nanoseconds since the epoch.

    Raises ``ValueError`` for an address, name or option that cannot work.
    """

    def __init__(
        self,
        url: str,
        device: str,
        *,
        session: str | None = None,
        ack: Level = "durable",
        format: Format = "json",
        token: str | None = None,
        max_unacked: int = 10_000,
        paced: bool = True,
        check: bool = True,
        on_command: Handler | None = None,
        on_refused: Callable[[Refused], object] | None = None,
        on_state: Callable[[State, str], object] | None = None,
        drain_timeout: float = 5.0,
        open_timeout: float = 10.0,
        backoff: tuple[float, float] = (0.5, 30.0),
        ssl: ssl_module.SSLContext | None = None,
        connecting: asyncio.Semaphore | None = None,
        latency: Histogram | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
        rng: random.Random | None = None,
    ) -> None:
        if not is_device(device):
            raise ValueError(f"{device!r}: not a device's name")
        if ack not in ("durable", "delivered", "none"):
            raise ValueError(f"ack: {ack!r} is neither durable, delivered nor none")
        self.device = device
        self.session = secrets.token_hex(4) if session is None else session
        self.refusals: deque[Refused] = deque(maxlen=REFUSALS_KEPT)  # the newest
        self._url = url
        self._ack: Level = ack
        self._numbered = ack != "none"
        self._wire = Wire(format)
        self._outbox = Outbox(self._wire.empty, max_unacked=max_unacked, level=ack, paced=paced, latency=latency)
        self._uplink = Uplink(
            device_address(url, device, self.session, ack),
            name=f"device {device}",
            subprotocol=self._wire.subprotocol,
            token=token,
            greet=self._greet,
            receive=self._receive,
            lost=self._lost,
            on_state=on_state,
            open_timeout=open_timeout,
            backoff=Backoff(*backoff, random.Random() if rng is None else rng),
            ssl=ssl,
            connecting=connecting,
        )
        self._checks = Checks() if check else None
        self._commands = Commands(on_command, self._say)
        self._on_refused = on_refused
        self._drain_timeout = drain_timeout
        self._clock = clock
        self._wall = wall
        self._stamp = 0  # microseconds: the last time given to a reading
        self._link: Link | None = None  # after its welcome only
        self._timer: asyncio.TimerHandle | None = None
        self._room: deque[asyncio.Future[None]] = deque()  # callers that wait in send(), in order
        self._description: bytes | None = None
        self._described = -1  # the description was written after this number; below 0: to be written

    # Life

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        uplink = self._uplink
        try:
            if kind is None and uplink.ended is None:
                await self._drained(self._drain_timeout)
        finally:
            undelivered = self._undelivered(self._drain_timeout)
            await self.close()
        if kind is None and len(self._outbox):
            raise Undelivered(len(self._outbox), undelivered)

    def start(self) -> None:
        """Begin to connect; ``async with`` does it.  Does not wait: readings are kept meanwhile."""
        self._uplink.start()

    async def close(self) -> None:
        """Close the connection, within two seconds; what is unacked stays so.  Harmless when closed
        already.
        """
        try:
            await self._uplink.close()
        finally:
            self._commands.cancel()
            self._wake_all()

    async def connected(self, timeout: float | None = None) -> None:
        """Wait for the gateway's welcome.

        Raises ``TimeoutError``, and :class:`ClientClosed` when it will not come.
        """
        await self._uplink.connected(timeout)

    def cut(self) -> None:
        """Drop the connection as a bad radio would; the client comes back by itself."""
        self._uplink.cut()

    @property
    def state(self) -> State:
        """``connecting``, ``online``, ``waiting`` (for the next attempt) or ``closed``."""
        return self._uplink.state

    @property
    def reason(self) -> str:
        """Why it is not online, in words."""
        return self._uplink.reason

    @property
    def was_online(self) -> bool:
        """Whether there was a connection at any time."""
        return self._uplink.connections > 0

    @property
    def final(self) -> bool:
        """Whether the gateway ended this client for good."""
        return self._uplink.ended is not None and self._uplink.ended.fatal

    # Readings

    async def send(
        self,
        values: Mapping[str, Value | None],
        ts: Time | None = None,
        *,
        device: str | None = None,
        wait: bool = True,
    ) -> int:
        """Hand over one reading; its number is returned (0 with ``ack="none"``).

        ``ts``: as on the wire (below 1e11 seconds, then ms, us, ns), or an aware ``datetime``; now, to the
        microsecond and strictly increasing, where missing.  ``device``: a sub-device behind this connection.
        With ``max_unacked`` readings unacked it waits for room, in order of the callers; with ``wait=False``
        it raises :class:`BufferFull`.  Raises ``ValueError`` for what the gateway would refuse, ``TypeError``
        for what are no values by metric, and :class:`ClientClosed`.
        """
        if wait and (self._room or self._outbox.full):
            await self._wait_for_room()
            try:
                return self.send_nowait(values, ts, device=device)
            finally:
                # Where nothing was put in, the place is the next caller's.
                self._freed()
        return self.send_nowait(values, ts, device=device)

    def send_nowait(
        self, values: Mapping[str, Value | None], ts: Time | None = None, *, device: str | None = None
    ) -> int:
        """As ``send(..., wait=False)``, without a coroutine."""
        uplink = self._uplink
        if uplink.ended is not None:
            uplink.raise_if_ended()
        if self._checks is not None:
            self._checks.values(values)
        if ts is None:
            stamp = self._wall() // 1000
            if stamp <= self._stamp:
                stamp = self._stamp + 1
            self._stamp = ts = stamp
        elif self._checks is not None or isinstance(ts, datetime.datetime):
            ts = wire_time(ts)
        if device is not None and not is_device(device):
            raise ValueError(f"{device!r}: not a device's name")
        outbox = self._outbox
        seq = outbox.next_seq if self._numbered else 0
        outbox.put(self._wire.reading(seq, ts, values, device), self._clock())
        # A running timer means that the queue waits for its turn: this reading goes with it.
        if self._link is not None and self._timer is None:
            self._flush()
        return seq

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that was handed over is decided; ``False``, and a warning in the log, when ``timeout``
        seconds did not suffice.

        Raises :class:`ClientClosed` when something is undecided and there will be no further connection.
        """
        if await self._drained(timeout):
            return True
        self._uplink.raise_if_ended()
        logger.warning("%s", self._undelivered(timeout))
        return False

    def _undelivered(self, waited: float | None) -> str:
        count = len(self._outbox)
        readings = "1 reading has" if count == 1 else f"{count:,} readings have"
        after = "" if waited is None or self._uplink.ended is not None else f" after {waited:g} s"
        if self._link is not None:
            why = ", although there is a connection"
        else:
            why = f": {self._url}: {self._uplink.reason or 'no answer'}"
        return f"device {self.device}: {readings} no ack{after}{why}"

    async def _drained(self, timeout: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while len(self._outbox) and self._uplink.ended is None:
                    await self._uplink.change()
        except TimeoutError:
            pass
        return not len(self._outbox)

    @property
    def unacked(self) -> int:
        """Readings handed over and not decided."""
        return len(self._outbox)

    @property
    def full(self) -> bool:
        """Whether ``max_unacked`` is reached."""
        return self._outbox.full

    @property
    def stats(self) -> Stats:
        """The counts at this moment."""
        outbox = self._outbox
        return Stats(
            taken=outbox.taken,
            sent=outbox.sent,
            resent=outbox.resent,
            acked=outbox.acked,
            refused=outbox.refused,
            throttled=outbox.throttled,
            overloaded=outbox.overloaded,
            reconnects=max(0, self._uplink.connections - 1),
            unacked=len(outbox),
            queued=outbox.queued,
            latency=outbox.latency,
        )

    # Everything else a device says

    def describe(
        self,
        *,
        name: str | None = None,
        interval_s: float | None = None,
        metrics: Mapping[str, Mapping[str, object]] | None = None,
        **more: object,
    ) -> None:
        """Say what this device is: ``metrics`` by name, each ``{"unit": .., "class": .., "integer": ..}``.

        Sent now or with the next welcome, and again until a later reading's ack shows that it arrived.
        """
        body: dict[str, object] = {"type": "describe"}
        for key, value in {"name": name, "interval_s": interval_s, "metrics": metrics, **more}.items():
            if value is not None:
                body[key] = value
        self._description = self._wire.encode(body)
        self._described = -1
        self._say_description(self._description)

    def heartbeat(self, *, device: str | None = None) -> None:
        """Say that there is nothing to report, of a sub-device if it is named.

        Nothing happens while there is no connection.
        """
        self._say({"type": "heartbeat"} if device is None else {"type": "heartbeat", "device": device})

    def _say(self, body: dict[str, object]) -> None:
        # Bounded by its callers: one answer a command, heartbeats as the program wants.
        message = self._wire.encode(body)
        if self._link is not None:
            write(self._link, message, text=self._wire.text)

    def _say_description(self, description: bytes) -> None:
        if self._link is not None:
            write(self._link, description, text=self._wire.text)
            self._described = self._outbox.highest

    # What the uplink calls

    async def _greet(self, link: Link) -> Ending | None:
        first = self._decode(await link.recv())
        if first is None or first.type != "welcome":
            return Ending("the first message was no welcome")
        rate = first.rate
        big = self._outbox.welcome(
            first.last_seq,
            self._clock(),
            per_s=rate.per_s if rate is not None else 0.0,
            burst=rate.burst if rate is not None else 0.0,
            max_bytes=first.max_message_bytes,
        )
        if big is None:
            logger.warning("device %s: session %s has numbers of somebody else", self.device, self.session)
            self.session = secrets.token_hex(4)
            self._uplink.address = device_address(self._url, self.device, self.session, self._ack)
            return Ending("the session has numbers of somebody else")
        for seq in big:
            self._refused(Refused(seq, "too_big", f"the gateway takes {first.max_message_bytes} bytes"))
        self._link = link
        link.on_writable = self._flush
        if self._description is not None and (self._described < 0 or not first.resumed):
            self._say_description(self._description)
        self._freed()
        self._flush()
        return None

    def _receive(self, message: str | bytes) -> Ending | None:
        incoming = self._decode(message)
        if incoming is None:
            return None
        kind = incoming.type
        if kind == "ack":
            if self._outbox.ack(incoming.seq, self._clock()):
                self._uplink.backoff.reset()
                self._decided()
        elif kind == "throttled":
            self._held_back(incoming, overloaded=False)
        elif kind == "error":
            if incoming.code == "overloaded":
                self._held_back(incoming, overloaded=True)
            else:
                if incoming.seq:
                    self._outbox.refuse(incoming.seq)
                self._refused(Refused(incoming.seq, incoming.code, incoming.detail, incoming.index))
                self._decided()
        elif kind == "command":
            self._commands.receive(incoming)
        # Other types are a newer gateway's.
        return None

    def _lost(self) -> None:
        self._link = None
        self._outbox.lost()
        # An ack of a reading written after the description shows that it arrived; otherwise it is said again.
        if self._described >= self._outbox.decided:
            self._described = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._uplink.ended is not None:
            self._wake_all()

    def _decode(self, message: str | bytes) -> Incoming | None:
        try:
            incoming: Incoming = decode(message, Incoming)
        except msgspec.DecodeError as error:
            logger.warning("device %s: a message that cannot be read: %s", self.device, error)
            return None
        return incoming

    def _held_back(self, incoming: Incoming, *, overloaded: bool) -> None:
        wait = DEFAULT_RETRY_S if incoming.retry_after_ms is None else incoming.retry_after_ms / 1000
        self._outbox.held_back(incoming.seq, wait, self._clock(), overloaded=overloaded)
        self._flush()

    def _refused(self, refused: Refused) -> None:
        self.refusals.append(refused)
        logger.info("device %s: refused: %s: %s (seq %d)", self.device, refused.code, refused.detail, refused.seq)
        if self._on_refused is not None:
            asyncio.get_running_loop().call_soon(self._on_refused, refused)

    # Writing and waiting

    def _flush(self) -> None:
        """Write what may go, and set the timer for what may go later."""
        link = self._link
        if link is None:
            return
        outbox, wire = self._outbox, self._wire
        while outbox.queued and not link.blocked:
            batch = outbox.take(self._clock())
            if not batch:
                break
            write(link, wire.join(batch), text=wire.text)
        if outbox.queued:
            # A blocked link calls again when it takes more.
            wait = None if link.blocked else outbox.wait(self._clock())
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if wait is not None:
                self._timer = asyncio.get_running_loop().call_later(wait, self._timer_fired)
        if not self._numbered:
            self._freed()

    def _decided(self) -> None:
        """The gateway decided readings: callers that wait may go on, and so may what waited for a probe."""
        self._freed()
        if self._outbox.probing:
            self._flush()

    def _timer_fired(self) -> None:
        self._timer = None
        self._flush()

    def _freed(self) -> None:
        """Readings were decided: let as many callers in as there is room for."""
        room = self._room
        if room:
            free = self._outbox.max_unacked - len(self._outbox)
            while free > 0 and room:
                waiter = room.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    free -= 1
        if not len(self._outbox):
            self._uplink.wake()

    async def _wait_for_room(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._uplink.raise_if_ended()
            waiter: asyncio.Future[None] = loop.create_future()
            self._room.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._room:
                    self._room.remove(waiter)
                else:
                    self._freed()
                raise
            if not self._outbox.full:
                return

    def _wake_all(self) -> None:
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)

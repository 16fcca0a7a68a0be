"""A dashboard's connection to the gateway, for asyncio programs: PROTOCOL section 5.

::

    async with LiveClient("ws://127.0.0.1:8080") as live:
        live.subscribe(devices=["pump-*"], mode="every", history_s=300)
        async for event in live:
            if isinstance(event, Update | History):
                for device, metric, ms, value in event.points():
                    ...

It comes back by itself, and each subscription goes on where it was: the :class:`Snapshot` after a reconnect
says by ``recovered`` whether all that was missed is in it and in what follows.  A program that does not read
its events stops the client from reading, at ``EVENTS`` of them; the gateway then conflates, and tells by
:class:`Mode`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import msgspec

from .backoff import Backoff
from .errors import ClientClosed, ClientError, LimitExceeded
from .events import CommandState, Event, History, LiveError, LiveMessage, Mode, Presence, Snapshot, Update
from .link import Ending, Link, write
from .uplink import State, Uplink
from .wire import Format, Wire, decode, live_address

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

__all__ = ["CommandFailed", "LiveClient"]

EVENTS = 256  # unread; at the bound nothing more is read from the connection
REPLACED = 1_000  # ids whose last wire id is remembered; the oldest is forgotten, whose messages have come long since

logger = logging.getLogger(__name__)


class CommandFailed(ClientError):
    """A command ended as ``state``: ``failed`` or ``expired``, or ``refused`` by the gateway; ``value`` is
    the device's.
    """

    def __init__(self, message: str, state: str, value: object = None) -> None:
        super().__init__(message)
        self.state = state
        self.value = value


class _Subscription:
    __slots__ = ("after", "body", "epoch", "id")

    def __init__(self, id: str, body: dict[str, object]) -> None:
        self.id = id  # the program's; the body has the one on the wire
        self.body = body
        self.epoch = ""
        self.after = -1  # the offset up to which everything was received, in that epoch; below 0: nothing was

    def message(self) -> dict[str, object]:
        if self.after < 0:
            return self.body
        return self.body | {"epoch": self.epoch, "after": self.after}


class LiveClient:
    """One connection to the live feed, with any number of subscriptions.

    ``url``: the gateway (``ws://``, ``wss://``, also ``http(s)://``).  ``format``: MessagePack keeps integers
    beyond 2^53, which JSON has as strings of digits.  ``on_state(state, reason)`` is called from the event
    loop.  Raises ``ValueError`` for an address that cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        format: Format = "msgpack",
        on_state: Callable[[State, str], object] | None = None,
        open_timeout: float = 10.0,
        backoff: tuple[float, float] = (0.5, 30.0),
        ssl: ssl_module.SSLContext | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.epoch = ""  # the stream's identity, from the newest hello
        self._wire = Wire(format)
        self._token = token
        self._limits: dict[str, int] = {}  # what the gateway takes, from the newest hello
        self._subscriptions: dict[str, _Subscription] = {}  # by the program's id
        self._wires: dict[str, _Subscription] = {}  # the same by the id on the wire
        self._replaced: dict[str, int] = {}  # how often an id was given anew; at most REPLACED of them
        self._events: deque[Event] = deque()  # at most EVENTS
        self._link: Link | None = None
        self._commands: dict[str, CommandState | LiveError | None] = {}  # by ref, while a caller waits
        self._uplink = Uplink(
            live_address(url),
            name="live feed",
            subprotocol=self._wire.subprotocol,
            token=token,
            greet=self._greet,
            receive=self._receive,
            lost=self._lost,
            on_state=on_state,
            open_timeout=open_timeout,
            backoff=Backoff(*backoff, random.Random() if rng is None else rng),
            ssl=ssl,
        )

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to connect; ``async with`` does it."""
        self._uplink.start()

    async def close(self) -> None:
        """Close the connection; iteration ends after the events that are there."""
        await self._uplink.close()

    async def connected(self, timeout: float | None = None) -> None:
        """Wait for the gateway's hello; raises ``TimeoutError``, and :class:`ClientClosed` when it will not
        come.
        """
        await self._uplink.connected(timeout)

    @property
    def state(self) -> State:
        """``connecting``, ``online``, ``waiting`` (for the next attempt) or ``closed``."""
        return self._uplink.state

    @property
    def reason(self) -> str:
        """Why it is not online, in words."""
        return self._uplink.reason

    # Subscriptions

    def subscribe(
        self,
        id: str = "main",
        *,
        devices: Sequence[str] = (),
        metrics: Sequence[str] = (),
        mode: Literal["latest", "every"] = "latest",
        interval_ms: int = 100,
        history_s: float = 0,
        epoch: str | None = None,
        after: int | None = None,
    ) -> None:
        """Subscribe, or change the subscription ``id``; ``devices`` and ``metrics`` are globs, none means
        all.

        ``epoch`` and ``after`` resume what another client had received: :meth:`position` of that one.  What comes
        for a subscription that was changed or ended is no event any more, and neither are those of its events that
        were not read yet.

        Raises :class:`LimitExceeded` for more than the gateway takes, as its hello said, and changes nothing then.
        Before the first hello this is not known: then it is told by a :class:`LiveError` with the code
        ``too_big`` or ``too_many_subscriptions``.
        """
        body: dict[str, object] = {
            "type": "subscribe",
            "id": id,
            "devices": list(devices),
            "metrics": list(metrics),
            "mode": mode,
            "interval_ms": interval_ms,
        }
        if history_s:
            body["history_s"] = history_s
        subscription = _Subscription(id, body)
        if epoch is not None and after is not None:
            subscription.epoch, subscription.after = epoch, after
        body["id"] = self._wire_id(id)
        excess = self._excess(subscription, len(self._subscriptions) + (id not in self._subscriptions))
        if excess is not None:
            raise LimitExceeded(excess.detail)
        self._end(id)
        self._subscriptions[id] = self._wires[str(body["id"])] = subscription
        self._say(subscription.message())

    def unsubscribe(self, id: str = "main") -> None:
        """End the subscription ``id``; harmless where there is none."""
        self._end(id)

    def _end(self, id: str) -> None:
        """Let go of a subscription; what still comes for it has an id that nobody has any more."""
        subscription = self._subscriptions.pop(id, None)
        if subscription is None:
            return
        wire = subscription.body["id"]
        del self._wires[str(wire)]
        count = self._replaced.pop(id, 0)
        self._replaced[id] = count + 1
        if len(self._replaced) > REPLACED:
            del self._replaced[next(iter(self._replaced))]
        streams = Snapshot | History | Update | Presence | Mode
        self._events = deque(event for event in self._events if not (isinstance(event, streams) and event.id == id))
        self._say({"type": "unsubscribe", "id": wire})

    def _wire_id(self, id: str) -> str:
        """The id on the wire for the next subscription ``id``: another one each time, the same for all like
        clients, so that the gateway encodes once for them.
        """
        count = self._replaced.get(id, 0) + (id in self._subscriptions)
        wire = f"{id[:52]}~{count}" if count else id
        while wire in self._wires:
            wire += "~"
        return wire

    def _was_ours(self, wire: str) -> bool:
        """Whether an id is one of a subscription that was changed or ended."""
        base, _, count = wire.rstrip("~").rpartition("~")
        return wire in self._replaced or (base in self._replaced and count.isdigit())

    def _excess(self, subscription: _Subscription, count: int) -> LiveError | None:
        """What is more than the gateway takes, with ``count`` subscriptions."""
        limits, id = self._limits, subscription.id
        most = limits.get("subscriptions", count)
        if count > most:
            return LiveError(id, "too_many_subscriptions", f"{count} subscriptions: the gateway takes {most}")
        for name in ("devices", "metrics"):
            globs = len(cast("list[str]", subscription.body[name]))
            if globs > limits.get("globs", globs):
                return LiveError(id, "too_big", f"{globs} {name}: the gateway takes {limits['globs']}")
        return self._too_big(id, subscription.message())

    def _too_big(self, id: str, body: dict[str, object]) -> LiveError | None:
        size, most = len(self._wire.encode(body)), self._limits.get("max_message_bytes")
        if most is None or size <= most:
            return None
        return LiveError(id, "too_big", f"a message of {size} bytes: the gateway takes {most}")

    def position(self, id: str = "main") -> tuple[str, int] | None:
        """The epoch and offset up to which the subscription has received everything; ``None`` before its
        snapshot.
        """
        subscription = self._subscriptions[id]
        return (subscription.epoch, subscription.after) if subscription.after >= 0 else None

    # Events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.next()
        except ClientClosed as closed:
            if closed.code:
                raise
            raise StopAsyncIteration from None

    async def next(self) -> Event:
        """The next event; raises :class:`ClientClosed` once there will be no further one."""
        events = self._events
        while not events:
            self._uplink.raise_if_ended()
            await self._uplink.change()
        event = events.popleft()
        if len(events) == EVENTS - 1:
            self._uplink.wake()
        return event

    # Commands

    async def command(
        self,
        device: str,
        name: str,
        params: Mapping[str, object] | None = None,
        *,
        ttl_s: float = 60,
        timeout: float | None = None,
    ) -> Any:
        """Have ``device`` do something; what it answers is returned.

        Raises :class:`CommandFailed`, :class:`LimitExceeded`, ``TimeoutError`` after ``timeout`` seconds
        (``ttl_s`` and a little where not given; the command may still be carried out), and
        :class:`ClientClosed`.  A connection that is lost meanwhile takes the answer with it: then it is
        ``TimeoutError`` too.
        """
        await self._uplink.connected(ttl_s if timeout is None else timeout)
        ref = secrets.token_hex(6)
        body: dict[str, object] = {
            "type": "command",
            "ref": ref,
            "device": device,
            "name": name,
            "params": dict(params or {}),
            "ttl_s": ttl_s,
        }
        excess = self._too_big("", body)
        if excess is not None:
            raise LimitExceeded(excess.detail)
        self._commands[ref] = None
        try:
            self._say(body)
            async with asyncio.timeout(ttl_s + 5 if timeout is None else timeout):
                while (answer := self._commands[ref]) is None:
                    self._uplink.raise_if_ended()
                    await self._uplink.change()
        finally:
            del self._commands[ref]
        if isinstance(answer, LiveError):
            raise CommandFailed(answer.detail or answer.code, "refused")
        if answer.state != "done":
            detail = f": {answer.value}" if answer.value is not None else ""
            raise CommandFailed(f"{name} for {device} {answer.state}{detail}", answer.state, answer.value)
        return answer.value

    # What the uplink calls

    async def _greet(self, link: Link) -> Ending | None:
        hello = self._decode(await link.recv())
        if hello is None or hello.type != "hello":
            return Ending("the first message was no hello")
        if hello.auth == "required":
            if self._token is None:
                return Ending("the live feed asks for a token", 401, fatal=True, hint="give one with live:read")
            # The header did not arrive: a proxy took it away.
            write(link, self._wire.encode({"type": "auth", "token": self._token}), text=self._wire.text)
        self.epoch = hello.epoch
        limits = hello.limits if isinstance(hello.limits, dict) else {}
        self._limits = {name: most for name, most in limits.items() if type(most) is int}
        self._link = link
        count = 0
        for subscription in list(self._subscriptions.values()):
            excess = self._excess(subscription, count + 1)
            if excess is None:
                count += 1
                self._say(subscription.message())
            else:
                # Said once: the gateway would close the connection at it, each time anew.
                del self._subscriptions[subscription.id], self._wires[str(subscription.body["id"])]
                self._events.append(excess)
        self._uplink.wake()
        return None

    def _lost(self) -> None:
        self._link = None

    def _say(self, body: dict[str, object]) -> None:
        # Bounded by its callers: a message a call.  Subscriptions are said again with each connection.
        message = self._wire.encode(body)
        if self._link is not None:
            write(self._link, message, text=self._wire.text)

    def _decode(self, message: str | bytes) -> LiveMessage | None:
        try:
            return decode(message, LiveMessage)
        except msgspec.DecodeError as error:
            logger.warning("live feed: a message that cannot be read: %s", error)
            return None

    def _receive(self, message: str | bytes) -> Any:
        incoming = self._decode(message)
        if incoming is None:
            return None
        event = incoming.event()
        if event is None:
            return None
        if not isinstance(event, CommandState):
            subscription = self._wires.get(event.id)
            if subscription is not None:
                event = msgspec.structs.replace(event, id=subscription.id)
                if isinstance(event, Snapshot | Update):
                    subscription.epoch, subscription.after = self.epoch, event.offset
            elif not isinstance(event, LiveError) or self._was_ours(event.id):
                return None
        if isinstance(event, CommandState | LiveError) and event.ref in self._commands:
            if isinstance(event, LiveError) or event.final:
                self._commands[event.ref] = event
                self._uplink.wake()
            return None
        self._events.append(event)
        self._uplink.wake()
        return self._room() if len(self._events) >= EVENTS else None

    async def _room(self) -> None:
        while len(self._events) >= EVENTS and self._uplink.ended is None:
            await self._uplink.change()

"""The live feed, ``/v1/live``: section 5 of the contract.

A :class:`Client` turns a dashboard's messages into subscriptions of the hub and sends what the hub hands it.  It never
waits for its peer; what a peer does not read is bounded by the hub (:data:`gateway.hub.PENDING_MAX`).

Whoever was not known at the handshake says who it is in its first message, within :data:`AUTH_S`, else 1008; beyond
:data:`UNKNOWN_MAX` of them the oldest is cut, so that they take nobody's place for long.  What it may read is a part of
each of its subscriptions: nothing looks at a grant when a reading is sent.

History joins the stream exactly, see ``joining``; until it was sent the hub holds the subscriber's updates.  It is
sent a page at a time, see ``answering``, so that a client which does not read costs no more for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from ..auth import ANYBODY, Grant
from ..codecs.depth import check_depth
from ..codecs.keys import check_msgpack_keys
from ..distribution import Distribution
from ..errors import HistoryError, JournalError, Overloaded, Refusal
from ..globs import is_pattern
from ..history import History
from ..hub import GRID_S, MSGPACK, PENDING_MAX, Hub, Subscription
from ..ws import Connection as WebSocket
from ..ws import Message, Prepared, Router, message_handler
from .access import Access
from .answering import Answer, Reserve
from .downlink import Downlink, Session
from .named import named, why
from .resuming import Missed, held_since
from .stretch import Log

__all__ = ["LiveEndpoint", "encode_frame"]

log = logging.getLogger(__name__)

AUTH_S = 5.0
UNKNOWN_MAX = 256  # clients that have not said who they are
HEARTBEAT_S = 5.0
MAX_MESSAGE_BYTES = 65_536
MAX_SUBSCRIPTIONS = 16  # a client; one more is refused with an error
MAX_GLOBS = 1_000  # a list
MAX_PATTERNS = 100  # globs with * or ? among them: each is tried against every name
MAX_STARS = 500  # in a list: each takes time before anything is tried
MAX_GLOB = 128  # characters
UNREAD_MAX = 256 * 1024  # bytes a client has not read: beyond it its requests are not read either
COMMANDS_MAX = 100  # of a client that are not on disk yet; one more is refused with an error
UNREAD_S = 60.0  # a client that reads nothing for so long is dropped, if it asked for so much
MAX_HISTORY_S = 366 * 86_400
HISTORY_PENDING = 256 * 1024  # of history are on their way to a client at most, and one frame
HISTORY_S = 60.0  # for an answer with history, reading by the client included; then the rest is left out
FAILURES_S = 10.0  # between log lines about them
DELAYS = 600  # ticks whose delay is remembered: half a minute
GRID_MS = round(GRID_S * 1000)

Globs = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=MAX_GLOB)], ...], msgspec.Meta(max_length=MAX_GLOBS)]


class Subscribe(msgspec.Struct, tag="subscribe", tag_field="type", frozen=True):
    """Ask for a stream; an ``id`` in use is replaced."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "main"
    devices: Globs = ()
    metrics: Globs = ()
    mode: Literal["latest", "every"] = "latest"
    interval_ms: Annotated[float, msgspec.Meta(ge=0, le=3_600_000)] = 100
    history_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_HISTORY_S)] = 0
    epoch: str | None = None
    after: int | None = None


class Unsubscribe(msgspec.Struct, tag="unsubscribe", tag_field="type", frozen=True):
    """End a stream."""

    id: str = "main"


class Auth(msgspec.Struct, tag="auth", tag_field="type", frozen=True):
    """A token; where none is needed it is taken and not looked at."""

    token: str = ""


class Command(msgspec.Struct, tag="command", tag_field="type", frozen=True):
    """A command for a device."""

    device: str
    name: str
    ref: str = ""
    params: Any = None
    ttl_s: float = 60


class Heartbeat(msgspec.Struct, tag="heartbeat", tag_field="type", frozen=True):
    """Alive; needs no answer."""


_request = Subscribe | Unsubscribe | Auth | Command | Heartbeat
_from_json = msgspec.json.Decoder(_request)
_from_msgpack = msgspec.msgpack.Decoder(_request)
_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


def encode_frame(format: str, message: dict[str, object]) -> Prepared:
    """A feed message, framed once for any number of clients; ``format`` is the subprotocol."""
    if format == MSGPACK:
        return Message.binary(_msgpack(message)).prepare()
    return Message.text(_json(message).decode()).prepare()


class LiveEndpoint:
    """All dashboards."""

    def __init__(
        self,
        hub: Hub[Prepared],
        history: History,
        journal: Log,
        epoch: str,
        *,
        access: Access | None = None,
        downlink: Downlink | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.hub = hub
        self.history = history
        self.journal = journal
        self.epoch = epoch
        self.access = access
        self.downlink = downlink
        self.now = now
        self.clients: set[Client] = set()
        self.max_unknown = UNKNOWN_MAX
        self.unknown: dict[Client, None] = {}  # have not said who they are, the oldest first
        self.refusals: dict[str, int] = {}  # errors sent, by code
        self.tasks: set[asyncio.Task[None]] = set()
        self.reserve = Reserve()
        self.unread: dict[Client, float] = {}  # paused clients, and since when
        self._delays: deque[float] = deque(maxlen=DELAYS)
        self.latency = Distribution()  # from receipt until dashboards are sent it, by ticks
        self._more = False  # to be sent at once
        self._silent_until = 0.0  # failures are counted, not logged, until then

    def register(self, router: Router) -> None:
        """Add the address to a router."""
        router.websocket(
            "/v1/live",
            message_handler(self._message, inline=True, opened=self._opened, closed=self._closed),
            subprotocols=(MSGPACK, "gateway.v1.json"),
            max_message_bytes=MAX_MESSAGE_BYTES,
        )

    async def run(self) -> None:
        """Turn the hub's grid and send heartbeats, until cancelled.

        What fails is logged and counted, and the grid turns on: one bad subscription must not stop all dashboards.
        """
        loop = asyncio.get_running_loop()
        due = loop.time()
        heartbeat = due + HEARTBEAT_S
        while True:
            due = max(due + GRID_S, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                self._tick(loop.time())
                if loop.time() >= heartbeat:
                    heartbeat = loop.time() + HEARTBEAT_S
                    self._heartbeat()
                while self._more and loop.time() < due + GRID_S:
                    await asyncio.sleep(0)
                    self._more = self.hub.step()
            except Exception:
                self._failed(loop.time())

    def _tick(self, now: float) -> None:
        oldest = self.hub.oldest_received
        self._more = self.hub.tick()
        if oldest is not None:
            delay = self.now() - oldest
            self._delays.append(delay / 1e6)
            self.latency.observe(delay / 1e9)
        if self.unread:
            self._look_at_unread(now)

    def _failed(self, now: float) -> None:
        self.hub.failures += 1
        if now >= self._silent_until:
            self._silent_until = now + FAILURES_S
            log.exception("a step of the live feed has failed (%d so far)", self.hub.failures)

    def _look_at_unread(self, now: float) -> None:
        for client, since in list(self.unread.items()):
            if client.caught_up(now - since > UNREAD_S):
                self.unread.pop(client, None)

    def health(self) -> dict[str, float]:
        """How many dashboards there are, and how long readings waited from receipt until they were sent (ms)."""
        delays = sorted(self._delays) or [0.0]
        return {"clients": len(self.clients), "p99_ms": round(delays[len(delays) * 99 // 100], 1)}

    def _heartbeat(self) -> None:
        frames: dict[str, Prepared] = {}
        for client in self.clients:
            frame = frames.get(client.format)
            if frame is None:
                beat: dict[str, object] = {"type": "heartbeat", "time": self.now() // 1_000_000}
                frame = frames[client.format] = encode_frame(client.format, beat)
            if client.pending_bytes <= PENDING_MAX["latest"]:
                client.send(frame)

    def _opened(self, ws: WebSocket) -> None:
        client = ws.state["client"] = Client(self, ws)
        self.clients.add(client)
        if not client.known:
            if len(self.unknown) >= self.max_unknown:
                next(iter(self.unknown)).give_way()
            self.unknown[client] = None

    def _message(self, ws: WebSocket, message: Message) -> None:
        client: Client = ws.state["client"]
        client.message(message)
        if ws.pending_bytes > UNREAD_MAX:
            ws.pause()
            self.unread.setdefault(client, asyncio.get_running_loop().time())

    def _closed(self, ws: WebSocket) -> None:
        client = ws.state.get("client")
        if client is not None:
            self.clients.discard(client)
            self.unread.pop(client, None)
            self.unknown.pop(client, None)
            client.closed()


class Client:
    """One dashboard's connection: a member of the hub."""

    def __init__(self, endpoint: LiveEndpoint, ws: WebSocket) -> None:
        self._endpoint = endpoint
        self._ws = ws
        self.format = ws.subprotocol or "gateway.v1.json"
        self._commanding: set[asyncio.Task[None]] = set()
        self._commander: Session | None = None  # who sends commands, once some were sent
        self._grant: Grant | None = ANYBODY if endpoint.access is None else ws.state["grant"]
        self._silent: asyncio.TimerHandle | None = None
        if self._grant is None:
            self._silent = asyncio.get_running_loop().call_later(AUTH_S, self._said_nothing)
        else:
            self._enter(self._grant)
        self._subscriptions: dict[str, Subscription] = {}
        self._line = asyncio.Lock()
        self._reading: dict[str, asyncio.Task[None]] = {}  # answers with history, by subscription
        self._held = 0  # bytes of a history that wait for room
        self._say(
            {
                "type": "hello",
                "epoch": endpoint.epoch,
                "offset": endpoint.hub.offset,
                "heartbeat_s": HEARTBEAT_S,
                "auth": "ok" if self._grant is not None else "required",
                "time": endpoint.now() // 1_000_000,
                "limits": {
                    "subscriptions": MAX_SUBSCRIPTIONS,
                    "globs": MAX_GLOBS,
                    "max_message_bytes": MAX_MESSAGE_BYTES,
                    "grid_ms": GRID_MS,
                },
            }
        )

    # -- the hub's member ----------------------------------------------------------------------------------------

    def send(self, frame: Prepared) -> None:
        """Send without waiting."""
        self._ws.try_send(frame)

    @property
    def pending_bytes(self) -> int:
        """Bytes that the peer has not taken yet, what is ready to be sent included."""
        return self._ws.pending_bytes + self._held

    # -- requests ------------------------------------------------------------------------------------------------

    def caught_up(self, given_up: bool) -> bool:
        """Read requests again if the peer has read its answers; drop it if it is ``given_up``.  False: neither."""
        if given_up:
            self._ws.abort("does not read")
        elif self._ws.pending_bytes > UNREAD_MAX // 2:
            return False
        else:
            self._ws.resume()
        return True

    def closed(self) -> None:
        """The connection ended."""
        if self._silent is not None:
            self._silent.cancel()
        for id in list(self._subscriptions):
            self._end(id)
        if self._commander is not None:
            self._commander.close()

    def message(self, message: Message) -> None:
        """One message of the dashboard."""
        try:
            decoder = _from_json if message.kind == "text" else _from_msgpack
            if message.kind != "text":
                check_msgpack_keys(message.data)  # type: ignore[arg-type]
            request = decoder.decode(message.data)  # type: ignore[arg-type]
            if type(request) is Command:
                check_depth(request.params, 1)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, Refusal) as error:
            if self._grant is None:
                self._said_nothing()
                return
            names = named(message.data)
            self._error(names.pop("id", ""), "bad_request", why(message.data, error), **names)
            return
        grant = self._grant
        if grant is None:
            self._authenticate(request)
        elif isinstance(request, Subscribe):
            self._subscribe(request, grant)
        elif isinstance(request, Unsubscribe):
            if not self._end(request.id):
                self._error(request.id, "bad_request", "no such subscription")
        elif isinstance(request, Command):
            if not grant.may_command(request.device):
                self._error("", "forbidden", "this token may not send commands to that device", ref=request.ref)
            elif len(self._commanding) >= COMMANDS_MAX:
                self._error("", "overloaded", f"more than {COMMANDS_MAX} commands at once", ref=request.ref)
            elif (downlink := self._endpoint.downlink) is None:
                self._error("", "unsupported", "commands are not taken here", ref=request.ref)
            else:
                if self._commander is None:
                    self._commander = downlink.session("live", self._say)
                task = asyncio.create_task(self._command(self._commander, request))
                self._commanding.add(task)
                task.add_done_callback(self._commanding.discard)

    async def _command(self, commander: Session, request: Command) -> None:
        """Pass a command on; its states follow, with its ``ref``."""
        try:
            await commander.send(request.device, request.name, request.params, request.ttl_s, request.ref)
        except Refusal as refusal:
            self._error("", refusal.code, str(refusal), ref=request.ref)
        except Overloaded as full:
            self._error("", "overloaded", str(full), ref=request.ref)

    # -- who it is -----------------------------------------------------------------------------------------------

    def _authenticate(self, request: object) -> None:
        """The first message of somebody who is not known."""
        access = self._endpoint.access
        if access is None or not isinstance(request, Auth):
            self._said_nothing()
            return
        grant, problem = access.first_message(self._ws.remote, request.token)
        if grant is None:
            self._ws.close_soon(1008, problem)
            return
        if self._silent is not None:
            self._silent.cancel()
        self._endpoint.unknown.pop(self, None)
        self._grant = grant
        self._enter(grant)

    @property
    def known(self) -> bool:
        """Whether it has said who it is."""
        return self._grant is not None

    def give_way(self) -> None:
        """End at once, for others that have not said who they are either."""
        self._endpoint.unknown.pop(self, None)
        if self._endpoint.access is not None:
            self._endpoint.access.silent("crowd")
        self._ws.abort("too many have not said who they are")

    def _enter(self, grant: Grant) -> None:
        if self._endpoint.access is not None:
            self._endpoint.access.enter(grant, self, self._ws.close_soon, self._ws)

    def _said_nothing(self) -> None:
        if self._endpoint.access is not None:
            self._endpoint.access.silent()
        self._ws.close_soon(1008, "a token is needed: send auth first")

    def _subscribe(self, request: Subscribe, grant: Grant) -> None:
        endpoint = self._endpoint
        if not grant.reads:
            self._error(request.id, "forbidden", "this token may not read: live:read is needed")
            return
        if request.id not in self._subscriptions and len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            self._error(request.id, "too_many_subscriptions", f"at most {MAX_SUBSCRIPTIONS} on a connection")
            return
        for globs in (request.devices, request.metrics):
            if sum(map(is_pattern, globs)) > MAX_PATTERNS or sum(glob.count("*") for glob in globs) > MAX_STARS:
                detail = f"a list has more than {MAX_PATTERNS} globs with * or ?, or more than {MAX_STARS} * in all"
                self._error(request.id, "bad_request", detail)
                return
        self._end(request.id)
        subscription = Subscription(
            id=request.id,
            devices=tuple(sorted(set(request.devices))),
            metrics=tuple(sorted(set(request.metrics))),
            mode=request.mode,
            ticks=max(1, math.ceil(request.interval_ms / GRID_MS)),
            format=self.format,
            allowed=tuple(sorted(grant.reads)),
        )
        self._subscriptions[request.id] = subscription
        hub = endpoint.hub
        after = request.after if request.epoch == endpoint.epoch else None
        held = after is not None and subscription.mode == "every" and held_since(endpoint.journal, after)
        recovered = hub.subscribe(self, subscription, after, history=bool(request.history_s), held=held)
        older = after if recovered and held and after is not None and after < hub.floor - 1 else None
        if request.history_s:
            task = asyncio.create_task(self._history(subscription, round(request.history_s * 1e9), older))
        elif older is not None:
            task = asyncio.create_task(self._resume(subscription, older))
        else:
            hub.release(self, subscription)
            return
        self._reading[request.id] = task
        endpoint.tasks.add(task)
        task.add_done_callback(endpoint.tasks.discard)

    def _end(self, id: str) -> bool:
        subscription = self._subscriptions.pop(id, None)
        if subscription is None:
            return False
        task = self._reading.pop(id, None)
        if task is not None:
            task.cancel()
        self._endpoint.hub.unsubscribe(self, subscription)
        return True

    # -- history, and what was missed ----------------------------------------------------------------------------

    async def _history(self, subscription: Subscription, length: int, after: int | None) -> None:
        """Send history, then let the hub go on.  Cancelled when the subscription ends before that.

        Behind offset ``after`` comes what was missed, see :meth:`_resume`.
        """
        endpoint, whole = self._endpoint, after is None
        try:
            async with self._line:  # one after the other for each client, so that a slow one waits for itself alone
                async with asyncio.timeout(HISTORY_S):
                    await self._send_history(subscription, length, older=after is not None)
                    if after is not None and not (whole := await self._send_missed(subscription, after)):
                        self._begin_anew(subscription, history=True)
                        whole = True
                        await self._send_history(subscription, length)
        except TimeoutError:
            self._error(subscription.id, "history_failed", "the history was not read in time")
        except (HistoryError, JournalError, Overloaded) as error:
            self._error(subscription.id, "history_failed", str(error))
        except Exception:
            log.exception("the history of a subscription has failed")
            self._error(subscription.id, "history_failed", "the gateway met an error")
        del self._reading[subscription.id]
        if not whole:
            self._begin_anew(subscription)
        endpoint.hub.release(self, subscription)

    def _begin_anew(self, subscription: Subscription, *, history: bool = False) -> None:
        """By a snapshot that says that something is missing."""
        hub = self._endpoint.hub
        hub.unsubscribe(self, subscription)
        hub.subscribe(self, subscription, None, history=history)

    async def _send_history(self, subscription: Subscription, length: int, *, older: bool = False) -> None:
        endpoint, ws = self._endpoint, self._ws
        hub = endpoint.hub
        await self._until(lambda: ws.pending_bytes <= HISTORY_PENDING and not hub.joining(self, subscription))
        answer = Answer(
            hub,
            endpoint.history,
            endpoint.journal,
            subscription,
            lambda message: encode_frame(self.format, message),
            endpoint.reserve,
        )
        async with answer:
            await answer.begin(self, length, endpoint.now, older=older)
            while frames := await answer.next():
                await self._tell(frames)

    async def _resume(self, subscription: Subscription, after: int) -> None:
        """Send what was missed and is in the journal alone, then let the hub go on; if that fails, begin anew."""
        hub = self._endpoint.hub
        whole = False
        try:
            async with self._line, asyncio.timeout(HISTORY_S):
                whole = await self._send_missed(subscription, after)
        except (TimeoutError, JournalError) as error:
            log.warning("a dashboard was not sent all that it has missed: %s", str(error) or "it does not read")
        except Exception:
            log.exception("what a dashboard has missed could not be sent")
        del self._reading[subscription.id]
        if not whole:
            self._begin_anew(subscription)
        hub.release(self, subscription)

    async def _send_missed(self, subscription: Subscription, after: int) -> bool:
        endpoint = self._endpoint
        missed = Missed(
            endpoint.hub,
            endpoint.journal,
            self,
            subscription,
            after,
            lambda message: encode_frame(self.format, message),
            endpoint.reserve.turns,
        )
        await self._until(lambda: not endpoint.hub.joining(self, subscription))
        while (frames := await missed.next()) is not None:
            await self._tell(frames)
        return missed.whole

    async def _tell(self, frames: list[Prepared]) -> None:
        """Send what is ready, as the peer makes room for it."""
        try:
            self._held = sum(len(frame.frame) for frame in frames)
            for frame in frames:
                await self._until(lambda: self._ws.pending_bytes <= HISTORY_PENDING)
                self._ws.try_send(frame)
                self._held -= len(frame.frame)
        finally:
            self._held = 0

    @staticmethod
    async def _until(ready: Callable[[], bool]) -> None:
        """Wait for the peer to read."""
        while not ready():  # noqa: ASYNC110
            await asyncio.sleep(GRID_S)

    def _error(self, id: str, code: str, detail: str, **more: object) -> None:
        refusals = self._endpoint.refusals
        refusals[code] = refusals.get(code, 0) + 1
        reply: dict[str, object] = {"type": "error", "code": code, "detail": detail[:512], **more}
        if id:
            reply["id"] = id
        self._say(reply)

    def _say(self, message: dict[str, object]) -> None:
        self._ws.try_send(encode_frame(self.format, message))

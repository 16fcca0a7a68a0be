"""One connection to an MQTT 5 broker, from CONNECT to its end, on the event loop alone.

paho-mqtt speaks the session: CONNECT with the Last Will, CONNACK, keep-alive, DISCONNECT, everything rare.
It reads and writes through a stream of ours (``_Stream``, what paho calls a SocketLike) that stands on an
asyncio transport, so that no blocking socket exists, TLS is the loop's, and a name is resolved where nobody else
works (``lookup``).

PUBLISH and PUBACK do not go through paho, whose publish and acknowledgement take 75 to 90 microseconds of CPU where
these take 6: they are framed here (``mqtt_frames``) and put between paho's packets.  What was subscribed to, which is
rare, paho receives and acknowledges.

Window: at most min(``window``, the broker's Receive Maximum) publishes are under way (4.9), and none is
written while the transport is above its high-water mark: what waits is the caller's list, nothing is queued
here.

QoS 0 has no acknowledgement: a PINGREQ after the last publish takes its place, since its answer comes after
the broker has read all before it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.sinks import mqtt_frames as frames
from gateway.sinks.base import Refused, Stopped, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.client import SocketLike

    from gateway.errors import GatewayError
    from gateway.sinks.layouts import Message
    from gateway.sinks.lookup import Lookup

__all__ = ["TOO_LARGE", "Link", "MakeWill", "Will", "connect"]


class Will(NamedTuple):
    """What the broker publishes should the connection end without a goodbye."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


MakeWill = Callable[[], Awaitable[Will]]
"""Called for each CONNECT."""

TOO_LARGE = 0x95
DISCONNECT_WITH_WILL = 0x04
PAHO_MIDS = 255  # packet identifiers up to this are for paho's subscriptions, those above for publishes (2.2.1)
MAX_INBOUND = 256 << 10  # told the broker in CONNECT; a larger packet ends the connection
BURST = 256 << 10  # bytes framed before they are handed to the transport
TOPICS = 16_384  # topics whose encoded form is kept; forgotten all at once beyond
TICK_S = 1.0
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux

_CREDENTIALS = "check GATEWAY_MQTT__USERNAME and GATEWAY_MQTT__PASSWORD"
_CONNACK_STOPS = {
    0x84: "the broker does not speak MQTT 5",
    0x85: "the broker does not take the client id; check GATEWAY_ID",
    0x86: _CREDENTIALS,
    0x87: f"the broker does not let us in; {_CREDENTIALS}",
    0x8A: "the broker has banned this client",
    0x8C: _CREDENTIALS,
    0x90: "the broker does not take the topic of the Last Will; check GATEWAY_MQTT__PREFIX",
    0x95: "the broker takes no packets of this size",
    0x97: "the broker's quota is used up",
    0x9A: "the broker keeps no retained messages, which presence needs",
    0x9B: "the broker does not take this QoS; set GATEWAY_MQTT__QOS=0",
    0x9C: "the broker asks to use another server; check GATEWAY_MQTT__URL",
    0x9D: "the broker has moved; check GATEWAY_MQTT__URL",
}
_DISCONNECT_STOPS = {
    0x87: "the broker's access rules forbid it",
    0x8E: "another client connected with the same client id; give each gateway its own GATEWAY_ID",
    0x97: "the broker's quota is used up",
    0x9C: "the broker asks to use another server; check GATEWAY_MQTT__URL",
    0x9D: "the broker has moved; check GATEWAY_MQTT__URL",
}
# Ends for what we sent: Malformed Packet, Topic Name invalid, Packet too large, Payload format invalid
# (3.14.2.1).
_DISCONNECT_CONTENT = frozenset({0x81, 0x90, 0x95, 0x99})


class _Stream:
    """What paho takes for its socket: reads whole packets put in ``inbox``, writes to the link's transport."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.inbox = bytearray()

    def recv(self, buffer_size: int) -> bytes:
        if not self.inbox:
            raise BlockingIOError
        data = bytes(self.inbox[:buffer_size])
        del self.inbox[:buffer_size]
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        self._link.send_for_paho(bytes(buffer))
        return len(buffer)

    def close(self) -> None:
        self._link.close_for_paho()

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        pass


class _Session(Client):
    """paho's client, once over, on a stream that is connected already."""

    def __init__(self, stream: _Stream, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self._stream = stream

    def _create_socket(self) -> SocketLike:
        # The one private name of paho's in use: it has no public way to be given what it speaks through.
        return self._stream


class Link(asyncio.Protocol):
    """A connection; made by ``connect``.

    ``closed`` holds why it ended, or None while it lasts; ``told`` whether somebody was given that reason;
    ``lasted`` the seconds from CONNACK to the end.
    """

    def __init__(self, client_id: str, window: int, clock: Callable[[], float]) -> None:
        self.closed: GatewayError | None = None
        self.told = False
        self.lasted = 0.0
        self.on_closed: Callable[[], None] | None = None
        self.receive_maximum = 65535
        self.max_packet = 268_435_460
        self.max_qos = 2
        self.retains = True
        self.publishes = 0
        self._window = window
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._splitter = frames.Splitter(MAX_INBOUND)
        self._stream = _Stream(self)
        self._session = _Session(self._stream, client_id)
        self._session.on_connect = self._connected
        self._session.on_disconnect = self._disconnected
        self._session.on_subscribe = self._subscribed_to
        self._session.on_message = self._received
        self.on_message: Callable[[str, bytes], None] | None = None
        self._entered: asyncio.Future[None] = self._loop.create_future()
        # An end before anybody waits is told by ``closed``.
        self._entered.add_done_callback(lambda entered: entered.cancelled() or entered.exception())
        self._left: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[int] | None = None
        self._with_retained: set[str] = set()
        self._tick: asyncio.TimerHandle | None = None
        self._paused = False
        self._topics: dict[str, bytes] = {}
        self._alone: dict[tuple[str, int], bytes] = {}  # property fields without user properties
        # PINGREQs under way, in order: the call of publish that waits for the answer, 0 for paho's own.
        self._pings: deque[int] = deque()
        self._call = 0
        self._mid = PAHO_MIDS
        # Packet identifiers under way; -1 where whoever published it waits no more.
        self._under_way: dict[int, int] = {}
        self._owed = 0  # those of the present call
        self._heard = self._began = clock()
        self._ack_s = 0.0
        # The present call of publish.
        self._messages: Sequence[Message] = ()
        self._next = 0
        self._retain = False
        self._qos = 1
        self._codes: dict[int, int] = {}
        self._done: asyncio.Future[None] | None = None

    # -- for the sink --

    async def publish(self, messages: Sequence[Message], *, qos: int, retain: bool = False) -> dict[int, int]:
        """Publish all in order; returns, once all are decided, the refused ones: index to reason code (>=
        0x80).

        What is larger than the broker's Maximum Packet Size is refused here with 0x95, unsent.  Raises
        ``Unavailable``, ``Stopped``, ``Refused`` when the connection ends before.  One call at a time.
        """
        if self.closed is not None:
            self.told = True
            raise self.closed
        if not messages:
            return {}
        self._call += 1
        self._messages, self._next = messages, 0
        self._retain = retain and self.retains
        self._qos = min(qos, self.max_qos, 1)
        self._codes = {}
        self._heard = self._clock()
        self._done = self._loop.create_future()
        try:
            self._pump()
            await self._done
            return self._codes
        finally:
            self._messages, self._done, self._owed = (), None, 0
            for mid in self._under_way:
                self._under_way[mid] = -1

    async def subscribe(self, topic: str, *, retained: bool = False) -> int:
        """Ask for what is published to a topic filter from now on; the reason code.

        ``retained``: for what was retained on this topic as well, which is no filter then.  What comes goes to
        ``on_message``.  Raises ``Unavailable``, ``Stopped`` when the connection ends before.
        """
        if self.closed is not None:
            raise self.closed
        self._subscribed = self._loop.create_future()
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if retained else SubscribeOptions.RETAIN_DO_NOT_SEND
        if retained:
            self._with_retained.add(topic)
        options = SubscribeOptions(qos=1, retainHandling=handling)
        self._session.subscribe(topic, options=options)
        try:
            async with asyncio.timeout(self._ack_s):
                return await self._subscribed
        except TimeoutError:
            silent = Unavailable(f"no answer to a subscription for {self._ack_s:g} s", reached=True)
            self._end(silent)
            self.told = True
            raise silent from None

    async def disconnect(self, *, with_will: bool = False) -> None:
        """Say goodbye and wait for the end; ``with_will``: the broker sends the Will all the same (3.14.2.1)."""
        if self.closed is None:
            reason = ReasonCode(PacketTypes.DISCONNECT, identifier=DISCONNECT_WITH_WILL) if with_will else None
            self._session.disconnect(reason)
        await self._left

    def abort(self) -> None:
        """End at once, without a goodbye: the broker sends the Will."""
        self._end(Unavailable("connection aborted"))

    # -- for connect --

    async def enter(self, host: str, port: int, keepalive: int, ack_s: float) -> None:
        """CONNECT, and wait for CONNACK; the session's will and credentials are set before."""
        self._ack_s = ack_s
        asked: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        asked.MaximumPacketSize = MAX_INBOUND
        self._session.connect(host, port, keepalive=keepalive, clean_start=True, properties=asked)
        await self._entered
        self._began = self._clock()
        self._tick = self._loop.call_later(TICK_S, self._on_tick)

    @property
    def session(self) -> Client:
        """paho's client, for what has to be set before ``enter``."""
        return self._session

    # -- for paho --

    def send_for_paho(self, data: bytes) -> None:
        """Write whole packets of paho's."""
        if data == frames.PINGREQ:
            self._pings.append(0)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close_for_paho(self) -> None:
        """paho is done with the stream: what was written still goes out."""
        # paho closes it once more when it is collected, perhaps after the loop's own end.
        if self._transport is not None and self.closed is None:
            self._transport.close()

    def _connected(
        self, client: Client, data: Any, flags: ConnectFlags, reason: ReasonCode, props: Properties | None
    ) -> None:
        code = reason.value
        if code >= 0x80:
            text = f"the broker refused the connection: {reason}"
            hint = _CONNACK_STOPS.get(code, "")
            self._end(Stopped(text, hint=hint) if hint else Unavailable(text, reached=True))
            return
        # 3.2.2.3: what is absent has a default.
        self.receive_maximum = getattr(props, "ReceiveMaximum", self.receive_maximum)
        self.max_packet = getattr(props, "MaximumPacketSize", self.max_packet)
        self.max_qos = getattr(props, "MaximumQoS", self.max_qos)
        self.retains = bool(getattr(props, "RetainAvailable", 1))
        if not self._entered.done():
            self._entered.set_result(None)

    def _subscribed_to(
        self, client: Client, data: Any, mid: int, reasons: list[ReasonCode], props: Properties | None
    ) -> None:
        if self._subscribed is not None and not self._subscribed.done():
            self._subscribed.set_result(max(reason.value for reason in reasons))

    def _received(self, client: Client, data: Any, message: MQTTMessage) -> None:
        if self.on_message is not None and (not message.retain or message.topic in self._with_retained):
            self.on_message(message.topic, bytes(message.payload))

    def _disconnected(
        self, client: Client, data: Any, flags: DisconnectFlags, reason: ReasonCode, props: Properties | None
    ) -> None:
        # Never the broker's own DISCONNECT: that one is read in ``data_received``.
        code = reason.value
        text = "no answer to a ping" if code == 0x8D else "connection lost"
        self._end(Unavailable(text) if code else Unavailable("disconnected"), flush=code == 0)

    def _dismissed(self, code: int) -> None:
        # paho 2.1 passes over the reason where no properties follow it.
        try:
            name = str(ReasonCode(PacketTypes.DISCONNECT, identifier=code))
        except (KeyError, ValueError):
            name = f"0x{code:02x}"
        text = f"the broker disconnected us: {name}"
        if code in _DISCONNECT_STOPS:
            self._end(Stopped(text, hint=_DISCONNECT_STOPS[code]))
        elif code in _DISCONNECT_CONTENT and self._done is not None:
            self._end(Refused(text))
        else:
            self._end(Unavailable(text, reached=True))

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there, with TLS where asked for."""
        # uvloop's transports are no asyncio.Transport, but do the same.
        self._transport = cast("asyncio.Transport", transport)
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        """Acknowledgements to the window, the rest to paho."""
        if self.closed is not None:
            return
        try:
            acks, others = self._splitter.feed(data)
        except ValueError as error:
            self._end(Unavailable(f"the broker sent {error}"))
            return
        if acks:
            self._heard = self._clock()
            under_way = self._under_way
            for mid, code in acks:
                index = under_way.pop(mid, -1)
                if index >= 0:
                    self._owed -= 1
                    if code >= 0x80:
                        self._codes[index] = code
            published = self.publishes
            self._pump()
            if self._owed and self.publishes == published:  # a packet of ours tells TCP as well
                self._acknowledge_tcp()
        for packet in others:
            if packet == frames.PINGRESP and self._pings and (call := self._pings.popleft()):
                self._heard = self._clock()
                if call == self._call:
                    self._finish()
                continue
            if packet[0] == frames.DISCONNECT:
                self._dismissed(frames.disconnect_reason(packet))
                return
            self._stream.inbox += packet
            while self._stream.inbox and self.closed is None:
                if self._session.loop_read():
                    self._end(Unavailable("the broker sent something that is not MQTT 5"))

    def pause_writing(self) -> None:
        """Above the high-water mark."""
        self._paused = True

    def resume_writing(self) -> None:
        """Below the low-water mark."""
        self._paused = False
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport ended, by whomever."""
        self._end(Unavailable(f"connection lost: {exc}" if exc else "the broker closed the connection"))
        if not self._left.done():
            self._left.set_result(None)

    # -- within --

    def _pump(self) -> None:
        # Writes what the window allows, and ends the call when all is decided.
        if self._done is None or self._done.done() or self.closed is not None:
            return
        messages, count = self._messages, len(self._messages)
        room = min(self._window, self.receive_maximum) - len(self._under_way) if self._qos else count
        assert self._transport is not None
        while room > 0 and self._next < count and not self._paused:
            out: list[bytes] = []
            size = 0
            while room > 0 and self._next < count and size < BURST:
                index = self._next
                self._next += 1
                message = messages[index]
                mid = self._free_mid() if self._qos else 0
                props = self._properties(message)
                frame = frames.publish(self._topic(message.topic), mid, props, message.payload, self._retain)
                if len(frame) > self.max_packet:
                    self._codes[index] = TOO_LARGE
                    continue
                if mid:
                    self._under_way[mid] = index
                    self._owed += 1
                    room -= 1
                out.append(frame)
                size += len(frame)
            self.publishes += len(out)
            if out:
                self._transport.write(b"".join(out))
        if self._next < count:
            return
        if self._qos == 0:
            if self._call not in self._pings:
                self._pings.append(self._call)
                self._transport.write(frames.PINGREQ)
        elif not self._owed:
            self._finish()

    def _acknowledge_tcp(self) -> None:
        # A broker with Nagle's algorithm on (mosquitto's default) sends its next PUBACKs when TCP has acknowledged
        # this one, which the kernel would put off for 40 ms.  The kernel forgets the option, so it is set each time.
        if _QUICKACK is not None and self._socket is not None:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                self._socket = None  # a connection that ends says so by itself; what is no TCP needs none of this

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _free_mid(self) -> int:
        mid = self._mid
        while True:
            mid = mid + 1 if mid < 65535 else PAHO_MIDS + 1
            if mid not in self._under_way:
                self._mid = mid
                return mid

    def _properties(self, message: Message) -> bytes:
        if message.properties:
            return frames.properties(message.properties, message.content_type, message.expiry_s)
        key = message.content_type, message.expiry_s
        found = self._alone.get(key)  # of the few that there are
        if found is None:
            found = self._alone[key] = frames.properties((), *key)
        return found

    def _topic(self, topic: str) -> bytes:
        found = self._topics.get(topic)
        if found is None:
            if len(self._topics) >= TOPICS:
                self._topics.clear()
            found = self._topics[topic] = frames.string(topic)
        return found

    def _on_tick(self) -> None:
        self._session.loop_misc()
        waits = self._done is not None and (self._owed or self._paused or self._call in self._pings)
        if self.closed is None and waits and self._clock() - self._heard > self._ack_s:
            self._end(Unavailable(f"nothing acknowledged for {self._ack_s:g} s", reached=True))
        if self.closed is None:
            self._tick = self._loop.call_later(TICK_S, self._on_tick)

    def _end(self, error: GatewayError, flush: bool = False) -> None:
        if self.closed is not None:
            return
        self.closed = error
        self.lasted = self._clock() - self._began
        if self._tick is not None:
            self._tick.cancel()
        if self._transport is not None:
            if flush:
                self._transport.close()
            else:
                self._transport.abort()
        for waiter in (self._entered, self._done, self._subscribed):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
                self.told = True
        if self.on_closed is not None:
            self.on_closed()


async def connect(
    host: str,
    port: int,
    lookup: Lookup,
    *,
    client_id: str,
    username: str = "",
    password: str = "",
    tls: ssl.SSLContext | None = None,
    keepalive_s: int = 15,
    ack_s: float = 60.0,
    window: int = 100,
    will: MakeWill | None = None,
    timeout_s: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Link:
    """Connect and enter: clean start.

    The addresses that ``lookup`` gives for the host are tried in turn, each for its share of the time.

    A broker that stopped answering is noticed after one to two ``keepalive_s``, one that answers pings but
    acknowledges nothing after ``ack_s``.  Raises ``Unavailable`` or ``Stopped``, at the latest after
    ``timeout_s``.
    """
    loop = asyncio.get_running_loop()
    where = f"{host}:{port}"

    async def attempt(address: str) -> Link:
        link: Link | None = None
        entered = False
        try:
            _, link = await loop.create_connection(
                lambda: Link(client_id, window, clock),
                address,
                port,
                ssl=tls,
                server_hostname=host if tls is not None else None,
            )
            if username:
                link.session.username_pw_set(username, password or None)
            if will is not None:
                link.session.will_set(*await will())
            await link.enter(host, port, keepalive_s, ack_s)
            entered = True
            return link
        finally:
            if link is not None and not entered:
                link.abort()

    ends = loop.time() + timeout_s
    try:
        async with asyncio.timeout_at(ends):
            addresses = list(await lookup.addresses())
        while True:
            address = addresses.pop(0)
            try:
                async with asyncio.timeout((ends - loop.time()) / (len(addresses) + 1)):
                    return await attempt(address)
            except (Unavailable, OSError, TimeoutError) as error:
                if not addresses or isinstance(error, ssl.SSLCertVerificationError):
                    raise
    except TimeoutError:
        raise Unavailable(f"{where}: no answer within {timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise Stopped(
            f"{where}: certificate not accepted: {error.verify_message}",
            hint="check GATEWAY_MQTT__CA, the name in the URL, and this machine's clock",
        ) from error
    except OSError as error:
        # The loop writes addresses of its own into a system error's text; a resolver's error has a number below 0.
        number = error.errno or 0
        text = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise Unavailable(f"{where}: {text}") from error

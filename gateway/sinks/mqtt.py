"""The MQTT sink: readings as messages, presence as retained topics (PROTOCOL, section 6).

Topics under ``{prefix}``: ``{device}/telemetry``, or what a template says, by a layout; ``{device}/presence`` retained;
``status`` retained: ``online`` after each connect, ``offline`` on a clean stop and by the Last Will.  A layout that
tells of devices in its own way takes the place of these two.

A batch is safe when the broker has acknowledged each of its messages (QoS 1).  A refused one decides by its
reason code: not authorized and quota exceeded stop the sink; what the broker holds against the message itself
(too large, payload format, topic name) cuts the message to single readings, and rejects the reading that is
left; all else is tried again. After a disconnect the whole batch is written again.

Codes that say nothing (unspecified, implementation specific) are tried again as well; but a message that is refused
so ``UNCLEAR_TRIES`` times in a row is taken to be at fault itself, so that it does not stand before all others for
ever.

What was received more than ``HISTORICAL_S`` before it is published carries the user property ``historical`` =
``true``, so that a dashboard behind the broker can tell a backlog from news.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

import msgspec
from paho.mqtt.client import topic_matches_sub

from gateway.sinks.base import Refused, Rejected, Stopped, Unavailable
from gateway.sinks.layouts import HISTORICAL, JSON, Message
from gateway.sinks.mqtt_broker import HISTORICAL_S, Broker
from gateway.sinks.mqtt_link import TOO_LARGE, Link, Will
from gateway.topics import TEMPLATE, Topics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.reading import Batch, Item
    from gateway.sinks.base import Key
    from gateway.sinks.layouts import Layout
    from gateway.sinks.reach import Terms

__all__ = ["Inbound", "MqttSink"]

log = logging.getLogger(__name__)

Inbound = Callable[[str, bytes], None]

# PUBACK reason codes (3.4.2.1).
_STOPS = {
    0x87: "the broker's access rules forbid to publish there",
    0x97: "the broker's quota is used up",
}
_CONTENT = {
    0x90: "topic name invalid",
    TOO_LARGE: "packet too large",
    0x99: "payload format invalid",
}
_UNCLEAR = {
    0x80: "unspecified error",
    0x83: "implementation specific error",
}
TOLD_S = 3_600  # the state of a command that nobody has heard by then is no news
UNCLEAR_TRIES = 10  # some minutes, with the back-off between them
_LEAST_PAYLOAD = 256


class MqttSink:
    """See the module's text.

    ``topic`` is a template (``gateway.topics``).  ``window`` bounds the publishes under way, together with the broker's
    Receive Maximum; ``max_message_bytes`` the payload of a message of several readings; ``expiry_s`` how long a broker
    keeps readings that it cannot deliver (0: always); ``tells_status``: whether ``status`` and the Last Will are its to
    say.  ``inbound``: topic filters, and what is called on the loop with topic and payload of each message that is
    published there, but for those that were retained.  ``terms``: see ``reach``.  Raises ``ValueError`` for a URL or
    topic that is none, ``OSError`` for a ``ca`` that cannot be read.
    """

    refuses = True
    keeps_states = True

    def __init__(
        self,
        *,
        layout: Layout,
        prefix: str = "gateway",
        topic: str = TEMPLATE,
        qos: int = 1,
        window: int = 100,
        max_message_bytes: int = 128 << 10,
        expiry_s: int = 0,
        tells_status: bool = True,
        inbound: Mapping[str, Inbound] | None = None,
        name: str = "mqtt",
        wall_clock: Callable[[], int] = time.time_ns,
        **terms: Unpack[Terms],
    ) -> None:
        if qos not in (0, 1):
            raise ValueError("QoS must be 0 or 1")
        self.name = name
        self.lost: Callable[[], None] | None = None
        self._broker = Broker(window=window, **terms)
        self._layout = layout
        self._prefix = prefix
        self._topics = Topics(prefix, topic)
        self._qos = qos
        self._expiry_s = expiry_s
        self._deaf = False
        self._entered = False  # ``status`` is told on this connection, and what is heard there was asked for
        self._tells_status = tells_status and layout.presence is None
        self._inbound = dict(inbound or {})
        self._max_message_bytes = max_message_bytes
        # Learned from a broker that refuses what it did not forbid; forgotten with the process.
        self._learned_bytes = max_message_bytes
        self._wall_clock = wall_clock
        # The first message refused without a reason in the write before, and for how many writes it has been.
        self._unclear: tuple[str, bytes] | None = None
        self._unclear_tries = 0
        self._refused_states = 0

    async def open(self) -> None:
        """Nothing: ``ready`` connects."""

    async def ready(self) -> bool:
        """Connect where we are not connected, and say so there; True when we just did.

        What ended the connection before is raised first, if nobody was told: its reason may ask for patience.
        """
        if await self._broker.renew(self._will if self._tells_status else None, self.lost):
            self._entered = False
        if self._entered:
            return False
        # Where the broker refuses one of these on a connection that lasts, it is asked again.
        link = self._broker.open_link()
        await self._tell_status(link, b"online")
        if self._inbound:
            await self._listen(link)
        self._entered = True
        return True

    async def write(self, batch: Batch) -> int:
        """Publish the batch's readings; see the module's text for what is raised when."""
        link = self._broker.open_link()
        await self._write(link, batch.items)
        return batch.end

    async def _write(self, link: Link, items: Sequence[Item]) -> None:
        rejected: dict[int, str] = {}
        before = self._wall_clock() - HISTORICAL_S * 1_000_000_000
        messages = self._expiring(self._layout.messages(items, self._topics, self._most_bytes(link), before))
        at_fault = False
        while messages:
            codes = await link.publish(messages, qos=self._qos)
            again: list[Message] = []
            at_fault = at_fault or self._count_unclear(messages, codes)
            for index, code in sorted(codes.items()):
                message = messages[index]
                if code not in _CONTENT and not (at_fault and code in _UNCLEAR):
                    raise self._refusal(code, message)
                if len(message.indices) == 1:
                    rejected[message.indices[0]] = self._reason(code)
                    continue
                if code == TOO_LARGE:
                    self._learned_bytes = max(_LEAST_PAYLOAD, min(self._learned_bytes, len(message.payload)) // 2)
                most = len(message.payload) // 2 if code == TOO_LARGE else 1
                again += self._cut(items, message, most, before)
            messages = again
        if rejected:
            raise Rejected(rejected, rest_safe=True)

    def _count_unclear(self, messages: Sequence[Message], codes: Mapping[int, int]) -> bool:
        """Whether those refused without a reason are at fault themselves.

        Raises ``Refused`` where that cannot be told because nothing beside them was taken.
        """
        first = next((index for index, code in sorted(codes.items()) if code in _UNCLEAR), None)
        if first is None:
            return False
        key = messages[first].topic, messages[first].payload
        self._unclear_tries = self._unclear_tries + 1 if key == self._unclear else 1
        self._unclear = key
        if self._unclear_tries < UNCLEAR_TRIES:
            return False
        if len(codes) == len(messages) > 1:
            raise Refused(self._reason(codes[first]))
        return True

    async def state(self, changes: Mapping[Key, bytes | None]) -> None:
        """Retain each value, or clear what was retained: ("presence", device), or ("topic", a topic in full)."""
        link = self._broker.open_link()
        retained, told = [], []
        for key, value in changes.items():
            if key[0] == "presence" and self._layout.presence is not None:
                told.append(self._layout.presence(key[1], value))
            else:
                retained.append(Message(self._topic_of(key), value or b"", ()))
        await self._retain(link, retained)
        await self._retain(link, told, retain=False)

    async def tell(self, events: Sequence[tuple[Key, bytes]]) -> None:
        """Publish each once: ("command-state", device)."""
        link = self._broker.open_link()
        messages = [
            Message(f"{self._prefix}/{name}/command/state", value, (), (), JSON, TOLD_S) for (_, name), value in events
        ]
        await self._retain(link, messages, retain=False)

    async def close(self) -> None:
        """Retain ``offline``, say goodbye; a link that does not answer is cut."""
        link = self._link
        if link is None:
            return
        try:
            link.on_closed = None
            if link.closed is None:
                await self._tell_status(link, b"offline")
                await link.disconnect()
        except (Unavailable, Stopped):
            pass
        finally:
            link.abort()
            self._broker.forget()

    def stats(self) -> dict[str, float]:
        """``connected`` (0 or 1), ``connects``, ``publishes``, ``refused_states``, ``deaf`` (1: may not subscribe)."""
        return {**self._broker.stats(), "refused_states": self._refused_states, "deaf": float(self._deaf)}

    # -- within --

    @property
    def _link(self) -> Link | None:
        return self._broker.link

    async def _will(self) -> Will:
        return Will(self._status_topic, b"offline", self._qos, True)

    @property
    def _status_topic(self) -> str:
        return f"{self._prefix}/status"

    def _topic_of(self, key: Key) -> str:
        kind, name = key
        return f"{self._prefix}/{name}/presence" if kind == "presence" else name

    def _expiring(self, messages: list[Message]) -> list[Message]:
        if not self._expiry_s:
            return messages
        return [msgspec.structs.replace(message, expiry_s=self._expiry_s) for message in messages]

    def _most_bytes(self, link: Link) -> int:
        # What a PUBLISH adds to its payload at most: 5 for the fixed header, the topic, 2 for the identifier,
        # 1 for the properties' length, and those that layouts that cut may have.
        historical = 1 + sum(2 + len(part) for part in HISTORICAL)
        around = 5 + 2 + self._topics.longest + 2 + 1 + historical + 3 + len(JSON) + 5
        return max(_LEAST_PAYLOAD, min(self._learned_bytes, link.max_packet - around))

    def _cut(self, items: Sequence[Item], message: Message, max_bytes: int, before: int) -> list[Message]:
        # The same readings in smaller messages; at the end one a reading, so that this ends.
        some = [items[index] for index in message.indices]
        inner = self._layout.messages(some, self._topics, max_bytes, before)
        if len(inner) == 1:
            inner = self._layout.messages(some, self._topics, 1, before)
        return [
            msgspec.structs.replace(made, indices=tuple(message.indices[i] for i in made.indices))
            for made in self._expiring(inner)
        ]

    def _refusal(self, code: int, message: Message) -> Stopped | Unavailable:
        text = f"the broker refused a message to {message.topic} (reason code 0x{code:02x})"
        return Stopped(text, hint=_STOPS[code]) if code in _STOPS else Unavailable(text, reached=True)

    @staticmethod
    def _reason(code: int) -> str:
        return f"the broker refused it: {_CONTENT.get(code) or _UNCLEAR[code]} (0x{code:02x})"

    async def _tell_status(self, link: Link, status: bytes) -> None:
        if self._tells_status:
            await self._retain(link, [Message(self._status_topic, status, ())])

    async def _listen(self, link: Link) -> None:
        """Subscribe; a broker that does not let us is no reason not to publish."""
        link.on_message = self._heard
        refused = [topic for topic in self._inbound if await link.subscribe(topic) >= 0x80]
        if refused and not self._deaf:
            text = f"the broker does not let us subscribe to {', '.join(refused)}"
            log.warning("sink %s: %s", self.name, text, extra={"event": "sink_deaf", "sink": self.name, "reason": text})
        self._deaf = bool(refused)

    def _heard(self, topic: str, payload: bytes) -> None:
        for pattern, inbound in self._inbound.items():
            if topic_matches_sub(pattern, topic):
                inbound(topic, payload)
                return

    async def _retain(self, link: Link, messages: Sequence[Message], *, retain: bool = True) -> None:
        codes = await link.publish(messages, qos=self._qos, retain=retain)
        for index, code in codes.items():
            if code not in _CONTENT:
                raise self._refusal(code, messages[index])
            self._refused_states += 1

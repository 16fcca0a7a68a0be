"""The Sparkplug B sink: the gateway as an edge node, its devices as the node's (Sparkplug 3.0.0).

Topics are ``spBv1.0/GROUP/VERB/NODE[/DEVICE]``.  A client of its own, since the Will has to be the node's death
(NDEATH), with the number of the session (``bdSeq``) in it.  After each connect NCMD is subscribed to, then come NBIRTH,
and DBIRTH for each device that is connected; then DDATA, DBIRTH and DDEATH as ``sparkplug_node`` says.  A host that
asks for it (NCMD ``Node Control/Rebirth``) gets all births anew before anything else.  On a stop: NDEATH, and a
DISCONNECT that lets the broker send the Will as well, as is prescribed for MQTT 5.

Safe: the specification wants births and data at QoS 0, which the broker does not acknowledge.  A batch is taken to be
safe once the broker has answered a PINGREQ that was sent after the batch, on the same connection: then it has read all
of it.  A connection that ends before that has the whole batch written again, behind new births: each value reaches
the broker at least once.  What the broker does with it is not known; one that refuses a topic at QoS 0 does so in
silence.  A host that was away has missed what was published meanwhile, and can ask for births alone.  With a primary
host that does not happen: while it is offline nothing is published, the node is dead, and the journal keeps the
readings.

Whatever ends a call to the broker early (a connection, a cancellation) leaves a sequence with numbers that nobody got:
everything is born again before more is said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Unpack

from gateway.sinks.base import Rejected, Stopped, Unavailable
from gateway.sinks.layouts import Message
from gateway.sinks.mqtt_broker import HISTORICAL_S, Broker
from gateway.sinks.mqtt_link import Link, Will
from gateway.sinks.sparkplug_host import PrimaryHost
from gateway.sinks.sparkplug_node import Latest, Node
from gateway.sinks.sparkplug_payload import REBIRTH, asked
from gateway.sinks.sparkplug_session import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from gateway.reading import Batch
    from gateway.sinks.base import Key
    from gateway.sinks.reach import Terms

__all__ = ["SparkplugSink"]

log = logging.getLogger(__name__)

AT_ONCE_BYTES = 64 << 10  # published before the loop has other work again
AT_ONCE = 500
HOST_ANSWER_S = 1.0  # until a STATE that is retained has come
HOST_RETRY_S = 1.0  # between two looks whether the primary host is there


class SparkplugSink:
    """See the module's text.

    ``group`` and ``node`` name the edge node, which has to be one alone on the broker, as has ``client_id``.
    ``session`` is the file of the session's number.  ``primary_host`` is the id of the host application without which
    nothing is published, empty: none.  ``latest``, ``integer`` and ``aliases`` are as ``sparkplug_node`` says.  For
    ``terms`` see ``reach``, for what is raised ``mqtt_broker``.
    """

    refuses = True
    keeps_states = True

    def __init__(
        self,
        *,
        group: str,
        node: str,
        session: Path,
        primary_host: str = "",
        aliases: bool = True,
        latest: Latest = lambda device: (),
        integer: Callable[[str, str], bool] = lambda device, metric: False,
        name: str = "sparkplug",
        wall_clock: Callable[[], int] = time.time_ns,
        **terms: Unpack[Terms],
    ) -> None:
        self.name = name
        self.lost: Callable[[], None] | None = None
        self._broker = Broker(**terms)
        self._node = Node(group, node, latest=latest, integer=integer, aliases=aliases)
        self._sessions = Sessions(session)
        self._host = PrimaryHost(primary_host) if primary_host else None
        self._told = asyncio.Event()  # a STATE was heard on this connection
        self._around = 64 + len(self._node.command_topic.encode()) + 64  # of a packet, beside its payload, at most
        self._bd_seq = 0
        self._born: Link | None = None  # the connection on which the births hold
        self._listening: Link | None = None  # that on which we have subscribed
        self._entered = False  # the births are through on this connection, and what is heard there was asked for
        self._rebirth = False
        self._deaf = False
        self._wall_clock = wall_clock
        self._rebirths = 0

    async def open(self) -> None:
        """Nothing: ``ready`` connects."""

    async def ready(self) -> bool:
        """Connect where we are not connected, and be born where we are not; True when we just connected."""
        if await self._broker.renew(self._will, self.lost):
            self._entered = False
        link = self._broker.open_link()
        asked = self._listening is not link
        if asked:
            await self._listen(link)
            self._listening = link
        if self._host is not None and not self._host.online:
            await self._wait_for(self._host, link, asked)
        if self._born is not link or self._rebirth:
            self._rebirths += self._rebirth
            self._rebirth = False
            now = self._wall_clock()
            births = self._node.births(
                self._bd_seq, now, fresh=self._born is not link, max_bytes=link.max_packet - self._around
            )
            self._born = link
            await self._publish(link, births)
        # Where one of these ends early on a connection that lasts, it is a new one still.
        new, self._entered = not self._entered, True
        return new

    async def write(self, batch: Batch) -> int:
        """Publish the batch's readings; see the module's text for when they are safe."""
        link = self._broker.open_link()
        now = self._wall_clock()
        refused: dict[int, str] = {}
        before = now - HISTORICAL_S * 1_000_000_000
        most = link.max_packet - self._around
        await self._publish(link, self._node.data(batch.items, before, now, max_bytes=most, refused=refused))
        if refused:
            raise Rejected(refused, rest_safe=True)
        return batch.end

    async def state(self, changes: Mapping[Key, bytes | None]) -> None:
        """Births and deaths of devices: ("presence", device); no other state is told here."""
        link = self._broker.open_link()
        now, most = self._wall_clock(), link.max_packet - self._around
        await self._publish(
            link,
            (
                message
                for key, value in changes.items()
                if key[0] == "presence"
                for message in self._node.presence(key[1], value, now, max_bytes=most)
            ),
        )

    async def tell(self, events: Sequence[tuple[Key, bytes]]) -> None:
        """Nothing: Sparkplug has no such events."""

    async def close(self) -> None:
        """Publish the node's death and say goodbye; a link that does not answer is cut."""
        link = self._broker.link
        if link is None:
            return
        try:
            link.on_closed = None
            if link.closed is None:
                await self._die(link)
        except (Unavailable, Stopped):
            pass
        finally:
            link.abort()
            self._broker.forget()

    def stats(self) -> dict[str, float]:
        """``connected`` (0 or 1), ``connects``, ``publishes``, ``births`` and ``deaths`` of devices, ``rebirths`` that
        were asked for, ``deaf`` (1: may not subscribe).
        """
        return {
            **self._broker.stats(),
            "births": self._node.born,
            "deaths": self._node.died,
            "rebirths": self._rebirths,
            "deaf": float(self._deaf),
        }

    # -- within --

    async def _will(self) -> Will:
        self._bd_seq = await asyncio.to_thread(self._sessions.next)
        return Will(self._node.death_topic, self._node.death(self._bd_seq, self._wall_clock()), 1, False)

    async def _publish(self, link: Link, messages: Iterable[Message]) -> None:
        """All of them, in order, and until the broker has read them."""
        if self._born is not link:
            raise Unavailable("not born")
        try:
            some: list[Message] = []
            size = 0
            for message in messages:
                some.append(message)
                size += len(message.payload)
                if size >= AT_ONCE_BYTES or len(some) >= AT_ONCE:
                    await self._publish_some(link, some)
                    some, size = [], 0
            await self._publish_some(link, some)
        except BaseException:
            self._born = None
            raise

    async def _publish_some(self, link: Link, messages: Sequence[Message]) -> None:
        if await link.publish(messages, qos=0):
            raise Stopped("the broker takes no packets that are as large as a birth of this node")

    async def _die(self, link: Link) -> None:
        if self._born is link:
            self._born = None
            payload = self._node.death(self._bd_seq, self._wall_clock())
            await link.publish([Message(self._node.death_topic, payload, ())], qos=1)
        await link.disconnect(with_will=True)

    async def _wait_for(self, host: PrimaryHost, link: Link, asked: bool) -> None:
        """Returns where it is there after all; else ends the session that there was, and raises ``Unavailable``.

        ``asked``: the broker was asked for its state just now, and the answer may be on its way.
        """
        if self._born is link:
            await self._die(link)
            self._broker.forget()
        elif asked:
            try:
                async with asyncio.timeout(HOST_ANSWER_S):
                    await self._told.wait()
            except TimeoutError:
                pass
            if host.online:
                return
        raise Unavailable(
            f"the primary host {host.name} is offline",
            retry_after_s=HOST_RETRY_S,
            hint="it retains its STATE on the broker while it runs; check GATEWAY_SPARKPLUG__PRIMARY_HOST",
            reached=True,
        )

    async def _listen(self, link: Link) -> None:
        """Hear the node's commands, and of the primary host."""
        link.on_message = self._heard
        refused = await link.subscribe(self._node.command_topic) >= 0x80
        if self._host is not None:
            self._host.online = False
            self._told.clear()
            refused |= await link.subscribe(self._host.topic, retained=True) >= 0x80
        if refused and not self._deaf:
            text = f"the broker does not let us subscribe to {self._node.command_topic}, or to STATE"
            log.warning("sink %s: %s", self.name, text, extra={"event": "sink_deaf", "sink": self.name, "reason": text})
        self._deaf = refused

    def _heard(self, topic: str, payload: bytes) -> None:
        try:
            if self._host is not None and topic == self._host.topic:
                woken = self._host.heard(payload)
                self._told.set()
            else:
                woken = self._asked_for_births(payload)
        except ValueError as error:
            log.warning("sink %s: %s: %s", self.name, topic, error)
            return
        if woken and self.lost is not None:
            self.lost()

    def _asked_for_births(self, payload: bytes) -> bool:
        found = asked(payload)
        if others := [name for name, _ in found if name != REBIRTH]:
            log.info("sink %s: a command is for metrics that this node does not set: %.64r", self.name, others[0])
        if (REBIRTH, True) in found:
            self._rebirth = True
        return self._rebirth

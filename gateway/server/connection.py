"""One device's connection: turns messages into what the session, the pipeline and the ledger decide, and sends what
they answer.

Bounds, and what happens there:

- what a device does not read: beyond :data:`REPLIES_MAX` pending bytes acks wait (the newest says it all), a reading
  that would be refused is held back instead (an ack must not cover what no error has named), and other notices are
  dropped and counted.  The device is never disconnected for it.
- a journal without room: ``overloaded`` for each message, and after :data:`OVERLOAD_S` 1013, since a device that is
  told to come back later costs less than one that asks all the time.
- the rate covers whatever costs a place in the journal or an answer: readings, refused ones too, and descriptions.
- distinct metrics of a device: ``max_metrics``; a reading with one more is refused (``too_many_metrics``).
- distinct metrics of all devices together, and those that they describe: ``max_series`` of each; a reading or a
  description with one more is refused (``too_many_series``).
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import liveness
from ..codecs import CODECS, Codec, Control, Draft, codec_for
from ..errors import Overloaded, Refusal
from ..limit import TokenBucket
from ..session import Verdict
from ..ws import Connection as WebSocket
from ..ws import Message
from .describing import check_description, metrics_described, with_units
from .outcome import Outcome
from .subdevices import SubDevices

if TYPE_CHECKING:
    from ..devices import Device, Relay
    from .device import DeviceEndpoint
    from .downlink import Downlink

__all__ = ["Connection"]

log = logging.getLogger(__name__)

REPLIES_MAX = 64 * 1024
UNDECODABLE_MAX = 5  # in a row, then 1011
WAIT_S = 0.25  # a throttled device is asked to wait this long where the rate allows it sooner
REMIND_S = 1.0  # between two notices to a device that goes on behind a hold
OVERLOAD_S = 10.0  # of nothing but overloaded, then 1013
OVERLOAD_RETRY_MS = (5_000, 15_000)  # drawn from, so that not all come back at once
OWED_S = 0.25  # until an ack that had to wait is tried again
UNITS_PER_S, UNITS_BURST = 0.1, 100  # descriptions that units with readings change, a connection; more come later
HANG_UP_S = 0.5  # between two looks whether a device that is not read has closed
BEYOND_RATE = "readings came faster than its rate and were not kept"


class Connection:
    """One device's connection: the :class:`~gateway.devices.Link` of its device while it is the newest."""

    __slots__ = (
        "_binary",
        "_contested",
        "_decided",
        "_endpoint",
        "_level",
        "_overloaded_since",
        "_owed",
        "_reminded",
        "_replies",
        "_resume",
        "_subs",
        "_text",
        "_undecodable",
        "_units",
        "_ws",
        "device",
    )

    via = ""

    def __init__(self, endpoint: DeviceEndpoint, ws: WebSocket, device: Device) -> None:
        self._endpoint = endpoint
        self._ws = ws
        self.device = device
        subprotocol = ws.subprotocol or ws.query.get("format")
        self._text = codec_for(subprotocol, True, endpoint.codecs)
        self._binary = codec_for(subprotocol, False, endpoint.codecs)
        # Replies before the first message, and after one of a kind that needs JSON, are in the format agreed on.
        self._replies: Codec = CODECS[subprotocol] if subprotocol else CODECS["gateway.v1.json"]
        self._level = ws.query.get("ack", "durable")
        self._decided = 0  # the highest seq that may be acked at this connection's level
        self._overloaded_since = 0.0  # when the journal refused the first of this device in a row; 0.0: it does not
        self._owed: asyncio.TimerHandle | None = None  # an ack waits until the device reads
        self._reminded = 0.0
        self._resume: asyncio.TimerHandle | None = None
        self._undecodable = 0
        self._units = TokenBucket(UNITS_PER_S, UNITS_BURST, clock=endpoint.monotonic)
        self._contested = bool(ws.state.get("contested"))
        self._subs: SubDevices | None = None  # made for the first one that is named
        self._take_over()

    def _take_over(self) -> None:
        device, endpoint = self.device, self._endpoint
        previous, device.link = device.link, self
        device.via = ""
        if previous is not None:
            previous.replaced(self._contested)
        if isinstance(previous, Connection):
            previous._subs, self._subs = None, previous._subs
            if self._subs is not None:
                self._subs.pass_on(self, self._ws.state.get("grant"))
        now = endpoint.now()
        resumed = device.begin(self._ws.query.get("session"), secrets.token_hex(4))
        device.last_seen = now
        device.rhythm.begin(endpoint.monotonic())
        endpoint.lookout.soon(device)
        if previous is None or previous.via:
            endpoint.connected += 1
        status, changed = liveness.connected(device.status, now)
        if changed:
            endpoint.pipeline.presence(device, status)
        device.status = status
        settings = endpoint.settings
        self._send(
            {
                "type": "welcome",
                "device": device.name,
                "session": device.session.id,
                "resumed": resumed,
                "last_seq": device.session.durable,
                "heartbeat_s": settings.heartbeat_s,
                "max_message_bytes": settings.max_message_bytes,
                "rate": {"per_s": settings.rate, "burst": settings.burst},
                "time": now // 1_000_000,
            }
        )
        if resumed and device.session.durable:
            # What was decided before this connection is told again at the level asked for.
            self._decided = device.session.durable if self._level == "durable" else 0
            if self._level == "delivered":
                endpoint.delivery.add(self, device.session.durable)
        if endpoint.downlink is not None:
            endpoint.downlink.attend(device)

    # -- the device's link, called by the book -------------------------------------------------------------------

    def committed(self, seq: int) -> None:
        """Everything up to ``seq`` is durably decided."""
        if self._level == "durable":
            self._ack(seq)
        elif self._level == "delivered":
            self._endpoint.delivery.add(self, seq)

    def delivered(self, seq: int) -> None:
        """Everything up to ``seq`` was taken by every sink as well."""
        self._ack(seq)

    def _ack(self, seq: int) -> None:
        self._decided = seq
        if self._owed is not None:
            return
        if self._ws.pending_bytes <= REPLIES_MAX:
            self._transmit({"type": "ack", "seq": seq})
        else:
            self._owed = asyncio.get_running_loop().call_later(OWED_S, self._pay)

    def _pay(self) -> None:
        self._owed = None
        self._ack(self._decided)

    def replaced(self, contested: bool) -> None:
        """Another connection of this device took over, for the third time or more in a short while if ``contested``."""
        reason = "again and again: do two devices use this name?" if contested else "by a newer connection"
        if contested:
            self._endpoint.complaints.note("device_replaced", self.device.name, reason, 4001)
        # The newer one holds the link: this end changes nothing about the device.
        self._ws.close_soon(4001, f"replaced {reason}")

    def can_take(self) -> bool:
        """Whether the device reads what it is sent."""
        return self._ws.pending_bytes <= REPLIES_MAX

    def command(self, message: dict[str, object]) -> None:
        """Send the device a command."""
        self._transmit(message)

    # -- the layer's callbacks -----------------------------------------------------------------------------------

    def closed(self) -> None:
        """The connection ended.  The end of a replaced one changes nothing, nor does the gateway's own stop."""
        for timer in (self._resume, self._owed):
            if timer is not None:
                timer.cancel()
        self._endpoint.delivery.discard(self)
        ws = self._ws
        if ws.reason_lost == "protocol error":
            self._endpoint.complaints.note("device_closed", self.device.name, ws.close_reason, ws.close_code)
        self._lost(ws.reason_lost or "closed", broken=ws.close_code == 1006)

    def end(self, code: int, reason: str) -> None:
        """Close for a cause of the device's: it is offline from now on, whenever it answers the close."""
        self._endpoint.complaints.note("device_closed", self.device.name, reason, code)
        self._ws.close_soon(code, reason)
        self._lost(reason)

    def _lost(self, reason: str, *, broken: bool = False) -> None:
        """The device is offline for ``reason``; ``broken``: the connection ended without a word (RFC 6455, 7.1.5)."""
        device, endpoint = self.device, self._endpoint
        if device.link is not self:
            return
        device.link = None
        endpoint.connected -= 1
        if self._subs is not None:
            self._subs.end(reason)
        if endpoint.stopping or device.status is None:
            return
        now = endpoint.monotonic()
        if broken and endpoint.losses.note(now, endpoint.connected, device.name):
            words, extra = endpoint.losses.words(now), {"event": "devices_lost", "reason": reason}
            log.warning("%s: a network or an access point that failed?", words, extra=extra)
        status = liveness.lost(device.status, reason, endpoint.now())
        if status is not None:
            endpoint.pipeline.presence(device, status)

    def message(self, message: Message) -> None:
        """One data message of the device."""
        endpoint, device = self._endpoint, self.device
        received = endpoint.now()
        device.last_seen = received
        if device.rhythm.speak(endpoint.monotonic()):
            endpoint.lookout.soon(device)
        if device.status is None or device.status.state != liveness.ONLINE:
            self._heard(received)
        codec = self._text if message.kind == "text" else self._binary
        if codec is None:
            self.end(
                1003,
                f"{self._ws.subprotocol or self._ws.query.get('format')} does not use this kind of frame",
            )
            return
        try:
            parts = codec.decode(message.data)
        except Refusal as refusal:
            device.ledger.received += 1
            device.ledger.rejected += 1
            self._undecodable += 1
            self._error(device, refusal, "device_undecodable")
            if self._undecodable >= UNDECODABLE_MAX:
                self.end(1011, f"{UNDECODABLE_MAX} messages in a row that cannot be decoded")
            return
        outcome = Outcome()
        several = len(parts) > 1
        size = len(message.data) // (len(parts) or 1)
        for index, part in enumerate(parts):
            if type(part) is Draft:
                if part.device and part.device != device.name:
                    self._reading_of_other(part, index if several else None, received, size, outcome)
                else:
                    device.ledger.received += 1
                    self._reading(device, None, part, index if several else None, received, size, outcome)
            elif isinstance(part, Control):
                self._control(part, received, outcome)
            elif isinstance(part, Refusal):
                whose = self._whose(part, received)
                whose.ledger.received += 1
                self._refuse(whose, part, outcome)
        self._answer(outcome)

    def _heard(self, now: int) -> None:
        """A device that was stale speaks again."""
        status, changed = liveness.connected(self.device.status, now)
        if self.device.link is self and changed:
            self._endpoint.lookout.soon(self.device)
            self._endpoint.pipeline.presence(self.device, status)

    @property
    def paused(self) -> bool:
        """Whether nothing is read, for the rate: its silence is ours then."""
        return self._resume is not None

    def _heard_of(self, name: object, received: int) -> Device:
        """The sub-device of that name, which is heard now; raises :class:`Refusal`."""
        subs = self._sub_devices()
        link = subs.find(name)
        subs.heard(link, received)
        return link.device

    def _sub_devices(self) -> SubDevices:
        if self._subs is None:
            self._subs = SubDevices(self._endpoint, self, self._ws.state.get("grant"))
        return self._subs

    def _whose(self, refusal: Refusal, received: int) -> Device:
        """Whose reading was refused: the connection's own where it names none that there may be."""
        if refusal.device and refusal.device != self.device.name:
            with suppress(Refusal):
                return self._heard_of(refusal.device, received)
        return self.device

    def _reading_of_other(self, draft: Draft, index: int | None, received: int, size: int, outcome: Outcome) -> None:
        try:
            device = self._heard_of(draft.device, received)
        except Refusal as refusal:
            self.device.ledger.received += 1
            refusal.seq, refusal.index = draft.seq, index
            self._refuse(self.device, refusal, outcome)
        else:
            device.ledger.received += 1
            self._reading(device, self._sub_devices().relay, draft, index, received, size, outcome)

    def _reading(
        self,
        device: Device,
        relay: Relay | None,
        draft: Draft,
        index: int | None,
        received: int,
        size: int,
        outcome: Outcome,
    ) -> None:
        """A reading of ``device``, a sub-device where there is a ``relay``; the sequence is this connection's own."""
        endpoint, ledger, seq = self._endpoint, device.ledger, draft.seq
        metrics = device.metrics
        if not metrics.issuperset(draft.values):
            metrics = metrics.union(draft.values)
            if len(metrics) > endpoint.settings.max_metrics:
                detail = f"more than {endpoint.settings.max_metrics} metrics of one device"
                self._refuse(device, Refusal("too_many_metrics", detail, seq=seq, index=index), outcome)
                return
            if endpoint.series + len(metrics) - len(device.metrics) > endpoint.settings.max_series:
                detail = f"more than {endpoint.settings.max_series} metrics of all devices"
                self._refuse(device, Refusal("too_many_series", detail, seq=seq, index=index), outcome)
                return
        if seq:
            verdict = self.device.session.judge(seq, endpoint.monotonic())
            if verdict is Verdict.DUPLICATE:
                ledger.duplicate += 1
                outcome.duplicate = True
                return
            if verdict is Verdict.HELD:
                self._held_behind(device, outcome)
                return
        elif outcome.blocked and outcome.stops(device):
            # What has no seq cannot come again: dropped, and counted as what stopped it.
            if outcome.overloaded:
                ledger.dropped += 1
            else:
                ledger.throttled += 1
                outcome.held += 1
            return
        try:
            wait = endpoint.pipeline.admit(device, draft, received, size, delay=endpoint.delay, relay=relay)
        except Overloaded as full:
            ledger.dropped += 1
            self._overloaded(full, seq, outcome)
            return
        except Refusal as refusal:
            self._refuse(device, Refusal(refusal.code, str(refusal), seq=seq, index=index), outcome, paid=True)
            return
        if not wait or endpoint.delay:
            if metrics is not device.metrics:
                endpoint.series += len(metrics) - len(device.metrics)
                device.metrics = metrics
            self._undecodable = 0
            self._overloaded_since = 0.0
            if wait > outcome.debt:
                outcome.debt = wait
            if draft.units is not None:
                self._measured_in(device, draft.units, received)
        else:
            self._hold(device, seq, wait, outcome)

    def _held_behind(self, device: Device, outcome: Outcome) -> None:
        """A reading came behind one that could not be kept: not kept for the same cause."""
        if self.device.session.held_full:
            device.ledger.dropped += 1
        else:
            device.ledger.throttled += 1
        outcome.held += 1

    def _refuse(self, device: Device, refusal: Refusal, outcome: Outcome, *, paid: bool = False) -> None:
        """A reading is refused for good, unless it cannot be told or is beyond the rate: then it has to come again.

        ``paid``: it has cost the rate already.
        """
        endpoint = self._endpoint
        seq = refusal.seq
        verdict = self.device.session.judge(seq, endpoint.monotonic()) if seq else Verdict.NEW
        if verdict is Verdict.DUPLICATE:
            device.ledger.duplicate += 1
            outcome.duplicate = True
            return
        if verdict is Verdict.HELD:
            self._held_behind(device, outcome)
            return
        if not paid:
            wait = device.bucket.borrow(1.0) if endpoint.delay else device.bucket.take(1.0)
            if endpoint.delay:
                outcome.debt = max(outcome.debt, wait)
            elif wait:
                self._hold(device, seq, wait, outcome)
                return
        if seq and self._ws.pending_bytes > REPLIES_MAX:
            self._hold(device, seq, 0.0, outcome)
            return
        if seq:
            try:
                endpoint.pipeline.refuse(self.device, seq)
            except Overloaded as full:
                device.ledger.dropped += 1
                self._overloaded(full, seq, outcome)
                return
        device.ledger.rejected += 1
        self._error(device, refusal)

    def _hold(self, device: Device, seq: int, wait: float, outcome: Outcome) -> None:
        """A reading is not kept now; what has a seq may come again after ``wait`` seconds."""
        device.ledger.throttled += 1
        outcome.held += 1
        outcome.stop(device)
        if seq:
            self.device.session.hold(seq, self._endpoint.monotonic())
        if not outcome.blocked:
            # Long enough for some more than the one, or the device would be back for each token.
            settings = self._endpoint.settings
            outcome.blocked = True
            outcome.beyond_rate = wait > 0
            outcome.from_seq = seq
            outcome.wait = max(wait, min(WAIT_S, settings.burst / 2 / settings.rate))

    def _overloaded(self, full: Overloaded, seq: int, outcome: Outcome) -> None:
        now = self._endpoint.monotonic()
        if seq:
            self.device.session.hold(seq, now, full=True)
        if outcome.blocked:
            return
        outcome.blocked = outcome.overloaded = True
        self._count("overloaded")
        self._reminded = now
        if not self._overloaded_since:
            self._overloaded_since = now
        elif now - self._overloaded_since >= OVERLOAD_S:
            self.end(full.close_code, f"retry_after_ms={random.randint(*OVERLOAD_RETRY_MS)}")
            return
        reply: dict[str, object] = {"type": "error", "code": "overloaded", "detail": str(full)}
        if seq:
            reply["seq"] = seq
        reply["retry_after_ms"] = full.retry_after_ms
        self._send(reply)

    def _answer(self, outcome: Outcome) -> None:
        """Say once a message what became of it."""
        if outcome.debt:
            self._pause(outcome.debt)
        if outcome.duplicate and self._decided:
            self._ack(self._decided)
        if outcome.overloaded or not outcome.held:
            return
        if not self.device.session.held_full:
            name = (outcome.beyond or self.device).name
            self._endpoint.complaints.note("device_throttled", name, BEYOND_RATE, count=outcome.held)
        if outcome.beyond_rate and self._endpoint.settings.policy == "close":
            self.end(1008, "rate limit exceeded")
        elif outcome.blocked:
            self._throttled(outcome.from_seq, outcome.wait, outcome.held)
        elif self._endpoint.monotonic() - self._reminded >= REMIND_S:
            # It goes on behind what it was told to send again: it may have missed that.
            self._throttled(self.device.session.held, 0.0, outcome.held)

    def _pause(self, seconds: float) -> None:
        """Read nothing until the rate allows it; the liveness clock stands still meanwhile.

        A device that has closed is read to its end at once: that is no more than the socket's buffer holds.
        """
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if seconds <= 0 or self._ws.peer_gone:
            self.device.rhythm.begin(self._endpoint.monotonic())  # what it could not say is no pause of its own
            if self._subs is not None:
                self._subs.resumed()
            self._ws.resume()
            return
        self._ws.pause()
        step = min(seconds, HANG_UP_S)
        self._resume = asyncio.get_running_loop().call_later(step, self._pause, seconds - step)

    def _throttled(self, seq: int, wait: float, dropped: int) -> None:
        self._reminded = self._endpoint.monotonic()
        notice: dict[str, object] = {"type": "throttled"}
        if seq:
            notice["seq"] = seq
        notice["dropped"] = dropped
        notice["retry_after_ms"] = max(1, int(wait * 1000) + 1)
        self._send(notice)

    def _control(self, control: Control, received: int, outcome: Outcome) -> None:
        device, named, unknown = self.device, control.body.get("device"), None
        if named is not None and named != device.name:
            try:
                if control.type == "heartbeat":
                    self._heard_of(named, received)
                else:  # what is said of it is no word from it
                    device = self._sub_devices().find(named).device
            except Refusal as refusal:
                unknown = refusal
        if unknown is None and control.type == "heartbeat":
            return
        if device.bucket.take(1.0):
            self._error(device, Refusal("rate", f"{control.type}: beyond the rate, not taken"))
        elif unknown is not None:
            self._error(device, unknown)
        elif control.type == "describe":
            try:
                self._describe(device, check_description(control.body), received)
            except ValueError as error:
                self._error(device, Refusal("bad_description", f"describe: {error}"))
            except Refusal as refusal:
                self._error(device, refusal)
            except Overloaded as full:
                self._overloaded(full, 0, outcome)
        elif (downlink := self._endpoint.downlink) is not None:
            task = asyncio.create_task(self._result(downlink, device, control.body))
            self._endpoint.results.add(task)
            task.add_done_callback(self._endpoint.results.discard)
        else:
            self._error(device, Refusal("unknown_command", "no command of that id is waiting"))

    async def _result(self, downlink: Downlink, device: Device, body: dict[str, object]) -> None:
        """An answer to a command; as many at once as the rate lets through."""
        name = device.name
        if device is self.device and self._subs is not None and (asked := downlink.asked(body)) in self._subs:
            name = asked  # ids are told apart without the name, too
        try:
            await downlink.answered(name, body)
        except Refusal as refusal:
            self._error(device, refusal)

    def _describe(self, device: Device, body: dict[str, object], received: int) -> None:
        """Raises :class:`Refusal` for metrics that are too many for all devices together, and ``Overloaded``."""
        endpoint = self._endpoint
        more = metrics_described(body) - metrics_described(device.described)
        if more > 0 and endpoint.described + more > endpoint.settings.max_series:
            detail = f"describe: more than {endpoint.settings.max_series} metrics of all devices"
            raise Refusal("too_many_series", detail)
        endpoint.pipeline.describe(device, body, received)
        endpoint.lookout.soon(device)
        endpoint.described += more

    def _measured_in(self, device: Device, units: dict[str, str], received: int) -> None:
        """Units that came with a reading are a part of the description; what cannot be one is left out."""
        described = device.described
        with suppress(ValueError, Overloaded, Refusal):
            body = with_units(described, units)
            # The whole description is journalled: what would change it with each reading does so now and then.
            if body is not described and not self._units.take():
                self._describe(device, body, received)

    def _error(self, device: Device, refusal: Refusal, event: str = "device_refused") -> None:
        detail = str(refusal)[:512]
        self._count(refusal.code)
        self._endpoint.refused.note(device.name, refusal, self._endpoint.now())
        self._endpoint.complaints.note(event, device.name, detail, refusal.code)
        reply: dict[str, object] = {"type": "error", "code": refusal.code, "detail": detail}
        if device is not self.device:
            reply["device"] = device.name
        if refusal.seq:
            reply["seq"] = refusal.seq
        if refusal.index is not None:
            reply["index"] = refusal.index
        self._send(reply)

    def _count(self, code: str) -> None:
        refusals = self._endpoint.refusals
        refusals[code] = refusals.get(code, 0) + 1

    def _send(self, reply: dict[str, object]) -> None:
        if self._ws.pending_bytes > REPLIES_MAX:
            self._endpoint.notices_dropped += 1
        else:
            self._transmit(reply)

    def _transmit(self, reply: dict[str, object]) -> None:
        data = self._replies.encode(reply)
        self._ws.try_send(Message.text(data) if isinstance(data, str) else Message.binary(data))

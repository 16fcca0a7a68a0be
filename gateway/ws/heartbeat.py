"""Heartbeats of all connections of a server, from one timer.

Connections stand in the slots of a wheel by the time they are next to be looked at; a tick looks at one slot.  So an
idle connection costs a ping and a look or two an interval, however many there are.

A ping goes out every ``interval`` after the connection opened.  Any byte received since then is an answer.  Without one
for ``timeout`` the peer is lost, except

- while we do not read (paused by the user or by a full queue), and for ``timeout`` after;
- while our ping is still in a send buffer that keeps draining: a slow peer is not a dead one;
- at a tick that comes late, and shortly after: our own absence is never blamed on a peer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from websockets.protocol import OPEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Wire

__all__ = ["Beat", "Heartbeat"]

logger = logging.getLogger("gateway.ws")

# A tick this much later than asked is late: the loop stood still.
LATE = 0.5
GRACE = 1.0  # what a peer has left, at least, after a late tick

PING = b"\x89\x00"  # an empty ping: FIN, opcode 9, no payload


class Beat:
    """Where one connection stands: its slot in the wheel, and the ping that waits for an answer."""

    __slots__ = ("asked_at", "next_ping", "ping_end", "slot", "taken")

    def __init__(self, next_ping: float) -> None:
        self.next_ping = next_ping
        self.asked_at: float | None = None  # when the unanswered ping went out
        self.ping_end = 0  # how many bytes had been written with the ping
        self.taken = 0  # how many of them the peer's machine had taken at the last look
        self.slot = 0


class Heartbeat:
    """The wheel.  ``tick`` seconds apart, at most; nothing runs while it is empty."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._slots: dict[int, dict[Wire, None]] = {}
        self._tick = 0.25
        self._done = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, ws: Wire) -> None:
        """Watch ``ws``, if its terms ask for it and it is still open."""
        terms = ws._terms.heartbeat
        if terms is None or ws.close_code is not None:
            return
        now = self._clock()
        tick = max(0.01, min(0.25, min(terms) / 8))
        if not self._slots:
            self._tick = tick
            self._done = int(now / tick)
        elif tick < self._tick:
            self._retune(tick, now)
        ws._beat = Beat(now + terms[0])
        self._place(ws, ws._beat.next_ping)
        self._arm(now)

    def discard(self, ws: Wire) -> None:
        """Forget ``ws``."""
        if ws._beat is not None:
            slot = self._slots.get(ws._beat.slot)
            if slot is not None:
                slot.pop(ws, None)
                if not slot:
                    del self._slots[ws._beat.slot]
            ws._beat = None

    def stop(self) -> None:
        """Forget all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()

    def _retune(self, tick: float, now: float) -> None:
        """Go over to a finer wheel."""
        watched = [ws for slot in self._slots.values() for ws in slot]
        self._slots.clear()
        self._tick = tick
        self._done = int(now / tick)
        for ws in watched:
            self._place(ws, ws._beat.next_ping if ws._beat.asked_at is None else now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _place(self, ws: Wire, when: float) -> None:
        index = max(int(when / self._tick) + 1, self._done + 1)
        ws._beat.slot = index
        self._slots.setdefault(index, {})[ws] = None

    def _arm(self, now: float) -> None:
        if self._timer is None and self._slots:
            self._due = now + self._tick
            self._timer = self._loop.call_later(self._tick, self._run)

    def _run(self) -> None:
        self._timer = None
        now = self._clock()
        late = now - self._due > LATE
        current = int(now / self._tick)
        if current - self._done > len(self._slots) + 64:
            passed = sorted(index for index in self._slots if index <= current)
        else:
            passed = [index for index in range(self._done + 1, current + 1) if index in self._slots]
        self._done = max(self._done, current)
        for index in passed:
            for ws in self._slots.pop(index, ()):
                try:
                    self._look(ws, now, late)
                except Exception:  # a timer's outermost edge: no connection's failure ends the others' heartbeats
                    logger.exception("websocket %s: heartbeat failed", ws.id)
                    ws.abort("internal error")
        self._arm(now)

    def _look(self, ws: Wire, now: float, late: bool) -> None:
        """Decide what ``ws``, now due, needs; put it where it is due next."""
        interval, timeout = ws._terms.heartbeat or (0.0, 0.0)
        beat: Beat = ws._beat
        if beat.asked_at is not None and ws.last_received >= beat.asked_at:
            beat.asked_at = None
        if beat.asked_at is not None:
            if ws._paused:
                beat.asked_at = now
            elif ws._resumed_at > beat.asked_at:
                beat.asked_at = ws._resumed_at
            elif late:
                # We are just back: the answer may be waiting for us.
                beat.asked_at = max(beat.asked_at, now - timeout + min(timeout, GRACE))
        if beat.asked_at is not None and now - beat.asked_at >= timeout:
            taken = ws._taken()
            if taken < beat.ping_end and taken > beat.taken:
                beat.taken = taken
                beat.asked_at = now
            else:
                self._lost(ws)
                return
        if now >= beat.next_ping:
            # The interval is kept as asked, without drift; what a standstill missed is not caught up with.
            beat.next_ping += interval
            if beat.next_ping <= now:
                beat.next_ping = now + interval
            self._ping(ws, beat, now)
        due = beat.next_ping if beat.asked_at is None else min(beat.next_ping, beat.asked_at + timeout)
        self._place(ws, due)

    def _ping(self, ws: Wire, beat: Beat, now: float) -> None:
        if ws._protocol.state is not OPEN:
            return
        if beat.asked_at is None:
            beat.asked_at = now
            beat.taken = ws._taken()
            # Behind a buffer that does not drain a second ping would say nothing that the first does not.
            beat.ping_end = ws._written + len(PING)
            ws._write(PING)

    def _lost(self, ws: Wire) -> None:
        logger.debug("websocket %s from %s: ping timeout", ws.id, ws.remote)
        ws._beat = None
        if ws._transport.get_write_buffer_size():
            ws.abort("ping timeout")
        else:
            ws._drop_lost("ping timeout")

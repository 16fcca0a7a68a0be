"""A sink's second door: what is no stream of readings.

States are latest-only by key, and sent anew to each new connection; bounded by the number of keys, that is of devices.
Events are told once, in order; at most :data:`EVENTS` of :data:`EVENT_BYTES` in all wait, and beyond either the oldest
is dropped and counted.  The two take turns.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.sinks.base import Key, Sink

__all__ = ["SecondDoor"]

EVENTS = 1_000
EVENT_BYTES = 1 << 20  # of their values; one alone may have more
AT_ONCE = 1_000  # states or events given to the sink in one call


class SecondDoor:
    """What waits to be made known; ``sent`` counts states and events."""

    def __init__(self) -> None:
        self.sent = 0
        self.dropped = 0
        self._states: dict[Key, bytes | None] = {}
        self._unsent: dict[Key, None] = {}
        self._events: deque[tuple[Key, bytes]] = deque()
        self._event_bytes = 0
        self._told_last = True

    def __len__(self) -> int:
        return len(self._unsent) + len(self._events)

    def set(self, key: Key, value: bytes | None) -> bool:
        """``value`` is the state of ``key``, None for none; False where it was so before."""
        if key in self._states and self._states[key] == value:
            return False
        self._states[key] = value
        self._unsent[key] = None
        return True

    def tell(self, key: Key, value: bytes) -> None:
        """Tell ``value`` once."""
        while self._events and (len(self._events) >= EVENTS or self._event_bytes + len(value) > EVENT_BYTES):
            self._forget()
            self.dropped += 1
        self._events.append((key, value))
        self._event_bytes += len(value)

    def _forget(self) -> None:
        _, value = self._events.popleft()
        self._event_bytes -= len(value)

    def renew(self, kind: str = "") -> None:
        """The connection is new: all states have to be sent again; or those of a kind, since somebody asks for them."""
        self._unsent.update(dict.fromkeys(key for key in self._states if kind in ("", key[0])))
        self._told_last = self._told_last or not kind  # states come first there

    async def send(self, sink: Sink) -> None:
        """Hand over some of what waits; raises as ``Sink.state`` does, and nothing is lost then."""
        self._told_last = bool(self._events) and not (self._unsent and self._told_last)
        if self._told_last:
            await self._send_events(sink)
        elif self._unsent:
            await self._send_states(sink)

    async def _send_states(self, sink: Sink) -> None:
        keys = [key for key, _ in zip(self._unsent, range(AT_ONCE), strict=False)]
        changes = {key: self._states[key] for key in keys}
        await sink.state(changes)
        self.sent += len(changes)
        for key, value in changes.items():
            # What changed meanwhile is unsent still.
            if self._states[key] == value:
                del self._unsent[key]
                if value is None:
                    del self._states[key]

    async def _send_events(self, sink: Sink) -> None:
        some = [event for event, _ in zip(self._events, range(AT_ONCE), strict=False)]
        dropped = self.dropped
        await sink.tell(some)
        self.sent += len(some)
        for _ in range(len(some) - (self.dropped - dropped)):  # less those that had to make room meanwhile
            self._forget()

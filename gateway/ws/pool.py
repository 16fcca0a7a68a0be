"""Many connections, one message: a broadcast that never waits for a slow peer.

A message is encoded and framed once.  Those of one pool keep their order; what ``ws.send`` sends meanwhile does not
queue behind those that wait for the peer.  A peer whose transport is behind gets its messages from a queue of its own,
as the transport drains; what happens when that would pass the bound is the pool's policy:

- ``drop_oldest``: the oldest queued messages go until the new one fits;
- ``latest``: only the newest message is kept, whatever the bound;
- ``disconnect``: the peer is aborted.

Whatever the policy, but for ``latest``, a peer that takes nothing for ``deadline`` seconds while messages wait for it
is aborted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal

from .checks import at_least_one, seconds
from .message import Prepared, prepare
from .wire import OPEN

if TYPE_CHECKING:
    from .connection import Connection
    from .wire import Wire

__all__ = ["Pool"]

Slow = Literal["drop_oldest", "latest", "disconnect"]


class _Peer:
    """One connection in a pool: its rooms, and the frames that wait for its transport."""

    __slots__ = ("bytes", "queue", "rooms", "since", "taken", "ws")

    def __init__(self, ws: Connection) -> None:
        self.ws = ws
        self.rooms: set[Hashable] = set()
        self.queue: deque[bytes] = deque()
        self.bytes = 0
        self.since = 0.0  # when it last took something, while messages wait
        self.taken = 0


class Pool:
    """Connections by rooms; connections that close leave by themselves.

    ``max_pending_bytes`` bounds what one peer may cost: its queue here, its transport's buffer and its socket's.
    ``deadline`` is in seconds.  Not for use from several threads.
    """

    def __init__(
        self,
        max_pending_bytes: int = 1 << 20,
        slow: Slow = "drop_oldest",
        *,
        deadline: float = 10.0,
    ) -> None:
        if slow not in ("drop_oldest", "latest", "disconnect"):
            raise ValueError(f"slow must be drop_oldest, latest or disconnect, not {slow!r}")
        at_least_one(max_pending_bytes=max_pending_bytes)
        seconds(deadline=deadline)
        self.max_pending_bytes = max_pending_bytes
        self.slow: Slow = slow
        self.deadline = deadline
        self._peers: dict[Connection, _Peer] = {}
        self._rooms: dict[Hashable, dict[Connection, _Peer]] = {}
        self._behind: dict[_Peer, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._broadcasts = 0
        self._sent = 0
        self._dropped = 0
        self._disconnected = 0

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, ws: object) -> bool:
        return ws in self._peers

    def add(self, ws: Connection, room: Hashable = None) -> None:
        """Put ``ws`` into the pool, and into ``room`` besides those it is in.  One that has closed is not added."""
        peer = self._peers.get(ws)
        if peer is None:
            if ws.closed:
                return
            peer = self._peers[ws] = _Peer(ws)
            ws.on_closed(self.discard)
            if ws._writable_hooks is None:
                ws._writable_hooks = []
            ws._writable_hooks.append(self._on_writable)
        peer.rooms.add(room)
        self._rooms.setdefault(room, {})[ws] = peer

    def discard(self, ws: Wire, room: Hashable = None) -> None:
        """Take ``ws`` out of ``room``, or without one out of the pool.  Nothing happens where it is not in.

        Out of its last room it is out of the pool, unless it was added without one.
        """
        peer = self._peers.get(ws)  # type: ignore[call-overload]
        if peer is None:
            return
        for name in list(peer.rooms) if room is None else [room]:
            peer.rooms.discard(name)
            members = self._rooms.get(name)
            if members is not None:
                members.pop(peer.ws, None)
                if not members:
                    del self._rooms[name]
        if not peer.rooms:
            del self._peers[peer.ws]
            self._behind.pop(peer, None)
            self._dropped += len(peer.queue)
            peer.queue.clear()
            peer.bytes = 0
            peer.ws.off_closed(self.discard)
            if ws._writable_hooks is not None:
                ws._writable_hooks.remove(self._on_writable)

    def room(self, room: Hashable) -> list[Connection]:
        """The connections in ``room``."""
        return list(self._rooms.get(room, ()))

    def broadcast(self, message: object, room: Hashable = None, exclude: Connection | None = None) -> int:
        """Send a data message to all in ``room``, or without one in the pool, but ``exclude``; give their number.

        Takes what ``ws.send`` takes.  Never waits.  Raises ``ValueError`` for a control message and for one above
        ``max_pending_bytes``.
        """
        prepared = prepare(message)
        if prepared.kind not in ("text", "binary"):
            raise ValueError(f"a pool sends data, not a {prepared.kind}")
        if len(prepared.frame) > self.max_pending_bytes:
            raise ValueError("the message is larger than max_pending_bytes")
        peers = self._peers if room is None else self._rooms.get(room, {})
        count = 0
        self._broadcasts += 1
        for ws, peer in list(peers.items()):
            if ws is not exclude and ws._state == OPEN:
                count += 1
                self._send(peer, prepared)
        return count

    def stats(self) -> dict[str, int | float]:
        """Counts since the start, and what waits now, under flat names.

        ``sent`` counts messages given to a connection, ``dropped`` those that never were: because newer ones took their
        place, or because the connection ended or left.
        """
        return {
            "connections": len(self._peers),
            "rooms": len(self._rooms.keys() - {None}),
            "behind": len(self._behind),
            "queued_bytes": sum(peer.bytes for peer in self._behind),
            "broadcasts": self._broadcasts,
            "sent": self._sent,
            "dropped": self._dropped,
            "disconnected": self._disconnected,
        }

    def _send(self, peer: _Peer, prepared: Prepared) -> None:
        ws = peer.ws
        data = prepared.deflated if ws._compress else prepared.frame
        if not peer.queue and not ws._write_paused:
            # For a message of some size the kernel's buffer counts also where the transport's is empty.
            pending = ws.pending_bytes if len(data) * 2 <= self.max_pending_bytes else ws._unsent()
            if pending + len(data) <= self.max_pending_bytes or self.slow == "latest":
                self._sent += 1
                ws._write(data)
            else:
                self._dropped += 1
                if self.slow == "disconnect":
                    self._disconnect(peer)
            return
        if peer not in self._behind:
            self._behind[peer] = None
            peer.since = ws._loop.time()
            peer.taken = ws._taken()
            if self._timer is None:
                self._timer = ws._loop.call_later(self.deadline / 4, self._check, ws._loop)
        if self.slow == "latest":
            self._dropped += len(peer.queue)
            peer.queue.clear()
            peer.bytes = 0
        else:
            room = self.max_pending_bytes - ws.pending_bytes
            if peer.bytes + len(data) > room:
                if self.slow == "disconnect":
                    self._dropped += 1
                    self._disconnect(peer)
                    return
                while peer.queue and peer.bytes + len(data) > room:
                    peer.bytes -= len(peer.queue.popleft())
                    self._dropped += 1
                if len(data) > room:
                    self._dropped += 1
                    return
        peer.queue.append(data)
        peer.bytes += len(data)

    def _on_writable(self, ws: Connection) -> None:
        peer = self._peers.get(ws)
        if peer is None:
            return
        while peer.queue and not ws._write_paused and ws._state == OPEN:
            data = peer.queue.popleft()
            peer.bytes -= len(data)
            self._sent += 1
            ws._write(data)
        if not peer.queue:
            self._behind.pop(peer, None)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for peers that take nothing."""
        self._timer = None
        now = loop.time()
        for peer in list(self._behind):
            taken = peer.ws._taken()
            if taken > peer.taken:
                peer.taken = taken
                peer.since = now
            elif now - peer.since >= self.deadline and self.slow != "latest":
                self._disconnect(peer)
        if self._behind:
            self._timer = loop.call_later(self.deadline / 4, self._check, loop)

    def _disconnect(self, peer: _Peer) -> None:
        self._disconnected += 1
        ws = peer.ws
        self.discard(ws)
        ws.abort("too slow")

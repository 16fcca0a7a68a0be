"""Clients of ``tools/bench ws``: plain sockets, since hundreds of them must cost less than the server they load."""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections.abc import Iterable

from .frames import PING, PONG, TEXT, FrameReader, client_frame, upgrade_request
from .load import READING, samples
from .servers import HOST, Failed

__all__ = ["Holder", "Listeners", "close_all", "connect", "frames_to_send", "send_paced", "stagger"]

GROUP = 128  # handshakes under way at once
TICK_S = 0.001
TIMEOUT_S = 20.0


def connect(port: int, count: int, target: str = "/", receive_buffer: int = 0) -> list[socket.socket]:
    """Open ``count`` connections; raises :class:`Failed` where the server does not upgrade one.

    ``receive_buffer`` bounds what the kernel takes for a peer that does not read (SO_RCVBUF).
    """
    request = upgrade_request(f"{HOST}:{port}", target)
    found: list[socket.socket] = []
    while len(found) < count:
        group: list[socket.socket] = []
        for _ in range(min(GROUP, count - len(found))):
            one = socket.socket()
            one.settimeout(TIMEOUT_S)
            if receive_buffer:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            one.connect((HOST, port))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.sendall(request)
            group.append(one)
        found += group
        for one in group:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = one.recv(1024)
                if not piece:
                    break
                head += piece
            if not head.startswith(b"HTTP/1.1 101"):
                close_all(found)
                raise Failed(f"a connection was not upgraded: {head[:80]!r}")
            one.setblocking(False)
    return found


def frames_to_send() -> list[bytes]:
    """Readings as a device sends them, about 110 bytes of JSON, one a frame."""
    return [
        client_frame(READING % (1_764_000_000_000 + n, n + 1, values, 12345.678901))
        for n, values in enumerate(samples()[:256])
    ]


def send_paced(peers: list[socket.socket], frames: list[bytes], rate: float, seconds: float) -> int:
    """One frame after the other, each on the next connection, ``rate`` a second in all; the number sent.

    Raises :class:`Failed` when the server falls behind so far that a socket takes no more.
    """
    begin = time.monotonic()
    sent, kinds, count = 0, len(frames), len(peers)
    while (now := time.monotonic() - begin) < seconds:
        due = int(now * rate)
        while sent < due:
            try:
                peers[sent % count].send(frames[sent % kinds])
            except BlockingIOError:
                raise Failed(f"the server does not keep up with {rate:.0f} messages a second") from None
            sent += 1
        time.sleep(TICK_S)
    return sent


def stagger(peers: list[socket.socket], frames: list[bytes], size: int) -> None:
    """Send each connection a number of frames of its own, 0 to ``size - 1``."""
    for number, peer in enumerate(peers):
        peer.sendall(b"".join(frames[: number % size]))


class _Polled:
    """Connections behind one epoll."""

    def __init__(self) -> None:
        self._peers: dict[int, tuple[socket.socket, FrameReader]] = {}
        self._poll = select.epoll()
        self.lost = 0

    def add(self, peers: list[socket.socket]) -> None:
        for one in peers:
            self._peers[one.fileno()] = (one, FrameReader())
            self._poll.register(one, select.EPOLLIN)

    def _run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for number, _ in self._poll.poll(left):
                peer, reader = self._peers[number]
                try:
                    data = peer.recv(65536)
                except ConnectionError:
                    data = b""
                if data:
                    self._read(peer, reader.feed(data))
                else:
                    self.lost += 1
                    self._poll.unregister(number)

    def _read(self, peer: socket.socket, frames: list[tuple[int, bytes]]) -> None:
        raise AssertionError("for the subclass")

    def close(self) -> None:
        self._poll.close()
        close_all(one for one, _ in self._peers.values())


class Holder(_Polled):
    """Connections that only answer pings."""

    def __init__(self) -> None:
        super().__init__()
        self.pings = 0

    def hold(self, seconds: float) -> None:
        """Answer pings for that long."""
        self._run(seconds)

    def _read(self, peer: socket.socket, frames: list[tuple[int, bytes]]) -> None:
        for opcode, payload in frames:
            if opcode == PING:
                self.pings += 1
                peer.send(client_frame(payload, PONG))


class Listeners(_Polled):
    """Connections that read broadcasts which begin with the time at which they were sent; latencies in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.latency = array("d")

    def listen(self, seconds: float) -> None:
        """Read what comes for that long."""
        self._run(seconds)

    def _read(self, peer: socket.socket, frames: list[tuple[int, bytes]]) -> None:
        now = time.monotonic_ns()
        for opcode, payload in frames:
            if opcode == TEXT:
                self.latency.append((now - int(payload[:20])) / 1e9)


def close_all(peers: Iterable[socket.socket]) -> None:
    """Close them."""
    for one in peers:
        one.close()

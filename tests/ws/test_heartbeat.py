"""Heartbeats: who is found lost, when, and who never is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.ws import Connection, Message, Router, Server, message_handler, websocket_handler
from gateway.ws.heartbeat import Beat, Heartbeat

from .support import BINARY, CLOSE, PING, PONG, TEXT, Clock, Frame, eventually, frame, no_loop_errors, open_raw, serving

pytestmark = pytest.mark.alone


class Loop:
    """A loop that keeps its one timer for the test to fire."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.timer: Any = None

    def call_later(self, delay: float, callback: Any) -> Any:
        self.timer = (self.clock.now + delay, callback)
        return self

    def cancel(self) -> None:
        self.timer = None

    def run(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass in steps, firing the timer when it is due."""
        end = self.clock.now + seconds
        while self.clock.now < end - 1e-9:
            self.clock.now = min(end, self.clock.now + step)
            if self.timer is not None and self.timer[0] <= self.clock.now + 1e-9:
                callback, self.timer = self.timer[1], None
                callback()


class Peer:
    """A connection as the heartbeat sees one."""

    def __init__(self, clock: Clock, interval: float = 20.0, timeout: float = 20.0) -> None:
        self.clock = clock
        self._terms = type("T", (), {"heartbeat": (interval, timeout)})
        self._protocol = type("P", (), {"state": __import__("websockets.protocol").protocol.OPEN})
        self._transport = type("B", (), {"get_write_buffer_size": lambda _: 0})()
        self.close_code = None
        self.last_received = clock.now
        self._resumed_at = 0.0
        self._paused = 0
        self._write_paused = False
        self._beat: Beat | None = None
        self._written = 0
        self.stuck = 0  # bytes the peer's machine has not taken
        self.pings: list[float] = []
        self.lost: float | None = None
        self.id = "peer"
        self.remote = None

    def _write(self, data: bytes) -> None:
        self.pings.append(self.clock.now)
        self._written += len(data)

    def _taken(self) -> int:
        return self._written - self.stuck

    def _drop_lost(self, reason: str) -> None:
        assert reason == "ping timeout"
        self.lost = self.clock.now

    abort = _drop_lost


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def loop(clock: Clock) -> Loop:
    return Loop(clock)


@pytest.fixture
def beats(loop: Loop, clock: Clock) -> Any:
    return Heartbeat(loop, clock)  # type: ignore[arg-type]


def test_a_ping_goes_out_every_interval(beats: Any, loop: Loop, clock: Clock) -> None:
    """Whether the peer is silent between its pongs or talks all the time."""
    quiet, busy = Peer(clock), Peer(clock)
    beats.add(quiet)
    beats.add(busy)
    for _ in range(1300):
        loop.run(0.1)
        busy.last_received = clock.now
        if quiet.pings and quiet.last_received < quiet.pings[-1]:
            quiet.last_received = clock.now
    for peer in (quiet, busy):
        assert [round(at) for at in peer.pings] == [20, 40, 60, 80, 100, 120]
        assert peer.lost is None


def test_a_silent_peer_is_lost_after_interval_and_timeout(beats: Any, loop: Loop, clock: Clock) -> None:
    """Whenever its last byte came, it is found within interval + timeout + 1 s, and no sooner than the timeout."""
    peers = []
    for number in range(40):
        peer = Peer(clock)
        beats.add(peer)
        peers.append((peer, clock.now + number))
        loop.run(0.37)
    start = clock.now
    while clock.now < start + 130:
        loop.run(0.1)
        for peer, silent_from in peers:
            if clock.now <= silent_from:
                peer.last_received = clock.now
    for peer, _ in peers:
        assert peer.lost is not None
        assert 20 <= peer.lost - peer.last_received <= 41


def test_other_terms_on_the_same_wheel(beats: Any, loop: Loop, clock: Clock) -> None:
    """A short heartbeat beside a long one: each keeps its own times."""
    slow, fast = Peer(clock, 20, 20), Peer(clock, 0.5, 0.25)
    beats.add(slow)
    loop.run(3.0)
    beats.add(fast)
    loop.run(2.0, 0.01)
    assert fast.lost is not None
    assert 0.75 <= fast.lost - 3.0 <= 1.0
    loop.run(60)
    assert slow.pings[0] == pytest.approx(20, abs=0.6)
    assert slow.lost == pytest.approx(40, abs=1.0)


def test_a_peer_we_do_not_read_is_not_lost(beats: Any, loop: Loop, clock: Clock) -> None:
    """Paused it never is; resumed it has a whole timeout to be heard."""
    peer = Peer(clock)
    beats.add(peer)
    loop.run(10)
    peer._paused = 1
    loop.run(200)
    assert peer.lost is None
    peer._paused, peer._resumed_at = 0, clock.now
    resumed = clock.now
    loop.run(60)
    assert peer.lost is not None
    assert 20 <= peer.lost - resumed <= 41


def test_a_peer_that_takes_our_ping_slowly_is_not_lost(beats: Any, loop: Loop, clock: Clock) -> None:
    """While the buffer before the ping drains, however slowly, the peer lives; when it stops, it does not."""
    peer = Peer(clock)
    peer._written = peer.stuck = 1000
    beats.add(peer)
    for _ in range(100):
        loop.run(1)
        if peer._written - peer.stuck < 50:
            peer.stuck -= 1
    assert peer.lost is not None
    # 50 bytes went in 50 s; the next look after that is the first without progress.
    assert 60 <= peer.lost <= 95


def test_a_peer_whose_machine_takes_everything_and_says_nothing_is_lost(beats: Any, loop: Loop, clock: Clock) -> None:
    """Acknowledged bytes are no life of the peer's: its program may hang."""
    peer = Peer(clock)
    peer._written, peer.stuck = 1000, 0
    beats.add(peer)
    loop.run(60)
    assert peer.lost == pytest.approx(40, abs=1.0)


def test_our_own_absence_is_not_blamed_on_a_peer(beats: Any, loop: Loop, clock: Clock) -> None:
    """A loop that stood still gives every peer another second before it judges."""
    prompt, gone = Peer(clock), Peer(clock)
    beats.add(prompt)
    beats.add(gone)
    loop.run(21)
    assert len(prompt.pings) == 1
    clock.now += 100
    loop.run(0.5)
    assert prompt.lost is None
    prompt.last_received = clock.now
    loop.run(5)
    assert prompt.lost is None
    assert gone.lost == pytest.approx(122, abs=1.0)


def test_the_wheel_forgets(beats: Any, loop: Loop, clock: Clock) -> None:
    """A connection that ended is held by nothing, and an empty wheel does not turn."""
    peers = [Peer(clock) for _ in range(5)]
    for peer in peers:
        beats.add(peer)
    for peer in peers:
        beats.discard(peer)
        beats.discard(peer)
        assert peer._beat is None
    assert not beats._slots
    loop.run(1)
    assert loop.timer is None
    beats.add(peers[0])
    loop.run(60)
    assert peers[0].lost is not None


# Over sockets


def idle() -> Any:
    return message_handler(lambda ws, message: None, inline=True)


async def test_a_silent_peer_is_dropped_with_1011_and_counted() -> None:
    """A peer that answers no ping: 1006 and "ping timeout" here, 1011 for it in case it still reads."""
    ends: list[tuple[int | None, str, float]] = []
    loop = asyncio.get_running_loop()
    handler = message_handler(
        lambda ws, message: None,
        inline=True,
        closed=lambda ws: ends.append((ws.close_code, ws.reason_lost, loop.time())),
    )
    async with serving(handler, heartbeat=(0.1, 0.1)) as server, open_raw(server.port) as raw:
        started = loop.time()
        assert await raw.recv() == Frame(PING, b"")
        closed = await raw.recv()
        assert closed is not None
        assert (closed.opcode, closed.code) == (CLOSE, 1011)
        assert await raw.recv() is None
        assert ends[0][:2] == (1006, "ping timeout")
        assert 0.2 <= ends[0][2] - started < 1.2
        assert server.stats()["lost_ping_timeout"] == 1


async def test_any_byte_is_life() -> None:
    """A peer that answers no ping but sends anything, be it half a frame, is not dropped."""
    async with serving(heartbeat=(0.05, 0.1)) as server, open_raw(server.port) as raw:
        data = frame(BINARY, b"x" * 200)
        for byte in data[:50]:
            raw.send(bytes([byte]))
            await asyncio.sleep(0.01)
        assert server.connections == 1
        assert server.stats()["messages_in"] == 0


async def test_healthy_clients_are_never_dropped() -> None:
    """Clients that answer pings stay, idle or busy."""
    async with serving(heartbeat=(0.03, 0.5)) as server:
        clients = [await connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) for _ in range(5)]
        for _ in range(10):
            await clients[0].send("x")
            await asyncio.sleep(0.03)
        assert server.connections == 5
        for client in clients:
            await client.close()


async def test_a_full_queue_is_no_ping_timeout() -> None:
    """A handler that takes nothing for many timeouts: the peer waits, and goes on when the handler does."""
    go_on = asyncio.Event()
    received: list[int] = []

    async def handler(ws: Connection) -> None:
        await go_on.wait()
        async for message in ws:
            received.append(len(message.data))

    async with (
        serving(websocket_handler(handler), heartbeat=(0.05, 0.05), max_queue_bytes=10_000) as server,
        connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) as client,
    ):
        for _ in range(30):
            await client.send(b"x" * 1000)
        await asyncio.sleep(0.6)
        assert server.connections == 1
        go_on.set()
        await eventually(lambda: len(received) == 30)
        await asyncio.sleep(0.2)
        assert server.connections == 1


async def test_a_paused_peer_is_no_ping_timeout() -> None:
    """While ws.pause() holds, the clock stands still for the peer."""
    opened: list[Connection] = []
    handler = message_handler(lambda ws, message: "here", inline=True, opened=opened.append)
    async with (
        serving(handler, heartbeat=(0.05, 0.05)) as server,
        connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) as client,
    ):
        opened[0].pause()
        await client.send("?")
        await asyncio.sleep(0.5)
        assert server.connections == 1
        opened[0].resume()
        assert await client.recv() == "here"
        await asyncio.sleep(0.2)
        assert server.connections == 1


async def test_a_blocked_loop_is_no_ping_timeout() -> None:
    """The loop stands still for much longer than the timeout: nobody is dropped for it."""
    async with serving(heartbeat=(0.1, 0.1)) as server:
        clients = [await connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) for _ in range(3)]
        await asyncio.sleep(0.12)
        time.sleep(0.8)  # noqa: ASYNC251
        await asyncio.sleep(0.3)
        assert server.connections == 3
        for client in clients:
            await client.close()


async def test_a_route_has_its_own_heartbeat() -> None:
    """A route may ask for another heartbeat than the server, or for none."""
    router = Router()
    router.websocket("/quick", idle(), heartbeat=(0.05, 0.05))
    router.websocket("/none", idle(), heartbeat=False)
    router.websocket("/server", idle())
    async with (
        Server(router, heartbeat=(0.15, 30), stop_timeout=1) as server,
        open_raw(server.port, "/quick"),
        open_raw(server.port, "/none") as none,
        open_raw(server.port, "/server") as other,
    ):
        await eventually(lambda: len(server.connections) == 2, 3)
        assert await other.recv() == Frame(PING, b"")
        with pytest.raises(TimeoutError):
            await none.recv(0.2)
    for bad in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ValueError, match="heartbeat"):
            Server(router, heartbeat=bad)


async def test_pings_of_the_peer_are_answered_whatever_we_do() -> None:
    """Pongs go out between and before queued messages' answers; the heartbeat does not disturb ws.ping()."""
    times: list[float] = []

    async def handler(ws: Connection, message: Message) -> None:
        times.append(await ws.ping())

    with no_loop_errors():
        async with serving(message_handler(handler), heartbeat=(0.02, 1)) as server:
            async with connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) as client:
                for _ in range(5):
                    await client.send("x")
                    await (await client.ping())
                await eventually(lambda: len(times) == 5)
            async with open_raw(server.port) as raw:
                raw.send(frame(PING, b"1") + frame(TEXT, b"x") + frame(PING, b"2"))
                pongs = [received for _ in range(3) if (received := await raw.recv()) and received.opcode == PONG]
                assert [pong.payload for pong in pongs] == [b"1", b"2"]


def test_a_clock_at_zero_is_a_time_like_any_other(beats: Any, loop: Loop, clock: Clock) -> None:
    """A ping that goes out at 0.0 waits for its answer."""
    clock.now = -20.0
    peer = Peer(clock)
    beats.add(peer)
    loop.run(20)
    peer._beat.next_ping = 0.0  # type: ignore[union-attr]
    beats._look(peer, 0.0, False)
    assert peer.pings == [0.0]
    beats._look(peer, 20.0, False)
    assert peer.lost is not None


def test_the_wheel_turns_on_where_a_look_fails(beats: Any, loop: Loop, clock: Clock) -> None:
    """One connection's failure is its own end, not that of all heartbeats."""
    bad, good = Peer(clock), Peer(clock)
    beats.add(bad)
    beats.add(good)

    def fail(data: bytes) -> None:
        raise RuntimeError

    ended: list[str] = []
    bad._write = fail  # type: ignore[method-assign]
    bad.abort = ended.append  # type: ignore[assignment,method-assign]
    loop.run(45)
    assert ended == ["internal error"]
    assert good.lost is not None

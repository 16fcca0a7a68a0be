"""The blocking clients, as a script uses them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.client import BufferFull, ClientClosed, Snapshot, Undelivered
from gateway.client.sync import DeviceClient, LiveClient

from .fake import FakeGateway
from .fake_live import FakeLive


class Loop:
    """An event loop in a thread, in which the fakes live."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Any], Any]]:
    """Enter a fake on a loop of its own."""
    loop = Loop()
    entered: list[Any] = []

    def enter(fake: Any) -> Any:
        entered.append(fake)
        return loop.run(fake.__aenter__())

    enter.run = loop.run  # type: ignore[attr-defined]
    yield enter
    for fake in entered:
        loop.run(fake.__aexit__(None, None, None))
    loop.stop()


def test_a_script_sends_readings(serve: Any) -> None:
    """send() in a with block is all a script needs: leaving it waits for the acks."""
    gateway = serve(FakeGateway())
    with DeviceClient(gateway.url, "pump-1") as device:
        device.connected(5)
        device.describe(name="Boiler pump")
        assert [device.send({"n": n}) for n in range(1, 21)] == list(range(1, 21))
        device.heartbeat()
        assert device.drain(5)
        assert device.state == "online"
    assert gateway.stored() == list(range(1, 21))
    assert device.stats.acked == 20
    assert [other["type"] for other in gateway.others] == ["describe", "heartbeat"]
    device.close()
    with pytest.raises(ClientClosed):
        device.send({"n": 1})


def test_threads_share_a_client(serve: Any) -> None:
    """Several threads may send through one client; no reading is lost."""
    gateway = serve(FakeGateway())
    with DeviceClient(gateway.url, "pump-1") as device:

        def work(base: int) -> None:
            for n in range(50):
                device.send({"n": base + n})

        threads = [threading.Thread(target=work, args=(base,)) for base in (0, 100, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(gateway.stored()) == [base + n for base in (0, 100, 200) for n in range(50)]


def test_errors_are_those_of_the_client(serve: Any) -> None:
    """What the asyncio client raises, this one raises."""
    gateway = serve(FakeGateway())
    gateway.committing = False
    device = DeviceClient(gateway.url, "pump-1", max_unacked=1, drain_timeout=0.05)
    device.send({"n": 1})
    with pytest.raises(BufferFull):
        device.send({"n": 2}, wait=False)
    with pytest.raises(ValueError, match="finite"):
        device.send({"n": float("inf")}, wait=False)
    with pytest.raises(Undelivered):
        device.__exit__(None, None, None)


def test_a_script_reads_the_live_feed(serve: Any) -> None:
    """Events are iterated over, or asked for with a time limit; commands give their value."""
    feed = serve(FakeLive())
    with LiveClient(feed.url) as live:
        live.connected(5)
        live.subscribe(devices=["pump-1"])
        assert isinstance(next(iter(live)), Snapshot)
        assert live.next(timeout=0.01) is None
        serve.run(feed.update(3))
        event = live.next(timeout=5)
        assert event is not None
        live.unsubscribe()
        with pytest.raises(TimeoutError):
            live.command("pump-1", "noop", timeout=0.05)
        live.close()
        assert list(live) == []

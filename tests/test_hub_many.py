"""What a dashboard's subscriptions cost with very many devices."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from gateway.hub import Hub, Selection, Subscription
from gateway.hub.selection import METRICS, Names
from tests.test_hub import Bench, Member

DEVICES = 5_000


class Deaf(Member):
    """A member that keeps nothing, and never reads."""

    def send(self, frame: dict[str, Any]) -> None:
        """Of no interest."""
        self.pending_bytes += 200_000


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_subscriptions_of_very_many_devices(mode: str) -> None:
    """Sixteen that cover all of them by different globs, and that nobody reads, cost less than 1 MiB together."""
    bench = Bench()
    bench.hub = hub = Hub(bench.book, lambda format, message: {})
    hub.begin(100, floor=100)
    for n in range(DEVICES):
        bench.publish(f"device-{n}", n, v=n)
    bench.join(Member(), devices=("device-*",), id="first")
    bench.tick()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        member = Deaf()
        for n in range(16):
            bench.join(member, devices=("device-*", f"x{n}*"), id=f"s{n}", mode=mode)
        readings = [(f"device-{n}", n) for n in range(0, DEVICES, 2)]
        held = tracemalloc.get_traced_memory()[0]
        for device, n in readings:
            bench.publish(device, DEVICES + n, v=n)
        published = tracemalloc.get_traced_memory()[0] - held
        bench.tick()
        gc.collect()
        cost = tracemalloc.get_traced_memory()[0] - before - published
    finally:
        tracemalloc.stop()
    assert cost < (1 << 20) * 3 // 4


def test_answers_are_those_of_the_globs_beyond_the_bound() -> None:
    """Names that are too many to be remembered are matched each time, with the same answer."""
    names = Names()
    some = [Selection(Subscription("m", (), ("*7", "a"), "latest", 1, "json"), names) for _ in range(2)]
    for _ in range(2):
        for n in range(METRICS + 100):
            for selection in some:
                assert selection.metric(f"m{n}") == (n % 10 == 7)
                assert selection.device(f"d{n}")
    assert [len(selection._metrics) for selection in some] == [METRICS, METRICS]
    devices = Selection(Subscription("m", ("d1?",), (), "latest", 1, "json", ("*5",)), names)
    before = devices.price("d15")
    assert [name for name in ("d15", "d16", "x5", "d15") if devices.device(name)] == ["d15", "d15"]
    assert devices.price("d15") < before == devices.price("another")

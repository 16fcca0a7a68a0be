"""What the hub encodes when many dashboards fall behind at once: as much as for a few of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.hub import accumulator
from tests.test_hub import Bench, Member


class Reader(Member):
    """A member whose socket holds what was sent until it reads."""

    def send(self, frame: dict[str, Any]) -> None:
        """Keep it, unread."""
        super().send(frame)
        self.pending_bytes += len(msgspec.json.encode(frame))


def stand_still(bench: Bench, first: int, count: int) -> None:
    """Publish much between two turns."""
    for n in range(first, first + count):
        bench.publish(f"d{n % 40}", n, n=n, text="x" * 100)


def settle(bench: Bench, members: list[Reader], *, seldom: bool = False) -> None:
    """Turn until all is sent, the members reading between the steps, or only some of them each time."""
    for turn in range(200):
        bench.hub.tick()
        while bench.hub.step():
            pass
        for number, member in enumerate(members):
            if not seldom or (number + turn) % 5 == 0:
                member.pending_bytes = 0


def values(member: Member) -> list[int]:
    """All of `n`, as they came."""
    found = []
    for frame in member.frames:
        if frame["type"] == "update":
            found += [value for series in frame["data"].values() for _, value in series.get("n", [])]
    return found


@pytest.mark.parametrize("seldom", [False, True])
@pytest.mark.parametrize("mode", ["every", "latest"])
@pytest.mark.parametrize(
    ("count", "pending"), [(300, 0), (300, 1 << 20), (6000, 0), (6000, 400 * 1024)], ids=["few", "slow", "many", "both"]
)
def test_a_standstill_costs_no_encoding_a_member(
    monkeypatch: pytest.MonkeyPatch, mode: str, seldom: bool, count: int, pending: int
) -> None:
    """After a moment in which nobody was served, or nobody read, what all lack alike is encoded once for all; each
    gets all of it, once and in order."""
    monkeypatch.setattr("gateway.hub.holders.EVERY_BYTES", 1 << 30)
    monkeypatch.setattr(accumulator, "PIECE_BYTES", 32 * 1024)
    monkeypatch.setattr("gateway.hub.hub.PIECE_BYTES", 32 * 1024)
    encoded = []
    for members in ([Reader() for _ in range(5)], [Reader() for _ in range(100)]):
        bench = Bench()
        for member in members:
            bench.join(member, mode=mode)
        stand_still(bench, 0, 40)
        settle(bench, members)
        for member in members:
            member.frames = []
        for member in members:
            member.pending_bytes = pending
        begin = len(bench.encoded)
        stand_still(bench, 40, count)
        bench.hub.tick()
        stand_still(bench, 40 + count, 50)
        settle(bench, members, seldom=seldom)
        encoded.append(len(bench.encoded) - begin)
        last = 40 + count + 50
        for member in members:
            got = values(member)
            assert set(range(last - 40, last)) <= set(got)
            assert len(got) == len(set(got))
            if not any(frame["type"] == "mode" for frame in member.frames) and mode == "every":
                assert sorted(got) == list(range(40, last))
    few, many = encoded
    assert many <= (few + 2 if not seldom else 2 * few + 5), encoded

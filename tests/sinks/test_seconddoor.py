"""The second door: the latest of each state, events once and in order, both bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gateway.sinks import seconddoor
from gateway.sinks.base import Key, Unavailable
from gateway.sinks.seconddoor import SecondDoor


class Far:
    """What a sink was given; refuses as long as ``away``."""

    def __init__(self) -> None:
        self.away = False
        self.states: list[dict[Key, bytes | None]] = []
        self.events: list[tuple[Key, bytes]] = []
        self.meanwhile: Any = None

    async def state(self, changes: Mapping[Key, bytes | None]) -> None:
        self._check()
        self.states.append(dict(changes))

    async def tell(self, events: Sequence[tuple[Key, bytes]]) -> None:
        self._check()
        self.events += events

    def _check(self) -> None:
        if self.meanwhile is not None:
            self.meanwhile()
        if self.away:
            raise Unavailable("away")


async def test_states() -> None:
    """The latest of each is sent, again to a new connection, and not again where nothing has changed."""
    door, far = SecondDoor(), Far()
    assert [door.set(("presence", "a"), value) for value in (b"online", b"online", b"stale")] == [True, False, True]
    door.set(("presence", "b"), None)
    await door.send(far)  # type: ignore[arg-type]
    assert far.states == [{("presence", "a"): b"stale", ("presence", "b"): None}]
    assert not door
    door.renew()
    far.meanwhile = lambda: door.set(("presence", "a"), b"offline")
    await door.send(far)  # type: ignore[arg-type]
    far.meanwhile = None
    assert far.states[1] == {("presence", "a"): b"stale"}
    await door.send(far)  # type: ignore[arg-type]
    assert far.states[2] == {("presence", "a"): b"offline"}
    assert (len(door), door.sent) == (0, 4)


async def test_states_of_a_kind() -> None:
    """Somebody may ask for them once more; others are not sent again for that, nor what was cleared."""
    door, far = SecondDoor(), Far()
    states: dict[Key, bytes | None] = {("presence", "a"): b"online", ("topic", "x"): b"1", ("topic", "y"): None}
    for key, value in states.items():
        door.set(key, value)
    await door.send(far)  # type: ignore[arg-type]
    door.renew("topic")
    await door.send(far)  # type: ignore[arg-type]
    assert far.states[1:] == [{("topic", "x"): b"1"}]
    assert not door


async def test_events() -> None:
    """They wait while the far side is away, and each is told once."""
    door, far = SecondDoor(), Far()
    key = ("command-state", "a")
    far.away = True
    for number in range(3):
        door.tell(key, b"%d" % number)
    with pytest.raises(Unavailable):
        await door.send(far)  # type: ignore[arg-type]
    far.away = False
    far.meanwhile = lambda: door.tell(key, b"3")
    await door.send(far)  # type: ignore[arg-type]
    far.meanwhile = None
    await door.send(far)  # type: ignore[arg-type]
    assert far.events == [(key, b"%d" % number) for number in range(4)]
    assert not door


async def test_more_events_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are dropped and counted, also while others are on their way."""
    monkeypatch.setattr(seconddoor, "EVENTS", 3)
    door, far = SecondDoor(), Far()
    for number in range(5):
        door.tell(("x",), b"%d" % number)
    assert (len(door), door.dropped) == (3, 2)
    far.meanwhile = lambda: door.tell(("x",), b"5")
    await door.send(far)  # type: ignore[arg-type]
    far.meanwhile = None
    await door.send(far)  # type: ignore[arg-type]
    assert [value for _, value in far.events] == [b"2", b"3", b"4", b"5"]
    await door.send(far)  # type: ignore[arg-type]


async def test_states_and_events_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """States that change without an end keep no event waiting, nor events a state."""
    monkeypatch.setattr(seconddoor, "AT_ONCE", 2)
    door, far = SecondDoor(), Far()
    for number in range(6):
        door.set(("presence", f"{number}"), b"online")
        door.tell(("x",), b"%d" % number)
    for _ in range(3):
        await door.send(far)  # type: ignore[arg-type]
    assert (len(far.states), len(far.events)) == (2, 2)
    while door:
        await door.send(far)  # type: ignore[arg-type]
    assert (len(far.states), [value for _, value in far.events]) == (3, [b"%d" % number for number in range(6)])


async def test_events_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it the oldest are dropped and counted; one alone is kept whatever its size."""
    monkeypatch.setattr(seconddoor, "EVENT_BYTES", 100)
    door, far = SecondDoor(), Far()
    for number in range(5):
        door.tell(("x",), b"%d" % number * 30)
    assert (len(door), door.dropped) == (3, 2)
    far.meanwhile = lambda: door.tell(("x",), b"5" * 60)
    await door.send(far)  # type: ignore[arg-type]
    far.meanwhile = None
    assert (len(door), door.dropped) == (1, 4)
    door.tell(("x",), b"6" * 200)
    assert (len(door), door.dropped) == (1, 5)
    await door.send(far)  # type: ignore[arg-type]
    assert [value[:1] for _, value in far.events] == [b"2", b"3", b"4", b"6"]
    for number in range(4):
        door.tell(("x",), b"%d" % number * 30)
    assert (len(door), door.dropped) == (3, 6)

"""Open connections, and what let them in."""

from __future__ import annotations

import asyncio

from gateway.auth import Grant
from gateway.server.guests import SLICE, Guests
from tests.ws.support import Clock


class House:
    """Guests, and what became of their connections."""

    def __init__(self, most: int | None = None) -> None:
        self.clock = Clock()
        self.dead: set[str] = set()
        self.ended: list[tuple[object, int, str]] = []
        self.guests = Guests(lambda id: id not in self.dead, self.clock, most)

    def enter(self, grant: Grant, key: object):
        return self.guests.enter(grant, key, lambda code, reason: self.ended.append((key, code, reason)))


READ = Grant("a", ("live:read",))


def test_what_is_revoked_ends() -> None:
    """All connections of the grant, and no others; what had left is not ended."""
    house = House()
    other = Grant("b", ("live:read",))
    leave = house.enter(READ, 1)
    house.enter(READ, 2)
    house.enter(other, 3)
    leave()
    leave()
    house.guests.changed()
    assert house.ended == []
    house.dead.add("a")
    house.guests.changed()
    house.guests.changed()
    assert house.ended == [(2, 1008, "token revoked")]
    assert len(house.guests) == 1


def test_what_has_expired_ends() -> None:
    """At its time, also where tokens change first."""
    house = House()
    for id in ("a", "b"):
        house.enter(Grant(id, ("live:read",), int(house.clock.now * 1000) + 5000), id)
    house.enter(Grant("c", ("live:read",)), "c")
    house.clock.now += 4.9
    house.guests.expire()
    assert house.ended == []
    house.clock.now += 0.1
    house.dead.add("b")
    house.guests.changed()
    house.guests.expire()
    assert house.ended == [("b", 1008, "token expired"), ("a", 1008, "token expired")]


def test_a_session_ends_before_its_token() -> None:
    """Each connection of a token at its own time, whichever of them came first."""
    for first in (0, 1):
        house = House()
        session = Grant("a", ("live:read",), int(house.clock.now * 1000) + 5000)
        for grant in ((READ, session), (session, READ))[first]:
            house.enter(grant, "session" if grant is session else "token")
        house.clock.now += 5
        house.guests.expire()
        assert house.ended == [("session", 1008, "token expired")]
        assert house.guests.ended == len(house.guests) == 1


def test_connections_of_a_grant_are_counted() -> None:
    """At the bound no further one, but one that takes the place of its own."""
    house = House(2)
    leave = house.enter(READ, "a")
    assert not house.guests.is_full(READ)
    late = house.enter(READ, "b")
    assert house.guests.is_full(READ)
    assert house.guests.is_full(READ, "c")
    assert not house.guests.is_full(READ, "a")
    assert not house.guests.is_full(Grant("b", ()))
    again = house.enter(READ, "a")
    leave()
    assert house.guests.is_full(READ), "the end of a replaced one changes nothing"
    again()
    assert not house.guests.is_full(READ)
    late()
    assert len(house.guests) == 0


async def test_very_many_end_in_slices() -> None:
    """The loop turns in between."""
    house = House()
    for number in range(3 * SLICE):
        house.enter(READ, number)
    house.dead.add("a")
    house.guests.changed()
    assert len(house.ended) == SLICE
    while len(house.ended) < 3 * SLICE:
        before = len(house.ended)
        await asyncio.sleep(0)
        assert len(house.ended) - before <= SLICE
    assert house.guests.ended == 3 * SLICE

"""Unknown devices that knock."""

from __future__ import annotations

import pytest

from gateway.auth.knocks import MAX_KNOCKS, MAX_PER_ADDRESS, Knocks
from gateway.errors import AuthError
from tests.auth.support import START, Clock

OWN = "a-secret-of-its-own-0123"


def test_knocks_are_counted(tmp_path: object) -> None:
    """First and last time, how often and from where; the last one stands first."""
    clock = Clock()
    knocks = Knocks(clock)
    knocks.knock("a", "", "10.0.0.1")
    clock.at += 1
    knocks.knock("b", "", "10.0.0.2")
    clock.at += 1
    knocks.knock("a", "", "10.0.0.3")
    rows = [knock.shown() for knock in knocks.list()]
    first, last = int(START * 1000), int(START * 1000) + 2000
    assert rows == [
        {"device": "a", "fingerprint": "", "first": first, "last": last, "count": 2, "address": "10.0.0.3"},
        {
            "device": "b",
            "fingerprint": "",
            "first": first + 1000,
            "last": first + 1000,
            "count": 1,
            "address": "10.0.0.2",
        },
    ]


@pytest.mark.parametrize("name", ["", "../x", "a b", "<b>", "x" * 65, "a\n"])
def test_what_is_no_name_is_not_noted(name: str) -> None:
    """Nothing that a page or a terminal would take for something else gets there."""
    knocks = Knocks()
    knocks.knock(name, "", "10.0.0.1")
    assert not knocks.list()


WORTH = [OWN, OWN[:20]]
WORTHLESS = ["", OWN[:19], "a" * 30, "ü" * 30, OWN + " ", OWN + "\n", OWN * 20]


@pytest.mark.parametrize(("secret", "kept"), [*((s, True) for s in WORTH), *((s, False) for s in WORTHLESS)])
def test_a_secret_worth_the_name_gives_a_fingerprint(secret: str, kept: bool) -> None:
    """Twenty printable characters and eight different ones at least."""
    knocks = Knocks()
    knocks.knock("a", secret, "10.0.0.1")
    (knock,) = knocks.list()
    assert bool(knock.fingerprint) == bool(knock.sha256) == kept


def test_the_list_is_bounded() -> None:
    """At the bound the one longest silent goes; who comes from one address pushes out its own alone."""
    clock = Clock()
    knocks = Knocks(clock)
    knocks.knock("mine", "", "10.0.0.1")
    for number in range(500):
        knocks.knock(f"flood-{number}", "", "10.0.0.66")
    assert len(knocks) == MAX_PER_ADDRESS + 1
    assert knocks.list()[-1].device == "mine"
    for number in range(MAX_KNOCKS):
        knocks.knock(f"d{number}", "", f"10.0.1.{number}")
    assert len(knocks) == MAX_KNOCKS
    assert {knock.device for knock in knocks.list()} == {f"d{number}" for number in range(MAX_KNOCKS)}


def test_several_of_one_name_have_to_be_told_apart() -> None:
    """None is chosen by chance: the fingerprint says which, its first digits are enough."""
    knocks = Knocks()
    knocks.knock("a", OWN, "10.0.0.1")
    knocks.knock("a", "somebody-else's-secret-1", "10.0.0.66")
    knocks.knock("a", "", "10.0.0.67")
    knocks.knock("b", OWN, "10.0.0.1")
    with pytest.raises(AuthError, match="3 that call themselves 'a'") as refused:
        knocks.choose("a")
    assert "--fingerprint" in refused.value.hint
    wanted = next(knock for knock in knocks.list() if knock.address == "10.0.0.1" and knock.device == "a")
    assert knocks.choose("a", wanted.fingerprint[:6]) == wanted
    assert knocks.choose("a", "none").address == "10.0.0.67"
    with pytest.raises(AuthError, match="that fingerprint"):
        knocks.choose("a", "zz")
    with pytest.raises(AuthError, match="no unknown device called 'c'"):
        knocks.choose("c")
    knocks.forget("a")
    assert [knock.device for knock in knocks.list()] == ["b"]

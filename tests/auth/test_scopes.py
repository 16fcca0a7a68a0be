"""Scopes and what they are good for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import ALL_SCOPES, ANYBODY, Grant, certificate_grant, check_scopes
from gateway.auth.scopes import MAX_SCOPES
from gateway.errors import AuthError

LETTERS = "abcxyz0189_.:-"
names = st.text(LETTERS, min_size=1, max_size=12).map(lambda text: "d" + text)
globs = st.text(LETTERS + "*?", min_size=1, max_size=8).filter(lambda text: text[0] not in "_.:-")
kinds = st.sampled_from(["device", "live:read", "live:command"])
scopes = st.one_of(st.sampled_from(["live:read", "live:command", "metrics"]), st.builds("{}:{}".format, kinds, globs))


def covers(glob: str, name: str) -> bool:
    """The plainest matcher there is."""
    if not glob:
        return not name
    if glob[0] == "*":
        return covers(glob[1:], name) or (bool(name) and covers(glob, name[1:]))
    return bool(name) and glob[0] in ("?", name[0]) and covers(glob[1:], name[1:])


@given(st.lists(scopes, min_size=1, max_size=5), names)
def test_a_grant_covers_what_a_scope_of_its_kind_covers(given: list[str], name: str) -> None:
    """What one of its scopes covers it may; nothing that none of them does, and no kind stands for another."""
    grant = Grant("x", check_scopes(given))
    for kind, may, listed in (
        ("device", grant.may_device, grant.devices),
        ("live:read", grant.may_read, grant.reads),
        ("live:command", grant.may_command, grant.commands),
    ):
        wanted = [scope.removeprefix(f"{kind}:") for scope in given if scope.startswith(f"{kind}:")]
        everything = kind in given or any(not glob.strip("*") for glob in wanted)
        assert may(name) == (everything or any(covers(glob, name) for glob in wanted))
        assert listed == (("*",) if everything else tuple(dict.fromkeys(wanted)))
    assert grant.may_metrics == ("metrics" in given)


@given(st.text(max_size=20))
def test_only_scopes_are_scopes(text: str) -> None:
    """Any text is a scope of the grammar, or is refused in words with a hint."""
    try:
        (scope,) = check_scopes([text])
    except AuthError as error:
        assert error.hint  # noqa: PT017
    else:
        assert scope == text
        assert scope in ("live:read", "live:command", "metrics") or scope.split(":")[0] in ("device", "live")


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("device", "names no device"),
        ("device:", "names no device"),
        ("live:read:", "names no device"),
        ("device:a b", "no device has such a name"),
        ("device:../x", "no device has such a name"),
        ("device:a\n", "no device has such a name"),
        ("device:" + "a" * 65, "no device has such a name"),
        ("live:reed", "live:read?"),
        ("live", "there is no scope"),
        ("metrics:*", "there is no scope"),
        ("DEVICE:a", "there is no scope"),
        ("*", "there is no scope"),
        ("", "there is no scope"),
    ],
)
def test_what_is_no_scope_is_refused_in_words(scope: str, words: str) -> None:
    """Each kind of mistake has its words."""
    with pytest.raises(AuthError, match=words.replace("?", r"\?")):
        check_scopes([scope])


def test_the_number_of_scopes_is_bounded() -> None:
    """None is too few, and one beyond the bound too many; one given twice counts once."""
    with pytest.raises(AuthError, match="needs a scope"):
        check_scopes([])
    assert check_scopes(["metrics", "metrics"]) == ("metrics",)
    many = [f"device:d{number}" for number in range(MAX_SCOPES)]
    assert check_scopes(many) == tuple(many)
    with pytest.raises(AuthError, match="65 scopes"):
        check_scopes([*many, "metrics"])


def test_anybody_may_everything() -> None:
    """Where nobody is asked, all is allowed."""
    assert ANYBODY.scopes == check_scopes(ALL_SCOPES)
    assert ANYBODY.may_device("x")
    assert ANYBODY.may_command("x")
    assert ANYBODY.reads == ANYBODY.commands == ("*",)
    assert ANYBODY.may_metrics


@pytest.mark.parametrize("name", ["*", "pump-*", "p?", "", "a b", "-a", "a/b", "x" * 65])
def test_a_certificate_is_good_for_one_device(name: str) -> None:
    """Its CN is a device's name and never a glob; it may do nothing else."""
    assert certificate_grant(name) is None
    grant = certificate_grant("pump-1")
    assert grant is not None
    assert grant.id == "cert:pump-1"
    assert grant.may_device("pump-1")
    assert not grant.may_device("pump-2")
    assert (grant.reads, grant.commands, grant.may_metrics) == ((), (), False)

"""Tokens: made, verified, revoked, rotated, let in."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from gateway.auth import MAX_TOKENS, Grant, NotKept, Tokens, tokenfile
from gateway.auth import tokens as module
from gateway.errors import AuthError
from gateway.reserve import Reserve
from tests.auth.support import START, Clock, no_room, tokens_in

OWN = "a-secret-of-its-own-0123"


def test_a_token_is_verified(tmp_path: Path) -> None:
    """It is an id and 43 characters, and gives its scopes; changed in any one character it gives nothing."""
    tokens = tokens_in(tmp_path)
    record, token = tokens.create(["device:pump-*", "live:read"], name="pumps")
    assert re.fullmatch(r"[0-9a-f]{12}\.[A-Za-z0-9_-]{43}", token)
    assert tokens.verify(token) == Grant(record.id, ("device:pump-*", "live:read"), None)
    for at in range(len(token)):
        wrong = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert tokens.verify(wrong) is None, at
    for wrong in ("", ".", record.id, f"{record.id}.", token[:-1], f"{token}x", token * 20, "ü" + token, "\ud800"):
        assert tokens.verify(wrong) is None


def test_tokens_differ(tmp_path: Path) -> None:
    """No two are alike, and each is itself."""
    tokens = tokens_in(tmp_path)
    made = [tokens.create(["metrics"]) for _ in range(50)]
    assert len({token for _, token in made}) == len({token.split(".")[1] for _, token in made}) == 50
    first, second = made[0][1], made[1][1]
    assert tokens.verify(f"{first.split('.')[0]}.{second.split('.')[1]}") is None


def test_tokens_survive_a_restart(tmp_path: Path) -> None:
    """What another process reads lets the same ones in, and lists the same."""
    before = tokens_in(tmp_path)
    _, token = before.create(["metrics"], name="Prometheus", expires_s=60)
    after = tokens_in(tmp_path)
    assert after.list() == before.list()
    assert after.verify(token) == before.verify(token) != None  # noqa: E711


def test_a_token_expires(tmp_path: Path) -> None:
    """At its time, not before and not after."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    record, token = tokens.create(["metrics"], expires_s=90)
    assert record.expires == int(START + 90) * 1000
    clock.at += 89.9
    assert tokens.verify(token) is not None
    assert tokens.alive(record.id)
    clock.at += 0.1
    assert tokens.verify(token) is None
    assert not tokens.alive(record.id)
    for wrong in (0, 0.5, -1, float("nan"), float("inf"), 1e12):
        with pytest.raises(AuthError, match="lives for"):
            tokens.create(["metrics"], expires_s=wrong)


def test_a_revoked_token_is_dead_at_once(tmp_path: Path) -> None:
    """Here, after a restart, and to what it let in, which is told."""
    tokens = tokens_in(tmp_path)
    told: list[int] = []
    tokens.on_change.append(lambda: told.append(len(tokens)))
    record, token = tokens.create(["metrics"])
    _, other = tokens.create(["metrics"])
    assert tokens.revoke(record.id).id == record.id
    assert tokens.verify(token) is None
    assert not tokens.alive(record.id)
    assert tokens.verify(other) is not None
    assert tokens_in(tmp_path).verify(token) is None
    assert told == [1, 2, 1]
    with pytest.raises(AuthError, match="there is no token"):
        tokens.revoke(record.id)


def test_a_token_is_revoked_without_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In force at once and told as lasting until a restart; a file that somebody reloads meanwhile does not bring it
    back, and it is written as soon as it can be."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    told: list[bool] = []
    record, token = tokens.create(["metrics"])
    tokens.on_change.append(lambda: told.append(tokens.alive(record.id)))
    with monkeypatch.context() as full:
        full.setattr(tokenfile, "replace_private", no_room)
        with pytest.raises(NotKept, match=f"token {record.id} is revoked, until a restart: .*No space left") as error:
            tokens.revoke(record.id)
        assert error.value.hint
        clock.at += 61
        tokens.save_if_due()
        assert tokens.owing == 1
    assert tokens.verify(token) is None
    assert told == [False]
    assert tokens_in(tmp_path, clock).verify(token) is not None
    tokens.load()
    assert tokens.verify(token) is None
    clock.at += 61
    tokens.save_if_due()
    assert tokens.owing == 0
    assert tokens_in(tmp_path, clock).verify(token) is None


def test_a_revocation_takes_the_room_that_was_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As does a rotation; it is set aside again at once."""
    reserve = Reserve(tmp_path / "reserve")
    assert reserve.make()
    tokens = Tokens(tmp_path / "tokens.json", Clock(), reserve=reserve)
    tokens.load(sessions=True)
    record, token = tokens.create(["metrics"])
    sound = tokenfile.replace_private

    def full(path: Path, data: bytes) -> tuple[int, int, int]:
        if (tmp_path / "reserve").exists():
            no_room(path, data)
        return sound(path, data)

    monkeypatch.setattr(tokenfile, "replace_private", full)
    with pytest.raises(OSError, match="No space"):
        tokens.create(["metrics"])
    after, rotated = tokens.rotate(record.id)
    tokens.revoke(after.id)
    assert (tmp_path / "reserve").exists()
    assert [tokens_in(tmp_path).verify(one) for one in (token, rotated)] == [None, None]


def test_a_rotated_token_gives_way_to_another(tmp_path: Path) -> None:
    """The old one ends at once, the new one may the same, for as long again, and has an id of its own."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    record, token = tokens.create(["metrics"], name="x", expires_s=90)
    clock.at += 100
    after, new = tokens.rotate(record.id)
    assert tokens.verify(token) is None
    assert not tokens.alive(record.id)
    assert tokens.verify(new) == Grant(after.id, ("metrics",), int(clock.at + 90) * 1000)
    assert after.id != record.id
    assert (after.name, after.scopes) == (record.name, record.scopes)
    assert [left.id for left in tokens.list()] == [after.id]


def test_a_whole_token_in_the_place_of_its_id_is_not_repeated(tmp_path: Path) -> None:
    """The refusal names its id alone."""
    tokens = tokens_in(tmp_path)
    _, token = tokens.create(["metrics"])
    with pytest.raises(AuthError) as refused:
        tokens.revoke(token)
    assert token.partition(".")[2] not in str(refused.value)


def test_certificates_and_anybody_stay_alive(tmp_path: Path) -> None:
    """There is no token that could end them."""
    tokens = tokens_in(tmp_path)
    assert tokens.alive("cert:pump-1")
    assert tokens.alive("anybody")
    assert not tokens.alive("000000000000")


def test_the_number_of_tokens_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, and says what to do; rotating still works."""
    assert MAX_TOKENS == 10_000
    monkeypatch.setattr(module, "MAX_TOKENS", 3)
    tokens = tokens_in(tmp_path)
    record, *_ = [tokens.create(["metrics"])[0] for _ in range(3)]
    with pytest.raises(AuthError, match="there are 3 tokens") as refused:
        tokens.create(["metrics"])
    assert "token list" in refused.value.hint
    tokens.rotate(record.id)
    assert len(tokens) == 3


def test_last_use_is_written_seldom(tmp_path: Path) -> None:
    """Once a minute at most, then only for one that was not used within the hour before; and at the end."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    _, token = tokens.create(["metrics"])
    path = tmp_path / "tokens.json"

    def saved() -> int | None:
        (record,) = tokens_in(tmp_path, clock).list()
        return record.last_used

    tokens.verify(token)
    tokens.save_if_due()
    assert saved() is None
    clock.at += 60
    tokens.save_if_due()
    assert saved() == START * 1000
    inode = path.stat().st_ino
    for _ in range(59):
        tokens.verify(token)
        clock.at += 60
        tokens.save_if_due()
    assert path.stat().st_ino == inode
    (record,) = tokens.list()
    assert record.last_used == (clock.at - 60) * 1000
    clock.at += 3600
    tokens.verify(token)
    tokens.save_if_due()
    assert saved() == clock.at * 1000
    clock.at += 5
    tokens.verify(token)
    tokens.close()
    assert saved() == clock.at * 1000


def test_last_use_of_what_has_ended_is_forgotten(tmp_path: Path) -> None:
    """Nothing is left to be written of a token that was revoked, or rotated."""
    tokens = tokens_in(tmp_path)
    for end in (tokens.revoke, tokens.rotate):
        record, token = tokens.create(["metrics"])
        assert tokens.verify(token) is not None
        end(record.id)
        inode = (tmp_path / "tokens.json").stat().st_ino
        tokens.close()
        assert (tmp_path / "tokens.json").stat().st_ino == inode


def test_last_use_is_written_after_the_clock_was_set_back(tmp_path: Path) -> None:
    """A clock that was years ahead holds nothing up."""
    clock = Clock(START + 1e9)
    tokens = tokens_in(tmp_path, clock)
    _, token = tokens.create(["metrics"])
    clock.at = START
    tokens.verify(token)
    tokens.save_if_due()
    (record,) = tokens_in(tmp_path, clock).list()
    assert record.last_used == START * 1000


def test_changes_from_several_threads_are_all_kept(tmp_path: Path) -> None:
    """Each goes on after the other, and the file has them all."""
    tokens = tokens_in(tmp_path)
    threads = [threading.Thread(target=tokens.create, args=(["metrics"],)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == len(tokens_in(tmp_path).list()) == 16


def test_news_are_carried_to_where_they_belong(tmp_path: Path) -> None:
    """What is called after a change goes through ``call``."""
    carried: list[object] = []
    tokens = Tokens(tmp_path / "tokens.json", call=carried.append)

    def listener() -> None:
        raise AssertionError

    tokens.on_change.append(listener)
    tokens.load()
    tokens.create(["metrics"])
    assert carried == [listener, listener]


def test_a_device_is_let_in_with_its_own_secret(tmp_path: Path) -> None:
    """What it presented becomes its token, good for its name alone, also after a restart."""
    tokens = tokens_in(tmp_path)
    tokens.pending.knock("pump-1", OWN, "10.0.0.7")
    assert tokens.verify(OWN) is None
    record, token = tokens.admit("pump-1")
    assert (token, record.scopes, record.name) == ("", ("device:pump-1",), "pump-1")
    for some in (tokens, tokens_in(tmp_path)):
        assert some.verify(OWN) == Grant(record.id, ("device:pump-1",), None)
    assert not tokens.pending.list()
    tokens.revoke(record.id)
    assert tokens.verify(OWN) is None


def test_a_device_without_a_secret_is_made_a_token(tmp_path: Path) -> None:
    """It is given back, for the device to be given."""
    tokens = tokens_in(tmp_path)
    tokens.pending.knock("pump-1", "short", "10.0.0.7")
    record, token = tokens.admit("pump-1")
    assert tokens.verify(token) == Grant(record.id, ("device:pump-1",), None)
    with pytest.raises(AuthError, match="has knocked"):
        tokens.admit("pump-1")


@pytest.mark.parametrize("end", ["none", "revoke", "rotate"])
def test_no_token_of_the_gateway_is_let_in_again(tmp_path: Path, end: str) -> None:
    """Another device's token, and one that was revoked or rotated, is never made a device's own."""
    tokens = tokens_in(tmp_path)
    record, token = tokens.create(["device:other"])
    if end != "none":
        getattr(tokens, end)(record.id)
    tokens = tokens_in(tmp_path)
    tokens.pending.knock("pump-1", token, "10.0.0.7")
    assert [knock.fingerprint for knock in tokens.pending.list()] == [""]
    _, new = tokens.admit("pump-1")
    assert new not in ("", token)
    grant = tokens.verify(token)
    assert grant is None or not grant.may_device("pump-1")


def test_what_was_taken_meanwhile_is_not_let_in(tmp_path: Path) -> None:
    """Two devices that presented one secret do not come to share it."""
    tokens = tokens_in(tmp_path)
    tokens.pending.knock("a", OWN, "10.0.0.7")
    tokens.pending.knock("b", OWN, "10.0.0.7")
    assert tokens.admit("a")[1] == ""
    assert tokens.admit("b")[1] != ""
    grant = tokens.verify(OWN)
    assert grant is not None
    assert grant.scopes == ("device:a",)


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", "\x1b[31m"])
def test_a_name_is_printable_and_short(tmp_path: Path, name: str) -> None:
    """What a terminal would take for a command is no name."""
    with pytest.raises(AuthError, match="name"):
        tokens_in(tmp_path).create(["metrics"], name=name)

"""Browser sessions."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.auth import ANYBODY, Grant, Tokens, sessions, tokenfile
from gateway.auth.tokenfile import Content, TokenFile
from gateway.auth.tokens import SESSION_S
from gateway.errors import AuthError
from tests.auth.support import START, Clock, no_room, tokens_in


def test_a_session_stands_for_its_token(tmp_path: Path) -> None:
    """It gives the token's scopes, also after a restart; changed in any one character it gives nothing."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    record, token = tokens.create(["live:read:pump-*"])
    grant = tokens.verify(token)
    assert grant is not None
    cookie = tokens.mint_session(grant)
    ends = int(START + SESSION_S) * 1000
    for some in (tokens, tokens_in(tmp_path, clock)):
        found = some.verify_session(cookie)
        assert found is not None
        assert found == Grant(record.id, ("live:read:pump-*",), ends, found.session)
        assert found.session == cookie.rpartition(".")[0]
    for at in range(len(cookie)):
        wrong = cookie[:at] + ("1" if cookie[at] != "1" else "2") + cookie[at + 1 :]
        assert tokens.verify_session(wrong) is None, at
    for wrong in ("", ".", "..", token, f"{record.id}.٣.x", f"{record.id}..", cookie * 9, cookie + "x", "\ud800"):
        assert tokens.verify_session(wrong) is None
    assert tokens.verify(cookie) is None


@pytest.mark.parametrize("end", ["revoke", "rotate"])
def test_a_session_ends_with_its_token(tmp_path: Path, end: str) -> None:
    """Revoked or rotated, at once."""
    tokens = tokens_in(tmp_path)
    record, token = tokens.create(["live:read"])
    grant = tokens.verify(token)
    assert grant is not None
    cookie = tokens.mint_session(grant)
    getattr(tokens, end)(record.id)
    assert tokens.verify_session(cookie) is None
    with pytest.raises(AuthError, match="no such token"):
        tokens.mint_session(grant)


@pytest.mark.parametrize(("expires_s", "lives"), [(None, SESSION_S), (SESSION_S * 2, SESSION_S), (90, 90)])
def test_a_session_ends_in_time(tmp_path: Path, expires_s: float | None, lives: float) -> None:
    """After thirty days, and never after its token; its grant says when."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    _, token = tokens.create(["live:read"], expires_s=expires_s)
    grant = tokens.verify(token)
    assert grant is not None
    cookie = tokens.mint_session(grant)
    clock.at += lives - 0.5
    found = tokens.verify_session(cookie)
    assert found is not None
    assert found.expires == int(START + lives) * 1000
    clock.at += 0.5
    assert tokens.verify_session(cookie) is None


def test_a_session_of_a_time_to_come_is_none(tmp_path: Path) -> None:
    """After the clock was set back by more than minutes, it would last longer than it may."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    _, token = tokens.create(["live:read"])
    grant = tokens.verify(token)
    assert grant is not None
    cookie = tokens.mint_session(grant)
    clock.at -= 300
    assert tokens.verify_session(cookie) is not None
    clock.at -= 1
    assert tokens.verify_session(cookie) is None


def test_another_directory_s_sessions_are_none(tmp_path: Path) -> None:
    """The key is each directory's own, made once, of its owner alone, and never in the cookie."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    a = tokens_in(tmp_path / "a")
    _, token = a.create(["live:read"])
    grant = a.verify(token)
    assert grant is not None
    cookie = a.mint_session(grant)
    (tmp_path / "b" / "tokens.json").write_bytes((tmp_path / "a" / "tokens.json").read_bytes())
    assert tokens_in(tmp_path / "b").verify_session(cookie) is None
    assert (tmp_path / "a" / "session-key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Everybody logs in again, and the log says so."""
    tokens = tokens_in(tmp_path)
    _, token = tokens.create(["live:read"])
    grant = tokens.verify(token)
    assert grant is not None
    cookie = tokens.mint_session(grant)
    (tmp_path / "session-key").write_bytes(b"x")
    tokens = tokens_in(tmp_path)
    assert tokens.verify_session(cookie) is None
    assert "logs in again" in caplog.text
    assert tokens.verify_session(tokens.mint_session(grant)) is not None


def test_who_has_no_token_has_no_session(tmp_path: Path) -> None:
    """Neither a certificate nor anybody is given one."""
    tokens = tokens_in(tmp_path)
    for grant in (ANYBODY, Grant("cert:pump-1", ("device:pump-1",))):
        with pytest.raises(AuthError):
            tokens.mint_session(grant)


def test_a_session_is_bound_to_the_very_token(tmp_path: Path) -> None:
    """Another token that had the same id would not take it over."""
    tokens = tokens_in(tmp_path)
    record, token = tokens.create(["live:read"])
    grant = tokens.verify(token)
    assert grant is not None
    cookie = tokens.mint_session(grant)
    file = TokenFile(tmp_path / "tokens.json")
    file.read()
    file.write(Content([msgspec.structs.replace(record, sha256="0" * 64, scopes=("live:read", "metrics"))]))
    tokens.load()
    assert tokens.alive(record.id)
    assert tokens.verify_session(cookie) is None


def logged_in(tokens: Tokens) -> tuple[str, str]:
    """A new token and a session of it."""
    _, token = tokens.create(["live:read"])
    grant = tokens.verify(token)
    assert grant is not None
    return token, tokens.mint_session(grant)


def another(tokens: Tokens, token: str) -> str:
    """Another session of the token."""
    grant = tokens.verify(token)
    assert grant is not None
    return tokens.mint_session(grant)


def test_a_session_that_is_ended_stays_so(tmp_path: Path) -> None:
    """After restarts, too, and told at once; another of the same token and second goes on, and the token itself."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    token, cookie = logged_in(tokens)
    other = another(tokens, token)
    assert other != cookie
    grant = tokens.verify_session(cookie)
    assert grant is not None
    told: list[bool] = []
    tokens.on_change.append(lambda: told.append(tokens.holds(grant)))
    tokens.end_session(cookie)
    assert told == [False]
    for some in (tokens, tokens_in(tmp_path, clock)):
        assert some.verify_session(cookie) is None
        assert some.verify_session(other) is not None
        assert some.verify(token) is not None
    for none in (cookie, "rubbish"):
        tokens.end_session(none)
    assert told == [False]


def test_ended_sessions_are_forgotten_in_time(tmp_path: Path) -> None:
    """When they would have ended anyway."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    token, cookie = logged_in(tokens)
    tokens.end_session(cookie)
    clock.at += SESSION_S / 2
    tokens.end_session(another(tokens, token))
    assert len(TokenFile(tmp_path / "tokens.json").read().ended.sessions) == 2
    clock.at += SESSION_S / 2 + 1
    tokens.end_session(last := another(tokens, token))
    clock.at += SESSION_S / 2
    assert len(TokenFile(tmp_path / "tokens.json").read().ended.sessions) == 2
    assert tokens.verify_session(last) is None


def test_more_ended_sessions_than_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the token that has most are over then, so that none comes back; those of other tokens go on."""
    monkeypatch.setattr(sessions, "MAX_ENDED", 3)
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    token, first = logged_in(tokens)
    elsewhere, ended_there = logged_in(tokens)
    cookies = [first, *(another(tokens, token) for _ in range(3))]
    staying, there = cookies.pop(), another(tokens, elsewhere)
    for cookie in (ended_there, *cookies):
        tokens.end_session(cookie)
    for some in (tokens, tokens_in(tmp_path, clock)):
        assert [cookie for cookie in (*cookies, staying, ended_there) if some.verify_session(cookie)] == []
        assert some.verify_session(there) is not None
    clock.at += 1
    assert tokens.verify_session(another(tokens, token)) is not None


def test_a_session_ends_without_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In force at once, and written as soon as it can be."""
    clock = Clock()
    tokens = tokens_in(tmp_path, clock)
    _, cookie = logged_in(tokens)
    with monkeypatch.context() as full:
        full.setattr(tokenfile, "replace_private", no_room)
        tokens.end_session(cookie)
    assert tokens.verify_session(cookie) is None
    assert tokens_in(tmp_path, clock).verify_session(cookie) is not None
    clock.at += 61
    tokens.save_if_due()
    assert tokens_in(tmp_path, clock).verify_session(cookie) is None

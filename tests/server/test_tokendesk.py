"""What commands do with tokens, over the control socket and without it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.auth import Tokens, tokenfile
from gateway.errors import AuthError
from gateway.server.tokendesk import TokenDesk
from tests.auth.support import no_room
from tests.running import gateway
from tests.server.test_control_app import ask

FACTS = {"listen": {"host": "127.0.0.1", "port": 8080, "tls": False}, "asked": True}


def desk_of(directory: Path) -> tuple[TokenDesk, Tokens]:
    """A desk on a directory's file."""
    tokens = Tokens(directory / "tokens.json")
    tokens.load()
    return TokenDesk(tokens, lambda: FACTS), tokens


async def run(desk: TokenDesk, command: str, **params: Any) -> Any:
    """What a command answers, as it goes over the wire."""
    answer: Any = desk.commands[command](params)
    return json.loads(msgspec.json.encode(await answer))


async def test_a_token_is_made_listed_rotated_and_revoked(tmp_path: Path) -> None:
    """It is told by what made it alone; what is said goes for the daemon and without it."""
    desk, tokens = desk_of(tmp_path)
    made = await run(desk, "token-create", scopes=["device:pump-1"], name="pump-1", expires_s=60)
    grant = tokens.verify(made["token"])
    assert grant is not None
    assert made == {
        "id": grant.id,
        "name": "pump-1",
        "scopes": ["device:pump-1"],
        "created": grant.expires - 60_000,
        "expires": grant.expires,
        "last_used": None,
        "token": made["token"],
        **FACTS,
    }
    listed = await run(desk, "token-list")
    assert [row["id"] for row in listed["tokens"]] == [made["id"]]
    assert made["token"].split(".")[1] not in json.dumps(listed)
    rotated = await run(desk, "token-rotate", id=made["id"])
    assert tokens.verify(made["token"]) is None
    assert tokens.verify(rotated["token"]) is not None
    revoked = await run(desk, "token-revoke", id=rotated["id"])
    assert "token" not in revoked
    assert tokens.verify(rotated["token"]) is None


async def test_files_are_written_beside_the_loop(tmp_path: Path) -> None:
    """No disk holds up readings: what is written is written in another thread."""
    desk, tokens = desk_of(tmp_path)
    threads: list[threading.Thread] = []
    tokens.on_change.append(lambda: threads.append(threading.current_thread()))
    made = await run(desk, "token-create", scopes=["metrics"])
    rotated = await run(desk, "token-rotate", id=made["id"])
    await run(desk, "token-revoke", id=rotated["id"])
    tokens.pending.knock("pump-1", "", "10.0.0.7")
    await run(desk, "admit", device="pump-1")
    assert len(threads) == 4
    assert threading.main_thread() not in threads


async def test_a_device_that_knocked_is_let_in(tmp_path: Path) -> None:
    """With its own secret, or a new token; its fingerprint says which of several."""
    desk, tokens = desk_of(tmp_path)
    own = "a-secret-of-its-own-0123"
    tokens.pending.knock("pump-1", own, "10.0.0.7")
    tokens.pending.knock("pump-1", "", "10.0.0.8")
    tokens.pending.knock("pump-2", "", "10.0.0.9")
    pending = await run(desk, "pending")
    assert [(knock["device"], knock["address"]) for knock in pending["knocks"]] == [
        ("pump-2", "10.0.0.9"),
        ("pump-1", "10.0.0.8"),
        ("pump-1", "10.0.0.7"),
    ]
    assert own not in json.dumps(pending)
    with pytest.raises(AuthError, match="2 that call themselves"):
        await run(desk, "admit", device="pump-1")
    let = await run(desk, "admit", device="pump-1", fingerprint=pending["knocks"][2]["fingerprint"])
    assert let["token"] == ""
    assert tokens.verify(own) is not None
    new = await run(desk, "admit", device="pump-2")
    grant = tokens.verify(new["token"])
    assert grant is not None
    assert grant.scopes == ("device:pump-2",)
    assert (await run(desk, "pending"))["knocks"] == []


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("token-create", {}),
        ("token-create", {"scopes": "metrics"}),
        ("token-create", {"scopes": ["metrics"], "token": "x"}),
        ("token-create", {"scopes": ["metrics"], "expires_s": 0}),
        ("token-list", {"all": True}),
        ("token-revoke", {"id": 1}),
        ("pending", {"x": 1}),
        ("admit", {}),
    ],
)
async def test_parameters_are_checked(tmp_path: Path, command: str, params: dict[str, Any]) -> None:
    """None is guessed, and nothing is made."""
    desk, tokens = desk_of(tmp_path)
    with pytest.raises(msgspec.ValidationError):
        await run(desk, command, **params)
    assert len(tokens) == 0


async def test_the_running_gateway_has_the_commands(tmp_path: Path) -> None:
    """Over its control socket; it says where it listens and whether it asks for tokens; they survive it."""
    async with gateway(tmp_path) as running:
        made = await ask(tmp_path, "token-create", scopes=["live:read"])
        assert made["listen"] == {"host": "127.0.0.1", "port": running.port, "tls": False}
        assert made["asked"] is False
        assert (await ask(tmp_path, "pending"))["knocks"] == []
    async with gateway(tmp_path):
        assert [row["id"] for row in (await ask(tmp_path, "token-list"))["tokens"]] == [made["id"]]


async def test_a_damaged_file_refuses_the_start(tmp_path: Path) -> None:
    """Nobody is let in, and nobody out, by a gateway that does not know its tokens; the file stays."""
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(AuthError, match=r"tokens\.json is damaged"):
        async with gateway(tmp_path):
            pass
    assert (tmp_path / "tokens.json").read_text() == "{"


async def test_a_revocation_that_the_disk_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in force, the command fails with words, and the gateway's health says so until it is written."""
    async with gateway(tmp_path) as running:
        made = await ask(tmp_path, "token-create", scopes=["metrics"])
        with monkeypatch.context() as full:
            full.setattr(tokenfile, "replace_private", no_room)
            with pytest.raises(AssertionError, match="is revoked, until a restart"):
                await ask(tmp_path, "token-revoke", id=made["id"])
            assert running.app.tokens.verify(made["token"]) is None
            (problem,) = [one for one in (await running.json("/healthz"))["problems"] if one["part"] == "tokens"]
            assert "1 token" in problem["text"]
        running.app.tokens.close()
        assert [one for one in (await running.json("/healthz"))["problems"] if one["part"] == "tokens"] == []


async def test_a_file_that_was_put_back_is_read_at_a_reload(tmp_path: Path) -> None:
    """And a damaged one changes nothing: who may come in stays who it was, and the reload says why."""
    async with gateway(tmp_path) as running:
        made = await ask(tmp_path, "token-create", scopes=["metrics"])
        copy = (tmp_path / "tokens.json").read_bytes()
        await ask(tmp_path, "token-revoke", id=made["id"])
        (tmp_path / "tokens.json").write_bytes(copy)
        assert await running.app.reloader.reload() is not None
        assert [row["id"] for row in (await ask(tmp_path, "token-list"))["tokens"]] == [made["id"]]
        (tmp_path / "tokens.json").write_bytes(copy[:-9])
        assert await running.app.reloader.reload() is None
        assert any("tokens.json is damaged" in text for text, _ in running.app.reloader.problems())
        assert [row["id"] for row in (await ask(tmp_path, "token-list"))["tokens"]] == [made["id"]]

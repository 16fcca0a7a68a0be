"""``gateway token`` and ``gateway devices --pending|--admit``: by the running gateway, and on the file without one."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.auth import Tokens, tokenfile
from gateway.cli import keys, main
from gateway.cli.arguments import token_in
from gateway.client import DeviceClient
from gateway.client.simulate import Options
from gateway.server.control import Control
from gateway.server.tokendesk import TokenDesk
from tests.auth.support import no_room
from tests.running import gateway, receive
from tests.server.test_control_app import ask
from tests.test_cli import Cli
from tools.toolkit.servers import ROOT

TOKEN = r"[0-9a-f]{12}\.[A-Za-z0-9_-]{43}"


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands on the test's state directory."""
    return Cli(tmp_path, capsys)


def tokens_in(directory: Path) -> Tokens:
    """Those in a directory's file."""
    tokens = Tokens(directory / "tokens.json")
    tokens.load()
    return tokens


async def test_a_token_for_a_device(tmp_path: Path, cli: Cli) -> None:
    """Its name is enough; the token alone is on stdout, and on stderr that it is shown once."""
    out = await cli.out("token", "create", "pump-1")
    assert re.fullmatch(TOKEN + "\n", out)
    (record,) = tokens_in(tmp_path).list()
    assert (record.name, record.scopes, record.expires) == ("pump-1", ("device:pump-1",), None)
    assert cli.err.splitlines() == [
        f"no gateway runs with {tmp_path}: this is about its file of tokens",
        f"token {record.id}: device:pump-1; expires never",
        "it is shown this once: keep it where nobody else can read it",
    ]
    assert out.strip().split(".")[1] not in cli.err


async def test_the_contract_of_json(tmp_path: Path, cli: Cli) -> None:
    """``token create --scope S --scope S --json`` prints id, token, scopes and expires, and no more."""
    made = await cli.json("token", "create", "--scope", "live:read:pump-*", "--scope", "metrics")
    assert list(made) == ["id", "token", "scopes", "expires"]
    assert re.fullmatch(TOKEN, made["token"])
    assert (made["scopes"], made["expires"]) == (["live:read:pump-*", "metrics"], None)
    made = await cli.json("token", "create", "--scope", "metrics", "--expires", "90d", "--name", "Prometheus")
    (_, record) = tokens_in(tmp_path).list()
    assert (record.id, record.name, record.expires) == (made["id"], "Prometheus", made["expires"])
    assert made["expires"] - record.created == pytest.approx(90 * 86_400_000, abs=2)
    assert (await cli.json("token", "create", "x", "--expires", "never"))["expires"] is None


async def test_tokens_are_listed(tmp_path: Path, cli: Cli) -> None:
    """Id, name, scopes, and when; never a hash; none is said on stderr."""
    assert await cli.out("token", "list") == ""
    assert "there are no tokens" in cli.err
    made = await cli.json("token", "create", "pump-1", "--expires", "2d")
    lines = (await cli.out("token", "list")).splitlines()
    assert [line.split() for line in lines] == [
        ["ID", "NAME", "SCOPES", "MADE", "EXPIRES", "USED"],
        [made["id"], "pump-1", "device:pump-1", lines[1].split()[3], "in", "1d", "never"],
    ]
    (row,) = await cli.json("token", "list")
    assert sorted(row) == ["created", "expires", "id", "last_used", "name", "scopes"]


async def test_a_revocation_without_a_gateway_or_a_disk(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is in force where nothing runs: it is said that the token is not revoked."""
    id = (await cli.json("token", "create", "pump-1"))["id"]
    with monkeypatch.context() as full:
        full.setattr(tokenfile, "replace_private", no_room)
        assert await cli.status("token", "revoke", id) == 1
    assert f"token {id} is not revoked" in cli.err
    assert [row["id"] for row in await cli.json("token", "list")] == [id]


async def test_a_token_is_rotated_and_revoked(tmp_path: Path, cli: Cli) -> None:
    """The new one is printed as one that is made; a second time there is nothing to revoke."""
    made = await cli.json("token", "create", "pump-1")
    new = (await cli.out("token", "rotate", made["id"])).strip()
    tokens = tokens_in(tmp_path)
    assert tokens.verify(made["token"]) is None
    assert tokens.verify(new) is not None
    assert f"{made['id']} has ended" in cli.err
    id = new.split(".")[0]
    assert await cli.out("token", "revoke", id) == f"revoked {id} (pump-1)\n"
    assert await cli.status("token", "revoke", id) == 1
    assert cli.err.endswith(f"gateway: there is no token '{id}'\ngateway: `gateway token list` shows their ids\n")
    made = await cli.json("token", "create", "pump-1")
    new_json = await cli.json("token", "rotate", made["id"])
    assert list(new_json) == ["id", "token", "scopes", "expires"]
    assert (await cli.json("token", "revoke", new_json["id"]))["id"] == new_json["id"]


async def test_the_running_gateway_is_asked(tmp_path: Path, cli: Cli) -> None:
    """What is made, rotated and revoked is in force in it at once, and it is it that writes the file."""
    async with gateway(tmp_path):
        made = await cli.json("token", "create", "pump-1")
        assert "no gateway runs" not in cli.err
        assert "GATEWAY_AUTH__MODE=token" in cli.err
        rotated = await cli.json("token", "rotate", made["id"])
        assert [row["id"] for row in await cli.json("token", "list")] == [rotated["id"]]
        assert [row["id"] for row in (await ask(tmp_path, "token-list"))["tokens"]] == [rotated["id"]]
        assert await cli.status("token", "create", "--scope", "live:reed") == 1
        assert "live:read?" in cli.err
        await cli.out("token", "revoke", rotated["id"])
    assert len(tokens_in(tmp_path)) == 0


async def test_commands_at_once_all_count(tmp_path: Path, cli: Cli) -> None:
    """Each waits for the other to be done with the file."""
    statuses = await asyncio.gather(*(cli.status("token", "create", f"pump-{number}") for number in range(5)))
    assert statuses == [0] * 5
    assert sorted(record.name for record in tokens_in(tmp_path).list()) == [f"pump-{number}" for number in range(5)]


async def test_a_gateway_that_does_not_answer(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the lock and has no socket is waited for; after that 75, and nothing is made."""
    monkeypatch.setattr(keys, "WAIT_S", 0.3)
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert await cli.status("token", "create", "pump-1") == 75
        assert "a gateway that does not answer uses" in cli.err
        assert not (tmp_path / "tokens.json").exists()
        monkeypatch.setattr(keys, "WAIT_S", 20)
        task = asyncio.create_task(cli.status("token", "create", "pump-1"))
        await asyncio.sleep(0.3)
        assert not task.done()
        tokens = Tokens(tmp_path / "tokens.json")
        tokens.load()
        async with Control(tmp_path, TokenDesk(tokens).commands):
            assert await task == 0
            assert len(tokens) == 1
    finally:
        os.close(fd)


async def test_where_there_is_no_state_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Making a token makes it, and says so; anything else is 69."""
    cli = Cli(tmp_path / "new" / "state", capsys)
    for words in ("token list", "token revoke x", "token rotate x"):
        assert await cli.status(*words.split()) == 69
        assert "there is no state directory" in cli.err
    await cli.out("token", "create", "pump-1")
    assert "made the state directory" in cli.err
    assert (tmp_path / "new" / "state").stat().st_mode & 0o777 == 0o750
    (tmp_path / "file").write_text("")
    assert await Cli(tmp_path / "file" / "state", capsys).status("token", "create", "pump-1") == 1


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["create"], 2, "say a device's name"),
        (["create", "pump-1", "--expires", "soon"], 2, "90d"),
        (["create", "pump-1", "--expires", "1ms"], 1, "a second at least"),
        (["create", "pump-1", "--url", "ws://h"], 2, "--url"),
        (["create", "pump-1", "--sketch", "cobol"], 2, "--sketch"),
        (["create", "pump-*"], 1, "--scope 'device:pump-*'"),
        (["create", "--scope", "device:"], 1, "names no device"),
        (["create", "pump-1", "--name", "a\nb"], 1, "printable"),
        (["revoke"], 2, "ID"),
        (["revoke", "0123"], 1, "there is no token '0123'"),
        ([], 2, "ACTION"),
    ],
)
async def test_wrong_usage_is_told(tmp_path: Path, cli: Cli, words: list[str], status: int, says: str) -> None:
    """Its words say what would be right, stdout stays empty, and nothing is made."""
    assert (await cli._run(("token", *words))) == (status, "")
    assert says in cli.err
    assert not (tmp_path / "tokens.json").exists()


async def test_a_damaged_file_is_told(tmp_path: Path, cli: Cli) -> None:
    """Exit status 1 with a hint; it is not touched."""
    (tmp_path / "tokens.json").write_text("{")
    assert await cli.status("token", "create", "pump-1") == 1
    assert "is damaged" in cli.err
    assert "put back a copy" in cli.err
    assert (tmp_path / "tokens.json").read_text() == "{"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_leaves_files_to_their_owner() -> None:
    """What root makes is the file of the state directory's owner, and of nobody else."""
    with tempfile.TemporaryDirectory() as private:  # which nobody but root may enter
        directory = Path(private, "gateway")
        directory.mkdir()
        os.chown(directory, 65534, 65534)
        words = [sys.executable, "-m", "gateway", "token", "create", "pump-1", "--state-dir", str(directory)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for path in directory.iterdir():
            status = path.stat()
            assert (status.st_uid, status.st_gid) == (65534, 65534), path
        assert (directory / "tokens.json").stat().st_mode & 0o777 == 0o600


async def test_who_knocked_is_listed_and_let_in(tmp_path: Path, cli: Cli) -> None:
    """A line a knock; one word lets it in, with its own secret or a token that is printed; several are told apart."""
    own = "a-secret-of-its-own-0123"
    tokens = tokens_in(tmp_path)
    facts = {"asked": True, "listen": {"host": "127.0.0.1", "port": 8080, "tls": False}}
    async with Control(tmp_path, TokenDesk(tokens, lambda: facts).commands):
        assert await cli.out("devices", "--pending") == ""
        assert cli.err == "no unknown device has knocked since the gateway's start\n"
        tokens.pending.knock("pump-1", own, "10.0.0.7")
        tokens.pending.knock("pump-1", own, "10.0.0.7")
        tokens.pending.knock("pump-2", "", "10.0.0.8")
        lines = [line.split() for line in (await cli.out("devices", "--pending")).splitlines()]
        fingerprint = tokens.pending.list()[1].fingerprint
        assert lines == [
            ["DEVICE", "FIRST", "LAST", "TIMES", "FROM", "FINGERPRINT"],
            ["pump-2", *lines[1][1:3], "1", "10.0.0.8", "-"],
            ["pump-1", *lines[2][1:3], "2", "10.0.0.7", fingerprint],
        ]
        assert [row["device"] for row in await cli.json("devices", "--pending")] == ["pump-2", "pump-1"]
        assert await cli.out("devices", "--admit", "pump-1") == ""
        assert "let in with the secret that it presented" in cli.err
        assert tokens.verify(own) is not None
        token = await cli.out("devices", "--admit", "pump-2")
        assert tokens.verify(token.strip()) is not None
        assert "put this one into it" in cli.err
        assert await cli.status("devices", "--admit", "pump-2") == 1
        assert "no unknown device called 'pump-2' has knocked" in cli.err
        tokens.pending.knock("pump-3", own + "x", "10.0.0.7")
        tokens.pending.knock("pump-3", "", "10.0.0.9")
        assert await cli.status("devices", "--admit", "pump-3") == 1
        assert "--fingerprint" in cli.err
        made = await cli.json("devices", "--admit", "pump-3", "--fingerprint", "none")
        assert list(made) == ["id", "token", "scopes", "expires"]
        assert made["scopes"] == ["device:pump-3"]


async def test_a_device_knocks_and_is_let_in(tmp_path: Path, cli: Cli) -> None:
    """A real one, with a secret of its own: refused, listed, let in with a word, and out with another, at once."""
    own = {"Authorization": "Bearer a-secret-of-its-own-0123"}
    async with gateway(tmp_path, auth={"mode": "token"}) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with running.device("pump-1", additional_headers=own):
                pass
        assert refused.value.response.status_code == 401
        (knock,) = await cli.json("devices", "--pending")
        assert (knock["device"], knock["address"], len(knock["fingerprint"])) == ("pump-1", "127.0.0.1", 12)
        old = await cli.json("token", "create", "pump-1")
        let = await cli.json("devices", "--admit", "pump-1")
        assert let["token"] == ""
        assert f"under that name, too: {old['id']};" in cli.err
        assert await cli.json("devices", "--pending") == []
        async with running.device("pump-1", additional_headers=own) as ws:
            await receive(ws, "welcome")
            await cli.out("token", "revoke", let["id"])
            with pytest.raises(ConnectionClosed) as ended:
                await asyncio.wait_for(ws.recv(), 20)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1008
        with pytest.raises(InvalidStatus):
            async with running.device("pump-1", additional_headers=own):
                pass
        (knock,) = await cli.json("devices", "--pending")
        assert knock["fingerprint"] == ""  # what was revoked is not let in again


async def test_who_knocks_is_known_to_a_running_gateway_alone(tmp_path: Path, cli: Cli) -> None:
    """Without one 69; where nobody is asked for a token, that is said."""
    for words in (["--pending"], ["--admit", "pump-1"]):
        assert await cli.status("devices", *words) == 69
    assert await cli.status("devices", "--fingerprint", "ab") == 2
    assert await cli.status("devices", "--pending", "--admit", "x") == 2
    async with gateway(tmp_path):
        assert await cli.json("devices", "--pending") == []
        assert "nobody is asked for a token" in cli.err


async def test_simulated_devices_take_their_token_from_a_file(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It never stands on a command line, in a log or in a representation."""
    caplog.set_level("DEBUG")
    file = tmp_path / "token"
    words = ["simulate", "--devices", "2", "--rate", "20", "--duration", "0.5", "--quiet", "--json"]
    async with gateway(tmp_path / "state", auth={"mode": "token"}) as running:
        url = f"ws://127.0.0.1:{running.port}"
        _, token = running.app.tokens.create(["device:sim-*"])
        file.write_text(token + "\n")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *words, "--url", url, "--token-file", str(file)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, out
        assert json.loads(out)["acked"] > 0
        async with DeviceClient(url, "sim-x", token=token) as device:
            await device.send({"t": 1})
    assert token.split(".")[1] not in caplog.text
    assert token not in repr(Options(token=token)) + repr(device)
    for text in ("", "two words\n"):
        file.write_text(text)
        with pytest.raises(SystemExit) as end:
            main([*words, "--token-file", str(file)])
        assert end.value.code == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO(token))
    assert token_in("-") == token


async def test_no_token_is_logged(tmp_path: Path, cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    """At the most talkative level nothing says it, in the gateway or in the command."""
    caplog.set_level("DEBUG")
    async with gateway(tmp_path):
        made = await cli.json("token", "create", "pump-1")
        rotated = await cli.json("token", "rotate", made["id"])
        await cli.status("token", "revoke", rotated["token"])
        assert rotated["token"].split(".")[1] not in cli.err
    for token in (made["token"], rotated["token"]):
        assert token.split(".")[1] not in caplog.text
        assert json.dumps(token) not in caplog.text

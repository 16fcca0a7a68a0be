"""``gateway dead-letters``: by the running gateway, and on its files where none runs."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.reading import Presence, Reading
from gateway.server.control import Control
from gateway.sinks.deadletters import DeadLetters
from tests.test_cli import Cli
from tools.toolkit.servers import ROOT

NS = 1_764_000_000_000_000_000


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands on the test's state directory."""
    return Cli(tmp_path, capsys)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A state directory with dead letters of two sinks and no gateway."""
    folder = tmp_path / "dead-letters"
    mqtt = DeadLetters(folder / "mqtt")
    mqtt.open()
    readings = [Reading("pump-1", "s", seq, NS, NS, {"t": seq / 2, "ok": True}) for seq in range(1, 4)]
    mqtt.append([(10 + reading.seq, "topic too long", reading) for reading in readings])
    mqtt.append([(20, "not allowed\x1b[2J", Presence("pump-2", "offline", NS))])
    influx = DeadLetters(folder / "influx")
    influx.open()
    influx.append([(11, "field type conflict", readings[0])])
    (folder / "mqtt.new").write_bytes(b"half")
    return tmp_path


async def test_list_without_a_gateway(files: Path, cli: Cli) -> None:
    """Numbers and reasons of each sink from its file, and that no gateway was asked."""
    out = await cli.out("dead-letters", "list")
    assert [line.split()[:2] for line in out.splitlines()[:3]] == [["SINK", "LETTERS"], ["influx", "1"], ["mqtt", "4"]]
    assert "        3  topic too long\n" in out
    assert "\x1b" not in out
    assert cli.err == f"no gateway runs with {files}: these are its files\n"
    assert [(sink["sink"], sink["count"]) for sink in await cli.json("dead-letters", "list", "mqtt")] == [("mqtt", 4)]
    assert await cli.json("dead-letters", "list", "kafka") == []


async def test_show_without_a_gateway(files: Path, cli: Cli) -> None:
    """What each holds and why it was put aside; some of them, by sink, offset or number."""
    out = await cli.out("dead-letters", "show", "mqtt")
    assert re.match(
        r"mqtt 11: pump-1 seq 1, \d{4}-\d\d-\d\d .*: t=0.5, ok=true\n    put aside \d+ seconds? ago: topic", out
    )
    assert "mqtt 20: pump-2, offline since " in out
    assert "\x1b" not in out

    async def shown(*words: str) -> list[tuple[str, int]]:
        return [(row["sink"], row["offset"]) for row in await cli.json("dead-letters", "show", *words)]

    assert await shown() == [("influx", 11), ("mqtt", 11), ("mqtt", 12), ("mqtt", 13), ("mqtt", 20)]
    assert await shown("--offset", "11", "--offset", "20") == [("influx", 11), ("mqtt", 11), ("mqtt", 20)]
    assert await shown("--limit", "2") == [("influx", 11), ("mqtt", 11)]
    assert "--limit" in cli.err
    assert await cli.status("dead-letters", "show", "--offset", "99") == 1
    assert "at these offsets" in cli.err


async def test_purge_without_a_gateway(files: Path, cli: Cli) -> None:
    """Some, then all; only when it was said that it is meant."""
    assert await cli.status("dead-letters", "purge") == 2
    assert "--yes" in cli.err
    out = await cli.out("dead-letters", "purge", "mqtt", "--offset", "12", "--yes")
    assert out == "mqtt: 1 purged\n"
    assert await cli.out("dead-letters", "purge", "--yes") == "influx: 1 purged\nmqtt: 3 purged\n"
    await cli.out("dead-letters", "list")
    assert "there are no dead letters" in cli.err
    assert await cli.status("dead-letters", "purge", "--yes", "--offset", "12") == 1


async def test_purge_leaves_a_gateway_that_starts_alone(files: Path, cli: Cli) -> None:
    """Where the state directory is held and nobody answers, nothing is touched: exit status 75."""
    fd = os.open(files / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for command in ("purge --yes", "show", "list"):
            assert await cli.status("dead-letters", *command.split()) == 75
            assert "does not answer" in cli.err
    finally:
        os.close(fd)
    assert len(await cli.json("dead-letters", "show")) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_leaves_the_files_to_their_owner(files: Path) -> None:
    """What is written anew without a gateway stays its user's."""
    for path in (files, *files.rglob("*")):
        os.chown(path, 65534, 65534)
    program = (
        "import sys, gateway.cli.dead_letters, gateway.server.desk\nfrom gateway.cli import main\nsys.exit(main())"
    )
    with tempfile.TemporaryDirectory() as private:  # which nobody but root may enter
        directory = f"{private}/gateway"
        os.mkdir(directory)
        os.rename(files / "dead-letters", Path(directory, "dead-letters"))
        os.chown(directory, 65534, 65534)
        words = ["dead-letters", "purge", "--offset", "12", "--yes", "--state-dir", directory]
        done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, timeout=20)
        assert (done.returncode, done.stdout) == (0, b"influx: 0 purged\nmqtt: 1 purged\n"), done.stderr
        assert {path.stat().st_uid for path in Path(directory).rglob("*")} == {65534}


async def test_retry_needs_a_gateway(files: Path, cli: Cli) -> None:
    """Exit status 69."""
    assert await cli.status("dead-letters", "retry") == 69


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("", 1)])
async def test_purge_asks_at_a_terminal(
    files: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    """Only a yes is one."""
    stdin: Any = io.StringIO(answer)
    stdin.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", stdin)
    assert await cli.status("dead-letters", "purge") == status
    assert "Purge all dead letters of all sinks for good? [y/N]" in cli.err
    assert len(await cli.json("dead-letters", "show")) == (0 if status == 0 else 5)


async def test_a_gateway_does_it_where_one_runs(tmp_path: Path, cli: Cli) -> None:
    """Its answers are printed; a retry that leaves some fails; parameters arrive as given."""
    asked: list[tuple[str, Any]] = []
    results: dict[str, Any] = {
        "dead-letters": [
            {"sink": "mqtt", "title": "MQTT", "count": 0, "bytes": 0, "oldest": None, "newest": None, "reasons": {}}
        ],
        "dead-letters retry": [
            {"sink": "mqtt", "title": "MQTT", "delivered": 2, "left": 1, "reason": "not\x1ballowed"},
            {"sink": "history", "title": "History", "delivered": 0, "left": 0, "reason": ""},
        ],
        "dead-letters purge": [{"sink": "mqtt", "title": "MQTT", "purged": 3}],
    }

    def answering(command: str) -> Any:
        async def answer(params: dict[str, Any]) -> object:
            asked.append((command, params))
            return results[command]

        return answer

    async def show(params: dict[str, Any]) -> AsyncIterator[object]:
        asked.append(("dead-letters show", params))
        yield []

    commands = {command: answering(command) for command in results}
    async with Control(tmp_path, {**commands, "dead-letters show": show}):
        assert "mqtt        0   0 B       -       -" in await cli.out("dead-letters", "list")
        assert await cli.out("dead-letters", "show", "mqtt") == ""
        assert "there are no dead letters" in cli.err
        assert await cli.status("dead-letters", "retry", "mqtt", "--offset", "5", "--offset", "6") == 1
        results["dead-letters retry"][0]["left"] = 0
        assert await cli.out("dead-letters", "retry") == "mqtt: 2 delivered\n"
        assert json.loads(await cli.out("dead-letters", "retry", "--json")) == results["dead-letters retry"]
        assert await cli.out("dead-letters", "purge", "--yes") == "mqtt: 3 purged\n"
    assert asked[1:3] == [
        ("dead-letters show", {"sink": "mqtt", "limit": 100}),
        ("dead-letters retry", {"sink": "mqtt", "offsets": [5, 6]}),
    ]

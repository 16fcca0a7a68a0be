"""The commands that ask a running gateway: what they print, where, and their exit statuses."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from gateway.cli import COMMANDS, main, whole_parser
from gateway.cli import daemon as daemon_module
from gateway.errors import GatewayError
from gateway.server.control import NAME, Control
from tests.running import Running, acked, gateway, receive, send
from tools.toolkit.servers import ROOT, Daemon

CONTROL = (
    "devices",
    "explain x",
    "dead-letters list",
    "dead-letters show",
    "dead-letters retry",
    "tail",
    "top",
    "export",
)


class Cli:
    """Runs commands in a thread, on one state directory."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._directory = directory
        self._capsys = capsys
        self.err = ""

    async def status(self, *words: str) -> int:
        """The exit status; what was printed is dropped."""
        return (await self._run(words))[0]

    async def out(self, *words: str) -> str:
        """What a command printed that was to succeed."""
        status, out = await self._run(words)
        assert status == 0, self.err
        return out

    async def json(self, *words: str) -> Any:
        """The same, of ``--json``."""
        return json.loads(await self.out(*words, "--json"))

    async def _run(self, words: tuple[str, ...]) -> tuple[int, str]:
        def run() -> int:
            try:
                return main([*words, "--state-dir", str(self._directory)])
            except SystemExit as end:
                return end.code if isinstance(end.code, int) else 1

        self._capsys.readouterr()
        status = await asyncio.wait_for(asyncio.to_thread(run), 20)
        out, self.err = self._capsys.readouterr()
        return status, out


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands on the test's state directory."""
    return Cli(tmp_path, capsys)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway whose broker is away, and that has heard a device."""
    async with gateway(tmp_path, mqtt={"url": "mqtt://127.0.0.1:1"}) as made:
        async with made.device("pump-1", "?session=boot-7") as ws:
            await receive(ws, "welcome")
            await send(ws, {"type": "describe", "name": "Boiler\u202epump"})
            await send(ws, *({"seq": seq, "t": seq} for seq in range(1, 6)))
            await acked(ws, 5)
            await send(ws, {"seq": 6, "t": []}, {"seq": 3, "t": 0})
            await receive(ws, "error")
            await acked(ws, 6)
        await made.rows("pump-1", "t", 5)
        yield made


async def test_devices_are_listed(running: Running, cli: Cli) -> None:
    """A line a device, its numbers in their columns; a summary on stderr; names by a pattern; as JSON."""
    lines = (await cli.out("devices")).splitlines()
    assert [line.split()[0] for line in lines] == ["DEVICE", "pump-1"]
    assert re.fullmatch(r"pump-1  offline +\d+s +\d+s +7 +5 +1 +0  \S.*", lines[1]), lines[1]
    assert cli.err == "1 device: 1 offline\n"
    assert await cli.out("devices", "tank-*") == ""
    assert "no device" in cli.err
    assert [row["ledger"]["stored"] for row in await cli.json("devices", "p*")] == [5]
    assert await cli.json("devices", "tank") == []


async def test_what_a_full_journal_cost_stands_below_the_devices(tmp_path: Path, cli: Cli) -> None:
    """How many readings each sink will never get, since they were dropped or damaged: they count as stored above."""
    count = {"stored": 9, "rejected": 0, "throttled": 0, "dropped": 0, "missing": 0, "received": 9}
    row = {"device": "d", "state": "online", "since": 1, "confirmed": True, "last_seen": 1, "ledger": count}

    async def devices(params: dict[str, Any]) -> AsyncIterator[object]:
        yield [{**row, "reason": ""}]

    def sink(title: str, overflowed: int, lost: int) -> dict[str, Any]:
        return {"name": title.lower(), "title": title, "ledger": {"overflowed": overflowed, "lost": lost}}

    async def health(params: dict[str, Any]) -> object:
        return {"sinks": [sink("History", 0, 0), sink("MQTT", 3000, 0), sink("InfluxDB", 1, 2)]}

    async with Control(tmp_path, {"devices": devices, "health": health}):
        await cli.out("devices")
    assert cli.err.splitlines() == [
        "1 device: 1 online",
        "MQTT never got 3,000 readings that were stored: dropped from the full journal (GATEWAY_JOURNAL__MAX_BYTES)",
        "InfluxDB never got 1 reading that was stored: dropped from the full journal (GATEWAY_JOURNAL__MAX_BYTES)",
        "InfluxDB never got 2 readings that were stored: lost with damaged parts of the journal",
    ]
    async with Control(tmp_path, {"devices": devices}):
        await cli.out("devices")  # of an older gateway
    assert cli.err == "1 device: 1 online\n"


async def test_a_device_is_explained(running: Running, cli: Cli) -> None:
    """State, session, each part of the ledger, refusals and sinks, in words; no control characters of its name."""
    text = await cli.out("explain", "pump-1")
    assert text.startswith("pump-1 (Boiler\N{REPLACEMENT CHARACTER}pump) is offline since ")
    for words in (
        "Session boot-7, which can be resumed; everything up to seq 6 is decided and on disk.",
        "Of 7 readings received:\n",
        "  5  stored     are safe",
        "  1  duplicate  ",
        "  1  rejected   ",
        "bad_value 1. The last, ",
        "History  Has taken all that is stored.",
        "MQTT     5 of its readings wait in the journal; none is lost. It cannot be reached: ",
    ):
        assert words in text, text
    assert (await cli.json("explain", "pump-1"))["ledger"]["received"] == 7


async def test_an_unknown_device_is_a_sentence(running: Running, cli: Cli) -> None:
    """Exit status 1, and the names that are near."""
    assert await cli.status("explain", "pmp-1") == 1
    assert cli.err == "gateway: no device called 'pmp-1' has ever connected here\ngateway: similar: pump-1\n"


async def test_tail_prints_what_is_stored(running: Running, cli: Cli) -> None:
    """A line an item, of the devices and metrics asked for; ``--count`` ends it; also as JSON and CSV."""

    async def sending() -> None:
        async with running.device("tank") as other, running.device("pump-1", "?session=boot-8") as ws:
            await asyncio.gather(receive(ws, "welcome"), receive(other, "welcome"))
            for seq in range(1, 1000):
                await send(other, {"seq": seq, "no": seq})
                await send(ws, {"seq": seq, "t": seq / 2, "ok": True, "s": "a\u009bb"})
                await asyncio.sleep(0.02)

    task = asyncio.create_task(sending())
    lines = (await cli.out("tail", "pump-*", "--count", "5")).splitlines()
    assert len(lines) == 5
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} pump-1 #\d+ t=[\d.]+ ok=true s=a\N{REPLACEMENT CHARACTER}b", lines[-1])
    entries = [json.loads(line) for line in (await cli.out("tail", "--count", "3", "--json")).splitlines()]
    assert [entry["device"] in ("pump-1", "tank") for entry in entries] == [True] * 3
    rows = (await cli.out("tail", "--metric", "?k", "--format", "csv", "-n", "3")).splitlines()
    assert rows[0] == "time,device,metric,value"
    assert [re.sub(r"^\d{13}", "", row) for row in rows[1:]] == [",pump-1,ok,true"] * 3
    some = [json.loads(line) for line in (await cli.out("tail", "--metric", "n*", "-n", "2", "--json")).splitlines()]
    assert [(entry["device"], list(entry["values"])) for entry in some] == [("tank", ["no"])] * 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_top_prints_a_picture(running: Running, cli: Cli) -> None:
    """Once where output is no terminal: problems, sinks, devices."""
    text = await cli.out("top", "--interval", "0.1")
    for words in ("degraded", "! MQTT cannot be reached", "SINK", "History", "DEVICE", "pump-1"):
        assert words in text, text
    assert (await cli.json("top", "--interval", "0.1"))["devices"][0]["device"] == "pump-1"


def _on_terminal(*words: str, columns: int = 60, end: bytes = b"\x1b[J") -> tuple[str, bytes, int]:
    """What a command draws on a terminal of 12 lines, until it has drawn three pictures and got Ctrl-C."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 12, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment["TERM"] = "xterm-256color"
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *words],
        cwd=ROOT,
        stdin=far,
        stdout=far,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(far)
    seen = b""
    try:
        while seen.count(end) < 3 and select.select([near], [], [], 20)[0]:
            seen += os.read(near, 65536)
        process.send_signal(signal.SIGINT)
        while select.select([near], [], [], 20)[0]:
            seen += os.read(near, 65536)
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
        os.close(near)
    return seen.decode(), error, process.returncode


async def test_top_draws_on_a_terminal(running: Running, tmp_path: Path) -> None:
    """Picture after picture on the other screen, no wider than it; Ctrl-C brings back the first one, exit status 0."""
    seen, error, status = await asyncio.to_thread(
        _on_terminal, "top", "--plain", "--interval", "0.2", "--state-dir", str(tmp_path)
    )
    assert (error, status) == (b"", 0)
    assert seen.startswith("\x1b[?1049h\x1b[?25l")
    assert seen.endswith("\x1b[?25h\x1b[?1049l")
    pictures = seen.split("\x1b[H")[1:]
    assert len(pictures) >= 3
    for picture in pictures:
        lines = re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", picture.replace("\r", "")).split("\n")
        assert len(lines) <= 12
        assert max(map(len, lines)) <= 60
        assert any(line.startswith("History  ") for line in lines)


async def test_top_draws_in_colours(running: Running, tmp_path: Path) -> None:
    """With the extra: states in their colours, the course of each rate, no line wider than the terminal."""
    pytest.importorskip("rich", reason="The extra `top` (rich) is not installed.")
    seen, error, status = await asyncio.to_thread(
        _on_terminal, "top", "--interval", "0.2", "--state-dir", str(tmp_path), columns=100, end=b"DEAD LETTERS"
    )
    assert (error, status) == (b"", 0)
    assert seen.startswith("\x1b[?1049h")
    assert seen.endswith("\x1b[?25h\x1b[?1049l")
    last = seen.split("\x1b[H")[-1]
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", last.replace("\r", "")).split("\n")]
    assert len(lines) <= 13
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("History  ") for line in lines)
    assert "\x1b[33mdegraded" in last


def test_the_course_of_a_rate() -> None:
    """Bars in proportion to the greatest, the newest last; a pause is a blank."""
    colours = pytest.importorskip("gateway.cli.colours", reason="The extra `top` (rich) is not installed.")
    assert colours.course([], 3) == "   "
    assert colours.course([9.0, 0.0, 1.0, 4.0, 8.0], 4) == " ▂▅█"


async def test_a_gateway_that_is_older_says_what_it_has(tmp_path: Path, cli: Cli) -> None:
    """Its refusal and its hint are printed, exit status 1."""
    async with Control(tmp_path, {}):
        assert await cli.status("devices") == 1
    assert cli.err.startswith("gateway: the running gateway has no command 'devices'\ngateway: it is version ")


@pytest.mark.parametrize("command", CONTROL)
async def test_without_a_gateway(tmp_path: Path, cli: Cli, command: str) -> None:
    """Exit status 69 and one sentence with what to do; nothing on stdout; also where a crash left the socket."""
    cli = Cli(tmp_path / "none", cli._capsys)
    assert await cli.status(*command.split()) == 69
    if not command.startswith("dead-letters"):
        assert cli.err.startswith(f"gateway: no gateway runs with the state directory {tmp_path}")
        assert "gateway run" in cli.err


async def test_a_socket_that_a_crash_left(tmp_path: Path, cli: Cli) -> None:
    """Nobody listens: no gateway runs."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / NAME))
    assert await cli.status("devices") == 69
    assert "no gateway runs" in cli.err


async def test_one_that_ends_meanwhile(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that stops, or is stuck, before it answers is told as such: 69."""
    begun = asyncio.Event()

    async def wait(params: dict[str, Any]) -> object:
        begun.set()
        return await asyncio.Event().wait()

    async with Control(tmp_path, {"explain": wait}, stop_timeout=0.2):
        monkeypatch.setattr(daemon_module, "ANSWER_S", 0.2)
        assert await cli.status("explain", "x") == 69
        assert "has not answered within 0.2 s" in cli.err
        monkeypatch.undo()
        begun.clear()
        task = asyncio.create_task(cli.status("explain", "x"))
        await asyncio.wait_for(begun.wait(), 10)
    assert await task == 69
    assert cli.err == "gateway: the gateway has stopped\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_anothers_gateway() -> None:
    """Exit status 77 where the socket may not be used."""
    program = (
        "import asyncio, os, sys, threading\n"
        "from pathlib import Path\n"
        "from gateway.cli import main\n"
        "import gateway.cli.devices, gateway.server.control, websockets.sync.client, encodings.idna\n"
        "os.setuid(65534)\n"
        "sys.exit(main(['devices', '--state-dir', sys.argv[1]]))\n"
    )
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        Path(directory).chmod(0o755)
        listening.bind(f"{directory}/{NAME}")
        Path(directory, NAME).chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", program, directory], cwd=ROOT, capture_output=True, text=True, timeout=20
        )
    assert done.returncode == 77, done.stderr
    assert "another user's" in done.stderr


async def test_bad_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ``--state-dir`` the settings say where it is, and bad ones end the command with 78."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    assert main(["devices"]) == 69
    assert str(tmp_path) in capsys.readouterr().err
    monkeypatch.setenv("GATEWAY_LISTEN__PORT", "many")
    assert main(["devices"]) == 78
    assert "GATEWAY_LISTEN__PORT" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "explain",
        "explain a b",
        "tail --count 0",
        "tail --json --format csv",
        "top --interval x",
        "dead-letters",
        "dead-letters show --offset -1",
    ],
)
async def test_wrong_usage(cli: Cli, words: str) -> None:
    """Exit status 2."""
    assert await cli.status(*words.split()) == 2
    assert cli.err.startswith("usage: gateway ")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each says what it does; those that ask the gateway list their exit statuses."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: gateway {command}")
    if command in ("devices", "explain", "dead-letters", "tail", "top"):
        assert "exit status: 0 done" in text
        assert "69 no gateway runs there" in text


def test_programs_are_answered_in_json() -> None:
    """Each command that tells something takes ``--json``; the others print programs, or start the gateway."""
    parser = whole_parser()
    without = []

    def look(words: str, parser: argparse.ArgumentParser) -> None:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not below and "--json" not in parser._option_string_actions:
            without.append(words)
        for action in below:
            for name, child in action.choices.items():
                look(f"{words} {name}".strip(), child)

    look("", parser)
    assert without == ["run", "completion"]


@pytest.mark.alone
def test_the_version_is_there_at_once() -> None:
    """Within 150 ms, the interpreter's start included: none of the libraries is loaded for it."""

    def once() -> float:
        before = time.perf_counter()
        subprocess.run([sys.executable, "-m", "gateway", "version"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - before

    assert min(once() for _ in range(5)) < 0.15


def test_the_help_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of it is wider than 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80, command


def test_the_real_program(tmp_path: Path) -> None:
    """Against ``gateway run``: the socket is its owner's, a command works, Ctrl-C ends ``tail`` with 0."""
    daemon = Daemon(tmp_path, {})
    with daemon:
        assert (daemon.state / NAME).stat().st_mode & 0o777 == 0o600
        command = [sys.executable, "-m", "gateway"]
        where = ["--state-dir", str(daemon.state)]
        done = subprocess.run([*command, "devices", "--json", *where], cwd=ROOT, capture_output=True, timeout=20)
        assert (done.returncode, json.loads(done.stdout)) == (0, [])
        tail = subprocess.Popen([*command, "tail", *where], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert tail.stdout is not None
        with connect(f"ws://127.0.0.1:{daemon.port}/v1/devices/pump-1", compression=None, proxy=None) as ws:
            while not select.select([tail.stdout], [], [], 0.05)[0]:
                ws.send('{"t":1}')
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate(timeout=20)
        assert (tail.returncode, err) == (0, b"")
        assert b"pump-1 is online" in out or b"pump-1 t=1" in out
    assert not (daemon.state / NAME).exists()


async def test_output_that_stands_still_ends_nothing(tmp_path: Path) -> None:
    """While nobody reads what ``tail`` prints, the gateway waits; then it goes on."""

    async def flood(params: dict[str, Any]) -> AsyncIterator[object]:
        number = 0
        while True:
            number += 1
            yield [{"offset": number, "kind": "reading", "device": "d", "seq": number, "pad": "x" * 1000}]

    words = [sys.executable, "-m", "gateway", "tail", "--json", "--state-dir", str(tmp_path)]
    async with Control(tmp_path, {"tail": flood}):
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=4096)
        assert process.stdout is not None
        numbers = [json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["seq"]]
        await asyncio.sleep(0.5)
        while len(numbers) < 3000:
            numbers.append(json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["seq"])
        process.send_signal(signal.SIGINT)
        while await process.stdout.read(65536):
            pass
        assert await process.wait() == 0
    assert numbers == list(range(1, 3001))


async def test_output_that_stands_still_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway ends the stream, and the command says that this may have been the reason."""
    monkeypatch.setattr("gateway.server.control.UNREAD_S", 0.4)
    ended = asyncio.Event()

    async def flood(params: dict[str, Any]) -> AsyncIterator[object]:
        try:
            while True:
                yield [{"offset": 1, "kind": "reading", "device": "d", "seq": 1, "pad": "x" * 1000}] * 10
        finally:
            ended.set()

    words = [sys.executable, "-m", "gateway", "tail", "--json", "--state-dir", str(tmp_path)]
    async with Control(tmp_path, {"tail": flood}):
        process = await asyncio.create_subprocess_exec(
            *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=4096
        )
        assert process.stdout is not None
        assert process.stderr is not None
        await asyncio.wait_for(ended.wait(), 20)
        while await process.stdout.read(65536):
            pass
        assert b"stood still for a minute" in await process.stderr.read()
        assert await process.wait() == 69


def test_errors_carry_their_statuses() -> None:
    """Each failure of the way to the gateway is one that the commands' edge turns into a sentence."""
    for error, status in ((daemon_module.NotRunning, 69), (daemon_module.NotAllowed, 77)):
        assert issubclass(error, GatewayError)
        assert error.exit_status == status  # type: ignore[attr-defined]

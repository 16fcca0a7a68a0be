"""Programs for devices: they compile, run, and what they send arrives."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.auth import Tokens
from gateway.cli import sketch
from gateway.cli.sketch import LANGUAGES, Target, render, target_of
from gateway.errors import GatewayError
from tests.certificates import authority, issue
from tests.running import Running, gateway
from tests.test_cli import Cli

STANDIN = Path(__file__).parent / "sketches" / "standin"
NASTY = [
    '"',
    "\\",
    "'",
    "\n",
    "\r\n",
    "??/",
    "%s",
    "${x}",
    "#{x}",
    "*/",
    "\0",
    "\x7f",
    "é",
    "☃",
    "\U0001f600",
    "\\0",
    "a" * 300,
]
LOOPBACK = Target("127.0.0.1", 8080, False, "")
TOKEN = "0123456789ab." + "x" * 43
WAIT_S = 60.0  # a program that could not connect tries again after 1, 2, 4, .. s, and a try may take 10 s
COMPILE = ["-O0", "-Wall", "-Wextra", "-Werror"]


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands on the test's state directory."""
    return Cli(tmp_path, capsys)


def sh(*words: str | Path) -> None:
    """Run a compiler."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def faster(text: str, every: str) -> str:
    """The program, taking a reading every so many seconds rather than every ten, and waiting less after a cut."""
    text = text.replace("INTERVAL_S = 10\n", f"INTERVAL_S = {every}\n").replace("Interval(5000)", "Interval(500)")
    return text.replace("INTERVAL_MS = 10000", f"INTERVAL_MS = {float(every) * 1000:.0f}")


def python(folder: Path, text: str) -> list[str]:
    """The words that run the program, as for each language below."""
    (folder / "sender.py").write_text(text)
    return [sys.executable, str(folder / "sender.py")]


def micropython(folder: Path, text: str) -> list[str]:
    (folder / "main.py").write_text(text)
    return [sys.executable, "-u", str(folder / "main.py")]


def real_micropython(folder: Path, text: str) -> list[str]:
    (folder / "main-m.py").write_text(text)
    return [sys.executable, "-m", "micropython_unix", str(folder / "main-m.py")]


def c(folder: Path, text: str) -> list[str]:
    (folder / "sender.c").write_text(text)
    sh("cc", *COMPILE, "-o", folder / "sender", folder / "sender.c")
    return [str(folder / "sender")]


def arduino(folder: Path, text: str) -> list[str]:
    (folder / "sender.ino").write_text(text)
    words = ["g++", "-std=c++17", *COMPILE, "-include", "Arduino.h", "-I", STANDIN, "-x", "c++", folder / "sender.ino"]
    sh(*words, STANDIN / "standin.cpp", "-o", folder / "arduino")
    return [str(folder / "arduino")]


PROGRAMS: dict[str, tuple[str, Callable[[Path, str], list[str]]]] = {
    "python": ("python", python),
    "micropython": ("micropython", micropython),
}
if shutil.which("cc"):
    PROGRAMS["c"] = ("c", c)
if shutil.which("g++"):
    PROGRAMS["arduino"] = ("arduino", arduino)
if importlib.util.find_spec("micropython_unix") is not None:
    PROGRAMS["real-micropython"] = ("micropython", real_micropython)


class Program:
    """A program that runs, and what it said."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.said = ""

    async def until(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something; what came before that is forgotten."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(WAIT_S):
                while (found := re.search(pattern, self.said)) is None:
                    line = await self._process.stdout.readline()
                    assert line, self.said
                    self.said += line.decode()
        except TimeoutError:
            raise AssertionError(f"not within {WAIT_S} s: {pattern!r}, but {self.said!r}") from None
        self.said = self.said[found.end() :]
        return found

    async def ends(self) -> int:
        """Wait until it has ended; its exit status."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            self.said += (await self._process.stdout.read()).decode()
            return await self._process.wait()


@asynccontextmanager
async def runs(words: list[str]) -> AsyncIterator[Program]:
    """A program while it runs."""
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=STDOUT)
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def made(cli: Cli, name: str, tmp_path: Path, *options: str, every: str = "1") -> list[str]:
    """The words that run the program that ``gateway token create`` prints for a device."""
    language, prepare = PROGRAMS[name]
    text = await cli.out("token", "create", name, "--sketch", language, *options)
    folder = tmp_path / f"program-{name}"
    folder.mkdir()
    return await asyncio.to_thread(prepare, folder, faster(text, every))


async def cut(running: Running) -> None:
    """End every connection without a word."""
    for ws in running.connections():
        ws.abort("test")


async def test_what_programs_send_arrives_and_is_acked(tmp_path: Path, cli: Cli) -> None:
    """Each of them lets itself in with its token, is acked, and after a cut goes on in its session without a gap."""
    async with gateway(tmp_path, auth={"mode": "token"}) as running:
        words = {name: await made(cli, name, tmp_path) for name in PROGRAMS}

        async def one(name: str, cut_now: asyncio.Barrier) -> int:
            async with runs(words[name]) as program:
                await program.until("safe up to 1\n")
                await cut_now.wait()
                resumed = int((await program.until(r"safe up to (\d+)\n"))[1])
                while resumed < 3:
                    resumed = int((await program.until(r"safe up to (\d+)\n"))[1])
                return resumed

        together = asyncio.Barrier(len(words) + 1)
        tasks = [asyncio.create_task(one(name, together)) for name in words]
        try:
            async with asyncio.timeout(WAIT_S):
                await together.wait()
            await cut(running)
            safe = dict(zip(words, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()
        health = await cli.json("devices")
        for row in health:
            ledger = row["ledger"]
            assert ledger["stored"] >= safe[row["device"]], row
            assert (ledger["missing"], ledger["rejected"]) == (0, 0), row
        assert {row["device"] for row in health} == set(PROGRAMS)


class Peer:
    """Stands for a gateway that loses what it had not acked, throttles, and at last wants no more of the device."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.headers: list[str | None] = []
        self.done = asyncio.Event()
        self.heard = asyncio.Event()
        self.faults: list[BaseException] = []

    async def talk(self, ws: ServerConnection) -> None:
        """One connection after the other."""
        assert ws.request is not None
        self.headers.append(ws.request.headers.get("Authorization"))
        self.sessions.append(ws.request.path)
        try:
            async with asyncio.timeout(WAIT_S):
                await ws.send('{"type":"welcome","device":"d","session":"s","resumed":true,"last_seq":0}')
                await (self._first(ws) if len(self.sessions) == 1 else self._second(ws))
        except ConnectionClosed:
            pass
        except (AssertionError, TimeoutError) as error:
            self.faults.append(error)
            self.done.set()

    async def _first(self, ws: ServerConnection) -> None:
        await (await ws.ping(b"alive?"))
        assert [await self._seq(ws), await self._seq(ws)] == [1, 2]
        ws.transport.abort()

    async def _second(self, ws: ServerConnection) -> None:
        assert [await self._seq(ws), await self._seq(ws)] == [1, 2]
        await ws.send('{"type":"ack","seq":1}')
        await ws.send('{"type":"throttled","seq":2,"dropped":1,"retry_after_ms":100}')
        seq = await self._seq(ws)
        while seq > 2:  # were under way
            seq = await self._seq(ws)
        assert seq == 2
        await ws.send('{"type":"ack","seq":2}')
        assert await self._seq(ws) == 3
        await ws.send('{"type":"error","code":"bad_value","detail":"x","seq":3}')
        await ws.send('{"type":"ack","seq":3}')
        self.done.set()
        await self.heard.wait()
        await ws.close(4001, "replaced")

    @staticmethod
    async def _seq(ws: ServerConnection) -> int:
        seq: int = json.loads(await ws.recv())["seq"]
        return seq


async def test_what_was_not_acked_comes_again(tmp_path: Path) -> None:
    """After a cut all of it, in the same session; after a notice from there on; what is refused never; pings are
    answered, and where the gateway wants no more of it, it ends (the Arduino library does not tell why)."""
    await asyncio.gather(*(_comes_again(tmp_path / name, name) for name in PROGRAMS))


async def _comes_again(folder: Path, name: str) -> None:
    folder.mkdir()
    peer = Peer()
    language, prepare = PROGRAMS[name]
    async with serve(peer.talk, "127.0.0.1", 0, ping_interval=None) as server:
        target = Target("127.0.0.1", next(iter(server.sockets)).getsockname()[1], False, "")
        text = faster(render(language, target, "pump-1", TOKEN), "0.3")
        async with runs(await asyncio.to_thread(prepare, folder, text)) as program:
            await asyncio.wait_for(peer.done.wait(), WAIT_S)
            assert not peer.faults, (name, peer.faults)
            await program.until("safe up to 3")
            peer.heard.set()
            if name != "arduino":
                # The module that runs MicroPython may not hand its exit status on.
                assert await program.ends() in ((0, 1) if name == "real-micropython" else (1,)), name
    assert set(peer.headers) == {f"Bearer {TOKEN}"}
    assert re.fullmatch(r"/v1/devices/pump-1\?session=[0-9a-f]{16,32}", peer.sessions[0])
    assert peer.sessions[0] == peer.sessions[1]


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"arduino", "real-micropython"}))
async def test_a_program_whose_token_was_revoked_says_so(tmp_path: Path, cli: Cli, name: str) -> None:
    """It is refused, tells it, and its device is among those that knocked, yet not with that token."""
    async with gateway(tmp_path, auth={"mode": "token"}):
        words = await made(cli, name, tmp_path)
        (row,) = await cli.json("token", "list")
        await cli.out("token", "revoke", row["id"])
        async with runs(words) as program:
            await program.until("does not let this device in: .*401")
        (knock,) = await cli.json("devices", "--pending")
        assert (knock["device"], knock["fingerprint"]) == (name, "")


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"arduino", "real-micropython"}))
async def test_a_program_that_another_replaces_ends(tmp_path: Path, cli: Cli, name: str) -> None:
    """Two that fight for one name would go on for ever."""
    async with gateway(tmp_path) as running, runs(await made(cli, name, tmp_path)) as program:
        await program.until("safe up to 1\n")
        async with running.device(name):
            assert await program.ends() == 1
            assert "4001" in program.said or "no more" in program.said


async def test_a_program_that_is_too_fast_loses_nothing(tmp_path: Path, cli: Cli) -> None:
    """What was throttled is sent again, in order: nothing is missing."""

    async def one(words: list[str]) -> None:
        async with runs(words) as program:
            await program.until(r"safe up to (9|\d\d)\n")

    async with gateway(tmp_path, limits={"device_rate": 5, "device_burst": 2}):
        words = {name: await made(cli, name, tmp_path, every="0.05") for name in PROGRAMS if "micropython" not in name}
        await asyncio.gather(*map(one, words.values()))
        rows = await cli.json("devices")
    assert {row["device"] for row in rows} == set(words)
    for row in rows:
        assert row["ledger"]["throttled"] > 0
        assert (row["ledger"]["missing"], row["ledger"]["rejected"]) == (0, 0)


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"arduino", "c"}))
async def test_a_program_checks_the_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """It comes in over TLS where the authority is the one that it was given, and nowhere else."""
    ours, other = authority(tmp_path), authority(tmp_path, "other")
    pair = issue(tmp_path, ours)
    async with gateway(tmp_path / "state", tls={"cert": pair.cert, "key": pair.key}, auth={"mode": "token"}) as running:
        cli = Cli(tmp_path / "state", capsys)
        url = f"wss://localhost:{running.port}"
        words = await made(cli, name, tmp_path, "--url", url, "--ca", str(ours.cert))
        async with runs(words) as program:
            await program.until("safe up to 1\n")
        (tmp_path / f"program-{name}").rename(tmp_path / "first")
        words = await made(cli, name, tmp_path, "--url", url, "--ca", str(other.cert))
        async with runs(words) as program:
            await program.until("no gateway")


@pytest.mark.skipif("arduino" not in PROGRAMS, reason="no g++")
@pytest.mark.parametrize("defines", [["-DESP8266"], ["-DESP32"]])
def test_the_arduino_program_compiles_for_each_board(tmp_path: Path, defines: list[str]) -> None:
    """With and without TLS, without a warning."""
    for target in (LOOPBACK, Target("gateway.example", 443, True, "/base")):
        (tmp_path / "sender.ino").write_text(render("arduino", target, "pump-1", TOKEN, "-----BEGIN\nX\n"))
        words = ["g++", "-std=c++17", "-fsyntax-only", *COMPILE, *defines, "-include", "Arduino.h", "-I", STANDIN]
        sh(*words, "-x", "c++", tmp_path / "sender.ino")


@pytest.mark.parametrize("language", ["python", "micropython"])
@pytest.mark.parametrize("text", NASTY)
def test_a_literal_of_python_is_its_text(language: str, text: str) -> None:
    """Whatever characters are in it, in ASCII and on one line."""
    literal = sketch._literal(language, text)
    assert ast.literal_eval(literal) == text
    assert literal.isascii()
    assert literal.isprintable()


@pytest.mark.skipif("c" not in PROGRAMS, reason="no C compiler")
def test_a_literal_of_c_is_its_text(tmp_path: Path) -> None:
    """In UTF-8, trigraphs and digits behind escapes included."""
    texts = [*NASTY, *(text + "7" for text in NASTY)]
    strings = "".join(
        f"    fwrite({lit}, 1, sizeof {lit} - 1, stdout);\n    putchar(0xFF);\n" for lit in map(_c, texts)
    )
    (tmp_path / "x.c").write_text(f"#include <stdio.h>\nint main(void) {{\n{strings}    return 0;\n}}\n")
    sh("cc", "-std=c99", "-Werror", "-Wall", "-o", tmp_path / "x", tmp_path / "x.c")
    out = subprocess.run([tmp_path / "x"], capture_output=True, timeout=60).stdout
    assert out.split(b"\xff")[:-1] == [text.encode() for text in texts]


def _c(text: str) -> str:
    literal = sketch._literal("c", text)
    assert literal == sketch._literal("arduino", text)
    assert literal.isascii()
    assert literal.isprintable()
    return literal


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_nothing_is_left_to_fill_in(language: str) -> None:
    """Every place has its value, once: also where a value looks like a place."""
    text = render(language, Target("h", 1, False, ""), "pump-1", "@TOKEN@@HOST@")
    assert text.count("@TOKEN@@HOST@") == 1
    assert not re.search(r"@[A-Z]+@", text.replace("@TOKEN@@HOST@", ""))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://10.0.0.5:8080", Target("10.0.0.5", 8080, False, "")),
        ("http://gateway.local/", Target("gateway.local", 80, False, "")),
        ("wss://gateway.example", Target("gateway.example", 443, True, "")),
        ("https://gateway.example:8443/base/", Target("gateway.example", 8443, True, "/base")),
        ("ws://[fd00::1]:8080", Target("fd00::1", 8080, False, "")),
    ],
)
def test_addresses(url: str, target: Target) -> None:
    """Where a URL leads."""
    assert target_of(url, None) == target
    assert target_of(target.url, None) == target


NOWHERE = ["", "gateway", "mqtt://h", "ws://", "ws://h:0", "ws://h:99999", "ws://h:x", "ws://a:b@h", "ws://h/?a=b"]
NOWHERE += ["ws://h/#a", "ws://h/a b", 'ws://h/"', 'ws://h"x', "ws://[fe80::1%25lo]", "ws://h/../x\u2028", "ws://-h"]


@pytest.mark.parametrize("url", NOWHERE)
def test_what_is_no_address_is_refused(url: str) -> None:
    """With a hint of what one looks like."""
    with pytest.raises(GatewayError, match="--url") as refused:
        target_of(url, None)
    assert "@" not in str(refused.value)


def test_the_address_of_who_listens_everywhere() -> None:
    """It is one that others can reach; a port that is not known yet has to be said."""
    for host in ("0.0.0.0", "::"):
        target = target_of(None, {"host": host, "port": 8080, "tls": True})
        assert target.host not in ("0.0.0.0", "::", "")
        assert (target.port, target.tls) == (8080, True)
    for listen in (None, {"host": "127.0.0.1", "port": 0, "tls": False}):
        with pytest.raises(GatewayError, match="not known"):
            target_of(None, listen)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pump-1", "--sketch", "c", "--url", "wss://h"], "has no TLS"),
        (["pump-1", "--sketch", "arduino", "--url", "wss://h"], "--ca"),
        (["pump-1", "--sketch", "micropython", "--url", "wss://h"], "--ca"),
        (["pump-1", "--sketch", "python", "--url", "wss://h", "--ca", "/dev/null"], "no certificate"),
        (["pump-1", "--sketch", "python", "--url", "wss://h", "--ca", "/nowhere"], "cannot be read"),
        (["pump-1", "--sketch", "python", "--url", "nowhere"], "--url"),
        (["pump-1", "--sketch", "c", "--scope", "live:read"], "do not let anybody connect as 'pump-1'"),
        (["--sketch", "c", "--scope", "device:pump-*"], "say the device's name"),
        (["--sketch", "c", "--scope", "device:a", "--scope", "device:b"], "say the device's name"),
    ],
)
async def test_no_token_is_made_for_a_program_that_cannot_be(
    tmp_path: Path, cli: Cli, words: list[str], says: str
) -> None:
    """What is wrong is found before."""
    status, out = await cli._run(("token", "create", *words))
    assert status in (1, 2)
    assert out == ""
    assert says in cli.err
    assert not (tmp_path / "tokens.json").exists() or not len(tokens_of(tmp_path))


def tokens_of(directory: Path) -> Tokens:
    """Those in a directory's file."""
    tokens = Tokens(directory / "tokens.json")
    tokens.load()
    return tokens


async def test_the_device_of_a_scope_needs_no_other_name(tmp_path: Path, cli: Cli) -> None:
    """One device's scope says which it is; as JSON the program stands beside the contract's keys; nothing but it has
    the token."""
    words = ["--scope", "device:pump-7", "--scope", "live:read", "--sketch", "c", "--url", "ws://10.0.0.5:8080"]
    made = json.loads(await cli.out("token", "create", *words, "--json"))
    assert list(made) == ["id", "token", "scopes", "expires", "sketch"]
    assert '"/v1/devices/pump-7"' in made["sketch"]
    assert made["sketch"].count(made["token"]) == 1
    assert made["token"].split(".")[1] not in cli.err
    assert "the program connects to ws://10.0.0.5:8080" in cli.err
    text = await cli.out("token", "create", "pump-1", "--sketch", "python", "--url", "ws://127.0.0.1:1")
    assert text.startswith("#!/usr/bin/env python3\n")
    assert "no other machine reaches that" in cli.err

"""The README: its commands are run, its programs arrive, its links lead somewhere.

A command or program that is new in it has to run, or to be named here with the reason why it is not.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.cli import COMMANDS, main
from tests.running import Running, gateway, receive, send

ROOT = Path(__file__).parents[1]
STANDIN = Path(__file__).parent / "sketches" / "standin"
WAIT_S = 60.0

# Commands that are not run, and why.
NOT_RUN = {
    "git pull": "changes the checkout",
    "pip install websockets": "installs",
    "python -m gateway.api": "writes the descriptions anew: tests/api compares them",
    "python -m grpc_tools.protoc -I gateway/sinks --python_out=gateway/sinks --pyi_out=gateway/sinks "
    "sparkplug_b.proto": "writes what is committed: tests/sinks/test_sparkplug_payload.py compiles it and compares",
    "sudo gateway devices": "needs root and the service",
    "sudo gateway doctor": "the same",
    "systemctl restart gateway": "needs the service",
    "systemctl status gateway": "needs the service",
    "systemctl reload gateway": "needs the service",
    "systemctl edit gateway": "needs the service",
    "systemd-analyze security gateway": "needs the service",
    "journalctl -u gateway": "needs the service",
    "journalctl -u gateway DEVICE_ID=pump-1": "needs the service",
    "journalctl -u gateway EVENT=sink_stopped -o verbose": "needs the service",
}
# Words in which a command is spoken of, without what it would have to be given.
SPOKEN_OF = ("gateway dead-letters", "gateway send", "gateway explain")
# What a command needs here: words put in place of others, and words behind it, by the command or its beginning.
PLACES = {
    "gateway devices --admit NAME": ("NAME", "pump-2"),
    "gateway devices --forget NAME": ("NAME", "gone-1"),
    "gateway explain DEVICE": ("DEVICE", "pump-1"),
}
BEHIND = {
    "gateway tail": "-n 3",
    "gateway top": "--interval 0.1",
    "gateway simulate": "--devices 5 --duration 0.5 --drain 1 --url ws://127.0.0.1:PORT",
    "gateway token create pump-1 --sketch": "--url ws://127.0.0.1:PORT",
}
FAULTS = {"doctor": 1}  # exit statuses that are as good: it finds fault with the machine
PROGRAMS = ("python", "javascript", "cpp")
TEXTS = ("", "json", "ini", "sh")


def text() -> str:
    """The README."""
    return (ROOT / "README.md").read_text()


def blocks() -> list[tuple[str, str]]:
    """Language and text of each block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text(), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every command, once, as it stands in a block for shells, behind a prompt, or in a line."""
    line = r"(?:gateway|sudo|systemctl|systemd-analyze|journalctl|git|python|pip|npm|curl) [^`]+|(?:\./)?tools/\w+[^`]*"
    found: list[str] = []
    for language, block in blocks():
        if language == "sh":
            found += [shlex.join(shlex.split(row, comments=True)) for row in block.splitlines()]
        elif language == "":
            found += [shlex.join(shlex.split(row[2:])) for row in block.splitlines() if row.startswith("$ ")]
    rest = re.sub(r"^```.*?^```$", "", text(), flags=re.DOTALL | re.MULTILINE)
    found += [shlex.join(shlex.split(words)) for words in re.findall(rf"`({line})`", rest)]
    return [command for command in dict.fromkeys(found) if command]


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    """Programs run below; anything else is text that is read here."""
    for language, block in blocks():
        assert language in (*PROGRAMS, *TEXTS), f"nothing runs {language}:\n{block}"
        if language == "json":
            json.loads(block)
        elif language == "ini":
            unit = configparser.ConfigParser(strict=False, interpolation=None)
            unit.read_string(block)
            assert unit.sections()


def test_links_lead_somewhere() -> None:
    """To a heading, or to a file that is there."""
    words = re.findall(r"^#+ (.*)$", text(), re.MULTILINE)
    headings = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in words]
    assert len(set(headings)) == len(headings)
    for link in re.findall(r"\]\(([^)]+)\)", text()):
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (ROOT / link).exists(), link


def test_what_is_not_run_stands_in_it() -> None:
    """The list above names nothing that is not in the README any more; programs of ``tools`` are there."""
    there = commands()
    for command in (*NOT_RUN, *PLACES):
        assert command in there, command
    for command in there:
        words = command.split()
        program = words[1] if words[0] == "sudo" else words[0]
        if program.removeprefix("./").startswith("tools/"):
            assert os.access(ROOT / program, os.X_OK), command
        elif command not in NOT_RUN:
            assert words[0] == "gateway", f"neither run nor named as not run: {command}"
            assert words[1] in COMMANDS, command


@contextlib.asynccontextmanager
async def pump(running: Running) -> AsyncIterator[None]:
    """The device pump-1: it sends, and does what it is told."""

    async def sending(ws: Any) -> None:
        for seq in range(1, 10_000):
            await send(ws, {"seq": seq, "temperature": 22.5})
            await asyncio.sleep(0.05)

    async def obeying(ws: Any) -> None:
        while True:
            told = await receive_command(ws)
            await send(ws, {"type": "result", "id": told["id"], "ok": True})

    async with running.device("pump-1") as ws:
        await receive(ws, "welcome")
        tasks = [asyncio.create_task(sending(ws)), asyncio.create_task(obeying(ws))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def receive_command(ws: Any) -> dict[str, Any]:
    """The next command, however long it takes."""
    async for data in ws:
        message: dict[str, Any] = json.loads(data)
        if message["type"] == "command":
            return message
    raise ConnectionClosed(None, None)


async def said(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command of the gateway prints that is to succeed."""
    if words[0] == "simulate":  # handles signals: a process of its own
        async with program(sys.executable, "-m", "gateway", *words) as process:
            out, _ = await process.communicate()
            assert process.returncode == 0, out.decode()
            return out.decode()
    status = await asyncio.to_thread(main, words)
    out, error = capsys.readouterr()
    assert status in (0, FAULTS.get(words[0], 0)), f"gateway {shlex.join(words)}: {status}\n{out}\n{error}"
    return out


async def test_commands_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the gateway, in the order of the README, against one that runs."""
    monkeypatch.chdir(tmp_path)
    async with gateway(tmp_path / "state") as running:
        monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setenv("GATEWAY_LISTEN__PORT", str(running.port))
        async with running.device("gone-1") as ws:
            await receive(ws, "welcome")
        assert running.app.tokens is not None
        for name in ("pump-1", "pump-2"):
            running.app.tokens.pending.knock(name, "", "192.0.2.1")
        async with pump(running):
            for command in commands():
                if command.startswith("gateway ") and command not in NOT_RUN and command not in SPOKEN_OF:
                    await one(command, running.port, tmp_path, capsys)


async def one(command: str, port: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run one command."""
    old, new = PLACES.get(command, ("", ""))
    if command.endswith(" ID"):
        made = json.loads(await said("token", "create", "spare-1", "--json", capsys=capsys))
        old, new = "ID", made["id"]
    words = [new if word == old else word for word in shlex.split(command)]
    target = None
    if ">" in words:
        target = folder / words[words.index(">") + 1]
        words = words[: words.index(">")]
    for beginning, more in BEHIND.items():
        if command.startswith(beginning):
            words += more.replace("PORT", str(port)).split()
    out = await said(*words[1:], capsys=capsys)
    if target is not None:
        assert out
        target.write_text(out)


@contextlib.asynccontextmanager
async def program(*words: str | Path) -> AsyncIterator[Process]:
    """A program while it runs."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    started = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=environment)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.communicate()


async def stored(running: Running, count: int, process: Process) -> dict[str, int]:
    """The ledger of pump-1 once so many of its readings are stored."""
    async with asyncio.timeout(WAIT_S):
        while True:
            rows = {row["device"]: row["ledger"] for row in await running.json("/api/v1/devices")}
            if rows.get("pump-1", {}).get("stored", 0) >= count:
                ledger: dict[str, int] = rows["pump-1"]
                return ledger
            if process.returncode is not None:
                assert process.stdout is not None
                pytest.fail(f"it has ended:\n{(await process.stdout.read()).decode()}")
            await asyncio.sleep(0.05)


def of(language: str) -> Iterator[str]:
    """The programs in a language."""
    found = [block for kind, block in blocks() if kind == language]
    assert found
    yield from found


async def test_python_runs(tmp_path: Path) -> None:
    """As it stands, but for the port: readings arrive, and what ends by itself does so in silence."""
    async with gateway(tmp_path / "state") as running:
        count = 0
        for text in of("python"):
            (tmp_path / "device.py").write_text(text.replace("8080", str(running.port)))
            async with program(sys.executable, tmp_path / "device.py") as process:
                if "while True" not in text:
                    async with asyncio.timeout(WAIT_S):
                        output, _ = await process.communicate()
                    assert (process.returncode, output) == (0, b"")
                count = (await stored(running, count + 1, process))["stored"]


@functools.cache
def node() -> list[str]:
    """What runs JavaScript with a WebSocket; skips where nothing does."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not on this machine.")
    for words in ([found], [found, "--experimental-websocket"]):
        asked = subprocess.run([*words, "-p", "typeof WebSocket"], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == "function":
            return words
    pytest.skip("this node has no WebSocket.")


async def test_javascript_runs(tmp_path: Path) -> None:
    """As it stands, but for the port: it prints ``welcome``, and readings arrive."""
    words = node()
    for text in of("javascript"):
        async with gateway(tmp_path / "state") as running:
            (tmp_path / "device.mjs").write_text(text.replace("8080", str(running.port)))
            async with program(*words, tmp_path / "device.mjs") as process:
                await stored(running, 1, process)


async def test_arduino_runs(tmp_path: Path) -> None:
    """Compiled without a warning against what it uses of a board; after a cut it goes on where it stopped."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on this machine.")
    async with gateway(tmp_path / "state") as running:
        for text in of("cpp"):
            for words in (("192.168.1.10", "127.0.0.1"), ("8080", str(running.port)), ("10000", "50")):
                assert words[0] in text
                text = text.replace(*words)
            (tmp_path / "pump-1.ino").write_text(text)
            flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-include", "Arduino.h", "-I", STANDIN]
            sources = ["-x", "c++", tmp_path / "pump-1.ino", STANDIN / "standin.cpp"]
            async with program("g++", *flags, *sources, "-o", tmp_path / "pump-1") as compiler:
                output, _ = await compiler.communicate()
            assert compiler.returncode == 0, output.decode()
            async with program(tmp_path / "pump-1") as process:
                before = await stored(running, 3, process)
                for connection in running.connections():
                    connection.abort("cut")
                after = await stored(running, before["stored"] + 3, process)
            assert after["missing"] == 0
            assert after["duplicate"] == 0
            assert after["received"] == after["stored"] + after["in_flight"]

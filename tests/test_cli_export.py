"""``gateway export``: files that other programs read, whole or not at all."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.codecs.influxline import TEXT
from gateway.codecs.model import Draft
from gateway.history import History
from gateway.reading import Reading
from gateway.server import exporting
from gateway.server.control import Control
from gateway.server.exporting import Exporter
from tests.history.model import batch
from tests.running import acked, gateway, receive, send
from tools.toolkit.servers import ROOT

T0 = 1_764_000_000_000
MS = 1_000_000


def reading(device: str, ms: float, **values: Any) -> Reading:
    at = round(ms * 2) * (MS // 2)
    return Reading(device, "s", 0, at, at, values)


@asynccontextmanager
async def holding(directory: Path, readings: list[Reading]) -> AsyncIterator[History]:
    """A history with a control socket, without the rest of a gateway."""
    history = History(directory / "history.db", retention_days=0)
    await history.open()
    for start in range(0, len(readings), 1000):
        await history.write(batch(start, list(readings[start : start + 1000])))
    exporter = Exporter(history, lambda device, metric: metric == "count")
    async with Control(directory, exporter.commands):
        yield history
    await history.close()


async def export(directory: Path, *words: str) -> tuple[int, str, str]:
    """Status, output and notices of the command, in a process of its own."""
    command = [sys.executable, "-m", "gateway", "export", "--state-dir", str(directory), *words]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


ODD = [
    reading("pump-1", T0, temperature=22.5, count=7, door=True, mode='say "a, b"\n\\'),
    reading("pump-1", T0 + 1.5, temperature=-1e-9, count=1 << 62),
    reading("tank", T0 + 60_000, temperature=4.0, door=False),
]


async def test_csv(tmp_path: Path) -> None:
    """Time in milliseconds, device, metric and value; what CSV needs quoted is; with a selection that alone."""
    async with holding(tmp_path, ODD):
        status, out, err = await export(tmp_path)
        assert (status, err) == (0, "")
        rows = list(csv.reader(io.StringIO(out, newline="")))
        assert rows[0] == ["time", "device", "metric", "value"]
        assert rows[1:5] == [
            [str(T0), "pump-1", "count", "7"],
            [str(T0), "pump-1", "door", "true"],
            [str(T0), "pump-1", "mode", 'say "a, b"\n\\'],
            [str(T0), "pump-1", "temperature", "22.5"],
        ]
        assert rows[5:] == [
            [f"{T0 + 1}.5", "pump-1", "count", str(1 << 62)],
            [f"{T0 + 1}.5", "pump-1", "temperature", "-1e-09"],
            [str(T0 + 60_000), "tank", "door", "false"],
            [str(T0 + 60_000), "tank", "temperature", "4.0"],
        ]
        words = ("--device", "p*", "--metric", "t*", "--from", str(T0), "--to", str(T0), "--step", "1m", "--agg", "max")
        assert (await export(tmp_path, *words))[1].splitlines()[1:] == [f"{T0},pump-1,temperature,22.5"]


async def test_jsonl(tmp_path: Path) -> None:
    """An object a line."""
    async with holding(tmp_path, ODD):
        _, out, _ = await export(tmp_path, "--format", "jsonl", "--device", "pump-1")
        rows = [json.loads(line) for line in out.splitlines()]
        assert rows[0] == {"time": T0, "device": "pump-1", "metric": "count", "value": 7}
        assert rows[2]["value"] == 'say "a, b"\n\\'
        assert (rows[4]["time"], rows[4]["value"]) == (T0 + 1.5, 1 << 62)


async def test_line_protocol_is_read_back(tmp_path: Path) -> None:
    """A line for the values of one time, as the sink writes them; a metric that comes twice has two."""
    twice = [reading("twin", T0, a=1.0, b=1.0), reading("twin", T0, a=2.0)]
    async with holding(tmp_path, ODD + twice):
        status, out, err = await export(tmp_path, "--format", "influx")
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == [
        f"telemetry,device=pump-1 count={1 << 62}i,temperature=-1e-09 {T0 * MS + MS * 3 // 2}",
        f"telemetry,device=tank door=false,temperature=4.0 {(T0 + 60_000) * MS}",
        f"telemetry,device=twin a=1.0 {T0 * MS}",
        f"telemetry,device=twin a=2.0,b=1.0 {T0 * MS}",
    ]
    first = TEXT.decode(out)[0]
    assert isinstance(first, Draft)
    values = {name.rpartition("/")[2]: value for name, value in first.values.items()}
    text = 'say "a, b"\\n\\'  # line protocol has no line feeds in texts
    assert (first.time, values) == (T0 * MS, {"count": 7, "door": True, "mode": text, "temperature": 22.5})


async def test_some_hundred_thousand_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long export holds a page at a time, and all rows are in it, once."""
    asked: list[int] = []
    ask = History.ask
    monkeypatch.setattr(History, "ask", lambda self, **given: asked.append(given["limit"]) or ask(self, **given))
    rows = [reading(f"d{n // 40_000}", T0 + n, temperature=n / 10, humidity=50.0) for n in range(120_000)]
    async with holding(tmp_path, rows):
        path = tmp_path / "out.lp"
        assert await export(tmp_path, "--format", "influx", "-o", str(path)) == (0, "", "")
    with path.open() as file:
        lines = [line.split(" ") for line in file]
    assert [line[2] for line in lines] == [f"{(T0 + n) * MS}\n" for n in range(120_000)]
    assert lines[99_999][:2] == ["telemetry,device=d2", "humidity=50.0,temperature=9999.9"]
    assert max(asked) <= exporting.PAGE + 2
    assert len(asked) >= 240_000 / exporting.PAGE


async def test_a_file_is_there_only_when_it_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that ends early, a gateway that is gone or a directory that is not there leave no file, and tell."""
    path = tmp_path / "out.csv"
    path.write_text("before")
    where = ["--state-dir", str(tmp_path), "-o", str(path)]

    async def early(params: object) -> AsyncIterator[object]:
        yield {"devices": 1}
        yield {"device": "a", "integers": [], "rows": [(1, "m", 1)], "done": 0}

    async def wrong(params: object) -> AsyncIterator[object]:
        async for item in early(params):
            yield item
        yield {"rows": 2, "whole_from": None}

    for command in (early, wrong):
        async with Control(tmp_path, {"export": command}):
            assert await asyncio.to_thread(main, ["export", *where]) == 1
        assert "not complete" in capsys.readouterr().err
    assert await asyncio.to_thread(main, ["export", *where]) == 69
    async with holding(tmp_path, ODD):
        assert await asyncio.to_thread(main, ["export", *where[:2], "-o", str(tmp_path / "no" / "x")]) == 1
        assert "No such file" in capsys.readouterr().err
        assert path.read_text() == "before"
        assert await asyncio.to_thread(main, ["export", *where]) == 0
    assert path.read_text().count("\n") == 9 + 1
    assert not list(tmp_path.glob("*.part"))


async def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk is told; a reader that has enough ends it without a word; neither counts as done."""
    async with holding(tmp_path, [reading("a", T0 + n, m=n) for n in range(20_000)]):
        command = f"exec {sys.executable} -m gateway export --state-dir {tmp_path}"
        for line, status, told in (
            (f"{command} > /dev/full", 1, b"No space left"),
            (f"({command.removeprefix('exec ')}; echo $? >&2) | head -1", 0, b"1\n"),
        ):
            process = await asyncio.create_subprocess_shell(
                line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            _, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == status
            assert told in err
            assert b"Traceback" not in err


async def test_what_is_not_kept_any_more_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a notice, with what to do."""

    async def export(params: object) -> AsyncIterator[object]:
        yield {"rows": 0, "whole_from": T0 * MS}

    for words, told in (((), "--step 1h"), (("--step", "1s"), "of a minute or an hour")):
        async with Control(tmp_path, {"export": export}):
            path = str(tmp_path / "x")
            assert await asyncio.to_thread(main, ["export", "--state-dir", str(tmp_path), "-o", path, *words]) == 0
        err = capsys.readouterr().err
        assert "before 2025-11-24 16:00 UTC are not kept any more" in err
        assert told in err


@pytest.mark.parametrize(
    "words",
    [
        ("--agg", "max"),
        ("--step", "0s"),
        ("--step", "10"),
        ("--from", "yesterday"),
        ("--from", "-1h", "--to", "-2h"),
        ("--format", "xml"),
        ("--step", "1m", "--agg", "median"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, with a word."""
    with pytest.raises(SystemExit) as caught:
        main(["export", "--state-dir", str(tmp_path), *words])
    assert caught.value.code == 2
    assert capsys.readouterr().err


async def test_progress_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows and devices are done, on a line that is written over; rows go elsewhere."""
    ours, theirs = pty.openpty()

    async def slowly(params: object) -> AsyncIterator[object]:
        yield {"devices": 4}
        for done in range(4):
            await asyncio.sleep(0.6 if done == 1 else 0)
            yield {"device": f"d{done}", "integers": [], "rows": [(1, "m", 1)] * 300, "done": done}
        yield {"rows": 1200, "whole_from": None}

    async with Control(tmp_path, {"export": slowly}):
        command = [sys.executable, "-m", "gateway", "export", "--state-dir", str(tmp_path)]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs)
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    os.close(theirs)
    told = os.read(ours, 4096).decode()
    os.close(ours)
    assert process.returncode == 0
    assert out.count(b"\n") == 1201
    assert "\r600 rows, 1 of 4 devices done" in told
    assert "\r1,200 rows" in told


async def test_from_a_running_gateway(tmp_path: Path) -> None:
    """What devices sent and was acked is in it, with the gateway's own command."""
    async with gateway(tmp_path) as gw:
        async with gw.device("pump-1") as ws:
            await receive(ws, "welcome")
            await send(ws, [{"ts": T0 + n, "seq": n + 1, "t": n} for n in range(50)])
            await acked(ws, 50)
        await gw.rows("pump-1", until=50)
        status, out, err = await export(tmp_path, "--from", str(T0 + 10), "--format", "jsonl")
        assert (status, err) == (0, "")
        assert [json.loads(line)["value"] for line in out.splitlines()] == list(range(10, 50))

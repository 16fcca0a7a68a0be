"""The simulation: its signals, its report, and the command as people run it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

import gateway as package
from gateway.cli import main
from gateway.client.histogram import Histogram
from gateway.client.report import Report
from gateway.client.signals import KINDS, kind_of, metrics_of
from gateway.client.simulate import Options, check, run
from gateway.reading import check_value, is_metric

from .fake import FakeGateway, until

ROOT = Path(package.__file__).parent.parent


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with FakeGateway() as fake:
        yield fake


async def simulate(**options: Any) -> Report:
    return await run(Options(**options), stop=asyncio.Event(), hurry=asyncio.Event())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_signals_are_plausible(kind: Any) -> None:
    """Each metric gives legal values of one kind over a day, that move but do not run away."""
    metrics = metrics_of(kind, 8)
    assert len({metric.name for metric in metrics}) == 8
    for metric in metrics:
        assert is_metric(metric.name)
        signal_ = metric.make(random.Random(3))
        values = [signal_(1_764_000_000 + minute * 60.0) for minute in range(1440)]
        told = [value for value in values if value is not None]
        assert told
        assert all(check_value(value) == "" for value in told)
        kinds = {type(value) for value in told}
        assert kinds == {int} if metric.integer else len(kinds) == 1
        assert len(set(told)) > 1
        numbers = [value for value in told if type(value) is float]
        if numbers:
            assert max(abs(value) for value in numbers) < 20_000


def test_the_same_seed_gives_the_same_signals() -> None:
    """Signals depend on the seed and the time alone."""
    kind, number = kind_of(8)
    assert (kind.name, number) == (KINDS[8 % len(KINDS)].name, 2)

    def values(seed: int) -> list[Any]:
        rng = random.Random(seed)
        signals = [metric.make(rng) for metric in kind.metrics]
        return [signal_(1_764_000_000.0 + t) for t in range(100) for signal_ in signals]

    assert values(1) == values(1)
    assert values(1) != values(2)


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_a_fleet_sends_and_drains(gateway: FakeGateway, format: Any) -> None:
    """Several devices at a rate: about as many readings as asked for, all acked, described, in order."""
    report = await simulate(
        url=gateway.url, devices=12, rate=50, metrics=3, format=format, duration_s=0.4, prefix="t-", seed=1
    )
    assert report.status == 0
    assert report.acked == report.sent == report.taken == report.latency.count
    assert 12 * 50 * 0.4 * 0.5 <= report.acked + report.skipped <= 12 * 50 * 0.4 * 1.5
    assert report.reconnects == 0
    assert sorted(gateway.models) == sorted(f"t-{kind.name}-{n}" for kind in KINDS for n in (1, 2))
    pump = gateway.model("t-boiler-pump-2")
    assert [reading["seq"] for reading in pump.store] == list(range(1, len(pump.store) + 1))
    assert set(pump.store[0]["values"]) == {"temperature", "pressure", "running"}
    described = [other for other in gateway.others if other["name"] == "Boiler pump 2"]
    assert described[0]["interval_s"] == pytest.approx(0.02)
    assert described[0]["metrics"]["temperature"] == {"integer": False, "unit": "Cel", "class": "temperature"}


async def test_dropouts_lose_nothing(gateway: FakeGateway) -> None:
    """Devices whose connections are cut all the time come back, and each reading is stored once."""
    report = await simulate(url=gateway.url, devices=3, rate=100, duration_s=0.8, dropouts=120, seed=2)
    assert report.reconnects > 0
    assert report.status == 0
    for device in gateway.models.values():
        seqs = [reading["seq"] for reading in device.store]
        assert seqs == list(range(1, len(seqs) + 1))
    assert sum(len(device.store) for device in gateway.models.values()) == report.taken


async def test_a_full_buffer_skips_instead_of_losing(gateway: FakeGateway) -> None:
    """Readings that are due while the buffer is full are not made, and counted."""
    gateway.committing = False
    report = await simulate(url=gateway.url, devices=1, rate=200, duration_s=0.3, max_unacked=5, drain_s=0.05)
    assert (report.taken, report.unacked) == (5, 5)
    assert report.drain_s == pytest.approx(0.05, abs=0.5)
    assert report.duration_s < 1
    assert report.skipped > 20
    assert report.status == 1


async def test_a_refused_fleet_says_so(gateway: FakeGateway) -> None:
    """A token that is not accepted ends the simulation with a status of its own."""
    gateway.reject = (401, {})
    report = await simulate(url=gateway.url, devices=2, duration_s=5, token="x")
    assert report.status == 77
    assert "401" in report.refusal


async def test_an_absent_gateway_is_told() -> None:
    """Without a gateway the simulation ends after the time to connect, with the status of the unreachable."""
    report = await simulate(url="ws://127.0.0.1:1", devices=2, connect_s=0.05, drain_s=0)
    assert report.status == 69
    assert report.reason == "Connection refused"


async def test_a_device_that_is_ended_for_good_shows(gateway: FakeGateway) -> None:
    """When the gateway ends a device for good the others go on, and the status is not 0."""

    async def replace() -> None:
        await until(lambda: "sim-cold-store-1" in gateway.connections)
        await gateway.connections["sim-cold-store-1"].close(4001, "replaced")

    replacing = asyncio.create_task(replace())
    report = await simulate(url=gateway.url, devices=2, rate=50, duration_s=0.3)
    await replacing
    assert report.status == 1
    assert "replaced" in report.refusal
    assert len(gateway.model("sim-boiler-pump-1").store) > 5


def test_bad_options_raise() -> None:
    """A prefix or an address that cannot work is told before anything is connected."""
    check(Options())
    with pytest.raises(ValueError, match="prefix"):
        check(Options(prefix="no/"))
    with pytest.raises(ValueError, match="prefix"):
        check(Options(prefix="x" * 60))
    with pytest.raises(ValueError, match="address"):
        check(Options(url="mqtt://h"))
    with pytest.raises(ValueError, match="address"):
        check(Options(url="localhost:8080"))


def test_the_report_reads_well() -> None:
    """The table has a line a count, the progress line what matters, and the object all of it."""
    latency = Histogram()
    latency.record(0.05)
    counts = {"taken": 12_000, "sent": 11_998, "acked": 11_990, "refused": 3, "unacked": 7, "throttled": 2}
    report = Report(
        devices=3,
        connected=2,
        reached=3,
        refusal="",
        duration_s=10.0,
        cpu_s=1.0,
        skipped=0,
        latency=latency,
        **(dict.fromkeys(Report.COUNTS, 0) | counts),
    )
    rows = dict(line.split("  ", 1) for line in report.table().splitlines())
    assert "readings         12,000  (acked + refused + unacked, 1,200 a second)" in report.table()
    assert "unacked          7  (2 of them never sent)" in report.table()
    assert rows["duration"].strip() == "10.0 s"
    assert "ack latency p99  50.0 ms" in report.table()
    assert report.line() == (
        "10 s  2/3 connected  12,000 readings  11,990 acked  7 waiting  2 throttled  3 refused  ack p99 50.0 ms"
    )
    draining = msgspec.structs.replace(report, drain_s=2.3)
    assert draining.line().startswith("10 s, draining for 2 s  2/3 connected")
    assert "duration         10.0 s, and 2.3 s for the rest" in draining.table()
    silent = msgspec.structs.replace(report, acks=False, acked=0, unacked=2, latency=Histogram())
    assert "  12,000  (sent + unsent, 1,200 a second)" in silent.table()
    assert "acked" not in silent.table()
    plain = json.loads(json.dumps(report.plain()))
    assert plain["acked"] == 11_990
    assert plain["ack_latency_ms"]["p99"] == 50.0
    assert report.status == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--devices", "0"],
        ["--devices", "x"],
        ["--rate", "-1"],
        ["--rate", "fast"],
        ["--jitter", "2"],
        ["--rate", "nan"],
        ["--url", "mqtt://h"],
        ["--url", "foo"],
        ["--what"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that make no sense end with status 2 and a sentence."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "error" in error
    assert "_" not in error.splitlines()[-1]


async def command(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        "simulate",
        *arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


async def test_the_command_prints_an_object(gateway: FakeGateway) -> None:
    """With --json and --duration the command ends by itself with one object on stdout and progress on stderr."""
    process = await command(
        "--url", gateway.url, "--devices", "2", "--rate", "20", "--duration", "1.2", "--json", "--format", "msgpack"
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["acked"] == result["sent"] > 20
    assert "2/2 connected" in err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_stops_cleanly(gateway: FakeGateway, number: signal.Signals) -> None:
    """On Ctrl-C or SIGTERM the command drains, prints its table and ends with the status of its readings."""
    process = await command("--url", gateway.url, "--rate", "50", "--quiet")
    await until(lambda: all(gateway.model(f"sim-{kind.name}-1").store for kind in KINDS[:5]))
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert err == b""
    assert "unacked          0\n" in out.decode()


async def test_a_second_signal_is_meant_at_once(gateway: FakeGateway) -> None:
    """While it drains, another signal ends the waiting; what is unacked shows in the status."""
    process = await command("--url", gateway.url, "--rate", "50", "--quiet", "--drain", "60", "--json")
    await until(lambda: gateway.messages)
    gateway.committing = False
    before = len(gateway.messages)
    await until(lambda: len(gateway.messages) > before + 2)
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.2)
    assert process.returncode is None
    process.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert json.loads(out)["unacked"] > 0


async def test_an_absent_gateway_is_status_69() -> None:
    """The command says which gateway could not be reached and why, and no counts of nothing."""
    process = await command("--url", "ws://127.0.0.1:1", "--connect-timeout", "0.1", "--quiet")
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 69
    assert err.decode() == (
        "gateway simulate: ws://127.0.0.1:1: the gateway could not be reached: Connection refused\n"
    )
    assert out == b""


async def test_on_a_terminal_progress_stays_in_one_line(gateway: FakeGateway) -> None:
    """On a terminal the progress line is written over itself."""
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "simulate", "--url", gateway.url, "--duration", "1.3"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    shown = ""
    with suppress(OSError):  # the end of a terminal that nobody has open any more
        while data := os.read(ours, 10_000):  # one read may give less than there is
            shown += data.decode()
    os.close(ours)
    assert shown.startswith("\r\x1b[K1 s  5/5 connected")
    assert shown.count("\n") == 1

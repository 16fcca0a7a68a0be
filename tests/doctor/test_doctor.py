"""``gateway doctor`` against real servers, files and sockets: what is well, and each thing that can be wrong."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__, doctor
from gateway.auth import Tokens
from gateway.cli import main
from gateway.client.histogram import Histogram
from gateway.client.report import Report
from gateway.doctor import machine, selftest
from tests import certificates
from tests.running import gateway
from tests.servers import Missing, Mosquitto, Victoria, free_port

Findings = dict[str, list[dict[str, str]]]
Examine = Callable[..., tuple[int, Findings]]


@pytest.fixture
def examine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Examine:
    """Runs the command with settings; its exit status, and its findings by part."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(state))
    monkeypatch.setenv("GATEWAY_LISTEN__PORT", str(free_port()))

    def run(*arguments: str, **settings: object) -> tuple[int, Findings]:
        # What the command puts into its process' environment is not for the next one.
        with monkeypatch.context() as patch:
            for name in ("GATEWAY_MQTT__URL", "GATEWAY_STATE_DIR"):
                patch.setenv(name, os.environ.get(name, ""))
            for name, value in settings.items():
                patch.setenv(f"GATEWAY_{name}", str(value))
            status = main(["doctor", "--json", *arguments])
        findings: Findings = {}
        for line in capsys.readouterr().out.splitlines():
            finding = json.loads(line)
            assert set(finding) == {"part", "level", "text", "hint"}
            assert bool(finding["hint"]) == (finding["level"] != "ok"), finding
            findings.setdefault(finding["part"], []).append(finding)
        return status, findings

    return run


def levels(findings: Findings, part: str) -> list[str]:
    return [finding["level"] for finding in findings[part]]


def only(findings: Findings, part: str) -> dict[str, str]:
    (finding,) = findings[part]
    return finding


def broker(directory: Path, config: str = "allow_anonymous true") -> Mosquitto:
    try:
        return Mosquitto(directory / "mosquitto", config=config)
    except Missing as missing:
        pytest.skip(str(missing))


def test_a_machine_that_is_well(examine: Examine, tmp_path: Path) -> None:
    """Nothing is wrong, nothing is left behind, and each part has its line."""
    status, findings = examine()
    assert status == 0
    assert {"settings", "state", "disk", "sync", "clock", "files", "versions", "port", "access", "gateway"} <= set(
        findings
    )
    assert not [found for some in findings.values() for found in some if found["level"] == "error"]
    assert __version__ in only(findings, "versions")["text"]
    assert list((tmp_path / "state").iterdir()) == []


def test_bad_settings_are_findings(examine: Examine) -> None:
    """Each fault is one, and the status says that the start would be refused."""
    status, findings = examine(LISTEN__PORT="many", JOURNAL__COMMIT_MS=0)
    assert status == 78
    assert {found["text"] for found in findings["settings"]} == {"GATEWAY_LISTEN__PORT", "GATEWAY_JOURNAL__COMMIT_MS"}


def test_settings_of_the_service(examine: Examine, tmp_path: Path) -> None:
    """A file as systemd reads it gives the settings, quotes and dollars as they are."""
    file = tmp_path / "gateway.env"
    file.write_text('# the service\nGATEWAY_MQTT__URL="mqtt://$HOST:nonsense"\n')
    status, findings = examine("--env-file", str(file))
    assert status == 78
    assert only(findings, "settings")["text"] == "GATEWAY_MQTT__URL"
    with pytest.raises(SystemExit):
        examine("--env-file", str(tmp_path / "nosuch"))


def test_a_directory_that_is_open_to_all(examine: Examine, tmp_path: Path) -> None:
    """It works, is a warning, and with --strict ends with 1."""
    (tmp_path / "state").chmod(0o755)
    status, findings = examine()
    assert status == 0
    assert levels(findings, "state") == ["warning"]
    assert examine("--strict")[0] == 1


def test_a_directory_that_cannot_be_made(examine: Examine, tmp_path: Path) -> None:
    """A file in the way is said so."""
    (tmp_path / "file").write_text("")
    status, findings = examine(STATE_DIR=tmp_path / "file")
    assert status == 1
    assert levels(findings, "state") == ["error"]


def test_a_directory_that_is_not_there_yet(examine: Examine, tmp_path: Path) -> None:
    """It is made by the first start, and not by the doctor."""
    status, findings = examine(STATE_DIR=tmp_path / "a" / "b")
    assert status == 0
    assert "first start" in findings["state"][0]["text"]
    assert not (tmp_path / "a").exists()


def test_memory_is_no_disk(examine: Examine, tmp_path: Path) -> None:
    """A state directory on tmpfs is an error: all of it is lost at a restart."""
    place = Path("/dev/shm")
    if machine._kind(place) not in machine.VOLATILE:
        pytest.skip("/dev/shm is no tmpfs here.")
    findings = list(machine.disk(place, 1 << 20, 0))
    assert [found.level for found in findings if "in memory" in found.text] == ["error"]


def test_room_on_the_disk(tmp_path: Path) -> None:
    """Less than is kept free is an error, less than the journal may take a warning."""
    found = {
        level: next(f for f in machine.disk(tmp_path, *sizes) if f.part == "disk").level
        for level, sizes in {"error": (1 << 20, 1 << 60), "warning": (1 << 60, 0), "ok": (1 << 20, 0)}.items()
    }
    assert found == {level: level for level in found}


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1020 << 20, "0.996 GiB"),
        (100 << 20, "100 MiB"),
        (1 << 60, "1 EiB"),
    ],
)
def test_sizes_are_readable(count: int, said: str) -> None:
    """Three digits at most, and never an exponent."""
    assert machine._size(count) == said


@pytest.mark.parametrize(("online", "said"), [(0, "0 devices"), (1, "1 device"), (1200, "1,200 devices")])
def test_how_many_devices_are_online(online: int, said: str) -> None:
    """One is not several."""
    health = {"problems": [], "status": "ok", "version": "1", "devices": {"online": online}}
    (finding,) = doctor._running(health)
    assert finding.text.endswith(f", with {said} online")


def test_a_segment_that_goes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway that runs unlinks what every sink has read: it is not counted, and no fault."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "0.seg").write_bytes(bytes(100))
    is_file = Path.is_file

    def and_goes(path: Path) -> bool:
        found = is_file(path)
        path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", and_goes)
    assert [found.part for found in machine.disk(tmp_path, 1 << 20, 0)][:2] == ["state", "disk"]


def test_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs that take longer than a commit's interval are said with the interval that would do; a failing one, too."""
    clock = iter(range(10_000))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock) * 0.1)
    (finding,) = machine.sync(tmp_path, 50)
    assert (finding.level, "GATEWAY_JOURNAL__COMMIT_MS=200" in finding.hint) == ("warning", True)

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(machine.os, "fdatasync", fails)
    (finding,) = machine.sync(tmp_path, 50)
    assert finding.level == "error"


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins in 1970 is an error."""
    assert next(machine.clock()).level in ("ok", "warning")
    monkeypatch.setattr(machine.time, "time", lambda: 1000.0)
    (finding,) = machine.clock()
    assert (finding.level, "1970-01-01" in finding.text) == ("error", True)


def test_descriptors() -> None:
    """Too few for what the settings ask is a warning, or for a thousand where they ask nothing."""
    cases = [(5_000, None, "ok"), (500, None, "warning"), (500, 400, "ok"), (500, 501, "warning")]
    for possible, asked, level in cases:
        assert [found.level for found in machine.descriptors(possible, asked)] == [level], (possible, asked)


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version that runs asks for a restart; an extra that the settings need and is not there is an error."""
    assert [found.level for found in machine.versions("0.0.1", influx=False)] == ["warning", "ok"]
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert [found.level for found in machine.versions(None, influx=True)] == ["ok", "error"]


def test_a_port_that_is_taken(examine: Examine) -> None:
    """Somebody else's is an error, and so is an address that is none of this machine's."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, findings = examine(LISTEN__PORT=other.getsockname()[1])
    assert status == 1
    assert levels(findings, "port") == ["error"]
    _, findings = examine(LISTEN__HOST="192.0.2.1", AUTH__ALLOW_INSECURE="true")
    assert "no interface" in only(findings, "port")["hint"]
    assert levels(findings, "access") == ["warning"]


def test_tokens(examine: Examine, tmp_path: Path) -> None:
    """None at all lets nobody in; a damaged file is an error."""
    _, findings = examine(AUTH__MODE="token")
    assert levels(findings, "access") == ["warning"]
    file = tmp_path / "state" / "tokens.json"
    store = Tokens(file)
    store.load()
    store.create(["device:pump-1"])
    _, findings = examine(AUTH__MODE="token")
    assert only(findings, "access")["text"] == "1 token"
    file.write_text("{")
    status, findings = examine(AUTH__MODE="token")
    assert (status, levels(findings, "access")) == (1, ["error"])


@pytest.mark.parametrize(("days", "level"), [(90, "ok"), (10, "warning"), (-1, "error")])
def test_the_certificate(examine: Examine, tmp_path: Path, days: int, level: str) -> None:
    """One that ends within a month is a warning, one that has ended an error."""
    pair = certificates.issue(tmp_path, certificates.authority(tmp_path), days=days)
    _, findings = examine(TLS__CERT=pair.cert, TLS__KEY=pair.key)
    assert levels(findings, "certificate") == [level]


def test_the_broker_takes_a_real_publish(examine: Examine, tmp_path: Path) -> None:
    """It is published to as the gateway will, and nothing but the reading is left there."""
    from tests.sinks.broker import Subscriber

    with broker(tmp_path) as server, Subscriber(server.port, "#") as subscriber:
        status, findings = examine(MQTT__URL=server.url)
        assert (status, levels(findings, "broker")) == (0, ["ok"])
        deadline = time.monotonic() + 10
        while len(subscriber.messages) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        topics = {message.topic: bytes(message.payload) for message in subscriber.messages}
        assert topics.keys() == {
            "gateway/gateway-doctor/telemetry",
            "gateway/gateway-doctor/presence",
            "gateway/status",
        }
        assert (topics["gateway/gateway-doctor/presence"], topics["gateway/status"]) == (b"", b"offline")


def test_the_broker_forbids(examine: Examine, tmp_path: Path) -> None:
    """A topic, or a login: the error has the broker's reason, and the hint what to look at."""
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite gateway/status\n")
    rules.chmod(0o644)
    with broker(tmp_path, f"allow_anonymous true\nacl_file {rules}") as server:
        status, findings = examine(MQTT__URL=server.url)
        assert (status, "access rules" in only(findings, "broker")["hint"]) == (1, True)
    with broker(tmp_path, "allow_anonymous false") as server:
        _, findings = examine(MQTT__URL=server.url)
        assert "GATEWAY_MQTT__USERNAME" in only(findings, "broker")["hint"]


def test_nobody_is_there(examine: Examine) -> None:
    """A broker and a store that are away are errors, each with a hint."""
    status, findings = examine(
        MQTT__URL=f"mqtt://127.0.0.1:{free_port()}", INFLUX__URL=f"http://127.0.0.1:{free_port()}"
    )
    assert (status, levels(findings, "broker"), levels(findings, "influx")) == (1, ["error"], ["error"])


def test_the_store_takes_a_real_write(examine: Examine, victoria: Victoria) -> None:
    """One reading is written to it."""
    status, findings = examine(INFLUX__URL=victoria.url)
    assert (status, levels(findings, "influx")) == (0, ["ok"])


async def test_the_running_gateway_is_asked(examine: Examine, tmp_path: Path) -> None:
    """Its port is its own, its problems are findings, and the broker's word on its state is left alone."""
    from tests.sinks.broker import Subscriber

    with broker(tmp_path) as server, Subscriber(server.port, "gateway/status") as subscriber:
        away = f"http://127.0.0.1:{free_port()}"
        sections: dict[str, Any] = {"mqtt": {"url": server.url}, "influx": {"url": away}}
        async with gateway(tmp_path / "state", **sections) as running, running.device("pump-1") as pump:
            await pump.send('{"seq":1,"values":{"n":1}}')
            async with asyncio.timeout(20):
                while not (await running.json("/healthz"))["problems"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            status, findings = await asyncio.to_thread(examine, MQTT__URL=server.url, LISTEN__PORT=running.port)
            assert (status, levels(findings, "port"), levels(findings, "broker")) == (0, ["ok"], ["ok"])
            assert any("InfluxDB" in found["text"] for found in findings["gateway"])
            assert [bytes(message.payload) for message in subscriber.messages] == [b"online"]


def test_the_self_test(examine: Examine, tmp_path: Path) -> None:
    """A gateway of its own under load is killed and started again: nothing is lost, and nothing of it stays."""
    status, findings = examine("--self-test", "--seconds", "3")
    assert status == 0, findings
    assert any("each once: none lost" in found["text"] for found in findings["self-test"]), findings
    assert list((tmp_path / "state").iterdir()) == []


def test_what_the_self_test_would_find() -> None:
    """Readings that were not acked, are missing, or are there twice are errors; slow acks are a warning."""

    def judged(stored: int = 100, unacked: int = 0, seconds: float = 0.01) -> list[str]:
        latency = Histogram()
        latency.record(seconds)
        counts = dict.fromkeys((*Report.COUNTS, "devices", "connected", "reached", "skipped"), 0)
        counts |= {"taken": 100, "unacked": unacked}
        report = Report(**counts, refusal="", duration_s=1.0, cpu_s=0.1, latency=latency)  # type: ignore[arg-type]
        return [found.level for found in selftest._judged(report, stored)]

    assert judged() == ["ok", "ok"]
    assert judged(stored=99) == judged(stored=101) == judged(unacked=1) == ["error", "ok"]
    assert judged(seconds=1.0) == ["ok", "warning"]


def test_for_people(examine: Examine, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, the level first, and the sum on stderr."""
    examine()
    assert main(["doctor"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("ok       settings     ")
    assert output.err

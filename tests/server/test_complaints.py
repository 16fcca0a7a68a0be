"""What the log says of devices that misbehave, and how little of it."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from gateway.devices import Device
from gateway.limit import TokenBucket
from gateway.liveness import Status
from gateway.server.complaints import Complaints
from gateway.ws import Response
from tests.running import gateway, receive, send


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and words of what was logged of complaints."""
    found = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "gateway.server.complaints"]
    caplog.clear()
    return found


def kinds(caplog: pytest.LogCaptureFixture) -> Counter[tuple[str, str, object]]:
    """Kind, device and code of what was logged by itself, not by its number."""
    said = [vars(record) for record in caplog.records]
    return Counter(
        (of["event"], of.get("device", ""), of.get("code")) for of in said if "event" in of and "count" not in of
    )


def test_a_thousand_a_second_are_a_few_lines_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    """Of 10,000 refusals the first three are lines, the rest one line with their count and the last one's words."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(clock)
    for second in range(11):
        for number in range(1_000):
            complaints.note("device_refused", "pump-1", f"t: bad {number}", "bad_value")
        clock.now = 1001.0 + second
        complaints.settle()
    record = caplog.records[-1]
    assert said(caplog) == [
        *(("WARNING", f"pump-1: refused: t: bad {number}") for number in range(3)),
        ("WARNING", "pump-1: refused: t: bad 999 … and 9,996 more of the same in 10 s"),
    ]
    assert vars(record)["device"] == "pump-1"
    assert vars(record)["count"] == 9_997
    assert vars(record)["reason"] == "t: bad 999"


def test_very_many_devices_are_a_few_lines_too(caplog: pytest.LogCaptureFixture) -> None:
    """A storm of all devices at once has a bounded number of lines, the rest is one count."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(clock)
    device = Device("pump", TokenBucket(1, 1))
    for number in range(5_000):
        device.name = f"pump-{number}"
        device.status = Status("offline", 0, "connection lost")
        complaints.presence(device)
    clock.now += 10
    complaints.settle()
    lines = said(caplog)
    assert len(lines) == 21
    assert lines[0] == ("INFO", "pump-0 is offline: connection lost")
    assert lines[-1] == ("INFO", "device offline: 4,980 more in 10 s, of others, the last: connection lost")


def test_states_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Online, stale and offline are entries of their kinds with the reason."""
    caplog.set_level(logging.INFO)
    complaints = Complaints()
    device = Device("pump-1", TokenBucket(1, 1))
    complaints.presence(device)
    for state, reason in (("online", ""), ("stale", "nothing for 9 s"), ("offline", "ping timeout")):
        device.status = Status(state, 0, reason)
        complaints.presence(device)
    assert set(kinds(caplog)) == {(f"device_{state}", "pump-1", None) for state in ("online", "stale", "offline")}
    assert said(caplog) == [
        ("INFO", "pump-1 is online"),
        ("INFO", "pump-1 is stale: nothing for 9 s"),
        ("INFO", "pump-1 is offline: ping timeout"),
    ]


def test_refused_requests_are_told_by_address(caplog: pytest.LogCaptureFixture) -> None:
    """Who may not is a warning with the words of the answer; what is not there is none; and very many are a count."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(clock)
    for number in range(100):
        complaints.refused(("10.0.0.9", 4000 + number), "/v1/live", Response(403, "no\n", reason="origin"))
    complaints.refused(("10.0.0.8", 1), "/x\ny" + "z" * 500, Response(404, "nothing here\n"))
    complaints.refused("", "", Response(400, "bad\n"))
    complaints.refused(("10.0.0.7", 1), "/v1/devices/pump-1", Response(401, "a token is needed\n", reason="no_token"))
    complaints.stranger(("10.0.0.6", 1), "bad_token", "the token is not valid")
    assert [vars(record).get("device") for record in caplog.records[-2:]] == ["pump-1", None]
    clock.now += 10
    complaints.settle()
    record = caplog.records[0]
    assert (vars(record)["remote"], vars(record)["reason"], vars(record)["code"]) == ("10.0.0.9", "origin", 403)
    lines = said(caplog)
    assert lines[:3] == [("WARNING", "10.0.0.9 asked for /v1/live: refused with 403: no")] * 3
    assert lines[3][1].startswith("10.0.0.8 asked for /x")
    assert len(lines[3][1]) < 200
    assert lines[4] == ("INFO", "a local program asked for something that cannot be read: refused with 400: bad")
    assert lines[5] == ("WARNING", "10.0.0.7 asked for /v1/devices/pump-1: refused with 401: a token is needed")
    assert lines[6] == ("WARNING", "10.0.0.6 was not let in: the token is not valid")
    assert lines[7:] == [("WARNING", "10.0.0.9: a request was refused: origin … and 96 more of the same in 10 s")]


def test_a_count_is_as_loud_as_what_it_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Of addresses that there are not too, and of the addresses of strangers beyond those that are named."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(clock)
    for status in (404, 403):
        for _ in range(5):
            complaints.refused((f"10.0.0.{status - 400}", 1), "/x", Response(status, "no\n", reason="no"))
    clock.now += 10
    complaints.settle()
    assert [level for level, _ in said(caplog)] == ["INFO"] * 3 + ["WARNING"] * 3 + ["INFO", "WARNING"]
    for number in range(100):
        complaints.refused((f"10.1.0.{number}", 1), "/x", Response(404, "no\n", reason="no"))
        complaints.stranger((f"10.2.0.{number}", 1), "bad_token", "the token is not valid")
    clock.now += 10
    complaints.settle()
    counts = [line for line in said(caplog) if "of others" in line[1]]
    assert [level for level, _ in counts] == ["INFO", "WARNING"]


async def test_a_device_that_misbehaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused readings, undecodable messages, throttling, closes and contested replacements are entries of their kinds,
    few however many there were."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("gateway.server.device.REPLACEMENT_DELAY_S", 0.01)
    async with gateway(tmp_path, limits={"device_rate": 20, "device_burst": 20}) as running:
        async with running.device("bad") as ws:
            await receive(ws, "welcome")
            for _ in range(10):
                await send(ws, {"a b": 1})
                await receive(ws, "error")
        async with running.device("garbled") as ws:
            await receive(ws, "welcome")
            await send(ws, *["{"] * 5)
            await ws.wait_closed()
        async with running.device("fast", max_queue=None) as ws:
            await receive(ws, "welcome")
            for _ in range(20):
                await send(ws, [{"t": number} for number in range(20)])
            await receive(ws, "throttled")
        async with running.device("large") as ws:
            await receive(ws, "welcome")
            await ws.send("x" * 100_000)
            await ws.wait_closed()
        for _ in range(5):
            async with running.device("twice") as ws, running.device("twice") as other:
                await receive(other, "welcome")
                await ws.wait_closed()
        await running.get("/metrics", headers={"Host": "evil.example"})
    found = kinds(caplog)
    assert found["device_refused", "bad", "bad_name"] == 3
    assert found["device_undecodable", "garbled", "undecodable"] == 3
    assert found["device_closed", "garbled", 1011] == 1
    assert 1 <= found["device_throttled", "fast", None] <= 3
    assert found["device_closed", "large", 1009] == 1
    assert 1 <= found["device_replaced", "twice", 4001] <= 3
    assert found["device_online", "bad", None] == 1
    assert found["device_offline", "bad", None] == 1
    assert found["request_refused", "", 403] == 1
    lines = [line for _, line in said(caplog)]
    assert any(line.startswith("bad: refused: ") and " more of the same in " in line for line in lines)

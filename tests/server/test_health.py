"""What ``/healthz`` calls a problem, from stand-ins for the gateway's parts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.devices import DeviceBook
from gateway.liveness import Losses
from gateway.server.device import DeviceEndpoint
from gateway.server.health import Health

NOW = 1_764_000_000_000_000_000
MIB = 1 << 20


class Part:
    """The journal, the history: what they are told to say."""

    def __init__(self, *problems: str, **stats: float) -> None:
        self.stored = 0
        self.reason = ""
        self.said = list(problems)
        self.numbers = {"bytes": MIB, "max_bytes": 16 * MIB, "segments": 1, "pending": 0, **stats}

    def stats(self) -> dict[str, float]:
        return {**self.numbers, "failing": float(bool(self.reason))}

    def problems(self) -> list[str]:
        return self.said


class Runner:
    """A sink's runner that only says what it is told to."""

    def __init__(self, *, overflowed: int = 0, lost: int = 0, damaged: int = 0, **health: Any) -> None:
        counts = {"delivered": 5, "overflowed": overflowed, "lost": lost}
        self.said = {"state": "ok", "reason": "", "hint": "", "next_try_s": None, "pending": 0, "behind": 0}
        self.said |= {"dead_letters": 0, "dead_letters_damaged": damaged, "ledger": counts, **health}

    @property
    def pending(self) -> int:
        return 0

    def health(self) -> dict[str, Any]:
        return self.said

    def stats(self) -> dict[str, float]:
        return self.said["ledger"]  # type: ignore[no-any-return]


def make(
    journal: Part | None = None,
    *runners: Runner,
    now: int = NOW,
    device_problems: tuple[tuple[str, str], ...] = (),
    book: DeviceBook | None = None,
) -> Health:
    health = Health(
        id="gw",
        epoch="e",
        book=book or DeviceBook(Path("/nowhere"), rate=100, burst=200),
        hub=None,  # type: ignore[arg-type]
        journal=journal or Part(),
        history=Part(),
        runners=[("mqtt", "MQTT", runner) for runner in runners],
        dashboards=dict,
        messages=lambda: 0,
        device_problems=lambda _: list(device_problems),
        retention_days=30,
        now=lambda: now,
    )
    health.ready = True
    return health


def problems(*given: Any, **known: Any) -> list[dict[str, str]]:
    found: Any = make(*given, **known).body()["problems"]
    return found  # type: ignore[no-any-return]


def test_nothing_wrong() -> None:
    """Ok, without a line."""
    body = make(None, Runner()).body()
    assert (body["status"], body["problems"]) == ("ok", [])


def test_a_sinks_words_are_for_those_who_may_read_all_devices() -> None:
    """A broker's reason may name any device: others are told that there is one."""
    runner = Runner(state="waiting", reason="the broker refused a message to gateway/tank/telemetry", hint="see tank")
    health = make(None, runner, device_problems=())
    assert "gateway/tank/telemetry" in str(health.body())
    body = health.body(lambda name: name == "pump-1")
    assert "tank" not in str(body)
    assert "MQTT cannot be reached" in str(body["problems"])


@pytest.mark.parametrize(("count", "text"), [(1, "1 reading was dropped"), (3000, "3,000 readings were dropped")])
def test_what_a_full_journal_cost_is_a_problem(count: int, text: str) -> None:
    """How many readings a sink will never get, also when it works again, and what to do about it."""
    for runner in (Runner(overflowed=count), Runner(overflowed=count, state="waiting", reason="refused", behind=9)):
        found = problems(None, runner)
        assert "Nothing is lost" not in str(found)
        (line,) = [problem for problem in found if text in problem["text"]]
        assert line["part"] == "mqtt"
        assert "before MQTT took" in line["text"]
        assert "GATEWAY_JOURNAL__MAX_BYTES" in line["hint"]


def test_what_damage_cost_a_sink_is_a_problem() -> None:
    """How many readings were lost to it with the journal's damaged parts."""
    found = problems(None, Runner(lost=7, state="waiting", reason="refused"))
    assert "Nothing is lost" not in str(found)
    assert [problem["text"] for problem in found][1:] == [
        "7 readings were lost to MQTT with damaged parts of the journal."
    ]


def test_a_sink_that_is_away_and_lacks_nothing() -> None:
    """Is said to lose nothing."""
    (line,) = problems(None, Runner(state="waiting", reason="refused", behind=1))
    assert line["text"] == "MQTT cannot be reached: refused. 1 reading waits."
    assert line["hint"].startswith("Nothing is lost")
    (line,) = problems(None, Runner(state="waiting", reason="HTTP 429: slow down", reached=True))
    assert line["text"] == "MQTT does not take what it gets: HTTP 429: slow down."


def test_dead_letters_are_a_problem() -> None:
    """How many wait and where to look, and how many of them cannot be read."""
    (line,) = problems(None, Runner(dead_letters=3))
    assert (line["part"], line["text"]) == ("mqtt", "3 readings that MQTT refused were put aside.")
    assert "gateway dead-letters list" in line["hint"]
    waiting, damaged = problems(None, Runner(dead_letters=1, damaged=1))
    assert waiting["text"] == "1 reading that MQTT refused was put aside."
    assert damaged["text"] == "1 dead letter of MQTT is damaged and cannot be tried again."
    assert "gateway dead-letters" in damaged["hint"]


def test_an_own_clock_that_is_not_set_is_a_problem() -> None:
    """Before 2020 the gateway's clock is at fault, and no device's is."""
    off = ("The times of pump-1 are off", "Set those clocks, or see GATEWAY_CLOCK__OLD.")
    storm = ("5 devices were lost at once", "Their network may have failed.")
    (line, other) = problems(None, Runner(), now=3_600 * 10**9, device_problems=(off, storm))
    assert line["part"] == "clock"
    assert line["text"].startswith("The gateway's own clock stands at 1970-01-01 01:00 UTC: times of receipt are wrong")
    assert line["hint"]
    assert other["text"] == f"{storm[0]}."
    assert [problem["text"] for problem in problems(None, Runner(), device_problems=(off,))] == [f"{off[0]}."]


def test_a_full_journal_is_a_sentence_that_says_who_holds_it() -> None:
    """The bound with its setting, and the sinks whose readings fill it."""
    journal = Part(bytes=16 * MIB)
    journal.reason = "the journal has reached its bound of 16 MiB (GATEWAY_JOURNAL__MAX_BYTES)"
    line = problems(journal, Runner(state="stopped", reason="401", behind=9000), Runner())[0]
    assert line["text"] == "The journal has reached its bound of 16 MiB (GATEWAY_JOURNAL__MAX_BYTES)."
    assert line["hint"].startswith("Readings are refused until MQTT takes some of the 9,000 that wait for it: ")
    assert make(journal).body()["status"] == "failing"


def test_those_who_hold_a_full_journal_are_named() -> None:
    """All that are away; else who is furthest behind; else the gateway itself."""

    def hint(*runners: Runner) -> str:
        journal = Part(bytes=16 * MIB)
        journal.reason = "the journal has reached its bound"
        return problems(journal, *runners)[0]["hint"]

    away = {"state": "waiting", "reason": "refused"}
    assert "until MQTT and MQTT take some of what waits for them" in hint(
        Runner(behind=3, **away), Runner(behind=4, **away), Runner(behind=9), Runner(behind=0, **away)
    )
    assert "until MQTT takes some of the 9 that wait" in hint(Runner(behind=3), Runner(behind=9))
    assert "the gateway still has to put into its history" in hint(Runner())


def test_a_disk_that_is_short_is_a_sentence() -> None:
    """With what to do, without naming a sink."""
    journal = Part()
    journal.reason = "the disk fails: No space left on device"
    (line,) = problems(journal, Runner(behind=3))
    assert line["text"] == "The journal cannot be written: the disk fails: No space left on device."
    assert "make room on the disk" in line["hint"]
    assert "MQTT" not in line["hint"]


def test_refusing_begins_and_ends_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Once each, as warnings."""
    journal = Part()
    health = make(journal)
    with caplog.at_level(logging.WARNING):
        for reason in ("", "the disk fails: x", "the disk fails: x", "", ""):
            journal.reason = reason
            health.sample()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "readings are refused: the journal cannot be written: the disk fails: x",
        "readings are taken again: the journal can be written",
    ]


def test_what_devices_are_told_to_be_off_is_known_as_that() -> None:
    """The endpoint's line on their clocks is the one that is left out where our own is wrong, and no other line is."""
    endpoint = DeviceEndpoint.__new__(DeviceEndpoint)
    endpoint.losses = Losses()
    endpoint.monotonic = lambda: 100.0
    endpoint._clocks_off = [("pump-1", 3_600_000)]
    for number in range(20):
        endpoint.losses.note(100.0, 20, f"d{number}")
    told = tuple(endpoint.problems())
    assert len(told) == 2
    found = problems(None, now=0, device_problems=told)
    assert [line["part"] for line in found] == ["clock", "devices"]
    assert "pump-1" not in str(found)


@pytest.mark.parametrize(
    ("stats", "reason", "words"),
    [
        ({}, "", ""),
        ({"oldest_pending_s": 9.0, "writer_step_s": 9.0}, "", ""),
        ({"oldest_pending_s": 11.0}, "", "not turned for 11 s"),
        ({"oldest_pending_s": 60.0}, "the disk fails", ""),
        ({"oldest_pending_s": 60.0, "writer_step_s": 12.0}, "the disk fails", "not turned for 12 s"),
        ({"writer_step_s": 12.0}, "", "not turned for 12 s"),
        ({"writer_step_s": float("inf")}, "", "has ended"),
    ],
)
def test_alive_is_who_turns(stats: dict[str, float], reason: str, words: str) -> None:
    """A disk that fails is no reason to be restarted; a writer that stands still for more than 10 s is, in any case."""
    journal = Part(**stats)
    journal.reason = reason
    said = make(journal).alive()
    assert words in said
    assert bool(said) == bool(words)


def test_ready_asks_no_broker() -> None:
    """Sinks that are away, stopped or full change nothing about it."""
    health = make(Part(), Runner(state="stopped", reason="refused"), Runner(state="waiting", behind=10**6))
    health.ready = True
    assert health.ready_problem() == ""
    assert health.body()["status"] == "degraded"

"""What became of a device's readings, in words."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import liveness
from gateway.clock import ClockRules
from gateway.devices import Device
from gateway.errors import Refusal
from gateway.limit import TokenBucket
from gateway.server.explain import SinkFacts, explain
from gateway.server.refusals import Refusals

NOW = 1_764_000_000_000_000_000
LOSSES = ("duplicate", "throttled", "dropped", "rejected", "missing")


def pump(**counts: int) -> Device:
    device = Device("pump-1", TokenBucket(100, 200))
    for name, count in counts.items():
        setattr(device.ledger, name, count)
    return device


def about(device: Device, **known: Any) -> dict[str, Any]:
    return explain(device, now=NOW, rate=100, burst=200, **{"clock_rules": ClockRules(), **known})


def sink(device: Device, **facts: Any) -> str:
    (told,) = about(device, sinks=[SinkFacts(name="mqtt", title="MQTT", **{"state": "ok", **facts})])["sinks"]
    return str(told["text"])


def test_a_device_of_which_nothing_is_known_yet() -> None:
    """It is offline, without parts."""
    told = about(pump())
    assert (told["state"], told["since"], told["parts"], told["notes"]) == ("offline", 0, [], [])


@pytest.mark.parametrize("part", LOSSES)
def test_each_number_that_is_not_zero_is_told(part: str) -> None:
    """With its cause; those that can be avoided with what to do."""
    told = about(pump(**{part: 3}))["parts"]
    assert [(entry["part"], entry["count"]) for entry in told] == [(part, 3)]
    assert len(told[0]["text"].split()) > 4
    assert bool(told[0]["hint"]) == (part not in ("duplicate", "rejected"))


@pytest.mark.parametrize("part", LOSSES)
def test_one_is_told_as_one(part: str) -> None:
    """The words of a single reading agree with it."""
    device = pump(**{part: 1})
    text = about(device)["parts"][0]["text"]
    for word in (" are ", " were ", " they ", " their ", "numbers", "{", "for each"):
        assert word not in f" {text} ", text
    assert about(pump(stored=1))["parts"][0]["text"] == "is safe on this machine's disk"


def test_what_was_dropped_is_not_called_safe() -> None:
    """Where a sink lacks what the full journal or the disk let go, what was stored is told as that and no more."""
    sinks = [SinkFacts(name="mqtt", title="MQTT", state="ok", overflowed=7)]
    assert "safe" not in about(pump(stored=9), sinks=sinks)["parts"][0]["text"]


def test_all_parts_together_are_those_of_the_ledger() -> None:
    """Nothing of the sum is left untold."""
    device = pump(received=28, accepted=9, stored=7, rejected=1, duplicate=2, throttled=6, dropped=10)
    told = about(device)
    assert sum(entry["count"] for entry in told["parts"] if entry["part"] != "missing") == told["ledger"]["received"]


def test_what_was_not_kept_comes_again_only_with_seq() -> None:
    """Who sends no seq is told that its readings are lost; the limits stand in the text."""
    device = pump(throttled=1)
    text = about(device)["parts"][0]["text"]
    assert "lost" in text
    assert "100 a second" in text
    device.session.accept(5)
    assert "again" in about(device)["parts"][0]["text"]
    assert "lost" not in about(device)["parts"][0]["text"]


def test_a_seq_that_was_never_kept_is_a_seq() -> None:
    """A device whose first contact met a full journal is told what to send again, not that it sends no seq."""
    device = pump(dropped=3)
    device.session.judge(1, 0.0)
    device.session.hold(1, 0.0, full=True)
    assert "lost" not in about(device)["parts"][0]["text"]
    device.session.held = 0  # given up
    assert "lost" not in about(device)["parts"][0]["text"]


def test_a_sub_device_has_the_sequence_of_its_concentrator() -> None:
    """What is said of seq and sessions is not said of one that has none of its own."""
    device = pump(received=3, throttled=3)
    device.via = "hub"
    told = about(device)
    assert "hub, which sends for it" in told["parts"][0]["text"]
    assert any("heard last through hub" in note for note in told["notes"])


def test_why_readings_were_refused() -> None:
    """The codes with their counts, the last words, and a hint that fits them."""
    refusals = Refusals()
    refusals.note("pump-1", Refusal("bad_name", "what"), NOW - 2)
    refusals.note("pump-1", Refusal("bad_value", "values.t: not a finite number"), NOW)
    refusals.note("pump-2", Refusal("bad_time", "no"), NOW)
    told = about(pump(rejected=2), refused=refusals.of("pump-1"))
    assert told["refusals"] == {
        "counts": {"bad_name": 1, "bad_value": 1},
        "last": {"time": NOW // 1_000_000, "code": "bad_value", "detail": "values.t: not a finite number"},
    }
    assert "finite" in told["parts"][0]["hint"]
    assert refusals.of("pump-3") is None


def test_notes_of_state() -> None:
    """A state from before a restart, a reading that is waited for, a journal that takes nothing."""
    device = pump()
    device.status = liveness.restored("online", NOW, "")
    device.session.hold(17, 0.0)
    notes = about(device, journal_problem="no space left on device")["notes"]
    assert [word in note for word, note in zip(("no space", "restart", "seq 17"), notes, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [
        (59, None),
        (-60, "1 minute behind"),
        (61, "1 minute and 1 second ahead of"),
        (7_200, "2 hours ahead of"),
        (-90_000, "1 day and 1 hour behind"),
        (None, None),
    ],
)
def test_a_clock_that_is_wrong(skew_s: int | None, words: str | None) -> None:
    """Said from a minute on, with which way and how far."""
    device = pump()
    if skew_s is not None:
        device.clock.stamp(NOW + skew_s * 10**9, NOW, ClockRules(old_after_s=10**6, future_after_s=10**6))
    told = about(device)
    assert [words in note for note in told["notes"]] == ([True] if words else [])
    assert told["clock"] == {"skew_ms": None if skew_s is None else skew_s * 1000, "old": 0, "future": 0}


@pytest.mark.parametrize(("action", "words"), [("flag", "kept at that time"), ("correct", "of their receipt")])
def test_readings_out_of_their_time(action: Any, words: str) -> None:
    """Old and future times are counted in words, with what became of them."""
    rules = ClockRules(action, action, old_after_s=7200)
    device = pump()
    device.clock.stamp(NOW - 7201 * 10**9, NOW, rules)
    device.clock.stamp(NOW - 7202 * 10**9, NOW, rules)
    device.clock.stamp(NOW + 61 * 10**9, NOW, rules)
    _, old, future = about(device, clock_rules=rules)["notes"]
    assert "2 readings carried a time more than 2 hours before they came: " in old
    assert "1 reading carried a time more than 1 minute after it came: " in future
    assert words in old
    assert words in future
    assert "started" not in old  # the counts are kept over restarts


def test_times_that_the_rules_refuse_are_told_with_the_setting() -> None:
    """Where the gateway's rules refused a time and not its form, the advice names the rule."""
    rules = ClockRules("flag", "refuse")
    device = pump(rejected=1)
    refusals = Refusals()
    with pytest.raises(Refusal) as refusal:
        device.clock.stamp(NOW + 61 * 10**9, NOW, rules)
    refusals.note("pump-1", refusal.value, NOW)
    (part,) = about(device, clock_rules=rules, refused=refusals.of("pump-1"))["parts"]
    assert "GATEWAY_CLOCK__FUTURE" in part["hint"]
    assert "GATEWAY_CLOCK__OLD" not in part["hint"]
    (part,) = about(device, refused=refusals.of("pump-1"))["parts"]
    assert "GATEWAY_CLOCK__" not in part["hint"]


def test_a_gateway_whose_own_clock_is_not_set_blames_no_device() -> None:
    """It says that its own is wrong, and nothing of the device's."""
    device = pump(rejected=1)
    rules = ClockRules("flag", "refuse")
    refusals = Refusals()
    with pytest.raises(Refusal) as refusal:
        device.clock.stamp(NOW, 600 * 10**9, rules)
    refusals.note("pump-1", refusal.value, 600 * 10**9)
    told = explain(device, now=600 * 10**9, rate=100, burst=200, clock_rules=rules, refused=refusals.of("pump-1"))
    assert told["notes"] == [
        "The gateway's own clock stands at 1970-01-01 00:10 UTC: times of receipt are wrong until it is set."
    ]
    (part,) = told["parts"]  # type: ignore[misc]
    assert "device's clock" not in part["hint"]


def test_a_sink_that_has_taken_all() -> None:
    """Said in a sentence."""
    assert sink(pump(stored=5)) == "Has taken all that is stored."
    assert sink(pump()) == "Nothing of it is stored yet."


def test_a_sink_that_is_behind() -> None:
    """How many of the device's readings wait, and why."""
    device = pump(stored=5)
    assert sink(device, waiting=1) == "Has yet to take 1 of its readings, which is on the way."
    text = sink(device, waiting=3, state="waiting", reason="connection refused", next_try_s=12.3)
    assert text == (
        "3 of its readings wait in the journal; none is lost. "
        "It cannot be reached: connection refused; the next attempt is in 12 seconds."
    )
    text = sink(device, waiting=3, state="waiting", reason="HTTP 429: slow down", reached=True)
    assert text.endswith(" It does not take what it gets: HTTP 429: slow down.")
    text = sink(device, waiting=3, counted=False, state="stopped", reason="401")
    assert text == "At least 3 of its readings wait in the journal; none is lost. It has stopped: 401."


def test_a_sink_that_lacks_some_for_good() -> None:
    """Dead letters with their reasons, what was dropped from a full journal, what was damaged."""
    text = sink(pump(stored=9), put_aside={"too long": 2, "bad field": 1}, overflowed=7, lost=1)
    assert text.startswith("Has taken all of it that the journal still held, but what was put aside. ")
    assert "3 dead letters of this device (2: too long; 1: bad field)." in text
    assert "7 readings were dropped from the full journal before this sink took them" in text
    assert "1 reading was lost" in text
    assert "1 dead letter of this device (HTTP 400)." in sink(pump(stored=9), put_aside={"HTTP 400": 1})
    assert "2 dead letters of this device (HTTP 400)." in sink(pump(stored=9), put_aside={"HTTP 400": 2})


@pytest.mark.parametrize("lacking", [{"overflowed": 7}, {"lost": 7}])
def test_nothing_is_called_safe_where_readings_were_dropped(lacking: dict[str, int]) -> None:
    """Neither what waits nor what was taken is told as all there was."""
    for facts in ({"waiting": 3, "state": "waiting", "reason": "refused"}, {}):
        text = sink(pump(stored=9), **lacking, **facts)
        assert "none is lost" not in text
        assert "all that is stored" not in text
        assert "7 readings were " in text
    device = pump(stored=9)
    (told,) = about(device, sinks=[SinkFacts(name="mqtt", title="MQTT", state="ok", overflowed=7)])["sinks"]
    assert "GATEWAY_JOURNAL__MAX_BYTES" in told["hint"]

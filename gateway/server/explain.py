"""Where a device's readings went and why any did not, in numbers and in words.

Pure: everything it tells of is handed to it.  Each number of the loss ledger that is not zero is told with its cause
and with what to do about it; each sink with whether it has the device's readings, and if not, why.  Times are
milliseconds since the epoch, as on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from ..clock import CLOCK_OFF_MS, Action, ClockRules
from ..devices import Device
from .ownclock import own_clock_problem
from .refusals import Refused

__all__ = ["DROPPED_HINT", "SinkFacts", "explain"]

DROPPED_HINT = (
    "GATEWAY_JOURNAL__MAX_BYTES is what the journal may hold for a sink that is away; with "
    "GATEWAY_JOURNAL__ON_FULL=refuse nothing stored is dropped, and devices are refused instead"
)

ACTIONS: dict[Action, str] = {
    "flag": "kept at that time",
    "correct": "kept at the time of their receipt",
    "refuse": "refused",
}
# Words of a part that agree with its count.
ONE = {"are": "is", "were": "was", "their": "its", "they_are": "it is", "each": "", "numbers": "a number"}
MANY = {
    "are": "are",
    "were": "were",
    "their": "their",
    "they_are": "they are",
    "each": " for each",
    "numbers": "numbers",
}
REFUSED_HINTS = {
    "undecodable": "its messages are not the JSON or MessagePack that its subprotocol says",
    "bad_message": "its messages are neither a reading, nor a list of readings, nor of a known type",
    "bad_name": "a metric's name is [A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}",
    "bad_value": "a value is a finite number, a 64-bit integer, a boolean or a string of at most 1,024 characters",
    "bad_time": "ts is seconds, milliseconds, microseconds or nanoseconds since 1970, below the year 2262",
    "bad_seq": "seq is a positive integer of 63 bits",
    "bad_device": "device in a reading names a sub-device; its token has to cover that one as well (device:GLOB)",
    "too_many_devices": "GATEWAY_LIMITS__MAX_DEVICES bounds the devices that are remembered",
    "too_many_readings": "a message holds 1,000 readings at most",
    "too_many_metrics": "GATEWAY_LIMITS__MAX_METRICS bounds the metrics of a device; are names made up as it goes?",
    "too_many_series": "GATEWAY_LIMITS__MAX_SERIES bounds the metrics of all devices together",
    "too_deep": "a message is nested 32 deep at most",
}


class SinkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One sink as it concerns the device.

    ``waiting`` of its readings are stored and not yet taken, at least so many where not ``counted``; ``put_aside`` are
    its dead letters by reason.  ``behind``, ``overflowed`` and ``lost`` are of all devices together.
    """

    name: str
    title: str
    state: str
    reason: str = ""
    hint: str = ""
    next_try_s: float | None = None
    reached: bool = False
    waiting: int = 0
    counted: bool = True
    behind: int = 0
    overflowed: int = 0
    lost: int = 0
    put_aside: Mapping[str, int] = {}


def explain(
    device: Device,
    *,
    now: int,
    rate: float,
    burst: float,
    clock_rules: ClockRules,
    refused: Refused | None = None,
    sinks: Iterable[SinkFacts] = (),
    journal_problem: str = "",
) -> dict[str, object]:
    """All about ``device``: plain values, for JSON and for the command that prints it.  ``now`` in nanoseconds."""
    status, session = device.status, device.session
    sinks = list(sinks)
    whole = not any(facts.overflowed or facts.lost for facts in sinks)
    own_clock = own_clock_problem(now)
    clock_hint = "" if own_clock else _clock_hint(device, clock_rules)
    # A clock that is wrong itself is no measure of the device's.
    clock_notes = [f"{own_clock[0].upper()}{own_clock[1:]}."] if own_clock else _clock_notes(device, clock_rules)
    return {
        "device": device.name,
        "name": device.display_name,
        "time": now // 1_000_000,
        "state": status.state if status else "offline",
        "since": status.since // 1_000_000 if status else 0,
        "reason": status.reason if status else "",
        "confirmed": status.confirmed if status else True,
        "last_seen": device.last_seen // 1_000_000,
        "session": {
            "id": session.id,
            "resumable": session.resumable,
            "last_seq": session.durable,
            "taken_seq": session.highest,
            "held_seq": session.held,
        },
        "notes": [*_state_notes(device, journal_problem), *clock_notes],
        "ledger": device.ledger.as_dict(),
        "parts": list(_parts(device, rate, burst, refused, clock_hint=clock_hint, whole=whole)),
        "refusals": _refusals(refused),
        "clock": {"skew_ms": device.clock.skew_ms, "old": device.clock.old, "future": device.clock.future},
        "sinks": [_sink(facts, device.ledger.stored) for facts in sinks],
    }


def _state_notes(device: Device, journal_problem: str) -> Iterable[str]:
    status, session = device.status, device.session
    if journal_problem:
        yield f"No readings are taken now: {journal_problem}."
    if status is not None and not status.confirmed:
        yield "Its state is that from before the gateway's restart: it has not been seen since."
    if device.via:
        yield f"It was heard last through {device.via}: sequence, acks and what is missing are that one's."
    if session.held:
        why = "the journal had no room" if session.held_full else "it came above the device's rate"
        yield (
            f"The reading with seq {session.held:,} was not kept, since {why}; nothing behind it is kept until it "
            "comes again, or for ten seconds if the device goes on without it."
        )


# -- the ledger --------------------------------------------------------------------------------------------------------


def _parts(
    device: Device, rate: float, burst: float, refused: Refused | None, *, clock_hint: str, whole: bool
) -> Iterable[dict[str, object]]:
    ledger = device.ledger
    stored = "{are} safe on this machine's disk" if whole else "{were} put on this machine's disk"
    told: list[tuple[str, Callable[[], tuple[str, str]]]] = [
        ("stored", lambda: (stored, "")),
        ("in_flight", lambda: ("{are} being written to disk right now", "")),
        ("duplicate", _duplicate),
        ("throttled", lambda: _throttled(device, rate, burst)),
        ("dropped", lambda: _dropped(device)),
        ("rejected", lambda: _rejected(refused, clock_hint)),
        ("missing", _missing),
    ]
    for part, words in told:
        count = getattr(ledger, part)
        if count:
            text, hint = words()
            agreeing = text.format_map(ONE if count == 1 else MANY)
            yield {"part": part, "count": count, "text": agreeing, "hint": hint}


def _duplicate() -> tuple[str, str]:
    return "{were} stored already and came again, as after a cut before {their} ack: nothing is lost", ""


def _throttled(device: Device, rate: float, burst: float) -> tuple[str, str]:
    hint = "let it send less often, or raise GATEWAY_LIMITS__DEVICE_RATE and GATEWAY_LIMITS__DEVICE_BURST"
    return f"came faster than {rate:g} a second ({burst:g} at once) and {{were}} not kept; {_again(device)}", hint


def _dropped(device: Device) -> tuple[str, str]:
    hint = "see that the disk has room and GATEWAY_JOURNAL__MAX_BYTES is enough for an outage of the slowest sink"
    return f"came while the journal was full or could not be written, and {{were}} not kept; {_again(device)}", hint


def _again(device: Device) -> str:
    session = device.session
    if device.via:
        return f"where {device.via}, which sends for it, gave a seq, it was told from which one on to send again"
    if session.highest or session.heard or session.held:
        return "the device was told from which seq on to send again, and what it sent again counts anew"
    return "it sends no seq, so {they_are} lost: with seq it would be told what to send again"


def _rejected(refused: Refused | None, clock_hint: str) -> tuple[str, str]:
    if refused is None:
        return "{were} refused for good before the gateway's last start; the device got an error{each}", ""
    hint = REFUSED_HINTS.get(refused.code, "")
    if refused.code == "bad_time" and clock_hint:
        hint = f"{clock_hint}; {hint}"
    return "{were} refused for good; the device got an error{each}", hint


def _missing() -> tuple[str, str]:
    return (
        "more never came: {numbers} that its sequence left out",
        "the device gave them up, or its own buffer was full; its log may say which",
    )


def _refusals(refused: Refused | None) -> dict[str, object] | None:
    if refused is None:
        return None
    last = {"time": refused.time // 1_000_000, "code": refused.code, "detail": refused.detail}
    return {"counts": dict(refused.counts), "last": last}


# -- its clock ---------------------------------------------------------------------------------------------------------


def _clock_notes(device: Device, rules: ClockRules) -> Iterable[str]:
    clock = device.clock
    skew = clock.skew_ms
    if skew is not None and abs(skew) >= CLOCK_OFF_MS:
        way = "ahead of" if skew > 0 else "behind"
        yield f"Its clock is {_span(abs(skew))} {way} the gateway's: look at its time synchronisation."
    for count, limit_ns, one, many, action, setting in (
        (clock.old, rules.old_ns, "before it came", "before they came", rules.old, "OLD"),
        (clock.future, rules.future_ns, "after it came", "after they came", rules.future, "FUTURE"),
    ):
        if count:
            which, words = ("1 reading", one) if count == 1 else (f"{count:,} readings", many)
            yield (
                f"So far {which} carried a time more than {_span(limit_ns // 1_000_000)} {words}: such a reading is "
                f"{ACTIONS[action]} (GATEWAY_CLOCK__{setting}={action})."
            )


def _clock_hint(device: Device, rules: ClockRules) -> str:
    """What to do where the device's times were refused for being too far off."""
    clock = device.clock
    refusing = [
        f"GATEWAY_CLOCK__{setting}"
        for setting, action, count in (("OLD", rules.old, clock.old), ("FUTURE", rules.future, clock.future))
        if count and action == "refuse"
    ]
    if not refusing:
        return ""
    return f"set the device's clock, or {' and '.join(refusing)} to flag or correct"


def _span(ms: int) -> str:
    """A stretch of time in words, rounded to its largest unit but one."""
    seconds = ms // 1000
    for unit, size, smaller, less in (
        ("day", 86_400, "hour", 3600),
        ("hour", 3600, "minute", 60),
        ("minute", 60, "second", 1),
    ):
        if seconds >= size:
            rest = seconds % size // less
            return _count(seconds // size, unit) + (f" and {_count(rest, smaller)}" if rest else "")
    return _count(seconds, "second")


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


# -- the sinks ---------------------------------------------------------------------------------------------------------


def _sink(facts: SinkFacts, stored: int) -> dict[str, object]:
    return {
        "sink": facts.name,
        "title": facts.title,
        "state": facts.state,
        "reason": facts.reason,
        "waiting": facts.waiting,
        "counted": facts.counted,
        "put_aside": dict(facts.put_aside),
        "text": " ".join(_sink_words(facts, stored)),
        "hint": (facts.hint if facts.state in ("waiting", "stopped") else "")
        or (DROPPED_HINT if facts.overflowed else ""),
    }


def _sink_words(facts: SinkFacts, stored: int) -> Iterable[str]:
    put_aside = sum(facts.put_aside.values())
    whole = not facts.overflowed and not facts.lost
    waiting = f"{'' if facts.counted else 'at least '}{facts.waiting:,} of its readings"
    one = facts.waiting == 1
    if not stored:
        yield "Nothing of it is stored yet."
    elif not facts.waiting and facts.counted:
        all_of_it = "all that is stored" if whole else "all of it that the journal still held"
        yield f"Has taken {all_of_it}{', but what was put aside' if put_aside else ''}."
    elif facts.state in ("waiting", "stopped"):
        wait = "waits" if one and facts.counted else "wait"
        yield f"{waiting[0].upper()}{waiting[1:]} {wait} in the journal{'; none is lost' if whole else ''}."
    else:
        yield f"Has yet to take {waiting}, which {'is' if one and facts.counted else 'are'} on the way."
    if facts.state == "waiting":
        again = (
            "" if facts.next_try_s is None else f"; the next attempt is in {_count(round(facts.next_try_s), 'second')}"
        )
        verb = "does not take what it gets" if facts.reached else "cannot be reached"
        yield f"It {verb}: {facts.reason}{again}."
    elif facts.state == "stopped":
        yield f"It has stopped: {facts.reason}."
    if put_aside:
        reasons = "; ".join(
            f"{count:,}: {reason}" if len(facts.put_aside) > 1 else reason for reason, count in facts.put_aside.items()
        )
        which = "dead letters of this device" if put_aside != 1 else "dead letter of this device"
        yield f"{put_aside:,} {which} ({reasons})."
    if facts.overflowed:
        were, them = ("was", "it") if facts.overflowed == 1 else ("were", "them")
        yield (
            f"Of all devices together {_count(facts.overflowed, 'reading')} {were} dropped from the full journal "
            f"before this sink took {them}; this device's may be among them."
        )
    if facts.lost:
        were = "was" if facts.lost == 1 else "were"
        yield (
            f"Of all devices together {_count(facts.lost, 'reading')} {were} lost to it with damaged parts of the "
            "journal; this device's may be among them."
        )

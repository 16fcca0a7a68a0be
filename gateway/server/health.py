"""The gateway's health: the body of ``/healthz``, and the verdicts behind ``/livez`` and ``/readyz``.

What is wrong stands first, in words, with what to do.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from .. import __version__
from ..devices import DeviceBook
from ..hub import Hub
from .explain import DROPPED_HINT
from .ownclock import own_clock_problem

__all__ = ["Health", "Meter", "Problem", "RunnerView"]

log = logging.getLogger(__name__)

STUCK_S = 10.0  # a step of the writer that takes longer, or a commit that waits longer, means that it does not turn
METER_S = 5.0  # rates are means over this time
CLOCK_RULES = "GATEWAY_CLOCK__"  # in the hint of what is said of devices' clocks

Problem = dict[str, str]


class RunnerView(Protocol):
    """A sink's runner, as far as its health goes."""

    @property
    def pending(self) -> int: ...

    def health(self) -> dict[str, Any]: ...

    def stats(self) -> dict[str, float]: ...


class Meter:
    """The rate of a growing count: the mean over the last :data:`METER_S` seconds, sampled once a second."""

    def __init__(self, read: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._samples: deque[tuple[float, float]] = deque([(clock(), read())], maxlen=int(METER_S) + 1)

    def sample(self) -> None:
        """To be called once a second."""
        self._samples.append((self._clock(), self._read()))

    @property
    def rate(self) -> float:
        """Per second."""
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first else 0.0


class Health:
    """Reads every part, changes none.  ``journal`` and ``history`` give flat numbers by ``stats()``; ``others`` gives
    the problems of parts that are not among the arguments."""

    def __init__(
        self,
        *,
        id: str,
        epoch: str,
        book: DeviceBook,
        hub: Hub[Any],
        journal: Any,
        history: Any,
        runners: Sequence[tuple[str, str, RunnerView]],
        dashboards: Callable[[], dict[str, float]],
        messages: Callable[[], int],
        device_problems: Callable[[Callable[[str], bool]], list[tuple[str, str]]],
        retention_days: float,
        others: Callable[[], Iterable[Problem]] = tuple,
        now: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._id = id
        self._epoch = epoch
        self._book = book
        self._hub = hub
        self._journal = journal
        self._history = history
        self._runners = runners
        self._dashboards = dashboards
        self._device_problems = device_problems
        self._retention_days = retention_days
        self._others = others
        self._now = now
        self._monotonic = monotonic
        self._started = monotonic()
        self.readings = Meter(lambda: float(journal.stored), monotonic)
        self.messages = Meter(lambda: float(messages()), monotonic)
        # What was stored two samples ago: what came since is on its way, not behind.
        self._stored: deque[int] = deque([journal.stored], maxlen=3)
        self._refusing = ""
        self.ready = False

    def sample(self) -> None:
        """To be called once a second."""
        self._stored.append(self._journal.stored)
        self.readings.sample()
        self.messages.sample()
        problem = self.journal_problem()
        if problem and not self._refusing:
            log.warning("readings are refused: %s", problem, extra={"event": "intake_stopped", "reason": problem})
        elif self._refusing and not problem:
            log.warning("readings are taken again: the journal can be written", extra={"event": "intake_works"})
        self._refusing = problem

    def alive(self) -> str:
        """Why the gateway is stuck, in words; empty if it turns."""
        stats = self._journal.stats()
        step = stats.get("writer_step_s", 0.0)
        if step == math.inf:
            return "the journal's writer has ended: a fault in the gateway"
        waiting = stats.get("oldest_pending_s", 0.0)
        # A disk that fails has what is pending wait, while the writer turns; one that does not answer holds it.
        stuck = max(step, waiting if not stats.get("failing", 0.0) else 0.0)
        return f"the journal's writer has not turned for {stuck:.0f} s" if stuck > STUCK_S else ""

    def ready_problem(self) -> str:
        """Why the gateway cannot take readings now, in words; empty if it can.  Brokers do not count."""
        if not self.ready:
            return "the gateway is starting or stopping"
        return self.journal_problem() or self.alive()

    def journal_problem(self) -> str:
        """Why the journal takes nothing, in words; empty if it does."""
        stats = self._journal.stats()
        if not stats.get("failing", 0.0):
            return ""
        reason: str = self._journal.reason
        return reason if _is_full(stats) else f"the journal cannot be written: {reason}"

    def body(self, may_read: Callable[[str], bool] | None = None) -> dict[str, object]:
        """The body of ``/healthz``; where ``may_read`` is given, for somebody who may know of those devices alone."""
        journal = self._journal.stats()
        history = self._history.stats()
        failing = bool(journal.get("failing", 0.0))
        problems = [*self._journal_problems(journal), *self._clock_problems()]
        for part, keeper in (("journal", self._journal), ("history", self._history), ("devices", self._book)):
            problems += [
                {"part": part, "text": f"{text}.", "hint": "The gateway's log and state directory have the details."}
                for text in keeper.problems()
            ]
        problems += self._others()
        problems += self._told_of_devices(may_read or (lambda _: True))
        sinks = []
        recent = self._journal.stored - self._stored[0]
        for name, title, runner in self._runners:
            health = runner.health()
            if may_read is not None and health["reason"]:
                # A broker's or a store's words may name any device.
                health = {**health, "reason": "the reason is told to those who may read all devices", "hint": ""}
            stats = runner.stats()
            sinks.append(
                {
                    "name": name,
                    "title": title,
                    "state": health["state"] if health["state"] != "idle" else "ok",
                    "pending": health["behind"],
                    "behind": max(0, health["behind"] - recent),
                    "reason": health["reason"],
                    "hint": health["hint"],
                    "next_try_s": health["next_try_s"],
                    "delivered": int(stats["delivered"]),
                    "dead_lettered": int(health["dead_letters"]),
                    "ledger": health["ledger"],
                }
            )
            problems += _sink_problems(name, title, health)
        ledger = self._book.totals()
        return {
            "status": "failing" if failing or not self.ready else "degraded" if problems else "ok",
            "id": self._id,
            "version": __version__,
            "epoch": self._epoch,
            "time": self._now() // 1_000_000,
            "uptime_s": round(self._monotonic() - self._started, 1),
            "problems": problems,
            "devices": self._book.by_state(),
            "ingest": {
                "readings_per_s": round(self.readings.rate, 1),
                "messages_per_s": round(self.messages.rate, 1),
                "received": ledger.received,
            },
            "ledger": ledger.as_dict(),
            "journal": {
                "bytes": int(journal["bytes"]),
                "segments": int(journal["segments"]),
                "ack_ms": {
                    "p50": round(journal.get("ack_ms_p50", 0.0), 1),
                    "p99": round(journal.get("ack_ms_p99", 0.0), 1),
                },
                "pending": int(journal["pending"]),
                "state": "failing" if failing else "ok",
                "reason": self._journal.reason if failing else "",
            },
            "sinks": sinks,
            "history": {
                "pending": next((sink["pending"] for sink in sinks if sink["name"] == "history"), 0),
                "retention_days": self._retention_days,
                "bytes": int(history.get("file_bytes", 0)),
            },
            "dashboards": self._dashboards(),
        }

    def _journal_problems(self, journal: dict[str, float]) -> Iterator[Problem]:
        problem = self.journal_problem()
        if not problem:
            return
        if _is_full(journal):
            hint = f"Readings are refused until {self._holders()}, or raise GATEWAY_JOURNAL__MAX_BYTES."
        else:
            hint = "Readings are refused until it can: make room on the disk, or check it."
        yield {"part": "journal", "text": f"{_capital(problem)}.", "hint": hint}

    def _holders(self) -> str:
        """Whose readings fill the journal, in words: the sinks that are away, else the one that is furthest behind."""
        behind = [(runner.health(), title) for _, title, runner in self._runners]
        holding = [(health["behind"], title) for health, title in behind if health["behind"]]
        away = [(health["behind"], title) for health, title in behind if health["state"] in ("waiting", "stopped")]
        named = [pair for pair in away if pair[0]] or sorted(holding)[-1:]
        if not named:
            return "what the gateway still has to put into its history is there: wait a moment"
        if len(named) == 1:
            count, title = named[0]
            return f"{title} takes some of the {count:,} that wait for it: see why it does not"
        titles = ", ".join(title for _, title in named[:-1]) + f" and {named[-1][1]}"
        return f"{titles} take some of what waits for them: see why they do not"

    def _clock_problems(self) -> Iterator[Problem]:
        problem = own_clock_problem(self._now())
        if problem:
            hint = "Set it, and see that its time synchronisation works (timedatectl)."
            yield {"part": "clock", "text": f"{_capital(problem)}.", "hint": hint}

    def _told_of_devices(self, may_read: Callable[[str], bool]) -> Iterator[Problem]:
        own_clock_wrong = bool(own_clock_problem(self._now()))
        for text, hint in self._device_problems(may_read):
            # A clock that is wrong itself is no measure of theirs.
            if not (own_clock_wrong and CLOCK_RULES in hint):
                yield {"part": "devices", "text": f"{text}.", "hint": hint}


def _is_full(journal: dict[str, float]) -> bool:
    return journal["bytes"] >= journal["max_bytes"]


def _sink_problems(name: str, title: str, health: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with a sink, and what it lacks for good."""
    overflowed, lost = health["ledger"]["overflowed"], health["ledger"]["lost"]
    if health["state"] in ("waiting", "stopped"):
        wait = f" {_readings(health['behind'], 'waits', 'wait')}." if health["behind"] else ""
        there = "does not take what it gets" if health.get("reached") else "cannot be reached"
        verb = "has stopped" if health["state"] == "stopped" else there
        again = (
            "It is tried again by itself." if overflowed or lost else "Nothing is lost: it is tried again by itself."
        )
        text = f"{title} {verb}: {health['reason']}.{wait}"
        yield {"part": name, "text": text, "hint": health["hint"] or again}
    if overflowed:
        dropped = _readings(overflowed, "was", "were")
        them = "it" if overflowed == 1 else "them"
        text = f"{dropped} dropped from the full journal before {title} took {them}."
        yield {"part": name, "text": text, "hint": f"{DROPPED_HINT}."}
    if lost:
        text = f"{_readings(lost, 'was', 'were')} lost to {title} with damaged parts of the journal."
        hint = "The gateway's log has the details: check the disk. What devices still have they may send anew."
        yield {"part": name, "text": text, "hint": hint}
    if letters := health["dead_letters"]:
        text = f"{_readings(letters, f'that {title} refused was', f'that {title} refused were')} put aside."
        hint = f"`gateway dead-letters list {name}` says why; `retry` tries again, `purge` forgets."
        yield {"part": name, "text": text, "hint": hint}
    if damaged := health["dead_letters_damaged"]:
        which = "1 dead letter" if damaged == 1 else f"{damaged:,} dead letters"
        verb = "is" if damaged == 1 else "are"
        text = f"{which} of {title} {verb} damaged and cannot be tried again."
        hint = f"`gateway dead-letters show {name}` shows what can be read; `purge` forgets: check the disk."
        yield {"part": name, "text": text, "hint": hint}


def _readings(count: int, one: str, many: str) -> str:
    return f"1 reading {one}" if count == 1 else f"{count:,} readings {many}"


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"

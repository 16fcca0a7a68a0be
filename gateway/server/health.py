"""The gateway's health: the body of ``/healthz``, and the verdicts behind ``/livez`` and ``/readyz``.

What is wrong stands first, in words, with what to do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .. import __version__
from ..devices import DeviceBook
from ..hub import Hub

__all__ = ["Health", "Meter", "RunnerView"]

STUCK_S = 5.0  # a commit that takes longer than this means the writer does not turn
METER_S = 5.0  # rates are means over this time


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
    """Reads every part, changes none.  ``journal`` and ``history`` give flat numbers by ``stats()``."""

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
        device_problems: Callable[[], list[tuple[str, str]]],
        retention_days: float,
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
        self._now = now
        self._monotonic = monotonic
        self._started = monotonic()
        self.readings = Meter(lambda: float(journal.stored), monotonic)
        self.messages = Meter(lambda: float(messages()), monotonic)
        # What was stored two samples ago: what came since is on its way, not behind.
        self._stored: deque[int] = deque([journal.stored], maxlen=3)
        self.ready = False

    def sample(self) -> None:
        """To be called once a second."""
        self._stored.append(self._journal.stored)
        self.readings.sample()
        self.messages.sample()

    def alive(self) -> str:
        """Why the gateway is stuck, in words; empty if it turns."""
        waiting = self._journal.stats().get("oldest_pending_s", 0.0)
        failing = self._journal.stats().get("failing", 0.0)
        if waiting > STUCK_S and not failing:
            return f"the journal's writer has not turned for {waiting:.0f} s"
        return ""

    def ready_problem(self) -> str:
        """Why the gateway cannot take readings now, in words; empty if it can.  Brokers do not count."""
        if not self.ready:
            return "the gateway is starting or stopping"
        return self.journal_problem() or self.alive()

    def journal_problem(self) -> str:
        """Why the journal takes nothing, in words; empty if it does."""
        if self._journal.stats().get("failing", 0.0):
            return f"the journal cannot be written: {self._journal.reason}"
        return ""

    def body(self) -> dict[str, object]:
        """The body of ``/healthz``."""
        journal = self._journal.stats()
        history = self._history.stats()
        problems: list[dict[str, str]] = []
        failing = bool(journal.get("failing", 0.0))
        if failing:
            problems.append(
                {
                    "part": "journal",
                    "text": f"The journal cannot be written: {self._journal.reason}",
                    "hint": "Readings are refused until it can: make room on the disk, or check it.",
                }
            )
        for part, keeper in (("journal", self._journal), ("history", self._history), ("devices", self._book)):
            problems += [
                {"part": part, "text": f"{text}.", "hint": "The gateway's log and state directory have the details."}
                for text in keeper.problems()
            ]
        problems += [{"part": "devices", "text": f"{text}.", "hint": hint} for text, hint in self._device_problems()]
        sinks = []
        recent = self._journal.stored - self._stored[0]
        for name, title, runner in self._runners:
            health = runner.health()
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
            if health["state"] in ("waiting", "stopped"):
                behind = f" {health['behind']:,} readings wait." if health["behind"] else ""
                verb = "has stopped" if health["state"] == "stopped" else "cannot be reached"
                problems.append(
                    {
                        "part": name,
                        "text": f"{title} {verb}: {health['reason']}.{behind}",
                        "hint": health["hint"] or "Nothing is lost: it is tried again by itself.",
                    }
                )
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

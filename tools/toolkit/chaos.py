"""``tools/chaos``: each fault that a gateway meets as a named case, and whether its promises hold.

A case is a coroutine that gets a :class:`~tools.toolkit.chaos_rig.Rig` and does harm; what is wrong afterwards it notes
there.  Always the same is asked: everything acked is in history, and reaches the sinks, as it was sent and in order; no
device is told less than it was told before; ledgers add up and claim no more than is true.

Each case has controls: the daemon with a fault of its own, patched in, which the case has to find.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .chaos_rig import Cannot, Rig
from .servers import Failed

__all__ = ["CASES", "Case", "Control", "Outcome", "load", "run", "table"]

# Case to module; the module has the case in a dictionary CASES of its own.
CASES = {
    "kill9": "chaos_kill",
    "killstep": "chaos_kill",
    "shutdown": "chaos_kill",
    "powercut": "chaos_disk",
    "eio": "chaos_disk",
    "enospc": "chaos_disk",
    "full": "chaos_disk",
    "bitflip": "chaos_damage",
    "truncate": "chaos_damage",
    "gone": "chaos_damage",
    "proxy": "chaos_broker",
    "acl": "chaos_broker",
    "sigstop": "chaos_broker",
    "drain": "chaos_broker",
    "http": "chaos_http",
    "clock": "chaos_clock",
    "storm": "chaos_peers",
    "slowloris": "chaos_peers",
    "mute": "chaos_mute",
}


@dataclass(frozen=True)
class Control:
    """``patch``: Python that breaks the daemon; ``finds``: a pattern of a fault that the case then has to note."""

    patch: str
    finds: str
    rounds: int = 1
    slow: bool = False  # too slow for the tests

    def found_in(self, faults: Iterable[str]) -> bool:
        """Whether the case noted what it had to."""
        return any(re.search(self.finds, fault) for fault in faults)


@dataclass(frozen=True)
class Case:
    """``rounds`` and ``seconds`` are what it runs with unless told otherwise, ``short`` for the tests."""

    name: str
    about: str
    run: Callable[[Rig], Awaitable[None]]
    controls: dict[str, Control]
    rounds: int = 5
    seconds: float = 1.0
    limit_s: float = 60.0  # for the whole, and as much again for each round


@dataclass
class Outcome:
    """What became of a case: numbers for the table, ``faults`` in words."""

    case: str
    rounds: int
    sent: int = 0
    acked: int = 0
    stored: int = 0
    delivered: int = 0
    lost: int = 0
    seconds: float = 0.0
    skipped: str = ""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def verdict(self) -> str:
        return "skipped" if self.skipped else "FAILED" if self.faults else "ok"


def load(name: str) -> Case:
    """The case of that name."""
    found: Case = importlib.import_module(f"{__package__}.{CASES[name]}").CASES[name]
    return found


async def run(
    case: Case,
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    control: Control | None = None,
    seed: int | None = None,
    patience: float = 10.0,
) -> Outcome:
    """Run a case in a temporary directory, with a fault planted if ``control`` is one; nothing it started is left.

    ``patience``: seconds to wait for what the gateway does by itself.
    """
    outcome = Outcome(case.name, rounds or (control.rounds if control else case.rounds))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gateway-chaos-", ignore_cleanup_errors=True) as name:
        # strace and the kernel show paths without symbolic links.
        rig = Rig(
            Path(name).resolve(),
            rounds=outcome.rounds,
            seconds=seconds or case.seconds,
            patch=control.patch if control else "",
            seed=seed,
            patience=patience,
        )
        if control:
            rig.is_found = control.found_in
        try:
            async with asyncio.timeout(case.limit_s * (1 + outcome.rounds)), rig:
                await case.run(rig)
        except Cannot as reason:
            outcome.skipped = str(reason)
        except TimeoutError:
            rig.fault("the case took too long")
        except Failed as error:
            rig.fault(str(error))
        except Exception:
            rig.fault(f"the case itself broke: {traceback.format_exc()}")
        log = rig.directory / "gateway.log"
        outcome.log = log.read_text(errors="replace") if log.exists() else ""
    outcome.seconds = time.monotonic() - begin
    outcome.sent, outcome.acked = rig.past_sent + rig.fleet.sent, rig.past_acked + rig.fleet.acked
    outcome.stored = rig.past_stored + rig.stored
    outcome.delivered = min((far.count for far in rig.fars), default=0)
    outcome.lost, outcome.faults, outcome.notes = rig.lost, rig.faults, rig.notes
    return outcome


HEADINGS = ("case", "rounds", "sent", "acked", "stored", "delivered", "lost", "time", "verdict", "")


def table(outcomes: Iterable[Outcome]) -> str:
    """A row a case, in columns."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for outcome in outcomes:
        numbers = (outcome.rounds, outcome.sent, outcome.acked, outcome.stored, outcome.delivered, outcome.lost)
        words = outcome.skipped or "; ".join(outcome.notes)
        rows.append((outcome.case, *(f"{n:,}" for n in numbers), f"{outcome.seconds:.0f} s", outcome.verdict, words))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:8], widths[1:8], strict=True)),
        ]
        lines.append("  ".join([*cells, row[8].ljust(widths[8]), row[9]]).rstrip())
    return "\n".join(lines)

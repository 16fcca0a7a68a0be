"""What a journal counts since its start."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.journal.reader import Damage
    from gateway.journal.recovery import Recovered
    from gateway.journal.writer import Committed

__all__ = ["Counters", "counted", "title"]

TITLES = {"devices": "device book"}  # of cursors, where they are not their names
LATENCIES = 512  # commits whose latency is remembered

log = logging.getLogger(__name__)


def counted(count: int, thing: str) -> str:
    """A number and its word: ``1 segment``, ``1,234 segments``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def title(name: str) -> str:
    """What a cursor's reader is called in a sentence."""
    return TITLES.get(name, name)


@dataclasses.dataclass(slots=True)
class Counters:
    """Counts; bytes and seconds where the name says so."""

    commits: int = 0
    records: int = 0
    written_bytes: int = 0
    commit_seconds: float = 0.0
    sync_seconds: float = 0.0
    sync_seconds_max: float = 0.0
    failures: int = 0
    refused: int = 0
    torn_bytes: int = 0
    foreign_segments: int = 0
    damaged_segments: int = 0
    damages: int = 0
    set_aside: int = 0
    vanished: int = 0
    dropped_segments: int = 0
    removed_segments: int = 0
    places_failures: int = 0
    _latencies: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=LATENCIES))

    def opened(self, recovered: Recovered) -> None:
        """What recovery found."""
        self.torn_bytes = recovered.torn_bytes
        self.foreign_segments = recovered.foreign
        self.set_aside = recovered.set_aside
        self.vanished = recovered.vanished
        self.damaged_segments = sum(1 for segment in recovered.segments if segment.damaged_at)
        for damage in recovered.damages:
            self.noted(damage, place_is_new=True, file_is_new=False)

    def noted(self, damage: Damage, place_is_new: bool, file_is_new: bool) -> None:
        """A place that cannot be read was come across."""
        self.damages += place_is_new
        self.damaged_segments += file_is_new
        if place_is_new:
            extra = {"event": "journal_damaged", "path": damage[0], "offset": damage[2]}
            log.warning("%s is damaged at byte %d: offsets %d to %d are lost", *damage, extra=extra)

    def committed(self, committed: Committed, size: int, latency: float) -> None:
        """A group is durable: ``size`` bytes, told ``latency`` seconds after its first append."""
        self.commits += 1
        self.records += len(committed.records)
        self.written_bytes += size
        self.commit_seconds += committed.seconds
        self.sync_seconds += committed.sync_s
        self.sync_seconds_max = max(self.sync_seconds_max, committed.sync_s)
        self._latencies.append(latency)

    def problems(self) -> list[str]:
        """What was found wrong with the segments, in words."""
        problems = []
        if self.damages:
            problems.append(
                f"The journal is damaged in {counted(self.damages, 'place')}: what was stored there is lost"
            )
        elif self.damaged_segments:
            problems.append("The start of a file of the journal is damaged: nothing of it is lost")
        if self.foreign_segments:
            were = "was" if self.foreign_segments == 1 else "were"
            problems.append(f"{counted(self.foreign_segments, 'file')} of another journal {were} set aside")
        return problems

    def as_dict(self) -> dict[str, float]:
        """All of them, with ``ack_ms_p50`` and ``_p99`` over the last commits."""
        latencies = sorted(self._latencies) or [0.0]
        counts: dict[str, float] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name[0] != "_"
        }
        counts["ack_ms_p50"] = 1000 * latencies[len(latencies) // 2]
        counts["ack_ms_p99"] = 1000 * latencies[len(latencies) * 99 // 100]
        return counts

"""What a simulation tells: a line while it runs, a table or an object at the end, an exit status.

Pure.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from .histogram import Histogram

__all__ = ["NOT_REACHABLE", "REFUSED", "UNACKED", "Report"]

UNACKED = 1
NOT_REACHABLE = 69  # EX_UNAVAILABLE of sysexits.h
REFUSED = 77  # EX_NOPERM


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a fleet; readings, but for devices, notices and connections."""

    COUNTS: ClassVar[tuple[str, ...]] = (
        "taken",
        "sent",
        "acked",
        "throttled",
        "overloaded",
        "refused",
        "resent",
        "reconnects",
        "unacked",
    )

    devices: int
    connected: int  # devices, now
    reached: int  # devices that were connected at least once
    refusal: str  # why the gateway ended a device for good; empty: it did not
    reason: str = ""  # why a device was not connected at the end; empty: all were
    acks: bool = True  # whether any were asked for
    duration_s: float  # of making readings
    drain_s: float = 0.0  # of waiting for the last acks after that
    cpu_s: float  # of this process, since all were connected
    taken: int  # acked, refused and unacked, together
    sent: int  # written, each once
    acked: int
    throttled: int
    overloaded: int
    refused: int
    resent: int
    reconnects: int
    unacked: int
    skipped: int
    latency: Histogram

    @property
    def status(self) -> int:
        """The exit status: 0 all acked, 1 not all, 69 never reached, 77 never let in."""
        if not self.reached:
            return REFUSED if self.refusal else NOT_REACHABLE
        return UNACKED if self.unacked or self.refused or self.refusal else 0

    def plain(self) -> dict[str, object]:
        """For ``--json``."""
        duration = self.duration_s
        return {
            "devices": self.devices,
            "reached": self.reached,
            "duration_s": round(duration, 3),
            "drain_s": round(self.drain_s, 3),
            **{name: getattr(self, name) for name in self.COUNTS},
            "skipped": self.skipped,
            "rate_per_s": round(self.taken / duration, 1) if duration > 0 else 0.0,
            "cpu_s": round(self.cpu_s, 3),
            "ack_latency_ms": self.latency.summary(),
            "refusal": self.refusal,
        }

    def line(self) -> str:
        """Progress, in at most 120 columns or so."""
        parts = [
            f"{self.duration_s:.0f} s" + (f", draining for {self.drain_s:.0f} s" if self.drain_s else ""),
            f"{self.connected}/{self.devices} connected",
            f"{self.taken:,} readings",
            *([f"{self.acked:,} acked"] if self.acks else []),
            f"{self.unacked:,} waiting",
        ]
        for name in ("throttled", "overloaded", "refused", "resent", "reconnects", "skipped"):
            count = getattr(self, name)
            if count:
                parts.append(f"{count:,} {name}")
        if self.latency.count:
            parts.append(f"ack p99 {_ms(self.latency.percentile(99))}")
        return "  ".join(parts)

    def table(self) -> str:
        """The end's table: a name and a value a line."""
        duration = self.duration_s
        rate = f", {self.taken / duration:,.0f} a second" if duration > 0 else ""
        unsent = max(0, self.taken - self.sent)
        rows = [
            ("devices", f"{self.devices:,}"),
            (
                "duration",
                f"{duration:.1f} s" + (f", and {self.drain_s:.1f} s for the rest" if self.drain_s >= 0.05 else ""),
            ),
        ]
        if self.acks:
            rows += [
                ("readings", f"{self.taken:,}  (acked + refused + unacked{rate})"),
                ("sent", f"{self.sent:,}"),
                ("acked", f"{self.acked:,}"),
                ("refused", f"{self.refused:,}"),
                ("unacked", f"{self.unacked:,}" + (f"  ({unsent:,} of them never sent)" if unsent else "")),
            ]
        else:
            rows += [
                ("readings", f"{self.taken:,}  (sent + unsent{rate})"),
                ("sent", f"{self.sent:,}"),
                ("unsent", f"{self.unacked:,}"),
                ("refused", f"{self.refused:,}"),
            ]
        rows += [
            ("resent", f"{self.resent:,}"),
            ("throttled", f"{self.throttled:,}  (notices)"),
            ("overloaded", f"{self.overloaded:,}  (notices)"),
            ("skipped", f"{self.skipped:,}" + ("  (due and not made)" if self.skipped else "")),
            ("reconnects", f"{self.reconnects:,}"),
        ]
        if self.latency.count:
            rows += [(f"ack latency p{percent}", _ms(self.latency.percentile(percent))) for percent in (50, 90, 99)]
            rows.append(("ack latency max", _ms(self.latency.max)))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        if self.refusal:
            lines.append(f"The gateway ended a device for good: {self.refusal}")
        return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms" if seconds < 10 else f"{seconds:,.1f} s"

"""Whether the gateway's own clock can be right: a machine without a battery starts in 1970, or where it last stood.

Pure.  While it is wrong, it says nothing of anybody else's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["own_clock_problem"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SET_NS = 1_577_836_800 * 1_000_000_000  # 2020-01-01: no gateway ran before


def own_clock_problem(now: int) -> str:
    """What is wrong with a clock at ``now`` (nanoseconds since the epoch), in words; empty if it may be right."""
    if now >= SET_NS:
        return ""
    stands = EPOCH + timedelta(microseconds=max(0, now) // 1000)
    return f"the gateway's own clock stands at {stands:%Y-%m-%d %H:%M} UTC: times of receipt are wrong until it is set"

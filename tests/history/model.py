"""What the history must answer, as a plain list."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.reading import Batch, Item, Reading, Value

Row = tuple[int, str, str, Value]


def exact(value: Value) -> tuple[str, Value]:
    """Compares a number only with numbers, a boolean only with booleans."""
    kind = type(value)
    return ("bool" if kind is bool else "text" if kind is str else "number"), value


def strict(rows: Iterable[Sequence[object]]) -> list[tuple[object, ...]]:
    """Rows, the values of which are compared by ``exact``."""
    return [(*row[:-1], exact(row[-1])) for row in rows]  # type: ignore[arg-type]


def matches(globs: str | Iterable[str], name: str) -> bool:
    """``*`` any characters, ``?`` one; any of several globs."""
    expressions = [re.escape(glob) for glob in ([globs] if isinstance(globs, str) else globs)]
    return any(
        re.fullmatch(expression.replace(r"\*", ".*").replace(r"\?", "."), name, re.DOTALL) for expression in expressions
    )


def reduce(values: list[Value], agg: str) -> Value | None:
    """One value of a bucket's values, in their order."""
    if agg == "count":
        return len(values)
    if agg == "last":
        return values[-1]
    numbers = [int(value) if type(value) is bool else value for value in values if type(value) is not str]
    if not numbers:
        return None
    if agg == "min":
        return min(numbers)
    if agg == "max":
        return max(numbers)
    return math.fsum(number / len(numbers) for number in numbers)


class Model:
    """A list of (time, number of arrival, device, metric, received, value)."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, str, str, int, Value]] = []
        self.end = 0

    def write(self, batch: Batch) -> None:
        for offset, item in enumerate(batch.items, batch.base):
            if offset >= self.end and isinstance(item, Reading):
                for metric, value in item.values.items():
                    self.rows.append((item.time, len(self.rows), item.device, metric, item.received, value))
        self.end = max(self.end, batch.end)

    def query(
        self,
        *,
        start: int,
        end: int,
        devices: str | Iterable[str] = "*",
        metrics: str | Iterable[str] = "*",
        step: int | None = None,
        agg: str = "mean",
        limit: int = 100_000,
    ) -> tuple[list[Row], bool]:
        found = [
            row for row in self.rows if start <= row[0] < end and matches(devices, row[2]) and matches(metrics, row[3])
        ]
        found.sort(key=lambda row: (row[0], row[2], row[3], row[1]))
        rows: list[Row] = [(time, device, metric, value) for time, _, device, metric, _, value in found]
        if step is not None:
            buckets: dict[tuple[int, str, str], list[Value]] = {}
            for time, device, metric, value in rows:
                buckets.setdefault((time - time % step, device, metric), []).append(value)
            reduced = [(*key, reduce(values, agg)) for key, values in sorted(buckets.items())]
            rows = [(time, device, metric, value) for time, device, metric, value in reduced if value is not None]
        return rows[:limit], len(rows) > limit

    def latest(self) -> list[tuple[str, str, int, int, Value]]:
        newest: dict[tuple[str, str], tuple[int, int, str, str, int, Value]] = {}
        for row in sorted(self.rows, key=lambda row: row[:2]):
            newest[row[2:4]] = row
        return [(device, metric, row[0], row[4], row[5]) for (device, metric), row in sorted(newest.items())]


def reading(device: str, time: int, values: dict[str, Value], received: int | None = None) -> Reading:
    return Reading(device, "s", 0, time, time if received is None else received, values)


def batch(base: int, items: list[Item]) -> Batch:
    return Batch(base, items, sum(isinstance(item, Reading) for item in items))


def crashed(path: Path, to: Path) -> Path:
    """The file as it would be found after a power cut now: what was synced, nothing of what is in memory."""
    to.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        if (path.parent / name).exists():
            shutil.copy(path.parent / name, to / name)
    return to / path.name

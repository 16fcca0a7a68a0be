"""The command ``export``: all rows, in pages."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.history import History
from gateway.reading import Reading, Value
from gateway.server import exporting
from gateway.server.exporting import Exporter
from tests.history.model import Model, batch, reading

SECOND = 10**9


async def items(history: History, **params: Any) -> list[Any]:
    exporter = Exporter(history, lambda device, metric: metric == "n")
    return [item async for item in exporter.export(params)]


async def filled(path: Path, readings: list[Reading]) -> tuple[History, Model]:
    history, model = History(path, retention_days=0), Model()
    await history.open()
    for start in range(0, len(readings), 50):
        one = batch(start, list(readings[start : start + 50]))
        model.write(one)
        await history.write(one)
        if start % 3 == 0:
            await history.flush()
    return history, model


def some() -> list[Reading]:
    """Of one device much, of one much at one time, and of many little."""
    rows = [reading("big", n // 3 * SECOND, {"m": n / 10, "n": n, "t": "x"}) for n in range(300)]
    rows += [reading("same", 5 * SECOND, {f"m{n % 40}": n}) for n in range(120)]
    return rows + [reading(f"d{n % 90}", n * SECOND, {"m": n, "on": n % 2 == 0}) for n in range(200)]


@pytest.mark.parametrize("page", [7, 50, 100_000])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"device": "d?", "metric": "m"},
        {"from": 20 * SECOND + 1, "to": 70 * SECOND},
        {"step": 10 * SECOND, "from": 5 * SECOND + 7},
        {"step": 1000 * SECOND, "agg": "last"},
        {"step": 1, "agg": "count"},
        {"device": "none"},
    ],
)
async def test_pages_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int, params: Any) -> None:
    """Whatever a page holds, each row comes once, device by device, those of each as a question gives them."""
    monkeypatch.setattr(exporting, "PAGE", page)
    monkeypatch.setattr(exporting, "PIECE", 13)
    history, _ = await filled(tmp_path / "history.db", some())
    head, *pieces, end = await items(history, **params)
    found = [(at, piece["device"], metric, value) for piece in pieces for at, metric, value in piece["rows"]]
    names = {"start": "from", "end": "to", "step": "step", "agg": "agg", "devices": "device", "metrics": "metric"}
    question: dict[str, Any] = {"start": 0, "end": 1 << 62}
    question |= {name: params[key] for name, key in names.items() if key in params}
    right, _ = await history.query(**question, limit=1_000_000)
    assert found == sorted(right, key=lambda row: row[1])
    assert end == {"rows": len(right), "whole_from": None}
    assert head["devices"] >= len({row[1] for row in right})
    assert [piece["done"] for piece in pieces] == sorted(piece["done"] for piece in pieces)
    assert all(len(piece["rows"]) <= 13 for piece in pieces)
    assert all(piece["integers"] == [metric for _, metric, _ in piece["rows"] if metric == "n"][:1] for piece in pieces)
    await history.close()


async def test_it_is_of_the_moment_at_which_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while it goes on is not part of it, whatever is flushed, merged or put into rollups meanwhile."""
    monkeypatch.setattr(exporting, "PAGE", 10)
    history, model = await filled(tmp_path / "history.db", some()[:300])
    count = 0
    async for item in Exporter(history, lambda *_: False).export({"device": "big"}):
        count += len(item["rows"]) if "device" in item else 0  # type: ignore[index, operator]
        await history.write(batch(history.end, [reading("big", history.end, {"m": 0, "late": 1})]))
        await history.flush()
    assert count == len(model.rows)
    await history.close()


async def test_coarser_buckets_come_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where minutes stand for readings that are gone, a step that does not fit them gives each once, and it is said."""
    monkeypatch.setattr(exporting, "PAGE", 3)
    values: dict[str, Value] = {"m": 1, "n": 2}
    start = 1_700_000_040 * SECOND
    history, _ = await filled(tmp_path / "h.db", [reading("a", start + n * SECOND, values) for n in range(3000)])
    await history.close()
    history = History(tmp_path / "h.db", retention_days=1, clock=lambda: start / SECOND + 2 * 86_400)
    await history.open()
    async with asyncio.timeout(20):
        while not history.stats()["chunks_expired"]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    _, *pieces, end = await items(history, step=7 * SECOND, agg="count")
    counts = [value for piece in pieces for _, _, value in piece["rows"]]
    assert sum(counts) == 6000
    assert end["rows"] == len(counts) >= 100
    assert end["whole_from"] is not None
    await history.close()


@pytest.mark.parametrize("params", [{"device": ""}, {"step": 0}, {"agg": "median"}, {"from": "now"}, {"limit": 5}])
async def test_parameters_that_are_none_are_refused(tmp_path: Path, params: Any) -> None:
    """Before anything is read."""
    with pytest.raises(msgspec.ValidationError):
        await items(History(tmp_path / "history.db"), **params)

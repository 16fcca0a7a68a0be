"""Resuming in ``every`` from before what the gateway remembers: the journal has it, or it is said that it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import JournalError
from gateway.hub import hub as hub_module
from gateway.reading import Batch
from tests.running import Running, acked, gateway, receive, send
from tests.server.feeding import FAST, Feed, feed

TOTAL = 5000


@pytest.fixture
async def gw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A gateway that remembers little."""
    monkeypatch.setattr(hub_module, "RECENT_MAX", 200)
    async with gateway(tmp_path, **FAST) as running:
        yield running


async def past(gw: Running, one: Feed, ws: Any) -> int:
    """Send 1 to TOTAL from device a; the offset before them."""
    await receive(ws, "welcome")
    await send(ws, {"n": 0, "m": 0, "seq": 1})
    await acked(ws, 1)
    begin = (await one.subscribe(id="x", devices=["a"]))["offset"]
    await one.ask({"type": "unsubscribe", "id": "x"})
    for first in range(1, TOTAL, 1000):
        await send(ws, [{"n": n, "m": -n, "seq": n + 1} for n in range(first, first + 1000)])
    await acked(ws, TOTAL + 1)
    return int(begin)


async def values(one: Feed, last: int, after: int = -1) -> list[int]:
    """Those of all updates until one has ``last``; their offsets ascend."""
    found: list[int] = []
    while found[-1:] != [last]:
        update = await one.next("update")
        assert update["offset"] > after
        after = update["offset"]
        found += [value for _, value in update["data"]["a"]["n"]]
    return found


@pytest.mark.parametrize(("pieces", "history_s"), [(1000, 0), (7, 0), (1000, 3600), (100, 3600)])
async def test_what_the_journal_has(
    gw: Running, monkeypatch: pytest.MonkeyPatch, pieces: int, history_s: float
) -> None:
    """All of it comes, once and in order, then what comes meanwhile and later; of what is covered alone.  With history
    all before it is there."""
    monkeypatch.setattr("gateway.server.paging.PAGE_BYTES", 30_000 if pieces == 100 else 400_000)
    monkeypatch.setattr("gateway.server.resuming.PIECE", pieces)
    async with feed(gw) as one, gw.device("a") as ws, gw.device("b") as other:
        begin = await past(gw, one, ws)
        if pieces == 1000:
            await gw.rows("a", metric="n", until=TOTAL + 1)
        await receive(other, "welcome")
        await send(other, {"n": 0})
        after = begin + (1000 if pieces == 1000 else TOTAL - 500)
        first = after - begin + 1

        async def go_on() -> None:
            for n in range(TOTAL + 1, TOTAL + 601):
                await send(ws, {"n": n, "m": -n, "seq": n + 1})
                if n % 20 == 0:
                    await asyncio.sleep(0.005)

        going_on = asyncio.create_task(go_on())
        snapshot = await one.subscribe(
            devices=["a"],
            metrics=["n"],
            mode="every",
            interval_ms=50,
            epoch=one.hello["epoch"],
            after=after,
            history_s=history_s,
        )
        assert (snapshot["recovered"], snapshot["offset"]) == (True, after)
        past_values: list[int] = []
        last = not history_s
        while not last:
            message = await one.next("history")
            past_values += [value for _, value in message["data"].get("a", {}).get("n", [])]
            last = message["last"]
            assert message.get("complete", True)
        assert past_values == (list(range(first)) if history_s else [])
        assert await values(one, TOTAL + 600, after) == list(range(first, TOTAL + 601))
        await going_on
        await acked(ws, TOTAL + 601)


async def test_what_the_journal_has_let_go_of(gw: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once where it is known, and by a new snapshot where it goes meanwhile, or cannot be read."""
    assert gw.app.live is not None
    journal = gw.app.live.journal
    async with feed(gw) as one, gw.device("a") as ws:
        begin = await past(gw, one, ws)
        request = {"devices": ["a"], "mode": "every", "interval_ms": 50, "epoch": one.hello["epoch"], "after": begin}
        oldest = begin + 100
        monkeypatch.setattr(type(journal), "oldest_offset", property(lambda self: oldest))
        assert (await one.subscribe(id="1", **request))["recovered"] is False
        read_from = type(journal).read_from

        async def goes(self: Any, offset: int, max_readings: int = 1000) -> Batch | None:
            nonlocal oldest
            found: Batch | None = await read_from(self, offset, 500)
            if found is not None and offset > begin + 1000:
                oldest = begin + 2500
                found = await read_from(self, max(offset, oldest), 500)
            return found

        async def fails(self: Any, offset: int, max_readings: int = 1000) -> Batch | None:
            raise JournalError("no disk")

        for id, bad in (("2", goes), ("3", fails)):
            oldest = begin
            monkeypatch.setattr(type(journal), "read_from", bad)
            assert (await one.subscribe(id=id, **request))["recovered"] is True
            while (message := await one.next())["type"] == "update":
                assert message["id"] == id
            assert (message["type"], message["id"], message["recovered"]) == ("snapshot", id, False)
            assert message["devices"]["a"]["values"]["n"][1] == TOTAL
            monkeypatch.setattr(type(journal), "read_from", read_from)
        oldest = begin
        monkeypatch.setattr(type(journal), "read_from", goes)
        await gw.rows("a", metric="n", until=TOTAL + 1)
        assert (await one.subscribe(id="4", history_s=3600, **request))["recovered"] is True
        while not (await one.next("history"))["last"]:
            pass
        while (message := await one.next())["type"] == "update":
            pass
        assert (message["type"], message["id"], message["recovered"]) == ("snapshot", "4", False)
        again: list[int] = []
        while again[-1:] != [TOTAL]:
            again += [value for _, value in (await one.next("history"))["data"]["a"].get("n", [])]
        assert again == list(range(TOTAL + 1))
        monkeypatch.setattr(type(journal), "read_from", read_from)
        for id in "123":
            await one.ask({"type": "unsubscribe", "id": id})
        await send(ws, {"n": TOTAL + 1, "m": 0, "seq": TOTAL + 2})
        assert await values(one, TOTAL + 1) == [TOTAL + 1]


async def test_a_reader_that_is_slow_and_one_that_never_reads(gw: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not read costs no more than a piece; after a while the subscription begins anew."""
    monkeypatch.setattr("gateway.server.live.HISTORY_S", 0.5)
    monkeypatch.setattr("gateway.server.live.HISTORY_PENDING", -1)
    async with feed(gw) as one, gw.device("a") as ws:
        begin = await past(gw, one, ws)
        request = {"devices": ["a"], "mode": "every", "interval_ms": 50, "epoch": one.hello["epoch"], "after": begin}
        assert (await one.subscribe(id="x", **request))["recovered"] is True
        again = await one.next("snapshot")
        assert (again["id"], again["recovered"]) == ("x", False)
        await send(ws, {"n": TOTAL + 1, "m": 0, "seq": TOTAL + 2})
        assert await values(one, TOTAL + 1, again["offset"]) == [TOTAL + 1]


async def test_ended_meanwhile(gw: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription that ends, or is replaced, while what it missed is read, gets no more of it."""
    monkeypatch.setattr("gateway.server.resuming.PIECE", 50)
    async with feed(gw) as one, gw.device("a") as ws:
        begin = await past(gw, one, ws)
        request = {"devices": ["a"], "mode": "every", "interval_ms": 50, "epoch": one.hello["epoch"], "after": begin}
        await one.ask({"type": "subscribe", "id": "x", **request}, {"type": "unsubscribe", "id": "x"})
        assert (await one.next("snapshot"))["recovered"] is True
        await one.quiet()

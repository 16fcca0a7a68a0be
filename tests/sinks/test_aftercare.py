"""Dead letters looked after while the runner works: shown, purged, tried again."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.reading import Batch, Item
from gateway.sinks.base import Refused, Rejected, Stopped, Unavailable
from gateway.sinks.deadletters import DeadLetters
from gateway.sinks.runner import Runner

from .far import FarSide, make, running, until
from .memory import MemoryCursor, reading


class Bad:
    """A far side that refuses the numbers in ``bad``: a whole batch for one of them, or by name."""

    def __init__(self, *bad: int, by_name: bool = False) -> None:
        self.bad = set(bad)
        self.by_name = by_name
        self.reason = "no"

    def __call__(self, batch: Batch) -> Exception | None:
        found = [index for index, item in enumerate(batch.items) if number(item) in self.bad]
        if not found:
            return None
        return Rejected(dict.fromkeys(found, self.reason)) if self.by_name else Refused(self.reason)


def number(item: Item) -> int:
    return item.values["n"] if hasattr(item, "values") else -1  # type: ignore[return-value]


def setting(path: Path, count: int, bad: Bad, **more: object) -> tuple[FarSide, MemoryCursor, DeadLetters, Runner]:
    sink, cursor, letters = FarSide(), MemoryCursor(count), DeadLetters(path / "far")
    sink.always = bad
    return sink, cursor, letters, make(sink, cursor, dead_letters=letters, **more)


@pytest.mark.parametrize("by_name", [False, True])
async def test_taken_letters_are_gone_and_counted_as_delivered(tmp_path: Path, by_name: bool) -> None:
    """What the far side takes at another try leaves the file, in order; what it refuses stays with the new reason."""
    bad = Bad(2, 3, 11, 17, 30, by_name=by_name)
    sink, cursor, letters, runner = setting(tmp_path, 40, bad)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        assert runner.ledger() == {
            "stored": 40, "delivered": 35, "pending": 0, "dead_lettered": 5, "overflowed": 0, "lost": 0,
        }  # fmt: skip
        assert (await runner.dead_letter_summary())["reasons"] == {"no": 5}
        bad.bad, bad.reason = {11}, "still no"
        sink.items.clear()
        assert await runner.dead_letters_retry() == {"delivered": 4, "left": 1, "reason": "still no"}
        assert sink.items == [reading(n) for n in (2, 3, 17, 30)]
        assert [(letter.offset, letter.reason) for letter in await runner.dead_letters_list()] == [(11, "still no")]
        assert runner.health()["ledger"] == {
            "stored": 40, "delivered": 39, "pending": 0, "dead_lettered": 1, "overflowed": 0, "lost": 0,
        }  # fmt: skip
        assert await runner.dead_letters_retry({5}) == {"delivered": 0, "left": 0, "reason": ""}
        bad.bad = set()
        assert await runner.dead_letters_retry({11}) == {"delivered": 1, "left": 0, "reason": ""}
        assert not letters.path.exists()
    assert runner.stats()["dead_lettered"] == 0


async def test_some_are_listed(tmp_path: Path) -> None:
    """By number, offset and device."""
    _, cursor, _, runner = setting(tmp_path, 30, Bad(*range(10)))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        assert [letter.offset for letter in await runner.dead_letters_list(3)] == [0, 1, 2]
        assert [letter.offset for letter in await runner.dead_letters_list(offsets={7, 2})] == [2, 7]
        assert [letter.offset for letter in await runner.dead_letters_list(device="d-4")] == [4]


async def test_purged_letters_stay_counted(tmp_path: Path) -> None:
    """Who forgets a letter has not delivered it."""
    _, cursor, _, runner = setting(tmp_path, 30, Bad(*range(10)))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        assert await runner.dead_letters_purge({3, 4, 77}) == 2
        assert await runner.dead_letters_purge() == 8
        assert runner.ledger()["dead_lettered"] == 10
        assert runner.health()["dead_letters"] == 0


@pytest.mark.parametrize("error", [Unavailable("away"), Stopped("HTTP 401", hint="check the token")])
async def test_far_side_that_is_away_leaves_them(tmp_path: Path, error: Exception) -> None:
    """Nothing is lost of a letter that cannot be tried, and it is said why."""
    sink, cursor, letters, runner = setting(tmp_path, 10, Bad(1, 2), retry_least_s=3600.0, retry_most_s=3600.0)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        sink.always = lambda batch: error
        assert await runner.dead_letters_retry() == {"delivered": 0, "left": 2, "reason": str(error)}
        assert runner.reason == str(error)
        sink.readies = [type(error)("still away")]  # type: ignore[call-arg]
        assert (await runner.dead_letters_retry())["reason"] == "still away"
        sink.always = None
        assert await runner.dead_letters_retry() == {"delivered": 2, "left": 0, "reason": ""}
    assert letters.count == 0


async def test_retry_takes_a_bounded_time(tmp_path: Path) -> None:
    """A far side that hangs holds nobody up who asks; the letters stay."""
    sink, cursor, letters, runner = setting(tmp_path, 10, Bad(1, 2))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        sink.block = asyncio.Event()
        found = await runner.dead_letters_retry(timeout_s=0.05)
        assert found == {"delivered": 0, "left": 2, "reason": "not done within 0.05 s"}
        sink.block.set()
    assert letters.count == 2


async def test_live_stream_waits_for_a_batch_of_letters_at_most(tmp_path: Path) -> None:
    """While hundreds of letters are tried again, batches of the live stream go between them, one after each."""
    bad = Bad(*range(300))
    sink, cursor, letters, runner = setting(tmp_path, 300, bad, refused_in_a_row=1000)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        bad.bad = set()
        for n in range(200):
            cursor.append(reading(1000 + n))
        sink.batches.clear()
        sink.written.clear()
        assert (await runner.dead_letters_retry())["delivered"] == 300
        await until(lambda: cursor.pending == 0)
    kinds = "".join("L" if base >= 300 else "d" for base, _ in sink.batches)
    assert "ddd" not in kinds.rstrip("d"), kinds
    assert [n for n in sink.written if n >= 300] == list(range(300, 500))
    assert [n for n in sink.written if n < 300] == list(range(300))
    assert letters.count == 0


async def test_one_retry_at_a_time(tmp_path: Path) -> None:
    """A second one is refused in words."""
    sink, cursor, _, runner = setting(tmp_path, 10, Bad(1, 2))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        sink.block = asyncio.Event()
        sink.batches.clear()
        first = asyncio.create_task(runner.dead_letters_retry())
        await until(lambda: sink.batches)
        with pytest.raises(GatewayError, match="already"):
            await runner.dead_letters_retry()
        sink.always = None
        sink.block.set()
        assert (await first)["delivered"] == 2


@pytest.mark.parametrize("offsets", [None, {1}])
async def test_nothing_is_purged_while_letters_are_tried(tmp_path: Path, offsets: set[int] | None) -> None:
    """A purge meanwhile is refused in words, since it would take what was just delivered for a letter still."""
    sink, cursor, letters, runner = setting(tmp_path, 10, Bad(1, 2))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        sink.always, sink.block = None, asyncio.Event()
        sink.batches.clear()
        first = asyncio.create_task(runner.dead_letters_retry())
        await until(lambda: sink.batches)
        with pytest.raises(GatewayError, match="being tried again") as caught:
            await runner.dead_letters_purge(offsets)
        assert caught.value.hint == "purge them when that is done"
        assert letters.count == 2
        sink.block.set()
        assert (await first)["delivered"] == 2
        assert await runner.dead_letters_purge() == 0
        assert (runner.ledger()["delivered"], runner.ledger()["dead_lettered"]) == (10, 0)


async def test_nothing_is_tried_while_letters_are_purged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round, too, and a second purge waits for nobody."""
    _, cursor, letters, runner = setting(tmp_path, 10, Bad(1, 2))
    slow, purge = threading.Event(), letters.purge

    def purge_slowly() -> int:
        slow.wait(5)
        return purge()

    monkeypatch.setattr(letters, "purge", purge_slowly)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        first, second = (asyncio.create_task(runner.dead_letters_purge()) for _ in range(2))
        await asyncio.sleep(0)
        with pytest.raises(GatewayError, match="being purged"):
            await runner.dead_letters_retry()
        slow.set()
        assert sorted([await first, await second]) == [0, 2]
        assert (await runner.dead_letters_retry())["delivered"] == 0


async def test_who_asked_and_went_leaves_the_counts_right(tmp_path: Path) -> None:
    """A request that is cancelled notes what was taken until then."""
    sink, cursor, letters, runner = setting(tmp_path, 30, Bad(*range(25)), refused_in_a_row=1000)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        sink.always = lambda batch: sink.block.clear() if sink.block else None  # type: ignore[func-returns-value]
        sink.block = asyncio.Event()
        sink.block.set()
        sink.batches.clear()
        task = asyncio.create_task(runner.dead_letters_retry())
        await until(lambda: len(sink.batches) == 2)
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: letters.count == 15)
        sink.block.set()
        await until(lambda: runner.ledger()["dead_lettered"] == 15)
        assert runner.ledger()["delivered"] == 15


async def test_retry_makes_room_where_the_letters_were_full(tmp_path: Path) -> None:
    """A sink that stands because no more can be put aside goes on by itself once letters were taken, or purged."""
    bad = Bad(0, 1, 2, 3, 5, 7)
    _, cursor, letters, runner = setting(tmp_path, 9, bad)
    letters._max_bytes = 4 * 170
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert "full" in runner.reason
        bad.bad -= {1, 2}
        assert (await runner.dead_letters_retry())["delivered"] == 2
        await until(lambda: cursor.pending == 0)
        assert [letter.offset for letter in letters.read()] == [0, 3, 5, 7]
        bad.bad = {9}
        cursor.append(reading(9))
        await until(lambda: runner.state == "stopped")
        await runner.dead_letters_purge({0})
        await until(lambda: cursor.pending == 0)
    assert runner.ledger()["dead_lettered"] == 5


async def test_stopped_gateway_tries_nothing(tmp_path: Path) -> None:
    """Before it runs and after it has stopped, a retry says so; reading and purging work."""
    bad = Bad(1, 2)
    _, cursor, letters, runner = setting(tmp_path, 10, bad)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert await runner.dead_letters_retry() == {"delivered": 0, "left": 2, "reason": "the sink has stopped"}
    idle = make(FarSide(), MemoryCursor(0), dead_letters=letters)
    assert (await idle.dead_letters_retry())["reason"] == "the sink does not run"
    assert await idle.dead_letters_purge() == 2
    with pytest.raises(GatewayError, match="keeps no dead letters"):
        await make(FarSide(), MemoryCursor(0)).dead_letter_summary()


async def test_stop_ends_a_retry(tmp_path: Path) -> None:
    """A stop does not wait for letters; what was taken is noted."""
    sink, cursor, letters, runner = setting(tmp_path, 30, Bad(*range(25)), refused_in_a_row=1000)
    task = asyncio.create_task(runner.run())
    await until(lambda: cursor.pending == 0)
    sink.always = lambda batch: sink.block.clear() if sink.block else None  # type: ignore[func-returns-value]
    sink.block = asyncio.Event()
    sink.block.set()
    sink.batches.clear()
    asked = asyncio.create_task(runner.dead_letters_retry())
    await until(lambda: len(sink.batches) == 2)
    await runner.stop(0.05)
    assert await asked == {"delivered": 10, "left": 15, "reason": "the gateway is stopping"}
    assert (task.done(), letters.count, cursor.dead_lettered) == (True, 15, 15)


async def test_damaged_letters_are_shown_and_never_delivered(tmp_path: Path) -> None:
    """A letter that the disk changed is counted apart; a retry passes it over, and leaves it."""
    bad = Bad(1, 2)
    sink, cursor, letters, runner = setting(tmp_path, 10, bad)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    letters.path.write_bytes(letters.path.read_bytes().replace(b'"n":2', b'"n":3'))
    again = make(sink, cursor, dead_letters=DeadLetters(letters.path))
    bad.bad = set()
    sink.items.clear()
    async with running(again):
        await until(lambda: sink.opened == 2)
        assert (await again.dead_letters_retry())["delivered"] == 1
    assert sink.items == [reading(1)]
    assert (again.health()["dead_letters"], again.health()["dead_letters_damaged"]) == (1, 1)

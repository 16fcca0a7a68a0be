"""What became of each reading of a sink: the counts are right at all times, over crashes and retries."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.journal import Journal
from gateway.reading import Batch, Mark, Reading
from gateway.sinks.base import Refused, Rejected, Unavailable
from gateway.sinks.deadletters import DeadLetters
from gateway.sinks.runner import Runner

from .far import FarSide, make, running, until
from .memory import MemoryCursor, reading


def adds_up(runner: Runner) -> dict[str, int]:
    ledger = runner.ledger()
    stored = ledger.pop("stored")
    assert stored == sum(ledger.values()), (stored, ledger)
    assert all(count >= 0 for count in ledger.values()), ledger
    return ledger


class Whims:
    """A far side of which each reading's fate is drawn: poison for ever, poison for a while, or good."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.mended = False

    def is_bad(self, n: int) -> bool:
        fate = random.Random(self.seed * 7919 + n).random()
        return fate < 0.05 or (fate < 0.15 and not self.mended)

    def __call__(self, batch: Batch) -> Exception | None:
        bad = {
            index: f"refused {self.rng.randrange(3)}"
            for index, item in enumerate(batch.items)
            if type(item) is Reading and self.is_bad(item.values["n"])  # type: ignore[arg-type]
        }
        draw = self.rng.random()
        if draw < 0.1:
            return Unavailable("away")
        if not bad:
            return None
        if draw < 0.5:
            return Refused("no")
        return Rejected(bad, rest_safe=draw < 0.7)


async def shaken(seed: int, count: int, path: Path) -> None:
    """Readings go through crashes, retries and purges; at each step the sum holds, at the end every count is exact."""
    rng = random.Random(seed)
    marks = frozenset(n for n in range(count) if rng.random() < 0.1)
    cursor = MemoryCursor(count, lambda n: Mark("d", "s", n) if n in marks else reading(n), others=marks)
    kept = cursor.place
    sink, whims = FarSide(), Whims(seed)
    sink.always = whims
    purged = 0
    while True:
        letters = DeadLetters(path / "far", ledger="j-0")
        runner = make(sink, cursor, dead_letters=letters, refused_in_a_row=10**6, max_readings=rng.choice((3, 10, 40)))
        task = asyncio.create_task(runner.run())
        for _ in range(rng.randrange(60)):
            await asyncio.sleep(0.0005)
            adds_up(runner)
            if rng.random() < 0.2:
                kept = cursor.place
            if rng.random() < 0.05:
                await runner.dead_letters_retry(timeout_s=1)
            if rng.random() < 0.02 and letters.count > 3:
                some = [letter.offset for letter in letters.read(2)]
                purged += await runner.dead_letters_purge(set(some) - letters.uncounted)
        if cursor.pending == 0:
            break
        task.cancel()  # a crash: what the place on disk said last is what there is
        await asyncio.wait({task})
        cursor.go_back(kept)
    left = {letter.offset for letter in letters.read()}
    ledger = adds_up(runner)
    readings = set(range(count)) - marks
    assert ledger["pending"] == 0
    assert left | {item.values["n"] for item in sink.items} >= readings if not purged else True
    # A crash between may claim less than is true, never more: what was taken by a retry and is counted as put aside.
    assert ledger["dead_lettered"] >= len(left)
    assert ledger["delivered"] <= len({item.values["n"] for item in sink.items} - left)
    whims.mended = True
    whims.rng = random.Random(1)
    for _ in range(50):
        await runner.dead_letters_retry(timeout_s=1)
    last = {letter.offset for letter in letters.read()}
    assert last == {n for n in left if whims.is_bad(n)}
    after = adds_up(runner)
    assert after["dead_lettered"] == ledger["dead_lettered"] - len(left - last)
    await runner.stop(1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), count=st.integers(1, 150))
def test_sum_holds_whatever_happens(seed: int, count: int) -> None:
    """Rejections, refusals, outages, crashes, retries and purges in any order: each reading counts once."""
    path = Path(tempfile.mkdtemp())
    try:
        asyncio.run(shaken(seed, count, path))
    finally:
        shutil.rmtree(path)


async def test_letter_whose_count_a_crash_lost_is_counted_when_it_comes_again(tmp_path: Path) -> None:
    """Put aside, then a crash before its place was kept: once more refused it is one letter, counted once."""
    cursor = MemoryCursor(10)
    kept = cursor.place
    for _ in range(2):
        cursor.go_back(kept)
        sink, letters = FarSide(), DeadLetters(tmp_path / "far")
        sink.always = lambda batch: Refused("no") if batch.base <= 4 < batch.end else None
        runner = make(sink, cursor, dead_letters=letters)
        async with running(runner):
            await until(lambda: cursor.pending == 0)
        assert adds_up(runner) == {"delivered": 9, "pending": 0, "dead_lettered": 1, "overflowed": 0, "lost": 0}
        assert letters.count == 1


async def test_letter_of_what_was_taken_after_a_crash_is_no_letter(tmp_path: Path) -> None:
    """Put aside, a crash, and then taken: it is delivered, and nothing of it stays in the file."""
    cursor = MemoryCursor(10)
    kept = cursor.place
    letters = DeadLetters(tmp_path / "far")
    sink = FarSide(Rejected({4: "no"}, rest_safe=True))
    async with running(make(sink, cursor, dead_letters=letters)):
        await until(lambda: cursor.pending == 0)
    cursor.go_back(kept)
    again = DeadLetters(tmp_path / "far")
    runner = make(FarSide(), cursor, dead_letters=again)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert adds_up(runner) == {"delivered": 10, "pending": 0, "dead_lettered": 0, "overflowed": 0, "lost": 0}
    assert list(again.read()) == []


async def test_letters_of_another_count_take_nothing_from_this_one(tmp_path: Path) -> None:
    """Letters that stood there before the sink's place began are delivered by a retry, and were never counted."""
    old = DeadLetters(tmp_path / "far", ledger="before")
    old.open()
    old.append([(1, "no", reading(1)), (2, "no", reading(2))])
    cursor = MemoryCursor(5)
    sink = FarSide(Rejected({3: "no"}, rest_safe=True))
    runner = make(sink, cursor, dead_letters=DeadLetters(tmp_path / "far", ledger="now"))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        assert (await runner.dead_letters_retry({1, 2}))["delivered"] == 2
        assert adds_up(runner)["dead_lettered"] == 1


async def test_counts_on_the_real_journal_survive_restarts(tmp_path: Path) -> None:
    """Stored, delivered and put aside add up, and go on where they stood, with other items among the readings."""
    poison = {7, 8, 200, 431}
    for run in range(3):
        journal = Journal(tmp_path / "journal", commit_ms=5)
        await journal.open()
        cursor = journal.cursor("far")
        sink = FarSide()
        sink.always = lambda batch: (
            Refused("no") if any(getattr(item, "seq", 0) - 1 in poison for item in batch.items) else None
        )
        letters = DeadLetters(tmp_path / "letters", ledger=f"{journal.epoch}-{cursor.began}")
        runner = make(sink, cursor, dead_letters=letters, max_readings=50)
        try:
            async with running(runner):
                for n in range(run * 200, run * 200 + 200):
                    journal.append(reading(n))
                    if n % 9 == 0:
                        journal.append(Mark("d-1", "s1", 0))
                await journal.flush()
                while cursor.pending:
                    adds_up(runner)
                    await asyncio.sleep(0.002)
        finally:
            await journal.close()
        dead = sum(n < (run + 1) * 200 for n in poison)
        assert adds_up(runner) == {
            "delivered": (run + 1) * 200 - dead,
            "pending": 0,
            "dead_lettered": dead,
            "overflowed": 0,
            "lost": 0,
        }
        assert letters.count == dead
        assert runner.behind == 0


async def test_readings_that_were_dropped_or_lost_are_not_behind(tmp_path: Path) -> None:
    """What the journal no longer holds is not waited for: ``behind`` comes to 0."""
    journal = Journal(tmp_path / "journal", commit_ms=5, segment_bytes=1, ring_bytes=1)
    await journal.open()
    try:
        cursor = journal.cursor("far")
        for n in range(300):
            journal.append(reading(n))
            if n % 100 == 99:
                await journal.flush()
        sink = FarSide()
        sink.block = asyncio.Event()
        runner = make(sink, cursor)
        async with running(runner):
            await until(lambda: sink.batches)
            position = type(cursor.position)(journal.durable_offset, journal.stored)
            cursor.drop_below(position)
            sink.block.set()
            journal.append(reading(300))
            await until(lambda: cursor.pending == 0 and sink.written and sink.written[-1] > position.offset - 1)
            assert runner.behind == 0
            ledger = adds_up(runner)
            assert ledger["overflowed"] + ledger["delivered"] == 301
            assert ledger["delivered"] == len(set(sink.written))
    finally:
        await journal.close()

"""The runner: order, patience, dead letters, states."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.errors import JournalError
from gateway.reading import Batch, Mark
from gateway.sinks.base import Refused, Rejected, Stopped, Unavailable
from gateway.sinks.deadletters import DeadLetters

from .far import FarSide, make, running, until
from .memory import MemoryCursor, reading


def dead(path: Path, **more: int) -> DeadLetters:
    return DeadLetters(path / "far.jsonl", **more)


async def test_readings_are_written_in_order_and_confirmed() -> None:
    """All readings arrive once, in order, and each batch is confirmed after it was written."""
    sink, cursor = FarSide(), MemoryCursor(35)
    runner = make(sink, cursor)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert sink.written == list(range(35))
    assert cursor.confirmed == [10, 20, 30, 35]
    stats = runner.stats()
    assert (stats["delivered"], stats["pending"], stats["batches"], stats["own"]) == (35, 0, 4, 1.0)
    assert (runner.state, sink.opened, sink.closed) == ("ok", 1, 1)


async def test_starts_at_the_cursor_and_goes_on_as_more_comes() -> None:
    """What comes later is written as it comes, from where the cursor stands."""
    sink, cursor = FarSide(), MemoryCursor(3, base=1000)
    async with running(make(sink, cursor)):
        await until(lambda: cursor.pending == 0)
        for _ in range(5):
            cursor.append(reading(cursor.end))
            await until(lambda: cursor.pending == 0)
    assert sink.written == list(range(1000, 1008))


async def test_unavailable_is_tried_again_until_it_is_back() -> None:
    """An outage loses nothing and changes no order; meanwhile the state says why and until when."""
    sink, cursor = FarSide(None, *[Unavailable("away") for _ in range(6)]), MemoryCursor(30)
    runner = make(sink, cursor)
    async with running(runner):
        await until(lambda: runner.state == "waiting")
        assert runner.reason == "away"
        assert runner.health()["next_try_s"] is not None
        assert cursor.position.offset == 10
        await until(lambda: cursor.pending == 0)
    assert sink.written == list(range(30))
    assert runner.stats()["retries"] == 6
    assert (runner.state, runner.reason, runner.next_try) == ("ok", "", None)


async def test_retry_after_is_honoured() -> None:
    """The next try is not before what the far side asked for; a request to try at once is."""
    now = 50.0
    sink, cursor = FarSide(Unavailable("busy", retry_after_s=120.0)), MemoryCursor(5)
    runner = make(sink, cursor, clock=lambda: now)
    async with running(runner):
        await until(lambda: runner.next_try is not None)
        assert runner.next_try is not None
        assert 170.0 <= runner.next_try <= 170.1
        runner.retry_now()
        await until(lambda: cursor.pending == 0)


async def test_stopped_keeps_everything_until_somebody_helps() -> None:
    """A refusal stops the sink with reason and hint, drops nothing, and ends by a retry."""
    sink, cursor = FarSide(Stopped("HTTP 401", hint="check the token")), MemoryCursor(5)
    runner = make(sink, cursor)
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert (runner.reason, runner.hint) == ("HTTP 401", "check the token (tried again every 3600 s)")
        assert runner.stats()["stopped"] == 1.0
        assert cursor.pending == 5
        runner.retry_now()
        await until(lambda: cursor.pending == 0)
    assert sink.written == list(range(5))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("", "tried again every minute"),
        ("check the broker's rights", "check the broker's rights (tried again every minute)"),
        ("check GATEWAY_X", "check GATEWAY_X (tried again every minute; a changed setting needs a restart)"),
    ],
)
async def test_hint_says_when_a_stopped_sink_is_tried_again(hint: str, words: str) -> None:
    """By itself, each minute; who changes a setting has to start the gateway anew."""
    runner = make(FarSide(Stopped("no", hint=hint)), MemoryCursor(5), stopped_retry_s=60.0)
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert runner.health()["hint"] == words


@pytest.mark.parametrize("reached", [False, True])
async def test_far_side_that_is_there_is_told_from_one_that_is_not(reached: bool) -> None:
    """Whether what is waited for was reached is said with the state."""
    runner = make(FarSide(Unavailable("busy", reached=reached, retry_after_s=3600.0)), MemoryCursor(5))
    async with running(runner):
        await until(lambda: runner.state == "waiting")
        assert runner.health()["reached"] is reached
        runner.retry_now()


async def test_stopped_is_tried_again_by_itself() -> None:
    """Also without a request a stopped sink is tried again, slowly, and with one reading before the others."""
    sink, cursor = FarSide(Stopped("no"), Stopped("no")), MemoryCursor(5)
    async with running(make(sink, cursor, stopped_retry_s=0.01)):
        await until(lambda: cursor.pending == 0)
    assert sink.batches == [(0, 5), (0, 1), (0, 1), (1, 4)]


async def test_rejected_items_are_put_aside_and_the_rest_written(tmp_path: Path) -> None:
    """Named items go to the dead letters with their reasons; the others are written without them."""
    letters = dead(tmp_path)
    sink, cursor = FarSide(Rejected({2: "bad", 7: "worse"})), MemoryCursor(10)
    runner = make(sink, cursor, dead_letters=letters)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert sink.written == [0, 1, 3, 4, 5, 6, 8, 9]
    assert [(letter.offset, letter.reason, letter.item) for letter in letters.read()] == [
        (2, "bad", reading(2)),
        (7, "worse", reading(7)),
    ]
    stats = runner.stats()
    assert (stats["delivered"], stats["dead_lettered"], stats["stored"]) == (8, 2, 10)


async def test_rest_that_is_safe_is_not_written_again(tmp_path: Path) -> None:
    """Where the far side has all others already, they are not repeated."""
    sink, cursor = FarSide(Rejected({2: "bad"}, rest_safe=True)), MemoryCursor(10)
    runner = make(sink, cursor, dead_letters=dead(tmp_path))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert sink.batches == [(0, 10)]
    assert (runner.stats()["delivered"], runner.stats()["dead_lettered"]) == (9, 1)


async def test_bisection_finds_the_poison(tmp_path: Path) -> None:
    """A batch refused as a whole is halved down to the readings at fault; all others arrive, in order."""
    poison = {137, 138, 900}
    letters = dead(tmp_path)
    sink, cursor = FarSide(), MemoryCursor(1000)
    sink.always = lambda batch: (
        Refused("HTTP 400: unable to parse") if poison & set(range(batch.base, batch.end)) else None
    )
    runner = make(sink, cursor, dead_letters=letters, max_readings=1000)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert sink.written == [n for n in range(1000) if n not in poison]
    assert [letter.offset for letter in letters.read()] == sorted(poison)
    assert {letter.reason for letter in letters.read()} == {"HTTP 400: unable to parse"}
    # At most two calls a level and poison item.
    assert len(sink.batches) <= 2 * 10 * len(poison) + 1
    assert cursor.confirmed == sorted(set(cursor.confirmed))


async def test_bisection_goes_on_where_an_outage_broke_it(tmp_path: Path) -> None:
    """What was found safe before an outage in the middle of it is not written again."""
    sink, cursor = FarSide(), MemoryCursor(8)

    def answer(batch: Batch) -> Exception | None:
        if len(sink.batches) == 4:
            return Unavailable("away")
        return Refused("no") if batch.base <= 6 < batch.end else None

    sink.always = answer
    async with running(make(sink, cursor, dead_letters=dead(tmp_path))):
        await until(lambda: cursor.pending == 0)
    assert sink.written == [0, 1, 2, 3, 4, 5, 7]
    assert sink.batches[:5] == [(0, 8), (0, 4), (4, 4), (4, 2), (4, 2)]


async def test_marks_are_no_poison(tmp_path: Path) -> None:
    """Where other items stand beside the one reading that is refused, it alone is put aside."""
    letters = dead(tmp_path)
    marks = frozenset({0, 1, 3, 4, 6, 7})
    cursor = MemoryCursor(8, lambda at: Mark("d", "s", at) if at in marks else reading(at), others=marks)
    sink = FarSide()
    sink.always = lambda batch: Refused("no") if batch.base <= 5 < batch.end else None
    async with running(make(sink, cursor, dead_letters=letters)):
        await until(lambda: cursor.position.offset == 8)
    assert sink.written == [2]
    assert [letter.offset for letter in letters.read()] == [5]


async def test_far_side_that_refuses_everything_stops_the_sink(tmp_path: Path) -> None:
    """Refusals without end are not the readings' fault: the sink stops, and all is written once it is mended."""
    sink, cursor = FarSide(), MemoryCursor(200)
    sink.always = lambda batch: Refused("HTTP 400: bucket required")
    letters = dead(tmp_path)
    runner = make(sink, cursor, dead_letters=letters, refused_in_a_row=20)
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert "everything is refused" in runner.reason
        assert letters.count == 20
        sink.always = None
        runner.retry_now()
        await until(lambda: cursor.pending == 0)
    assert sink.written == list(range(20, 200))


async def test_far_side_that_answers_works_again(tmp_path: Path) -> None:
    """An outage is over with the first answer, also where all that comes is put aside."""
    sink, cursor = FarSide(Unavailable("away")), MemoryCursor(5)
    sink.always = lambda batch: Refused("no")
    runner = make(sink, cursor, dead_letters=dead(tmp_path))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
        assert (runner.state, runner.reason) == ("ok", "")
        assert cursor.dead_lettered == 5


async def test_poison_in_a_row_does_not_stand_in_the_way_for_ever(tmp_path: Path) -> None:
    """Each try of a sink that was stopped for refusals alone lets as many more go; then the rest flows."""
    sink, cursor = FarSide(), MemoryCursor(80)
    sink.always = lambda batch: Refused("no") if batch.base < 50 else None
    letters = dead(tmp_path)
    runner = make(sink, cursor, dead_letters=letters, refused_in_a_row=20)
    async with running(runner):
        for count in (20, 40):
            await until(lambda count=count: runner.state == "stopped" and letters.count == count)  # type: ignore[misc]
            runner.retry_now()
        await until(lambda: cursor.pending == 0)
    assert (letters.count, sink.written) == (50, list(range(50, 80)))


async def test_many_named_of_a_batch_whose_rest_is_safe_do_not_stop(tmp_path: Path) -> None:
    """A far side that takes some is not set up wrongly, however many it refuses by name."""
    sink, cursor = FarSide(Rejected(dict.fromkeys(range(9), "bad"), rest_safe=True)), MemoryCursor(10)
    runner = make(sink, cursor, dead_letters=dead(tmp_path), refused_in_a_row=5)
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert len(sink.batches) == 1


async def test_full_dead_letters_stop_the_sink(tmp_path: Path) -> None:
    """Where nothing more can be put aside, nothing is dropped; with room it goes on."""
    letters = dead(tmp_path, max_bytes=200)
    sink, cursor = FarSide(Rejected({0: "bad", 1: "bad", 2: "bad"}), Rejected({0: "bad"})), MemoryCursor(5)
    runner = make(sink, cursor, dead_letters=letters)
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert cursor.pending == 5
        assert "full" in runner.reason
        runner.retry_now()
        await until(lambda: cursor.pending == 0)
    assert sink.written == [1, 2, 3, 4]


async def test_full_dead_letters_repeat_nothing_that_is_safe(tmp_path: Path) -> None:
    """While no more can be put aside, what the far side has of that batch is not given to it again and again."""
    letters = dead(tmp_path, max_bytes=10)
    sink, cursor = FarSide(), MemoryCursor(10)

    def answer(batch: Batch) -> Exception | None:
        bad = {n: "bad" for n, item in enumerate(batch.items) if item in (reading(3), reading(7))}
        return Rejected(bad, rest_safe=True) if bad else None

    sink.always = answer
    runner = make(sink, cursor, dead_letters=letters, stopped_retry_s=0.001)
    async with running(runner):
        await until(lambda: len(sink.batches) > 5)
        assert sink.written == [0, 1, 2, 4, 5, 6, 8, 9]
        assert (runner.state, runner.behind, cursor.pending) == ("stopped", 2, 10)
        assert runner.stats()["taken"] == 8
        letters._max_bytes = 10_000
        await until(lambda: cursor.pending == 0)
        assert (runner.state, runner.reason) == ("ok", "")
    assert sink.written == [0, 1, 2, 4, 5, 6, 8, 9]
    assert [(letter.offset, letter.item) for letter in letters.read()] == [(3, reading(3)), (7, reading(7))]
    assert (cursor.delivered, cursor.dead_lettered, runner.stats()["taken"]) == (8, 2, 8)


async def test_letters_from_before_a_crash_stay_while_none_fit(tmp_path: Path) -> None:
    """What is taken of a batch leaves the dead letters, what is refused once more of it stays there."""
    before = dead(tmp_path)
    before.open()
    before.append([(2, "bad", reading(2)), (3, "bad", reading(3))])
    sink, cursor = FarSide(Rejected({3: "bad", 4: "bad"}, rest_safe=True)), MemoryCursor(10)
    letters = dead(tmp_path, max_bytes=200)
    sink.always = lambda batch: Rejected({3: "bad", 4: "bad"}, rest_safe=True)
    async with running(make(sink, cursor, dead_letters=letters)) as task:
        await until(lambda: len(sink.batches) == 1 and letters.count == 1)
        assert [letter.offset for letter in letters.read()] == [3]
        assert not task.done()


async def test_dead_letters_without_a_place_stop_the_sink(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where they can be neither read nor written it is said what would help, and no fault of ours; then it goes on."""
    (tmp_path / "letters").touch()  # where a directory should be
    sink, cursor = FarSide(), MemoryCursor(5)
    runner = make(sink, cursor, dead_letters=DeadLetters(tmp_path / "letters" / "far"))
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert runner.reason == "dead letters cannot be kept: Not a directory"
        assert "has to be able to read and write" in runner.hint
        assert str(tmp_path / "letters" / "far") in runner.hint
        assert not any(record.exc_info for record in caplog.records)
        (tmp_path / "letters").unlink()
        runner.retry_now()
        await until(lambda: cursor.pending == 0)
        assert runner.state == "ok"
        sink.always = lambda batch: Refused("no")
        (tmp_path / "letters").touch()
        cursor.append(reading(5))
        await until(lambda: runner.state == "stopped")
        assert runner.reason == "dead letters cannot be kept: Not a directory"
        assert cursor.pending == 1
        (tmp_path / "letters").unlink()
        runner.retry_now()
        await until(lambda: cursor.pending == 0)
        assert runner.state == "ok"
    assert (sink.written, cursor.dead_lettered) == (list(range(5)), 1)


async def test_sink_that_refuses_nothing_needs_no_dead_letters(tmp_path: Path) -> None:
    """Its readings go on where no dead letters can be kept."""
    (tmp_path / "letters").touch()
    sink, cursor = FarSide(), MemoryCursor(5)
    sink.refuses = False
    runner = make(sink, cursor, dead_letters=DeadLetters(tmp_path / "letters" / "far"))
    async with running(runner):
        await until(lambda: cursor.pending == 0)
    assert runner.state == "ok"


async def test_without_dead_letters_a_rejection_stops_the_sink() -> None:
    """Nothing is dropped for want of a place."""
    sink, cursor = FarSide(Rejected({0: "bad"})), MemoryCursor(5)
    runner = make(sink, cursor)
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert cursor.pending == 5


async def test_fault_of_our_own_stops_the_sink_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An exception nobody foresaw costs no reading: it is logged with its traceback, and tried again."""
    sink, cursor = FarSide(KeyError("oops")), MemoryCursor(5)
    runner = make(sink, cursor)
    async with running(runner):
        await until(lambda: runner.state == "stopped")
        assert runner.reason == "KeyError: 'oops'"
        assert any(record.exc_info for record in caplog.records)
        runner.retry_now()
        await until(lambda: cursor.pending == 0)
    assert sink.written == list(range(5))


async def test_far_side_that_makes_things_safe_later() -> None:
    """Only what the sink says is safe is confirmed, while reading goes on; while idle it is asked again."""
    sink, cursor = FarSide(0, 0, 20, 20, 30), MemoryCursor(30)
    async with running(make(sink, cursor, lag_s=0.01)):
        await until(lambda: cursor.pending == 0)
        asked = len(sink.batches)
        await asyncio.sleep(0.05)
        assert len(sink.batches) == asked
    assert cursor.confirmed == [20, 30]
    assert sink.batches == [(0, 10), (10, 10), (20, 10), (30, 0), (30, 0)]
    assert sink.written == list(range(30))


async def test_what_was_made_safe_is_confirmed_at_once_where_that_is_asked_for() -> None:
    """Somebody who had the far side make safe what it has need not wait until it is asked again by itself."""
    sink, cursor = FarSide(0, 0, 0, 30), MemoryCursor(30)
    runner = make(sink, cursor, lag_s=3600.0)
    async with running(runner):
        await until(lambda: runner.taken == 30)
        runner.confirm_now()
        await until(lambda: cursor.pending == 0)
        assert sink.batches == [(0, 10), (10, 10), (20, 10), (30, 0)]
        runner.confirm_now()
        await asyncio.sleep(0.02)
        assert len(sink.batches) == 4  # nothing is left to confirm
        cursor.append(reading(30))
        await until(lambda: cursor.pending == 0)
    assert sink.written == list(range(31))


async def test_states_are_latest_only_and_go_before_the_next_batch() -> None:
    """Of each key the latest value is sent once; a repeated value is not sent again."""
    sink, cursor = FarSide(), MemoryCursor(0)
    runner = make(sink, cursor)
    runner.set_state(("presence", "a"), b"online")
    runner.set_state(("presence", "a"), b"offline")
    runner.set_state(("presence", "b"), b"online")
    async with running(runner):
        await until(lambda: len(sink.states) == 2)
        runner.set_state(("presence", "b"), b"online")
        runner.set_state(("presence", "a"), b"online")
        await until(lambda: sink.states[("presence", "a")] == b"online")
        runner.set_state(("presence", "a"), None)
        await until(lambda: sink.states[("presence", "a")] is None)
    assert sink.state_calls == [
        {("presence", "a"): b"offline", ("presence", "b"): b"online"},
        {("presence", "a"): b"online"},
        {("presence", "a"): None},
    ]


async def test_all_states_go_again_over_a_new_connection() -> None:
    """A connection that ends while idle is made anew, and all states sent, cleared ones not."""
    sink, cursor = FarSide(), MemoryCursor(0)
    runner = make(sink, cursor)
    for n in range(3):
        runner.set_state(("presence", f"d{n}"), b"online")
    async with running(runner):
        await until(lambda: len(sink.states) == 3)
        runner.set_state(("presence", "d1"), None)
        await until(lambda: sink.states[("presence", "d1")] is None)
        sink.state_calls.clear()
        sink.new = True
        sink.readies = [Unavailable("away"), Unavailable("away")]
        assert sink.lost is not None
        sink.lost()
        await until(lambda: sink.state_calls)
    assert sink.state_calls == [{("presence", "d0"): b"online", ("presence", "d2"): b"online"}]


async def test_state_that_changed_while_it_was_sent_is_sent_again() -> None:
    """The far side ends with the latest value, whenever it changed."""
    sink, cursor = FarSide(Unavailable("away")), MemoryCursor(0)
    runner = make(sink, cursor)
    runner.set_state(("presence", "a"), b"1")
    async with running(runner):
        await until(lambda: runner.state == "waiting")
        runner.set_state(("presence", "a"), b"2")
        await until(lambda: len(sink.state_calls) == 2)
        runner.set_state(("presence", "a"), b"3")
        await until(lambda: sink.states.get(("presence", "a")) == b"3")
        await until(lambda: runner.stats()["states_pending"] == 0)


async def test_stop_hands_over_what_is_there() -> None:
    """A stop ends the runner after all that is committed was written, and closes the sink."""
    sink, cursor = FarSide(), MemoryCursor(500)
    runner = make(sink, cursor)
    task = asyncio.create_task(runner.run())
    await until(lambda: sink.written)
    await runner.stop(5.0)
    assert task.done()
    assert sink.written == list(range(500))
    assert sink.closed == 1


async def test_stop_does_not_wait_for_a_far_side_that_is_away() -> None:
    """After one last try a stop leaves the rest to the journal."""
    sink, cursor = FarSide(), MemoryCursor(5)
    sink.always = lambda batch: Unavailable("away")
    runner = make(sink, cursor, retry_least_s=3600.0, retry_most_s=3600.0)
    task = asyncio.create_task(runner.run())
    await until(lambda: runner.state == "waiting")
    await runner.stop(60.0)
    assert task.done()
    assert (cursor.pending, len(sink.batches), sink.closed) == (5, 2, 1)


async def test_stop_is_bounded_when_the_far_side_hangs() -> None:
    """A write that never ends is cut off at the deadline; nothing of it is confirmed."""
    sink, cursor = FarSide(), MemoryCursor(5)
    sink.block = asyncio.Event()
    runner = make(sink, cursor)
    task = asyncio.create_task(runner.run())
    await until(lambda: sink.batches)
    await runner.stop(0.05)
    assert task.done()
    assert (cursor.confirmed, sink.closed) == ([], 1)


async def test_journal_that_closes_ends_the_runner() -> None:
    """When the journal is closed under it the runner ends, without a fault, and parts from the far side."""
    sink, cursor = FarSide(), MemoryCursor(5)
    runner = make(sink, cursor)
    task = asyncio.create_task(runner.run())
    await until(lambda: cursor.pending == 0)
    cursor.fail = JournalError("the journal is closed")
    cursor.append(reading(5))
    await asyncio.wait_for(task, 5)
    assert (runner.state, sink.closed) == ("stopped", 1)


async def test_stop_before_run_is_nothing() -> None:
    """A runner that never ran stops at once."""
    await make(FarSide(), MemoryCursor(5)).stop(5.0)


async def test_what_keeps_no_states_is_handed_none() -> None:
    """Presence is no sign that a store is there: one that is away stays so, whoever comes and goes."""
    sink, cursor = FarSide(*[Unavailable("away") for _ in range(100)]), MemoryCursor(3)
    sink.keeps_states = False
    runner = make(sink, cursor)
    async with running(runner):
        await until(lambda: runner.state == "waiting")
        runner.set_state(("presence", "d"), b"online")
        runner.tell(("command-state", "d"), b"{}")
        assert runner.stats()["states_pending"] == 0
    assert sink.state_calls == []

"""What the journal says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.journal.bounds import Bounds
from gateway.journal.counters import Counters, counted, title
from gateway.journal.segment import name_of
from tests.journal.support import fill, opened, reading
from tests.journal.test_cursor import stored


@pytest.mark.parametrize(("count", "text"), [(0, "0 segments"), (1, "1 segment"), (1234, "1,234 segments")])
def test_numbers_and_their_words_agree(count: int, text: str) -> None:
    """One is one."""
    assert counted(count, "segment") == text


def test_problems_of_one_and_of_more() -> None:
    """Each in the words of its number."""
    one = Counters(damages=1, foreign_segments=1).problems()
    assert one == [
        "The journal is damaged in 1 place: what was stored there is lost",
        "1 file of another journal was set aside",
    ]
    more = Counters(damages=2, foreign_segments=2).problems()
    assert more == [
        "The journal is damaged in 2 places: what was stored there is lost",
        "2 files of another journal were set aside",
    ]


def test_readers_have_their_names() -> None:
    """The cursor of the device book is told as that."""
    assert (title("devices"), title("history")) == ("device book", "history")


async def test_a_device_book_that_the_journal_let_go_is_a_sentence(tmp_path: Path) -> None:
    """With its name, not with its cursor's."""
    async with opened(tmp_path) as journal:
        journal._writer._segment_bytes = 1000
        cursor = journal.cursor("devices", start=0)
        offsets = await fill(journal, [reading(number) for number in range(50)])
        cursor.confirm(offsets[40])
        await stored(journal)
    async with opened(tmp_path) as journal:
        journal.cursor("devices", start=offsets[5])
        (problem,) = journal.problems()
        assert problem.startswith("The device book has lost what it once had")


def test_bounds_are_told_in_mebibytes_and_with_their_settings() -> None:
    """What is full, what is short, and what fails, in this order of weight."""
    bounds = Bounds(16 << 20, 64 << 20)
    bounds.free = 1 << 30
    assert bounds.reason == ""
    bounds.free = 12 << 20
    assert bounds.reason == "the disk has only 12 MiB free, and GATEWAY_JOURNAL__KEEP_FREE_BYTES keeps 64 MiB"
    bounds.judge(16 << 20)
    assert bounds.reason == "the journal has reached its bound of 16 MiB (GATEWAY_JOURNAL__MAX_BYTES)"
    bounds.failure = "Input/output error"
    assert bounds.reason == "the disk fails: Input/output error"


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 file of the journal could not be read and was set aside"), (2, "2 files of the journal")]
)
async def test_files_that_are_none(tmp_path: Path, count: int, text: str) -> None:
    """One that cannot be read is told as one."""
    async with opened(tmp_path) as journal:
        await fill(journal, [reading(1)])
    for number in range(count):
        (tmp_path / name_of(5 + number, 0)).write_bytes(b"rubbish" * 1000)
    async with opened(tmp_path) as journal:
        (problem,) = journal.problems()
        assert problem.startswith(text)

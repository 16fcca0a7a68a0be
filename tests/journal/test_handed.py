"""What a cursor handed out and nobody confirmed yet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.journal import record
from gateway.journal.handed import Handed
from gateway.reading import Batch, Item, Mark

from .support import reading

KINDS: list[Item] = [reading(0), Mark("a", "", 1)]


def batch(base: int, kinds: list[int]) -> Batch:
    items = [KINDS[kind] for kind in kinds]
    return Batch(base, items, record.count_readings(items))


def test_readings_alone_need_one_entry() -> None:
    """Readings handed out one batch behind the other cost one entry."""
    handed = Handed()
    for number in range(1000):
        handed.add(batch(number * 10, [0] * 10), number * 10)
    assert len(handed._spans) == 1
    assert handed.take(5_555, 0) == (5_555, 0)
    assert handed.end == 10_000


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 1), min_size=1, max_size=8)), min_size=1, max_size=8),
    st.data(),
)
def test_counts_agree_with_counting(batches: list[tuple[int, list[int]]], data: st.DataObject) -> None:
    """Wherever is confirmed, the readings below it are what one counts by hand, and those lost between batches too."""
    handed = Handed()
    kinds: dict[int, int] = {}  # offset -> reading
    lost_at: dict[int, int] = {}  # base -> readings lost in front of it
    offset = stored = 0
    for gap, items in batches:
        if gap:
            lost_at[offset + gap] = gap
            stored += gap
            offset += gap
        handed.add(batch(offset, items), stored)
        for kind in items:
            kinds[offset] = 1 - kind
            stored += kinds[offset]
            offset += 1
    place = readings = lost = 0
    for _ in range(3):
        place = data.draw(st.integers(place, offset))
        readings, missing = handed.take(place, readings)
        lost += missing
        assert lost == sum(count for base, count in lost_at.items() if base < place)
        assert readings == lost + sum(kind for at, kind in kinds.items() if at < place)


def test_reading_again_forgets_what_was_read_before() -> None:
    """A batch read again from an earlier offset takes the place of what was noted from there on."""
    handed = Handed()
    handed.add(batch(0, [0, 1, 0, 0]), 0)
    handed.add(batch(4, [0, 0]), 3)
    handed.forget(2)
    assert handed.end == 2
    handed.add(batch(2, [0, 0]), 1)
    assert handed.end == 4
    assert handed.take(4, 0) == (3, 0)
    handed.forget(4)
    handed.add(batch(4, [1, 0]), 3)
    assert handed.take(6, 3) == (4, 0)

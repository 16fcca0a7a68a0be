"""The newest batches in memory."""

from __future__ import annotations

from gateway.journal import record
from gateway.journal.ring import MEMORY_PER_BYTE, Ring
from gateway.journal.writer import Written
from gateway.reading import Batch, Item

from .support import mixed


def filled(sizes: list[int], limit: int = 1 << 20) -> tuple[Ring, list[Item]]:
    ring, items, before = Ring(limit), [mixed(number) for number in range(sum(sizes))], 0
    base = 0
    for size in sizes:
        part = items[base : base + size]
        readings = record.count_readings(part)
        ring.add(Written(Batch(base, part, readings), before, 100), float(base))
        base += size
        before += readings
    return ring, items


def test_any_piece_is_what_was_appended() -> None:
    """Every offset and every size gives the items there, their readings, and the readings below them."""
    ring, items = filled([1, 5, 2, 8, 1])
    for offset in range(len(items)):
        for most in (1, 2, 3, 7, 100):
            batch, before = ring.take(offset, most)
            assert batch.items == items[offset : offset + most]
            assert batch.base == offset
            assert batch.readings == record.count_readings(batch.items)
            assert before == record.count_readings(items[:offset])


def test_whole_batches_are_shared() -> None:
    """Two readers that are caught up get the same object, not a copy."""
    ring, _ = filled([5, 5])
    assert ring.take(5, 1000)[0] is ring.take(5, 1000)[0]
    assert ring.take(0, 5)[0] is ring.take(0, 5)[0]


def test_the_oldest_make_room() -> None:
    """The ring stays below its bound; what it does not hold any more, and not yet, is not found."""
    ring, _ = filled([5] * 10, limit=3 * 100 * MEMORY_PER_BYTE)
    assert len(ring) == 3
    assert ring.cost == 3 * 100 * MEMORY_PER_BYTE
    assert ring.find(34) is None
    assert ring.find(50) is None
    entry = ring.find(35)
    assert entry is not None
    assert entry.at == 35.0


def test_one_batch_larger_than_the_bound_is_held() -> None:
    """A batch beyond the bound is held alone."""
    ring, _ = filled([5, 5], limit=10)
    assert len(ring) == 1
    assert ring.find(7) is not None

"""What stands at a segment's end: a write cut short, or damage."""

from __future__ import annotations

import pytest

from gateway.journal import record
from gateway.journal.torn import Lost, judge
from gateway.reading import Item

from .support import mixed, reading

SEED = 7
BASE, BEFORE = 1000, 300


def records(*groups: list[Item]) -> list[bytes]:
    """Records of the groups, the first at ``BASE``."""
    made, base, before = [], BASE, BEFORE
    for group in groups:
        payload = record.encode(group)
        start, head = record.pack_record(SEED, base, before, len(group), record.count_readings(group), payload)
        made.append(start + payload)
        base, before = head.end, before + head.readings
    return made


def flipped(data: bytes, at: int) -> bytes:
    """The data with a bit of the byte at ``at`` flipped."""
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


GROUPS = [[mixed(number * 10 + each) for each in range(4)] for number in range(3)]
FIRST, SECOND, THIRD = records(*GROUPS)
ENDS = [Lost(BASE, BEFORE)]
for _group in GROUPS:
    ENDS.append(Lost(ENDS[-1].end + len(_group), ENDS[-1].readings + record.count_readings(_group)))


def test_one_record_cut_anywhere_is_torn() -> None:
    """Any part of one record is a write cut short, also with zeros in or behind it, or its bytes wrong."""
    for cut in range(len(FIRST) + 1):
        assert judge(FIRST[:cut], BASE, BEFORE) is None
        assert judge(FIRST[:cut] + bytes(100), BASE, BEFORE) is None
        assert judge(bytes(cut) + FIRST[cut:], BASE, BEFORE) is None
    for at in range(record.HEAD_SIZE, len(FIRST)):
        assert judge(flipped(FIRST, at), BASE, BEFORE) is None


def test_marks_inside_of_a_record_are_its_own() -> None:
    """A torn record whose text looks like the beginnings of others is one record."""
    (single,) = records([reading(1, text="GWR\x01" * 50)])
    for cut in range(record.HEAD_SIZE, len(single)):
        assert judge(single[:cut], BASE, BEFORE) is None


@pytest.mark.parametrize("place", [*range(40), len(FIRST) - 3])
@pytest.mark.parametrize("count", [2, 3])
def test_several_records_are_damage(count: int, place: int) -> None:
    """Whatever byte is wrong in each of several records that stand there, it is damage."""
    data = b"".join(flipped(each, place) for each in (FIRST, SECOND, THIRD)[:count])
    found = judge(data, BASE, BEFORE)
    if 0 <= place < 4:  # no mark is left: one record without a beginning, for all that can be told
        assert found is None
    else:
        assert found is not None
    if not 0 <= place < 4 and not 8 <= place < 40:
        assert found == ENDS[count]


@pytest.mark.parametrize("place", [0, 8, 20, 30, 50])
def test_what_is_lost_is_counted_by_the_heads_that_can_be_read(place: int) -> None:
    """Heads that fit to one another, or to the end, tell what is lost, whatever the first one says."""
    assert judge(flipped(FIRST, place) + flipped(SECOND, 60), BASE, BEFORE) == ENDS[2]
    assert judge(flipped(FIRST, place) + flipped(SECOND, 60) + THIRD[:50], BASE, BEFORE) == ENDS[3]


def test_more_than_the_first_record_says_is_damage() -> None:
    """Bytes behind a record that is not whole were not written by one write; nobody was told of it, perhaps."""
    for rest in (b"rubbish", b"rubbish" * 100, b"GWR\x01" * 100):
        assert judge(flipped(FIRST, 60) + rest, BASE, BEFORE) == ENDS[0]
        assert judge(FIRST[:60] + rest.ljust(200, b"x"), BASE, BEFORE) == ENDS[0]

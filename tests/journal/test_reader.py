"""Reading records from disk, past damage."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.journal import record
from gateway.journal.reader import Reader
from gateway.journal.segment import Segment
from gateway.reading import Item

from .support import mixed, reading

EPOCH = bytes(range(16))
SEED = record.seed_of(EPOCH)


def made(path: Path, groups: list[list[Item]], base: int = 1000) -> tuple[Segment, list[tuple[int, int, int]]]:
    """A segment of the groups; for each record its offset, where it starts and where it ends."""
    segment = Segment(path, base, 0, 0, 0)
    data = record.pack_header(record.Header(EPOCH, base, 0, 0, 0))
    spans = []
    for group in groups:
        payload = record.encode(group)
        start, head = record.pack_record(
            SEED, segment.end, segment.end_readings, len(group), record.count_readings(group), payload
        )
        spans.append((segment.end, len(data), len(data) + len(start) + len(payload)))
        data += start + payload
        segment.end = head.end
        segment.end_readings += head.readings
    path.write_bytes(data)
    return segment, spans


def read(segment: Segment, most: int = 7, start: int = 0) -> tuple[list[tuple[int, Item]], int]:
    """All that can be read, and how many offsets were reported as lost."""
    reader = Reader(SEED)
    found: list[tuple[int, Item]] = []
    lost = 0
    offset = start
    while True:
        taken = reader.read([segment], offset, segment.end, most)
        lost += sum(damage.end - damage.base for damage in taken.damages)
        if taken.batch is None:
            break
        assert 0 < len(taken.batch.items) <= most
        found += enumerate(taken.batch.items, taken.batch.base)
        offset = taken.batch.end
    reader.close()
    return found, lost


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    buffer=st.integers(40, 400),
    most=st.integers(1, 9),
    holes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 200), st.integers(0, 255)), max_size=3),
)
def test_all_but_the_damaged_records_are_read(
    tmp_path: Path, sizes: list[int], buffer: int, most: int, holes: list[tuple[float, int, int]]
) -> None:
    """Whatever is overwritten, wherever buffers end: exactly the untouched records are read, the others reported."""
    groups: list[list[Item]] = []
    for size in sizes:
        number = sum(map(len, groups))
        groups.append([mixed(number + each) for each in range(size)])
    segment, spans = made(tmp_path / "a.seg", groups)
    whole = segment.path.read_bytes()
    data = bytearray(whole)
    for where, length, value in holes:
        at = round(where * (len(data) - 1))
        for place in range(at, min(at + length, len(data))):
            data[place] = value
    segment.path.write_bytes(data)
    expected: list[tuple[int, Item]] = []
    for group, (base, start, end) in zip(groups, spans, strict=True):
        if data[start:end] == whole[start:end]:
            expected += enumerate(group, base)
    with patch("gateway.journal.reader.BUFFER", buffer):
        found, lost = read(segment, most)
    assert found == expected
    assert lost == sum(sizes) - len(expected)


def test_records_larger_than_the_buffer_are_read(tmp_path: Path) -> None:
    """A record of any size is read; a damaged size far beyond the file is not believed."""
    groups: list[list[Item]] = [[reading(0)], [reading(n, text="x" * 1000) for n in range(1, 400)], [reading(400)]]
    segment, spans = made(tmp_path / "a.seg", groups)
    with patch("gateway.journal.reader.BUFFER", 100):
        found, lost = read(segment)
        assert [item for _, item in found] == [item for group in groups for item in group]
        data = bytearray(segment.path.read_bytes())
        data[spans[1][1] + 11] = 0x7F  # the size's highest byte
        segment.path.write_bytes(data)
        found, lost = read(segment)
        assert [item for _, item in found] == [*groups[0], *groups[2]]
        assert lost == 399


def test_reading_starts_anywhere(tmp_path: Path) -> None:
    """From any offset, the items from there on and the readings below it are those of a full read."""
    groups = [[mixed(number) for number in range(start, start + 3)] for start in range(0, 30, 3)]
    segment, _ = made(tmp_path / "a.seg", groups)
    items = [item for group in groups for item in group]
    for start in range(30):
        assert read(segment, start=1000 + start)[0] == list(enumerate(items[start:], 1000 + start))
        taken = Reader(SEED).read([segment], 1000 + start, segment.end, 1)
        assert taken.before == record.count_readings(items[:start])


def test_nothing_is_read_beyond_the_limit(tmp_path: Path) -> None:
    """What is written and not yet durable is not read, and is once it is durable."""
    groups = [[reading(number)] for number in range(10)]
    segment, _ = made(tmp_path / "a.seg", groups)
    reader = Reader(SEED)
    taken = reader.read([segment], 0, 1004, 100)
    assert taken.batch is not None
    assert (taken.batch.base, taken.batch.end) == (1000, 1004)
    assert reader.read([segment], 1004, 1004, 100).batch is None
    taken = reader.read([segment], 1004, 1010, 100)
    assert taken.batch is not None
    assert (taken.batch.base, taken.batch.end) == (1004, 1010)
    assert taken.damages == []
    reader.close()

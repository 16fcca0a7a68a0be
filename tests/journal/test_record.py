"""The format of segments on disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal import record
from gateway.reading import Item, Mark

from .support import mixed, reading

EPOCH = bytes(range(16))
SEED = record.seed_of(EPOCH)
HEADER = record.Header(EPOCH, 1 << 20, 17, 5, 1_764_000_000_000_000_000)


def packed(items: list[Item], base: int = 7, before: int = 3) -> bytes:
    payload = record.encode(items)
    start, _ = record.pack_record(SEED, base, before, len(items), record.count_readings(items), payload)
    return start + payload


def test_a_header_is_read_as_written() -> None:
    """What a header says comes back, and nothing behind it matters."""
    assert record.unpack_header(record.pack_header(HEADER) + b"more") == HEADER
    assert len(record.pack_header(HEADER)) == record.HEADER_SIZE


@pytest.mark.parametrize("at", range(record.HEADER_SIZE))
def test_a_flipped_bit_anywhere_in_a_header_is_found(at: int) -> None:
    """No damaged header is taken for a sound one, nor for a newer version."""
    data = bytearray(record.pack_header(HEADER))
    data[at] ^= 4
    with pytest.raises(record.BadHeader):
        record.unpack_header(data)


@pytest.mark.parametrize("size", range(record.HEADER_SIZE))
def test_a_short_header_is_no_header(size: int) -> None:
    """A header cut anywhere is refused."""
    with pytest.raises(record.BadHeader):
        record.unpack_header(record.pack_header(HEADER)[:size])


def test_a_newer_version_is_told_from_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound header of a later version is named as such."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "VERSION", 2)
        data = record.pack_header(HEADER)
    with pytest.raises(record.NewerVersion) as caught:
        record.unpack_header(data)
    assert caught.value.version == 2


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_items_come_back_as_they_were(numbers: list[int]) -> None:
    """Items of every kind, their number and the number of readings survive the way through a record."""
    items = [mixed(number) for number in numbers]
    data = packed(items)
    head = record.unpack_head(data)
    assert head is not None
    assert (head.base, head.end, head.before) == (7, 7 + len(items), 3)
    assert (head.items, head.readings) == (len(items), record.count_readings(items))
    assert record.is_whole(SEED, head, data)
    assert record.decode(data[record.HEAD_SIZE :]) == items


def test_values_keep_their_types() -> None:
    """Integers stay integers, floats floats, booleans booleans, strings strings."""
    values = {"i": 2**63 - 1, "j": -(2**63), "f": 1.0, "b": True, "s": "tab\tand ß€😀", "e": ""}
    (back,) = record.decode(record.encode([reading(0, **values)]))
    assert [(type(value), value) for value in back.values.values()] == [  # type: ignore[union-attr]
        (type(value), value) for value in values.values()
    ]


def test_every_flipped_bit_in_a_record_is_found() -> None:
    """Whatever bit of a record turns, it is not whole."""
    data = packed([reading(1), Mark("a", "", 2)])
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            head = record.unpack_head(damaged)
            assert head is None or not record.is_whole(SEED, head, damaged)


def test_a_record_of_another_epoch_is_not_whole() -> None:
    """A record copied from another state directory is not taken for one of ours."""
    data = packed([reading(1)])
    head = record.unpack_head(data)
    assert head is not None
    assert not record.is_whole(record.seed_of(bytes(16)), head, data)

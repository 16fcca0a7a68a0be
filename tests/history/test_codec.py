from __future__ import annotations

import struct
from array import array
from bisect import bisect_left

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.history.codec import DamagedChunk, decode, decode_within, encode
from gateway.history.column import FLOAT, Column, column, values
from gateway.history.frame import Frame, cut_frame
from gateway.reading import Value
from tests.history.model import exact

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
DECIMALS = st.builds(lambda n, scale: n / scale, st.integers(-(10**7), 10**7), st.sampled_from([1, 10, 100, 1000]))
LISTS = st.sampled_from(
    [
        FLOATS,
        DECIMALS,
        INT64,
        st.integers(-40, 40),
        st.booleans(),
        st.text(max_size=5),
        st.one_of(FLOATS, INT64, st.text()),
    ]
)


def frame_of(rows: list[Value], times: list[int] | None = None) -> Frame:
    stamps = array("q", range(len(rows)) if times is None else times)
    return Frame(stamps, stamps[:], 7, [column(rows)])


@st.composite
def frames(draw: st.DrawFn) -> tuple[Frame, list[list[Value]]]:
    rows = draw(st.integers(1, 60))
    times = array("q", sorted(draw(st.lists(st.integers(0, (1 << 63) - 1), min_size=rows, max_size=rows))))
    lags = draw(st.lists(st.integers(-(10**6), 10**6), min_size=rows, max_size=rows))
    received = array(
        "q", [min(max(time + lag * 1_000_000, 0), (1 << 63) - 1) for time, lag in zip(times, lags, strict=True)]
    )
    orders = draw(st.one_of(INT64, st.lists(INT64, min_size=rows, max_size=rows).map(lambda found: array("q", found))))
    lists = draw(
        st.lists(LISTS.flatmap(lambda kind: st.lists(kind, min_size=rows, max_size=rows)), min_size=1, max_size=4)
    )
    return Frame(times, received, orders, [column(list(found)) for found in lists]), lists


@given(frames())
def test_round_trip(given_frame: tuple[Frame, list[list[Value]]]) -> None:
    """A frame comes back from its body: times, orders and values exactly, the time of receipt to the millisecond."""
    frame, lists = given_frame
    back = decode(encode(frame), received=True, orders=True)
    assert back.times == frame.times
    assert all(0 <= a - b < 1_000_000 for a, b in zip(frame.received, back.received, strict=True))
    orders = frame.orders
    if isinstance(orders, int):
        assert back.orders == orders
    elif isinstance(back.orders, int):
        assert set(orders) == {back.orders}
    else:
        assert back.orders == orders
    for found, given_values in zip(back.columns, lists, strict=True):
        assert list(map(exact, values(found))) == list(map(exact, given_values))


@given(frames(), st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_spans_of_time(given_frame: tuple[Frame, list[list[Value]]], bounds: list[int], regular: bool) -> None:
    """Of each span of time asked for there are the rows that the whole has of it."""
    frame, _ = given_frame
    if regular:
        frame = Frame(array("q", range(0, 3 * len(frame), 3)), frame.received, frame.orders, frame.columns)
    body = encode(frame)
    whole = decode(body, orders=True)
    bounds = sorted(frame.times[bound] + 1 if bound < len(frame) else (1 << 63) - 1 for bound in [0, *bounds])
    spans = list(zip(bounds[::2], bounds[1::2], strict=False))
    columns = list(range(len(frame.columns)))[::-1]
    for span, found in zip(spans, decode_within(body, spans, columns, orders=True), strict=True):
        right = cut_frame(whole, *(bisect_left(whole.times, bound) for bound in span))
        assert found.times == right.times
        assert found.orders == right.orders
        for one, index in zip(found.columns, columns, strict=True):
            assert list(map(exact, values(one))) == list(map(exact, values(right.columns[index])))


@given(st.lists(FLOATS, min_size=1), st.booleans())
@example([0.0, -0.0], False)
@example([0.1 + 0.2] * 3, False)
@example([1e300, 0.5], True)
def test_floats_are_kept_to_the_bit(given_floats: list[float], decimal: bool) -> None:
    """Every bit of a float comes back, also that of a negative zero."""
    if decimal:
        given_floats = [round(number, 2) for number in given_floats]
    back = list(values(decode(encode(frame_of(list(given_floats)))).columns[0]))
    assert struct.pack(f"{len(back)}d", *back) == struct.pack(f"{len(back)}d", *given_floats)


def test_decimals_are_integers() -> None:
    """Floats that are decimals take the room of small integers."""
    decimals: list[Value] = [20 + (number * 7919 % 50) / 10 for number in range(1000)]
    doubles: list[Value] = [number * 0.1234567890123 % 1 for number in range(1000)]
    small, big = len(encode(frame_of(decimals))), len(encode(frame_of(doubles)))
    assert small < 1200
    assert big > 5000


@pytest.mark.parametrize("rows", [10, 4096])
def test_only_the_columns_asked_for(rows: int) -> None:
    """Columns are picked by index, from small bodies and from big ones, whose sections are packed one by one."""
    times = array("q", range(rows))
    lists = [[(row * prime) % 1009 * 0.37 for row in range(rows)] for prime in (7, 11, 13)]
    body = encode(Frame(times, times[:], 0, [column(list(found)) for found in lists]))
    back = decode(body, [2, 0])
    assert [list(values(found)) for found in back.columns] == [lists[2], lists[0]]
    assert back.times == times


def test_columns_with_a_scale_are_taken_as_they_are() -> None:
    """A column of decimals that was unpacked is packed again without a look at its values."""
    body = encode(frame_of([22.5, 22.25, 23.0]))
    frame = decode(body, received=True, orders=True)
    assert frame.columns[0].scale == 100
    assert encode(frame) == body
    assert list(values(Column(FLOAT, array("q", [1, 2]), 10))) == [0.1, 0.2]


def test_regular_times_cost_nothing() -> None:
    """Times with equal distances are kept as two numbers."""
    regular = encode(frame_of([1.0] * 4000, [1_700_000_000_000_000_000 + 10**9 * row for row in range(4000)]))
    assert len(regular) < 100


@pytest.mark.parametrize("index", [0, 1, 2, 10, -1])
def test_damage_is_told(index: int) -> None:
    """A body with a byte changed, or cut off, raises DamagedChunk or is refused by its checksum."""
    body = bytearray(encode(frame_of([1.5, 2.5, 9.25])))
    with pytest.raises(DamagedChunk):
        decode(bytes(body[: len(body) // 2]))
    body[index] ^= 0xFF
    with pytest.raises(DamagedChunk):
        decode(bytes(body))
    with pytest.raises(DamagedChunk):
        decode(b"")

"""The rules for names, values and times, and the layout of what is journalled."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reading import (
    Batch,
    Description,
    Item,
    Mark,
    Presence,
    Reading,
    check_value,
    is_device,
    is_metric,
    time_to_ns,
)


@pytest.mark.parametrize("name", ["a", "pump-1", "A.b_c:d-9", "0" * 64])
def test_device_names_accepted(name):
    """Names of the grammar are devices' names."""
    assert is_device(name)


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "a b", "a/b", "a\n", "a\x00", "é", "a+", "#", "x" * 65, "١", "a\u2028"]
)
def test_device_names_refused(name):
    """Anything else is not, a line feed at the end and digits of other scripts included."""
    assert not is_device(name)


@pytest.mark.parametrize(
    ("name", "good"),
    [("a/b/c", True), ("x" * 128, True), ("x" * 129, False), ("/a", False), ("a\n", False), ("a,b", False)],
)
def test_metric_names(name, good):
    """A metric's name may hold a slash, but not begin with one."""
    assert is_metric(name) is good


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**63 - 1,
        -(2**63),
        1.5,
        -0.0,
        5e-324,
        1.7e308,
        True,
        False,
        "",
        "a\tb\r\nc",
        "x" * 1024,
        "\u2028",
        "\U0001f600",
    ],
)
def test_values_accepted(value):
    """Finite floats, int64, booleans and strings are values."""
    assert check_value(value) == ""


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**63,
        -(2**63) - 1,
        "x" * 1025,
        "\x00",
        "\x1b[0m",
        "\ud800",
        None,
        [],
        {},
        b"x",
        (),
        object(),
    ],
)
def test_values_refused(value):
    """Everything else is refused, with words."""
    assert check_value(value)


@pytest.mark.parametrize(
    ("ts", "ns"),
    [
        (0, 0),
        (1764000000, 1764000000 * 10**9),
        (1764000000.25, 1764000000_250_000_000),
        (99_999_999_999, 99_999_999_999 * 10**9 if 99_999_999_999 * 10**9 < 2**63 else None),
        (10**11, 10**17),
        (1764000000000, 1764000000 * 10**9),
        (1764000000000.5, 1764000000_000_500_000),
        (10**14, 10**17),
        (1764000000000000, 1764000000 * 10**9),
        (10**17, 10**17),
        (1764000000000000001, 1764000000000000001),
    ],
)
def test_units_of_times(ts, ns):
    """A time's magnitude tells its unit; fractions of seconds and milliseconds are kept."""
    if ns is None:
        with pytest.raises(ValueError, match="beyond"):
            time_to_ns(ts)
    else:
        assert time_to_ns(ts) == ns


@pytest.mark.parametrize("ts", [-1, -0.5, math.nan, math.inf, "1764000000", True, None, 2**63, [1]])
def test_times_refused(ts):
    """Negative, infinite, absent and foreign times are refused."""
    with pytest.raises(ValueError, match=r".+"):
        time_to_ns(ts)


@given(st.integers(0, 9_223_372_035))
def test_seconds_milliseconds_and_microseconds_agree(seconds):
    """The same moment in three units is the same time, wherever its magnitude is told apart."""
    moments = {time_to_ns(seconds)} if seconds < 1e11 else set()
    if 1e11 <= seconds * 1000 < 1e14:
        moments.add(time_to_ns(seconds * 1000))
    if 1e14 <= seconds * 10**6 < 1e17:
        moments.add(time_to_ns(seconds * 10**6))
    assert moments <= {seconds * 10**9}


def test_layout_of_journalled_items_is_frozen():
    """Journals on disk hold these arrays: tags and order of fields may not change."""
    items: list[Item] = [
        Reading("d", "s", 7, 1, 2, {"t": 1.5, "n": 3, "b": True, "s": "x"}, 1, "hub"),
        Mark("d", "s", 8),
        Presence("d", "online", 3, "", "s"),
        Description("d", 4, {"name": "D"}),
    ]
    wire = msgspec.msgpack.encode(items)
    assert msgspec.msgpack.decode(wire) == [
        [0, "d", "s", 7, 1, 2, {"t": 1.5, "n": 3, "b": True, "s": "x"}, 1, "hub"],
        [1, "d", "s", 8],
        [2, "d", "online", 3, "", "s"],
        [3, "d", 4, {"name": "D"}],
    ]
    assert msgspec.msgpack.decode(wire, type=list[Item]) == items
    before = msgspec.msgpack.encode([[0, "d", "s", 7, 1, 2, {"t": 1.5}, 1]])
    assert msgspec.msgpack.decode(before, type=list[Item]) == [Reading("d", "s", 7, 1, 2, {"t": 1.5}, 1)]


def test_batch_end():
    """A batch ends after its last item."""
    assert Batch(5, [Mark("d", "s", 1), Mark("d", "s", 2)], 0).end == 7

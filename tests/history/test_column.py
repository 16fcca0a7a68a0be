from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.history.column import BOOL, FLOAT, INT, OBJECT, column, cut, join, pick, size, values
from gateway.reading import Value
from tests.history.model import exact

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), INT64, st.booleans(), st.text(max_size=8))


@pytest.mark.parametrize(
    ("given_values", "kind"),
    [
        ([1.5, 2.0], FLOAT),
        ([1, -2, (1 << 63) - 1], INT),
        ([True, False], BOOL),
        (["a", "b"], OBJECT),
        ([1.5, 2], FLOAT),
        ([1.5, (1 << 53) + 1], OBJECT),
        ([1, True], OBJECT),
        ([1.5, "a"], OBJECT),
        ([1 << 64], OBJECT),
    ],
)
def test_kind(given_values: list[Value], kind: int) -> None:
    """A column has the narrowest kind that keeps every value."""
    made = column(given_values)
    assert made.kind == kind
    assert list(values(made)) == given_values


@given(st.lists(VALUES, min_size=1))
def test_values_are_kept(given_values: list[Value]) -> None:
    """A column gives its values back, numbers as numbers and booleans as booleans."""
    assert list(map(exact, values(column(given_values)))) == list(map(exact, given_values))


@given(st.lists(st.lists(VALUES, min_size=1), min_size=1, max_size=4))
def test_join_is_concatenation(parts: list[list[Value]]) -> None:
    """Joined columns hold the values of all, whatever their kinds."""
    joined = join([column(list(part)) for part in parts])
    assert list(map(exact, values(joined))) == [exact(value) for part in parts for value in part]


@given(st.lists(VALUES, min_size=1, max_size=20), st.data())
def test_rows_are_picked(given_values: list[Value], data: st.DataObject) -> None:
    """Cutting and picking take the rows asked for."""
    made = column(given_values)
    rows = data.draw(st.lists(st.integers(0, len(given_values) - 1)))
    assert list(values(pick(made, rows))) == [given_values[row] for row in rows]
    start = data.draw(st.integers(0, len(given_values)))
    assert list(values(cut(made, start, len(given_values)))) == given_values[start:]


def test_size_counts_strings() -> None:
    """The size of a column includes its strings."""
    assert size(column(["x" * 1000])) > 1000
    assert size(column([1.0] * 100)) >= 800

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from gateway.history.column import values
from gateway.history.frame import Frame, sort_rows
from gateway.history.memtable import Memtable, Shape
from gateway.history.regroup import regroup
from gateway.reading import Item, Mark, Presence, Reading, Value
from tests.history.model import exact, reading

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.one_of(st.floats(-100, 100), st.integers(-5, 5), st.booleans(), st.sampled_from(["x", "y"]))
READINGS: st.SearchStrategy[Item] = st.one_of(
    st.builds(reading, NAMES, st.integers(0, 4), st.dictionaries(st.sampled_from("mnop"), VALUES, max_size=4)),
    st.just(Mark("a", "s", 1)),
)
Series = dict[tuple[str, str], list[tuple[int, tuple[str, Value]]]]


def expected(items: list[Item]) -> Series:
    """By device and metric the times and values, sorted by time and arrival."""
    series: Series = defaultdict(list)
    for item in items:
        if isinstance(item, Reading):
            for metric, value in item.values.items():
                series[item.device, metric].append((item.time, exact(value)))
    for rows in series.values():
        rows.sort(key=lambda row: row[0])
    return dict(series)


def series_of(devices: dict[str, list[tuple[Shape, Frame]]]) -> Series:
    """The same from frames, by their orders and positions."""
    series: dict[tuple[str, str], list[tuple[tuple[int, int, int], tuple[int, tuple[str, Value]]]]] = defaultdict(list)
    for device, frames in devices.items():
        for shape, frame in frames:
            for metric, column in zip(shape, frame.columns, strict=True):
                for row, value in enumerate(values(column)):
                    order = frame.orders if isinstance(frame.orders, int) else frame.orders[row]
                    time = frame.times[row]
                    series[device, metric].append(((time, order, row), (time, exact(value))))
    return {key: [row for _, row in sorted(rows, key=lambda row: row[0])] for key, rows in series.items()}


@given(st.lists(st.lists(READINGS, max_size=30), max_size=6), st.integers(1, 40))
def test_rows_and_their_order(batches: list[list[Item]], stage: int) -> None:
    """All rows are found, and those of one series and time in the order of their arrival, whatever form they have."""
    table, base = Memtable(100, stage), 100
    for items in batches:
        table.add(base, items, len(items))
        base += len(items) + 5
    items = [item for part in batches for item in part]
    assert series_of(table.view().find(lambda name: True)) == expected(items)
    assert series_of(table.view().find("a".__eq__)) == {
        key: rows for key, rows in expected(items).items() if key[0] == "a"
    }
    regrouped = {
        "abc"[device]: [(shape, sort_rows(frame)) for shape, frame in frames.items()]
        for device, frames in regroup(table.blocks(), 100, "abc".index)
    }
    assert series_of(regrouped) == expected(items)


def test_views_stay_whole() -> None:
    """Who holds an old view finds what the table held then, however it has changed since."""
    table = Memtable(0, 64)
    views, items = [], list[Item]()
    for number in range(40):
        # Shapes of one reading each, which stay as they are, among those of many.
        more: list[Item] = [reading(f"d{i}", number, {"m": 1.0}) for i in range(9)]
        more.append(reading("odd", number, {f"m{number}": 1.0}))
        table.add(len(items), more, 10)
        items += more
        views.append((len(items), table.view()))
    for count, view in views:
        assert series_of(view.find(lambda name: True)) == expected(items[:count])


def test_size_is_bound_by_columns() -> None:
    """Readings of four floats take about 50 bytes each once they are columns."""
    table = Memtable(0)
    for number in range(20):
        items: list[Item] = [
            reading(f"d{i % 100}", number * 1000 + i, {"a": 1.5, "b": 2.5, "c": 3.5, "d": i * 0.1}) for i in range(2048)
        ]
        table.add(number * 2048, items, 2048)
    assert table.readings == 20 * 2048
    assert 48 < table.size / table.readings < 60


def test_big_strings_are_counted() -> None:
    """Strings count with their length, and fewer such readings are kept as they are."""
    table = Memtable(0)
    items: list[Item] = [reading("d", i, {f"m{n}": "x" * 1000 for n in range(20)}) for i in range(2048)]
    table.add(0, items, len(items))
    assert table.size > 2048 * 20 * 1000
    table.add(2048, items[:100], 100)
    assert table.view().staged_count < 100


def test_only_what_has_values() -> None:
    """Marks, presence and readings without values leave no rows."""
    table = Memtable(0, 1)
    table.add(0, [Mark("a", "s", 1), Presence("a", "online", 1), reading("a", 1, {})], 1)
    assert table.blocks() == []
    assert table.view().find(lambda name: True) == {}


def test_rare_shapes_are_taken_apart() -> None:
    """A device with very many shapes of few rows leaves one frame a metric; wide shapes are cut."""
    table = Memtable(0)
    items: list[Item] = [
        reading("d", number, {f"m{number % 7}": 1, f"n{number % 11}": 2, f"o{number % 13}": 3}) for number in range(200)
    ]
    table.add(0, items, 200)
    ((_, frames),) = regroup(table.blocks(), 0, len)
    assert len(frames) == 31
    assert all(len(shape) == 1 for shape in frames)
    assert sum(map(len, frames.values())) == 600
    assert series_of({"d": list(frames.items())}) == expected(items)

    table = Memtable(0)
    wide: list[Item] = [reading("d", 1, {f"m{number}": number for number in range(100)})]
    table.add(0, wide, 1)
    ((_, frames),) = regroup(table.blocks(), 0, len)
    assert sorted(map(len, frames)) == [4, 32, 32, 32]
    assert series_of({"d": list(frames.items())}) == expected(wide)

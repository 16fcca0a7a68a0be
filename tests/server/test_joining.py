"""History for a subscription: what is in it, in what steps, and where it ends."""

import math

import msgspec
import pytest

from gateway.history import History
from gateway.hub import Subscription
from gateway.reading import Batch, Reading
from gateway.server import joining
from gateway.server.joining import Join, Question, history_frames

MS = 1_000_000
ALL = Subscription("main", (), (), "every", 1, "json")


def reading(ms, device="a", **values):
    """A reading of a device."""
    return Reading(device, "s", 0, ms * MS, ms * MS, values)


def frames(join, rows, complete=True, texts=None, subscription=ALL):
    """The messages alone."""
    return [frame for frame in history_frames(subscription, join, rows, complete, texts) if frame is not None]


def points(join, rows, complete=True, texts=None, subscription=ALL):
    """The points of each series of all messages."""
    found = {}
    for frame in frames(join, rows, complete, texts, subscription):
        for device, series in frame["data"].items():
            for metric, part in series.items():
                found.setdefault((device, metric), []).extend(part)
    return found


def test_very_many_rows_are_looked_at_in_steps():
    """No step looks at more than some thousands of rows, nor is a frame large; nothing is left out."""
    rows = [(n * MS, f"d{n % 50}", f"m{n % 2}", "x" * (n % 20)) for n in range(100_000)]
    texts = [(n * MS, "text", "t", "x") for n in range(20_000)]
    join = Join(0, 1 << 62, [(n, reading(n, "b", v=n)) for n in range(5000)])
    found, left = 0, len(rows) + len(texts) + len(join.above)
    for frame in history_frames(ALL, join, rows, True, texts):
        now = len(rows) + len(texts) + len(join.above)
        assert left - now <= 5000
        left = now
        if frame is not None:
            assert len(msgspec.json.encode(frame)) < 512 * 1024
            found += sum(len(part) for series in frame["data"].values() for part in series.values())
    assert left == 0
    assert 1500 < found - 105_000 <= joining.POINTS_DOWNSAMPLED  # of the one series that is too long


def test_thinning_is_the_store_s():
    """Means of numbers, booleans as 0 and 1, without overflow; texts by the last; at most so many points."""
    count = 12_000
    rows = []
    for n in range(count):
        rows += [
            (n * MS, "a", "number", n),
            (n * MS, "a", "flag", n % 2 == 0),
            (n * MS, "a", "huge", 1.7e308),
            (n * MS, "a", "text", f"x{n}"),
            (n * MS, "a", "big", 2**60),
        ]
    found = points(Join(0, 1 << 62, []), rows)
    for series in found.values():
        assert 1500 < len(series) <= joining.POINTS_DOWNSAMPLED
    assert found["a", "number"][0][1] < 10
    assert found["a", "number"][-1][1] > count - 10
    assert all(type(value) is float and 0.0 < value < 1.0 for _, value in found["a", "flag"][1:-1])
    assert all(math.isclose(value, 1.7e308) for _, value in found["a", "huge"])
    assert found["a", "text"][-1][1] == f"x{count - 1}"
    assert all(value == 2.0**60 for _, value in found["a", "big"])


def test_what_is_in_updates_is_not_in_history():
    """As often as a missed reading's value is a row, one such row is left out, and no other."""
    rows = [(5 * MS, "a", "v", 1), (5 * MS, "a", "v", 1), (6 * MS, "a", "v", 2), (7 * MS, "a", "v", 3.0)]
    join = Join(0, 1 << 62, [], missed=[(10, reading(5, v=1)), (11, reading(7, v=3)), (12, reading(9, v=9))])
    assert points(join, rows) == {("a", "v"): [[5, 1], [6, 2]]}


def test_readings_above_the_store_are_sorted_in():
    """What was shown and is not stored yet follows, late ones in their place; what lies before the start does not."""
    join = Join(3 * MS, 1 << 62, [(10, reading(5, v=5)), (11, reading(2, v=2)), (12, reading(9, v=9))])
    rows = [(4 * MS, "a", "v", 4), (7 * MS, "a", "v", 7)]
    assert points(join, rows) == {("a", "v"): [[4, 4], [5, 5], [7, 7], [9, 9]]}


def test_incomplete_history_says_so():
    """The last message alone says that it is the last, and whether there are holes."""
    (frame,) = frames(Join(0, 1, []), [], complete=False)
    assert frame == {"type": "history", "id": "main", "data": {}, "last": True, "complete": False}


@pytest.fixture
async def history(tmp_path):
    """An open store."""
    history = History(tmp_path / "history.db")
    await history.open("epoch")
    yield history
    await history.close()


async def write(history, *readings):
    """Store readings behind all others."""
    await history.write(Batch(history.end, list(readings), len(readings)))


async def test_coarse_answer_ends_where_the_join_is(history, monkeypatch):
    """Rows that come after the question are in no answer to it: neither the rows nor, where those are too many, the
    means; texts have no mean, their last ones come."""
    monkeypatch.setattr(joining, "ROWS_MAX", 50)
    await write(history, *(reading(n, v=1.0, text=f"x{n}", mixed=2.0 if n % 2 else "y") for n in range(60)))
    question = Question(history, ALL, Join(0, 1000 * MS, []))
    await write(history, *(reading(n, v=1e9, text="later") for n in range(60)))
    await history.flush()
    answer = await question.answer()
    assert not answer.raw
    assert answer.complete
    found = points(Join(0, 1000 * MS, []), list(answer.rows), texts=list(answer.texts))
    assert {value for _, value in found["a", "v"]} == {1.0}
    assert found["a", "text"][-1][1] == "x59"
    assert len(found["a", "text"]) == len(found["a", "v"])
    assert {value for _, value in found["a", "mixed"]} == {2.0}


async def test_very_many_series_get_coarser_steps(history, monkeypatch):
    """Where two thousand buckets a series are too many rows, fewer are asked for, so that the history has no hole."""
    monkeypatch.setattr(joining, "ROWS_MAX", 600)
    for n in range(100):
        await write(history, *(reading(n * 10, f"d{d}", v=1.0) for d in range(20)))
    answer = await Question(history, ALL, Join(0, 1000 * MS, [])).answer()
    assert answer.complete
    assert {row[1] for row in answer.rows} == {f"d{d}" for d in range(20)}
    assert answer.rows[-1][0] >= 900 * MS
    assert len(answer.rows) == 400

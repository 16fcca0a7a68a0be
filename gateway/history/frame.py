"""Frames: rows of one device that have the same metrics, as columns with shared times.

Pure.  A row's ``order`` says when it came, among rows of the same device: the offset of its reading, or of any reading
before it that is after all rows of other frames which came earlier.  Rows of one frame with the same order came in the
order in which they stand.  So a frame whose rows cannot be confused with another frame's has one order for all of them,
and the rows of a series are sorted by (time, order, position).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from operator import le
from typing import TypeAlias

from gateway.history.column import Column, cut, join, pick, size

__all__ = ["Frame", "Orders", "arrange", "ascending", "concatenate", "cut_frame", "frame_size", "pieces", "sort_rows"]

Orders: TypeAlias = "int | array[int]"


class Frame:
    """Rows of one device and shape; ``columns`` are those of the shape's metrics, in its order."""

    __slots__ = ("columns", "orders", "received", "times")

    def __init__(self, times: array[int], received: array[int], orders: Orders, columns: list[Column]) -> None:
        self.times = times
        self.received = received
        self.orders = orders
        self.columns = columns

    def __len__(self) -> int:
        return len(self.times)

    @property
    def low(self) -> int:
        """The least order."""
        return self.orders if isinstance(self.orders, int) else min(self.orders)

    @property
    def high(self) -> int:
        """The greatest order."""
        return self.orders if isinstance(self.orders, int) else max(self.orders)


def ascending(numbers: Sequence[int]) -> bool:
    """Whether no number is less than the one before."""
    return all(map(le, numbers, islice(numbers, 1, None)))


def cut_frame(frame: Frame, start: int, stop: int) -> Frame:
    """Rows ``start`` to ``stop``."""
    orders = frame.orders if isinstance(frame.orders, int) else frame.orders[start:stop]
    columns = [cut(column, start, stop) for column in frame.columns]
    return Frame(frame.times[start:stop], frame.received[start:stop], orders, columns)


def pieces(frame: Frame, rows: int) -> Iterator[Frame]:
    """The frame in pieces of at most ``rows`` rows."""
    if len(frame) <= rows:
        yield frame
        return
    for start in range(0, len(frame), rows):
        yield cut_frame(frame, start, min(start + rows, len(frame)))


def concatenate(frames: list[Frame]) -> Frame:
    """One frame after the other; all of the same device and shape, at least one."""
    first = frames[0]
    if len(frames) == 1:
        return first
    times, received = first.times[:], first.received[:]
    for frame in frames[1:]:
        times.extend(frame.times)
        received.extend(frame.received)
    orders: Orders
    if isinstance(first.orders, int) and all(frame.orders == first.orders for frame in frames):
        orders = first.orders
    else:
        orders = array("q")
        for frame in frames:
            if isinstance(frame.orders, int):
                orders.extend(repeat(frame.orders, len(frame)))
            else:
                orders.extend(frame.orders)
    columns = [join([frame.columns[index] for frame in frames]) for index in range(len(first.columns))]
    return Frame(times, received, orders, columns)


def arrange(frame: Frame, rows: Sequence[int]) -> Frame:
    """The rows with these indices, in this order."""
    orders = frame.orders
    return Frame(
        array("q", map(frame.times.__getitem__, rows)),
        array("q", map(frame.received.__getitem__, rows)),
        orders if isinstance(orders, int) else array("q", map(orders.__getitem__, rows)),
        [pick(column, rows) for column in frame.columns],
    )


def sort_rows(frame: Frame) -> Frame:
    """The rows by time, those of one time in the order in which they came."""
    times, orders = frame.times, frame.orders
    if isinstance(orders, int):
        return frame if ascending(times) else arrange(frame, sorted(range(len(times)), key=times.__getitem__))
    if ascending(times) and ascending(orders):
        return frame
    keys = list(zip(times, orders, strict=True))
    return arrange(frame, sorted(range(len(times)), key=keys.__getitem__))


def frame_size(frame: Frame) -> int:
    """Bytes in memory, about."""
    orders = 0 if isinstance(frame.orders, int) else 64 + 8 * len(frame.orders)
    return 200 + 16 * len(frame.times) + orders + sum(map(size, frame.columns))

"""From the blocks of a memtable, many devices in each, to the frames of one device after the other.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from gateway.history.codec import MAX_COLUMNS
from gateway.history.frame import Frame, arrange, ascending, concatenate, cut_frame
from gateway.history.memtable import Block, Shape

__all__ = ["regroup"]

# A device with more shapes than MANY_SHAPES has those with less than FEW_ROWS rows taken apart into single metrics: one
# that sends another selection each time would fill the file with chunks of one row and names of shapes.
MANY_SHAPES: Final = 16
FEW_ROWS: Final = 8


def regroup(
    blocks: Iterable[Block], base: int, number: Callable[[str], int]
) -> Iterator[tuple[int, dict[Shape, Frame]]]:
    """The ``number`` of each device, ascending, with its frames by shape, rows in order of arrival.

    ``base`` is the least order of all.  No shape is wider than ``MAX_COLUMNS``.
    """
    devices: defaultdict[str, list[tuple[Block, int, int]]] = defaultdict(list)
    for block in blocks:
        for name, start, stop in block.spans():
            devices[name].append((block, start, stop))
    for device, name in sorted((number(name), name) for name in devices):
        parts: defaultdict[Shape, list[Frame]] = defaultdict(list)
        for block, start, stop in devices.pop(name):
            parts[block.shape].append(cut_frame(block.frame, start, stop))
        narrow = _narrow(parts)
        # Frames without a common metric are never merged by a query: the place of a row is order enough.
        apart = len(narrow) == 1 or len(set().union(*narrow)) == sum(map(len, narrow))
        yield device, {shape: _by_arrival(frames, base if apart else None) for shape, frames in narrow.items()}


def _narrow(parts: dict[Shape, list[Frame]]) -> dict[Shape, list[Frame]]:
    """Cut what is too wide, take apart what is too rare."""
    many = len(parts) > MANY_SHAPES
    if not many and max(map(len, parts)) <= MAX_COLUMNS:
        return parts
    narrow: defaultdict[Shape, list[Frame]] = defaultdict(list)
    for shape, frames in parts.items():
        width = 1 if many and sum(map(len, frames)) < FEW_ROWS else MAX_COLUMNS
        for start in range(0, len(shape), width):
            stop = start + width
            narrow[shape[start:stop]] += [
                Frame(frame.times, frame.received, frame.orders, frame.columns[start:stop]) for frame in frames
            ]
    return narrow


def _by_arrival(frames: list[Frame], base: int | None) -> Frame:
    """One frame in order of arrival; all its rows get the order ``base`` if that is given."""
    orders = [frame.orders for frame in frames if isinstance(frame.orders, int)]
    if base is not None and len(orders) == len(frames) and ascending(orders):
        return concatenate([Frame(frame.times, frame.received, base, frame.columns) for frame in frames])
    whole = concatenate(frames)
    if not isinstance(whole.orders, int) and not ascending(whole.orders):
        whole = arrange(whole, sorted(range(len(whole)), key=whole.orders.__getitem__))
    return whole if base is None else Frame(whole.times, whole.received, base, whole.columns)

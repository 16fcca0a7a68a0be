"""What is not on disk yet: readings by arrival, then typed columns.

Pure.  One thread writes, and takes views for others, who read them without a lock: all that a view holds either stays
as it is or only grows, and the view says how far it goes.

Readings are first kept as they are (``staged``, a list which only grows).  Every two thousand of them become blocks:
one a shape, with the rows of each device side by side.  Readings whose shape is rare stay as they are (``loose``),
since a block has a price.  Arrays of whole blocks instead of small ones for each device keep 10,000 devices that seldom
send within the same memory as 10 that send much.

A shape is the tuple of a reading's metrics, sorted.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple

from gateway.history.column import FLOAT, Column, column
from gateway.history.frame import Frame, Orders, cut_frame, frame_size
from gateway.reading import Item, Reading, Value

__all__ = ["Block", "Memtable", "Shape", "View", "assemble"]

Shape = tuple[str, ...]

# Readings of a rare shape are kept as they are.
_LEAST_ROWS: Final = 16
# What a reading costs beside its values' own bytes, and one value, about.
_READING_BYTES: Final = 240
_VALUE_BYTES: Final = 56

_values: Callable[[Reading], dict[str, Value]] = attrgetter("values")
_time: Callable[[Reading], int] = attrgetter("time")
_received: Callable[[Reading], int] = attrgetter("received")


class Block(NamedTuple):
    """Rows of one shape; those of ``devices[i]`` are ``starts[i]`` to ``starts[i + 1]``, in the order of arrival."""

    shape: Shape
    devices: list[str]
    starts: array[int]
    frame: Frame

    def spans(self) -> Iterator[tuple[str, int, int]]:
        """Each device with its first row and the row after its last."""
        return zip(self.devices, self.starts, self.starts[1:], strict=False)

    def of(self, device: str) -> Frame | None:
        """The rows of one device."""
        try:
            index = self.devices.index(device)
        except ValueError:
            return None
        return cut_frame(self.frame, self.starts[index], self.starts[index + 1])


class View(NamedTuple):
    """What a memtable held at one time: ``blocks``, the first of ``loose`` and the first of ``staged``, so many.

    ``staged[i]`` has the order ``staged_base + i``.  The lists may have grown since; nothing in them ever changes.
    """

    blocks: tuple[Block, ...]
    loose_orders: array[int]
    loose: list[Reading]
    loose_count: int
    staged_base: int
    staged: list[Item]
    staged_count: int

    def find(self, match: Callable[[str], bool]) -> dict[str, list[tuple[Shape, Frame]]]:
        """The rows of the devices whose names ``match``."""
        loose, staged = self.loose[: self.loose_count], self.staged[: self.staged_count]
        names = set(chain.from_iterable(of.devices for of in self.blocks))
        names.update(reading.device for reading in loose)
        names.update(item.device for item in staged)
        wanted = set(filter(match, names))
        pairs = [pair for pair in zip(self.loose_orders, loose, strict=False) if pair[1].device in wanted]
        pairs += [
            (order, item)
            for order, item in enumerate(staged, self.staged_base)
            if type(item) is Reading and item.device in wanted
        ]
        blocks = [*self.blocks, *assemble([order for order, _ in pairs], [reading for _, reading in pairs])[0]]
        found: dict[str, list[tuple[Shape, Frame]]] = {}
        for of in blocks:
            if len(wanted) == 1:
                (name,) = wanted
                frame = of.of(name)
                if frame is not None:
                    found.setdefault(name, []).append((of.shape, frame))
                continue
            for name, start, stop in of.spans():
                if name in wanted:
                    found.setdefault(name, []).append((of.shape, cut_frame(of.frame, start, stop)))
        return found


def block(shape: Shape, groups: Sequence[tuple[str, list[Reading]]], orders: Orders) -> Block:
    """The block of these devices' readings, all with the metrics ``shape`` in this sequence."""
    rows = list(chain.from_iterable([readings for _, readings in groups]))
    flat: list[Any] = list(chain.from_iterable(map(dict.values, map(_values, rows))))
    width = len(shape)
    if set(map(type, flat)) == {float}:
        doubles: array[float] = array("d", flat)
        columns = [Column(FLOAT, doubles[index::width]) for index in range(width)]
    else:
        columns = [column(flat[index::width]) for index in range(width)]
    names = tuple(sorted(shape))
    if names != shape:
        columns = [columns[shape.index(name)] for name in names]
    return Block(
        names,
        [device for device, _ in groups],
        array("q", accumulate((len(readings) for _, readings in groups), initial=0)),
        Frame(array("q", map(_time, rows)), array("q", map(_received, rows)), orders, columns),
    )


def assemble(orders: Sequence[int], readings: Sequence[Reading], least: int = 1) -> tuple[list[Block], list[int]]:
    """Blocks of readings in order of arrival, each row with its own order.

    Also the indices of the readings whose shape has less than ``least`` rows, which are left out.
    """
    shapes: defaultdict[Shape, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, reading in enumerate(readings):
        if reading.values:
            shapes[tuple(reading.values)][reading.device].append(index)
    blocks, left = [], []
    for shape, devices in shapes.items():
        rows = list(chain.from_iterable(devices.values()))
        if len(rows) < least:
            left.extend(rows)
            continue
        groups = [(device, list(map(readings.__getitem__, indices))) for device, indices in devices.items()]
        blocks.append(block(shape, groups, array("q", map(orders.__getitem__, rows))))
    left.sort()
    return blocks, left


def convert(base: int, items: Sequence[Item], least: int) -> tuple[list[Block], list[tuple[int, Reading]]]:
    """Blocks of items in order of arrival, ``items[0]`` with the order ``base``; and what is left, with its orders.

    Rows of devices that kept to one shape have the order ``base``: no other frame's rows can stand between them.
    """
    devices: defaultdict[str, list[Reading]] = defaultdict(list)
    for item in items:
        if type(item) is Reading:
            devices[item.device].append(item)
    shapes: defaultdict[Shape, list[tuple[str, list[Reading]]]] = defaultdict(list)
    odd: set[str] = set()
    for device, readings in devices.items():
        shape = tuple(readings[0].values)
        if len(readings) > 1 and len(set(map(tuple, map(_values, readings)))) > 1:
            odd.add(device)
        elif shape:
            shapes[shape].append((device, readings))
    blocks: list[Block] = []
    left: list[tuple[int, Reading]] = []
    for shape, groups in shapes.items():
        if sum([len(readings) for _, readings in groups]) >= least:
            blocks.append(block(shape, groups, base))
        else:
            for _, readings in groups:
                left.extend(zip(repeat(base), readings))
    if odd:
        pairs = [pair for pair in enumerate(items, base) if type(pair[1]) is Reading and pair[1].device in odd]
        orders, found = [order for order, _ in pairs], [reading for _, reading in pairs]
        more, indices = assemble(orders, found, least)  # type: ignore[arg-type]
        blocks += more
        left.extend((orders[index], found[index]) for index in indices)  # type: ignore[misc]
    return blocks, left


def block_size(of: Block) -> int:
    """Bytes in memory, about."""
    return 400 + 16 * len(of.devices) + frame_size(of.frame)


class Memtable:
    """Readings with orders of ``base`` and more.  ``size`` is bytes, about; ``readings`` those with values.

    ``stage`` readings at most are kept as they are before they become columns; fewer where they are big.
    """

    def __init__(self, base: int, stage: int = 2048) -> None:
        self.base = base
        self.readings = 0
        self._view = View((), array("q"), [], 0, base, [], 0)
        self._stage = stage
        self._limit = stage
        self._settled = 0  # bytes of blocks and loose readings

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return self._settled + (_READING_BYTES + 3 * _VALUE_BYTES) * len(self._view.staged)

    def __bool__(self) -> bool:
        return bool(self._view.staged) or bool(self._view.loose) or bool(self._view.blocks)

    def view(self) -> View:
        """What is here now, for any thread to look at while more is added."""
        return self._view._replace(staged_count=len(self._view.staged))

    def add(self, base: int, items: Sequence[Item], readings: int) -> None:
        """Take ``items`` in, the first with order ``base``, which is not less than any before."""
        view = self._view
        if not view.staged:
            self._view = view = view._replace(staged_base=base)
        self.readings += readings
        view.staged.extend(items)
        if len(view.staged) >= self._limit:
            self._settle()

    def _settle(self) -> None:
        view = self._view
        blocks, left = convert(view.staged_base, view.staged, _LEAST_ROWS)
        grown = sum(map(block_size, blocks))
        for order, reading in left:
            view.loose_orders.append(order)
            view.loose.append(reading)
            texts = sum(len(value) for value in reading.values.values() if type(value) is str)
            grown += _READING_BYTES + _VALUE_BYTES * len(reading.values) + texts
        self._settled += grown
        # Strings make readings big: about 1 MiB is staged at most, as far as the last ones tell.
        self._limit = max(16, min(self._stage, (1 << 20) * len(view.staged) // max(grown, 1)))
        # Whoever holds a view finds these readings in its ``staged``: that list is left to it.
        self._view = view._replace(
            blocks=view.blocks + tuple(blocks), loose_count=len(view.loose), staged_base=0, staged=[]
        )

    def blocks(self) -> list[Block]:
        """All as blocks; when nothing is added any more."""
        view = self._view
        blocks = list(view.blocks)
        blocks += assemble(view.loose_orders, view.loose)[0]
        blocks += convert(view.staged_base, view.staged, 1)[0]
        return blocks

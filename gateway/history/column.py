"""Columns: many values of one series, typed, in arrays of the standard library.

Pure.  Every step over many values is one call into C (``map``, ``array``, slices), never a loop of bytecode.

A column has one kind:

======  =====================================  =============================================
FLOAT   ``array('d')``, or ``array('q')`` with  ``scale`` 0: the doubles themselves; else decimals
        a ``scale``                             kept as integers, value = integer / scale
INT     ``array('q')``
BOOL    ``array('B')`` of 0 and 1
OBJECT  ``list``                                strings, and types that do not go together
======  =====================================  =============================================

Integers among floats become floats when all of them are exact as such (up to 2**53); else the column is an OBJECT, so
that every value keeps its type and all its digits.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import chain, repeat
from operator import truediv
from typing import Any, Final, TypeAlias

from gateway.reading import Value

__all__ = ["BOOL", "EXACT", "FLOAT", "INT", "OBJECT", "Column", "column", "cut", "join", "pick", "size", "values"]

FLOAT: Final = 0
INT: Final = 1
BOOL: Final = 2
OBJECT: Final = 3

EXACT: Final = 1 << 53  # integers up to here are exact as floats

Data: TypeAlias = "array[float] | array[int] | list[Value]"


class Column:
    """Values of one kind; nobody changes ``data`` once the column is made."""

    __slots__ = ("data", "kind", "scale")

    def __init__(self, kind: int, data: Data, scale: int = 0) -> None:
        self.kind = kind
        self.data = data
        self.scale = scale

    def __len__(self) -> int:
        return len(self.data)


def column(given: list[Value]) -> Column:
    """The column of these values (keeps the list where it is an OBJECT)."""
    data: list[Any] = given
    kinds = set(map(type, data))
    if len(kinds) == 1:
        kind = kinds.pop()
        if kind is float:
            return Column(FLOAT, array("d", data))
        if kind is bool:
            return Column(BOOL, array("B", data))
        if kind is int:
            try:
                return Column(INT, array("q", data))
            except OverflowError:
                return Column(OBJECT, given)
    elif kinds == {int, float} and all(-EXACT <= value <= EXACT for value in given if type(value) is int):
        return Column(FLOAT, array("d", data))
    return Column(OBJECT, given)


def values(of: Column, start: int = 0, stop: int | None = None) -> Sequence[Value]:
    """The values of rows ``start`` to ``stop`` with their own types."""
    data = of.data[start:stop]
    if of.kind == FLOAT and of.scale:
        return list(map(truediv, data, repeat(of.scale)))
    if of.kind == BOOL:
        return list(map(bool, data))
    return data


def cut(of: Column, start: int, stop: int) -> Column:
    """Rows ``start`` to ``stop``."""
    return Column(of.kind, of.data[start:stop], of.scale)


def pick(of: Column, rows: Sequence[int]) -> Column:
    """The rows with these indices, in this order."""
    data: Any = of.data
    picked = map(data.__getitem__, rows)
    if isinstance(data, list):
        return Column(of.kind, list(picked), of.scale)
    return Column(of.kind, array(data.typecode, picked), of.scale)


def join(parts: list[Column]) -> Column:
    """One column after the other."""
    if len(parts) == 1:
        return parts[0]
    kinds = {part.kind for part in parts}
    if len(kinds) == 1:
        kind = kinds.pop()
        if kind == OBJECT:
            return Column(OBJECT, list(chain.from_iterable(part.data for part in parts)))
        scales = {part.scale for part in parts}
        if len(scales) == 1:
            joined = parts[0].data[:]
            for part in parts[1:]:
                joined.extend(part.data)  # type: ignore[arg-type]
            return Column(kind, joined, scales.pop())
        floats = array("d")
        for part in parts:
            floats.extend(values(part))  # type: ignore[arg-type]
        return Column(FLOAT, floats)
    mixed: list[Value] = []
    for part in parts:
        mixed.extend(values(part))
    # A part that was an OBJECT keeps its mixture: what stood in one chunk is not changed by merging it with another.
    return column(mixed) if OBJECT not in kinds else Column(OBJECT, mixed)


def size(of: Column) -> int:
    """Bytes in memory, about."""
    data = of.data
    if isinstance(data, list):
        return 56 + 8 * len(data) + sum(map(sys.getsizeof, data))
    return 64 + data.itemsize * len(data)

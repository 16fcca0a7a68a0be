"""What the writer's thread and the readers share: names and numbers, and what a query sees."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.history.memtable import Shape, View

__all__ = ["Catalogue", "Snapshot"]


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Snapshot:
    """What a query sees: rows with orders below ``bound`` in chunks, the others in ``views``, the oldest first.

    As long as it is held no row it does not see gets into a rollup.
    """

    views: tuple[View, ...]
    bound: int


class Catalogue:
    """Names and numbers; the writer's thread adds to them before a chunk uses them, and replaces them whole."""

    def __init__(self) -> None:
        self.devices: dict[str, int] = {}
        self.shapes: dict[Shape, int] = {}
        self.shape_of: dict[int, Shape] = {}

"""How deeply a decoded message is nested: one bound for every format, far below what an interpreter can recurse.

A reading needs three levels (array, envelope, values) and no more; descriptions, results and parameters of commands may
hold anything, and whatever walks them later may walk them by recursion.  Beyond the bound a message is refused as a
whole, by name, and so is one at which a decoder itself gave up.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Refusal

__all__ = ["MAX_DEPTH", "check_depth", "is_deep", "too_deep"]

MAX_DEPTH = 32  # objects and arrays inside one another


def is_deep(value: object, inside: int = 0) -> bool:
    """Whether objects and arrays are nested more than :data:`MAX_DEPTH` deep, ``inside`` so many around ``value``.

    Level by level, without recursion.
    """
    level: list[object] = [value]  # containers, each level's inside the one before
    for _ in range(MAX_DEPTH - inside):
        level = [inner for outer in level for inner in _inside(outer) if type(inner) in (dict, list)]
        if not level:
            return False
    return True


def _inside(container: object) -> Iterable[object]:
    if type(container) is dict:
        return container.values()
    return container if type(container) is list else ()


def too_deep() -> Refusal:
    """The refusal of such a message."""
    return Refusal("too_deep", f"nested more than {MAX_DEPTH} deep")


def check_depth(value: object, inside: int = 0) -> None:
    """Raises :class:`Refusal` with code ``too_deep``, as :func:`is_deep` says."""
    if is_deep(value, inside):
        raise too_deep()

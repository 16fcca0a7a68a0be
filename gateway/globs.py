"""Globs of names: ``*`` any characters, ``?`` one character, all else itself.

Matching takes time in proportion to pattern times name, whatever the pattern: patterns come from strangers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

__all__ = ["any_of", "is_pattern", "matcher"]


def is_pattern(glob: str) -> bool:
    """Whether the glob can match any name but itself."""
    return "*" in glob or "?" in glob


def matcher(glob: str) -> Callable[[str], bool]:
    """A predicate for whole names."""
    return any_of((glob,))


def any_of(globs: Iterable[str]) -> Callable[[str], bool]:
    """A predicate for names that at least one of the globs matches; one regular expression for all of them."""
    plain: set[str] = set()
    expressions = []
    for glob in globs:
        if glob and not glob.strip("*"):
            return lambda name: True
        if is_pattern(glob):
            expressions.append(_expression(glob))
        else:
            plain.add(glob)
    if not expressions:
        return plain.__contains__
    fullmatch = re.compile("|".join(expressions), re.DOTALL).fullmatch
    return lambda name: name in plain or fullmatch(name) is not None


def _expression(glob: str) -> str:
    first, *rest = [re.escape(part).replace(r"\?", ".") for part in glob.split("*")]
    if not rest:
        return first
    # The first place where a part fits is as good as any later one: atomic groups give up the others.
    middle = "".join([f"(?>.*?{part})" for part in rest[:-1] if part])
    return f"{first}{middle}.*{rest[-1]}"

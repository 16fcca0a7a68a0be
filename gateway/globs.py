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
    if not is_pattern(glob):
        return glob.__eq__
    if not glob.strip("*"):
        return lambda name: True
    first, *rest = [re.escape(part).replace(r"\?", ".") for part in glob.split("*")]
    if not rest:
        expression = first
    else:
        # The first place where a part fits is as good as any later one: atomic groups give up the others.
        middle = "".join([f"(?>.*?{part})" for part in rest[:-1] if part])
        expression = f"{first}{middle}.*{rest[-1]}"
    fullmatch = re.compile(expression, re.DOTALL).fullmatch
    return lambda name: fullmatch(name) is not None


def any_of(globs: Iterable[str]) -> Callable[[str], bool]:
    """A predicate for names that at least one of the globs matches."""
    plain: set[str] = set()
    matchers = []
    for glob in globs:
        if not glob.strip("*") and glob:
            return lambda name: True
        if is_pattern(glob):
            matchers.append(matcher(glob))
        else:
            plain.add(glob)
    return lambda name: name in plain or any(match(name) for match in matchers)

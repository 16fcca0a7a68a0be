"""What hostile peers send, by class of attack; a file for each way in, each with a list ``CASES``.

A case says by which door it comes, what is sent, what has to come back, and which check sees to that (a name in
``checks.CHECKS``; empty where nothing is refused).  A format or door that is new is a new file: it is found by itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["ATTACKS", "Case", "cases"]

ATTACKS = frozenset(
    {
        "broken encoding",  # what is not of its format at all
        "compression",
        "control characters",  # NUL, C0, lone surrogates, bidirectional marks, forged log lines
        "depth",
        "duplicates",
        "encoded address",  # percent-encodings, overlong UTF-8, encoded twice
        "flood",  # much of something
        "fragments",
        "globs",
        "lengths",  # that lie, or are huge
        "names",  # that mean something elsewhere: topics, paths, SQL, markup, line protocol, prototypes
        "numbers",
        "query",
        "request",  # what is no request, or two of them
        "requests",  # messages of dashboards and commands that are none
        "sequence",
        "shape",  # JSON, and no reading
        "size",
        "time",
        "utf-8",
    }
)


@dataclass(frozen=True)
class Case:
    """``sent`` is what the door takes; ``expected`` what comes back, in order, in the door's words."""

    attack: str
    name: str
    door: str
    sent: Any
    expected: tuple[str, ...]
    check: str = ""
    stored: dict[str, Any] | None = field(default=None, hash=False)  # of a device: its newest values afterwards
    limits: dict[str, Any] | None = field(default=None, hash=False)  # of a gateway of its own

    source: str = ""  # the file it stands in

    def __str__(self) -> str:
        return f"{self.source}: {self.attack}: {self.name}"


def _found() -> Iterator[Case]:
    import tests.hostile

    for module in sorted(found.name for found in pkgutil.iter_modules(tests.hostile.__path__)):
        if module.startswith("in_"):
            for case in importlib.import_module(f"tests.hostile.{module}").CASES:
                yield replace(case, source=module.removeprefix("in_"))


def cases() -> list[Case]:
    """Every case there is; each has a name of its own."""
    found = list(_found())
    assert len({str(case) for case in found}) == len(found)
    assert {case.attack for case in found} <= ATTACKS
    return found

"""Plain data as YAML 1.2, in block style, always the same text for the same data.  Pure.

Mappings keep their order.  A text is written plain where nothing else could be meant by it, folded where it is long,
else in double quotes, as JSON has it, which is YAML as well.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator

__all__ = ["dump"]

WIDTH = 110
_plain = re.compile(r"[$A-Za-z_/][A-Za-z0-9_./+()-]*(?: [A-Za-z0-9_./(-][A-Za-z0-9_./,;()'-]*)*", re.ASCII).fullmatch
_unprintable = re.compile(r"[^\x20-\x7e\u00a1-\ud7ff\ue000-\ufefe\uff00-\uffef\U00010000-\U0010ffff]").sub
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # YAML 1.1, too


def dump(data: object) -> str:
    """The document; raises ``TypeError`` for what is no plain data."""
    return "\n".join(_block(data, 0)) + "\n"


def _block(data: object, indent: int) -> Iterator[str]:
    """The lines of a mapping or list that is not empty, or of a scalar."""
    space = " " * indent
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _after(f"{space}{_scalar(str(key))}:", value, indent + 2)
    elif isinstance(data, list) and data:
        for value in data:
            if isinstance(value, dict) and value:
                first, *rest = _block(value, indent + 2)
                yield f"{space}- {first.lstrip()}"
                yield from rest
            else:
                yield from _after(f"{space}-", value, indent + 2)
    else:
        yield f"{space}{_scalar(data)}"


def _after(head: str, value: object, indent: int) -> Iterator[str]:
    """A key or a dash, and what is behind it."""
    if isinstance(value, dict | list) and value and not _is_short(value):
        yield head
        yield from _block(value, indent)
    elif isinstance(value, str) and len(head) + len(value) > WIDTH and (lines := _folded(value, indent)):
        yield f"{head} >-"
        yield from (" " * indent + line for line in lines)
    else:
        yield f"{head} {_scalar(value)}"


def _is_short(value: object) -> bool:
    """Whether it is a list of a few scalars, to be written in a line."""
    plain = isinstance(value, list) and all(not isinstance(item, dict | list) for item in value)
    return plain and len(_scalar(value)) <= 80


def _folded(text: str, indent: int) -> list[str]:
    """The lines of a text that folding gives back as it is; none where there are not."""
    lines = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    return lines if text.isprintable() and " ".join(lines) == text else []


def _scalar(value: object) -> str:
    if isinstance(value, str):
        if _plain(value) and value.lower() not in _WORDS:
            return value
        return _unprintable(lambda found: f"\\U{ord(found[0]):08x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if value is None or isinstance(value, bool | int | float | dict):
        return json.dumps(value)
    raise TypeError(f"{type(value).__name__} in a document")

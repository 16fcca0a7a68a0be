"""Whose a request is that cannot be understood: its ``id`` and ``ref``, as far as they can be read.  Pure.

An answer to a bad request names it, so that its sender knows which one it was.  What is whole MessagePack is decoded;
text is looked through for the fields of its outermost object, since a number that no float holds, ``NaN``, or a missing
end must not hide them.  Bound: :data:`TOKENS` strings and brackets are looked at; what comes behind them is not found.
"""

from __future__ import annotations

import json
import re

import msgspec

__all__ = ["LONGEST", "named"]

LONGEST = 64  # characters of an id or a ref that are given back
TOKENS = 8_192

_token = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)


def named(data: str | bytes) -> dict[str, str]:
    """``id`` and ``ref`` of a request, those of them that are printable text, each cut to :data:`LONGEST`."""
    found = _in_text(data) if isinstance(data, str) else _in_packed(data)
    return {key: value[:LONGEST] for key, value in found.items() if value and value.isprintable()}


def _in_packed(data: bytes) -> dict[str, str]:
    try:
        body = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    return {key: value for key in ("id", "ref") if isinstance(value := body.get(key), str)}


def _in_text(data: str) -> dict[str, str]:
    """The last of each key counts, as for a decoder."""
    found: dict[str, str] = {}
    depth, key, before = 0, "", ""
    for count, match in enumerate(_token.finditer(data)):
        token = match.group()
        if count >= TOKENS or (count == 0 and token != "{"):
            break
        if token in "{[":
            depth += 1
        elif token in "}]":
            depth -= 1
        elif depth == 1:
            if token == ":":
                key = _string(before)
            elif token == ",":
                key = ""
            elif key in ("id", "ref") and before == ":":
                found[key] = _string(token)
        before = token
    return found


def _string(token: str) -> str:
    try:
        value = json.loads(token)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""

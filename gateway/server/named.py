"""Whose a request is that cannot be understood, its ``id`` and ``ref``, as far as they can be read; and why.  Pure.

An answer to a bad request names it, so that its sender knows which one it was.  What is whole MessagePack is decoded;
text is looked through for the fields of its outermost object, since a number that no float holds, ``NaN``, or a missing
end must not hide them.  Bound: :data:`TOKENS` strings and brackets are looked at; what comes behind them is not found.
"""

from __future__ import annotations

import json
import re

import msgspec

__all__ = ["LONGEST", "named", "why"]

LONGEST = 64  # characters of an id or a ref that are given back
TOKENS = 8_192
TRUNCATED, SURROGATE = "Input data was truncated", "surrogate"  # in the decoder's words

_token = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]', re.DOTALL)


def named(data: str | bytes) -> dict[str, str]:
    """``id`` and ``ref`` of a request, those of them that are printable text, each cut to :data:`LONGEST`."""
    found = _in_text(data) if isinstance(data, str) else _in_packed(data)
    return {key: value[:LONGEST] for key, value in found.items() if value and value.isprintable()}


def why(data: str | bytes, error: Exception) -> str:
    """What is wrong with a request that a decoder refused with ``error``.

    The decoder's word on text that ends too early is also its word on none, and on half of a surrogate pair in it.
    """
    if not data.strip():
        return "the message is empty"
    words = str(error)
    if words == TRUNCATED or SURROGATE in words:
        if isinstance(data, str) and _is_lenient_json(data):
            return "a text holds half of a surrogate pair (\\ud800 to \\udfff), which is no character"
        if words == TRUNCATED:
            return "the message ends too early"
    return words


def _is_lenient_json(data: str) -> bool:
    """Whether it is JSON but for lone surrogates, which the standard library's parser takes."""
    try:
        json.loads(data, parse_int=len)
    except (ValueError, RecursionError):
        return False
    return True


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

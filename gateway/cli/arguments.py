"""Kinds of arguments that several commands take."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["count", "lifetime", "offset", "token_in"]


def count(text: str) -> int:
    """A whole number from 1 on."""
    number = _whole(text)
    if number is None or number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return number


def offset(text: str) -> int:
    """An offset of the journal."""
    number = _whole(text)
    if number is None or number < 0:
        raise argparse.ArgumentTypeError(f"an offset as `show` prints it, not {text!r}")
    return number


def lifetime(text: str) -> float | None:
    """Seconds of ``90d``, ``12h``, ``2w``; ``None`` of ``never``."""
    from ..server.times import parse_duration

    if text == "never":
        return None
    try:
        return parse_duration(text) / 1e9
    except ValueError:
        raise argparse.ArgumentTypeError(f"a time such as 90d, 12h or 2w, or never, not {text!r}") from None


def token_in(name: str) -> str:
    """The token in a file, or on standard input (``-``): as an argument it would stand in the process list."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{name}: {getattr(error, 'strerror', 'it is no text')}") from None
    if len(text.split()) != 1:
        raise argparse.ArgumentTypeError(f"{name}: a file that holds a token and nothing else")
    return text.strip()


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None

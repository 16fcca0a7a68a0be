"""Kinds of arguments that several commands take."""

from __future__ import annotations

import argparse

__all__ = ["count", "offset"]


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


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None

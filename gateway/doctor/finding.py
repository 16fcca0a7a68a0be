"""What an examination finds: one line each, with what to do.  Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Finding", "Level", "error", "fine", "warning"]

Level = Literal["ok", "warning", "error"]


class Finding(msgspec.Struct, frozen=True):
    """``part`` in a word; ``text`` what is, ``hint`` what to do about it (empty where all is well)."""

    part: str
    level: Level
    text: str
    hint: str = ""

    @property
    def line(self) -> str:
        """Both as one sentence, on one line."""
        text = f"{self.text}: {self.hint}" if self.hint else self.text
        return " ".join(text.split())


def fine(part: str, text: str) -> Finding:
    """All is well with ``part``."""
    return Finding(part, "ok", text)


def warning(part: str, text: str, hint: str) -> Finding:
    """It works, and somebody should look at it."""
    return Finding(part, "warning", text, hint)


def error(part: str, text: str, hint: str) -> Finding:
    """It does not work."""
    return Finding(part, "error", text, hint)

"""A clock that is set by hand, and tokens that go by it."""

from __future__ import annotations

import errno
from pathlib import Path

from gateway.auth import Tokens

START = 1_764_000_000.0


class Clock:
    """Seconds."""

    def __init__(self, at: float = START) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def tokens_in(directory: Path, clock: Clock | None = None) -> Tokens:
    """Those in a directory, loaded."""
    tokens = Tokens(directory / "tokens.json", clock or Clock())
    tokens.load(sessions=True)
    return tokens


def no_room(path: Path, data: bytes) -> None:
    """In the place of what writes: a disk that is full."""
    raise OSError(errno.ENOSPC, "No space left on device")

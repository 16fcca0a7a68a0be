"""The lock of a state directory: one gateway at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .errors import GatewayError, StateLocked

__all__ = ["Lock"]


class Lock:
    """One instance a state directory: an advisory lock, gone with the process that holds it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = -1

    def __enter__(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._file = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise GatewayError(
                f"the state directory {self._directory} cannot be used: {error.strerror}",
                hint="name one that can be written with GATEWAY_STATE_DIR",
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise StateLocked(
                f"another gateway uses {self._directory}",
                hint="stop it, or give this one a directory of its own with GATEWAY_STATE_DIR",
            ) from None

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

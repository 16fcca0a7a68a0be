"""What the fuzz targets put in place of an event loop and a socket, and how they see that something was logged."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .fuzzing import Finding

__all__ = ["Loop", "Transport", "Watch"]


class Loop:
    """As much of a loop as a connection asks for; timers never fire."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def reset(self) -> None:
        self._ready.clear()

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self._ready.append((callback, arguments))

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> Loop:
        return self

    def cancel(self) -> None:
        """As the handle of a timer."""

    def time(self) -> float:
        return 1.0

    def run(self) -> None:
        """Call what is due."""
        while self._ready:
            callback, arguments = self._ready.popleft()
            callback(*arguments)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.eof = False
        self.gone = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        if self.eof:
            raise Finding("written after the end")
        self.written += data

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.gone

    def close(self) -> None:
        self.gone = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else default


class Watch(logging.Handler):
    """Keeps what is logged as an error meanwhile: where the layer catches its own faults, it says so there."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(logging.Formatter().format(record))

    def __enter__(self) -> Watch:
        logger = logging.getLogger("gateway.ws")
        logger.addHandler(self)
        logger.propagate = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        logger = logging.getLogger("gateway.ws")
        logger.removeHandler(self)
        logger.propagate = True

    def check(self) -> None:
        """Raise :class:`Finding` where something was logged."""
        if self._found:
            raise Finding(self._found[0])

"""The transport of a connection that is over: nothing comes, and nothing goes out.

A connection lets go of its transport at its end, since under TLS that one holds the connection in turn: what waits for
the cyclic collector then is some fifty kilobytes each, and a peer could make thousands before it looks.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["GONE"]


class _Gone(asyncio.Transport):
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def is_reading(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False


GONE = _Gone()

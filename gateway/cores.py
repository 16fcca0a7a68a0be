"""No cores: an image of this process would hold tokens, passwords and keys.

Two bounds, since either may be out of reach (getrlimit(2), core(5)): the size of a core, and what is in one.  Of sizes,
1 byte is less than any core, and the one that Linux also keeps where cores go to a program instead of a file
(``fs/coredump.c``); 0 is what is left where somebody has set that before.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

__all__ = ["forbid"]

_filter = Path("/proc/self/coredump_filter")


def forbid() -> None:
    """Leave no core of this process and its children, whatever ends them."""
    for limit in (1, 0):
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
        except (OSError, ValueError):
            continue
        break
    with suppress(OSError):
        _filter.write_text("0")  # no memory at all

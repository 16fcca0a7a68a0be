"""What /proc says about a process and all its children: CPU time, memory, bytes written (proc(5))."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["cpu_clock_seconds", "cpu_seconds", "resident_bytes", "tree", "written_bytes"]

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """``pid`` and its descendants that are alive, parents first."""
    found, at = [pid], 0
    while at < len(found):
        for task in _list(f"/proc/{found[at]}/task"):
            found += [int(child) for child in _read(f"/proc/{found[at]}/task/{task}/children").split()]
        at += 1
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the process tree so far, ended and awaited children included, to 1/100 s."""
    ticks = 0
    for one in tree(pid):
        # The name, in brackets, may hold spaces; utime, stime, cutime, cstime are fields 14 to 17.
        fields = _read(f"/proc/{one}/stat").rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def cpu_clock_seconds(pid: int) -> float:
    """As :func:`cpu_seconds`, exactly, and without children that have ended (clock_getcpuclockid(3))."""
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~one << 3) | 2)
    return total


def resident_bytes(pid: int) -> int:
    """Resident memory of the process tree (pages shared between its processes counted in each)."""
    return sum(_field(f"/proc/{one}/status", "VmRSS:") * 1024 for one in tree(pid))


def written_bytes(pid: int) -> int:
    """Bytes that the process tree caused to be sent to the disk: whole pages, each time they are made dirty anew."""
    return sum(_field(f"/proc/{one}/io", "write_bytes:") for one in tree(pid))


def _field(path: str, name: str) -> int:
    for line in _read(path).splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _list(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []

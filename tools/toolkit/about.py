"""What figures were measured on, and in what company: a figure without it says little."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["load", "machine", "sentence"]

OWN = ("cpu", "cores", "system", "python", "load")


def machine(*libraries: str) -> dict[str, Any]:
    """Processor, cores, kernel, versions of Python and of those libraries that are installed, load averages (1, 5 and
    15 minutes)."""
    model = platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    versions = {}
    for name in libraries:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **versions,
        "load": load(),
    }


def load() -> list[float]:
    return [round(one, 2) for one in os.getloadavg()]


def sentence(about: dict[str, Any], load_after: list[float]) -> str:
    """The machine in one line; what :func:`machine` does not know of are names and versions."""
    versions = "".join(f", {name} {about[name]}" for name in about if name not in OWN)
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}{versions};"
        f" load {about['load'][0]} before, {load_after[0]} after"
    )

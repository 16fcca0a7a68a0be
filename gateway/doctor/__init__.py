"""The doctor: looks at everything that the gateway needs, and tries it.

Each look is a function that yields findings; :func:`examine` runs them one after the other, from the near to the far.
A look waits for seconds at the most; what it writes does not stay, but for one reading of ``far.DEVICE`` in the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..capacity import max_connections
from . import entrance, far, machine
from .finding import Finding, error, fine, warning
from .selftest import self_test

if TYPE_CHECKING:
    from ..config import Settings

__all__ = ["Finding", "examine", "self_test"]


async def examine(settings: Settings, health: Mapping[str, Any] | None) -> AsyncIterator[Finding]:
    """All findings; ``health`` is the body of ``/healthz`` of the gateway that runs, None where none does."""
    running = health is not None
    for finding in _near(settings, None if health is None else str(health["version"])):
        yield finding
    for finding in entrance.port(settings, running=running):
        yield finding
    for finding in entrance.certificate(settings):
        yield finding
    for finding in entrance.tokens(settings):
        yield finding
    async for finding in far.far_sides(settings, running=running):
        yield finding
    for finding in _running(health):
        yield finding


def _near(settings: Settings, version: str | None) -> Iterator[Finding]:
    journal = settings.journal
    yield from machine.disk(settings.state_dir, journal.max_bytes, journal.keep_free_bytes)
    if settings.state_dir.is_dir():
        yield from machine.sync(settings.state_dir, journal.commit_ms)
    yield from machine.clock()
    yield from machine.descriptors(max_connections(None)[0], settings.limits.max_connections)
    yield from machine.versions(version, bool(settings.influx.url))


def _running(health: Mapping[str, Any] | None) -> Iterator[Finding]:
    if health is None:
        yield fine("gateway", "it does not run now")
        return
    problems = health["problems"]
    for problem in problems:
        level = error if health["status"] == "failing" else warning
        yield level("gateway", str(problem["text"]).rstrip("."), str(problem["hint"]).rstrip("."))
    if not problems:
        online = health["devices"]["online"]
        devices = f"{online:,} device{'' if online == 1 else 's'}"
        yield fine("gateway", f"it runs, version {health['version']}, with {devices} online")

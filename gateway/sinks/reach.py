"""What every client of ours has to know of a broker, said once for all sinks that have one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Reach", "Terms"]


class Reach(TypedDict, total=False):
    """Where it is, and who we are there.

    ``username`` and ``password`` go before those in ``url``.  ``ca`` is a file of certificates trusted in place of the
    system's.
    """

    url: Required[str]
    username: str
    password: str
    ca: Path | None


class Terms(Reach, total=False):
    """And how it is dealt with; ``client_id`` has to be ours alone on it.  The others are as the broker's own say."""

    client_id: Required[str]
    keepalive_s: int
    ack_s: float
    connect_s: float
    clock: Callable[[], float]

"""How many connections there may be: no more than there are file descriptors for."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress

__all__ = ["max_connections"]

log = logging.getLogger(__name__)

FILES_KEPT = 100  # file descriptors for files and sinks
HANDSHAKES = 1024  # connections that are not answered yet


def max_connections(asked: int | None) -> tuple[int, int]:
    """How many connections and how many unanswered ones there may be: no more than there are file descriptors for.

    At the first bound a newcomer gets 503, at the second the oldest silent one is cut; without them the journal could
    open no file.  The soft limit is raised to the hard one first (getrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    handshakes = max(8, min(HANDSHAKES, soft // 8))
    possible = max(16, soft - FILES_KEPT - 2 * handshakes)  # an answered one may linger
    if asked is not None and asked > possible:
        log.warning(
            "there are file descriptors for %d connections, not for %d (ulimit -n, LimitNOFILE=)", possible, asked
        )
    return possible if asked is None else min(asked, possible), handshakes

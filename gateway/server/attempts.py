"""Failing attempts, counted by address: who fails too often is told to wait.

It bounds what strangers cost in work, in lines of the list of unknown devices and in guesses.  Whoever presents what is
right is let in all the same: many share an address (NAT, a proxy), and one of them must not lock the others out.

Bound: :data:`ADDRESSES` addresses; beyond, the one longest without a failure is forgotten.  An IPv6 network of 64 bits
is one address: everybody has so many.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from ..limit import TokenBucket
from .peer import address_of, ip_of

__all__ = ["Attempts"]

ADDRESSES = 4_096
FAILURES = 20  # at once, and
WINDOW_S = 60.0  # so many in this time


class Attempts:
    """``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def fail(self, remote: object) -> float:
        """Count a failure of this address; 0.0, or the seconds that it is to wait."""
        key = _network(remote)
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(FAILURES / WINDOW_S, FAILURES, clock=self._clock)
            if len(self._buckets) >= ADDRESSES:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = bucket
        return bucket.take(1.0)


def _network(remote: object) -> str:
    host = address_of(remote)
    address = ip_of(host)
    if address is None:
        return host
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))

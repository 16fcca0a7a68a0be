"""Keys of maps that have one hash, as anybody can make them.

Python's hash of a tuple of integers is that of xxHash without a key: pairs of one hash can be worked out.
"""

from __future__ import annotations

import cbor2
import msgspec

__all__ = ["colliding", "in_cbor", "in_msgpack"]

MOD = 1 << 64
P1, P2, P5 = 11400714785074694791, 14029467366897019727, 2870177450012600261


def _rotated(x: int, n: int) -> int:
    return ((x << n) | (x >> (64 - n))) % MOD


def colliding(count: int) -> list[tuple[int, int]]:
    """So many pairs of one hash."""
    found: list[tuple[int, int]] = []
    end = _rotated((123456789 - (2 ^ (P5 ^ 3527539))) % MOD * pow(P1, -1, MOD) % MOD, 33)
    first = 0
    while len(found) < count:
        first += 1
        second = (end - _rotated((P5 + first * P2) % MOD, 31) * P1) % MOD * pow(P2, -1, MOD) % MOD
        second -= MOD if second >= 1 << 63 else 0
        if abs(second) < (1 << 61) - 1 and second != -1:
            found.append((first, second))
    return found


def in_msgpack(count: int) -> bytes:
    """A map of so many such keys."""
    items = b"".join(msgspec.msgpack.encode(list(pair)) + b"\x00" for pair in colliding(count))
    return b"\xde" + count.to_bytes(2, "big") + items


def in_cbor(count: int) -> bytes:
    """An array of such a map."""
    pairs = b"".join(cbor2.dumps(list(pair)) + b"\x00" for pair in colliding(count))
    return b"\x81\xb9" + count.to_bytes(2, "big") + pairs

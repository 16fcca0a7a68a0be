"""A short run of the fuzzer's targets, from its seeds, with mutations that are the same every time."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from .fuzz import SEEDS, TARGETS

ROUNDS = {"stream": 250, "frames": 400, "head": 400, "target": 1500, "decode": 1500}
TOKENS = [
    b"\r\n",
    b"\r\n\r\n",
    b"%",
    b"\0",
    b"\xff",
    b": ",
    b"GET ",
    b"\x81\x80",
    b"\x01\x00",
    b"\x80\xfe",
    b"{",
    b'"',
    b"/",
]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """``data`` with one to four small changes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0:
                changed[at:at] = chance.choice(TOKENS)
            case 1:
                del changed[at : at + chance.choice([1, 2, 8, 40])]
            case 2 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 3 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 4:
                changed[at:at] = changed[at : at + chance.choice([2, 8, 40])]
            case 5:
                changed[at:at] = chance.randbytes(chance.choice([1, 4, 20]))
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    """No mutation of the seeds makes the layer do what it must not."""
    chance = random.Random(name)
    corpus = list(SEEDS[name])
    for data in corpus:
        TARGETS[name](data)
    for _ in range(ROUNDS[name]):
        data = mutate(chance.choice(corpus), chance)
        TARGETS[name](data)
        if chance.random() < 0.1:
            corpus.append(data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_cut_and_joined(name: str) -> None:
    """Nor does any beginning of a seed, or two of them together."""
    for data in SEEDS[name]:
        for end in range(0, len(data), max(1, len(data) // 40)):
            TARGETS[name](data[:end])
    for one, two in pairwise(SEEDS[name]):
        TARGETS[name](one + two)

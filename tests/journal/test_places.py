"""The file of the cursors' places."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec
import pytest

from gateway.journal.places import (
    MAX_NAME,
    MAX_PLACES,
    SLOT,
    VERSION,
    Gone,
    Loaded,
    NewerVersion,
    Place,
    Places,
    PlacesFile,
    load,
    pack_slot,
)

EPOCH = bytes(16)


def state(number: int) -> Places:
    return Places(VERSION, EPOCH, 1000 + number, 900 + number, {"mqtt": Place(number, number)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cursors"


def test_the_newest_state_is_read(path: Path) -> None:
    """Of many states written the last is found, also by a later run that goes on writing."""
    assert load(path) == Loaded()
    for run in range(3):
        number = load(path).number
        file = PlacesFile(path, number)
        for step in range(3):
            file.write(state(run * 3 + step))
            assert load(path).places == state(run * 3 + step)
        file.close()
    assert path.stat().st_size == 2 * SLOT


def test_a_torn_write_leaves_the_state_before(path: Path) -> None:
    """A slot torn at any block or byte gives the state before it, never a mixture."""
    file = PlacesFile(path, 0)
    for number in range(3):
        file.write(state(number))
    before = path.read_bytes()
    file.write(state(3))
    after = path.read_bytes()
    file.close()
    changed = next(at for at in (0, SLOT) if before[at : at + SLOT] != after[at : at + SLOT])
    for cut in range(1, SLOT):
        path.write_bytes(before[:changed] + after[changed : changed + cut] + before[changed + cut :])
        assert load(path).places in (state(2), state(3))
    torn = after[changed : changed + 40]
    path.write_bytes(before[:changed] + torn + before[changed + 40 :])
    assert load(path).places == state(2)


def test_damage_costs_one_state(path: Path) -> None:
    """A flipped bit in the newer slot gives the older state; in both, nothing, and that is told."""
    file = PlacesFile(path, 0)
    file.write(state(0))
    file.write(state(1))
    file.close()
    data = bytearray(path.read_bytes())
    newer = SLOT * (load(path).number % 2)
    data[newer + 30] ^= 1
    path.write_bytes(data)
    assert load(path).places == state(0)
    data[SLOT - newer + 30] ^= 1
    path.write_bytes(data)
    assert load(path) == Loaded(damaged=True)


def test_a_failed_write_spares_the_whole_slot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that failed half way the next one takes the same slot again."""
    file = PlacesFile(path, 0)
    file.write(state(0))
    real = os.pwrite

    def half(fd: int, data: bytes, at: int) -> int:
        return real(fd, data[:20], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        for _ in range(3):
            with pytest.raises(OSError, match="short write"):
                file.write(state(1))
            assert load(path).places == state(0)
    file.write(state(2))
    assert load(path).places == state(2)
    file.close()


def test_the_most_and_longest_names_fit() -> None:
    """As many cursors as allowed, with the longest names and largest numbers, fit a slot; more are refused."""
    most = 2**63
    widest = Place(most, most, most, most, most, most)
    places = {f"{number:0{MAX_NAME}d}": widest for number in range(MAX_PLACES)}
    assert len(pack_slot(most, Places(VERSION, EPOCH, most, most, places, Gone(most, most)))) == SLOT
    places |= {f"{number:x>{MAX_NAME}}": widest for number in range(10)}
    with pytest.raises(ValueError, match="too many"):
        pack_slot(most, Places(VERSION, EPOCH, most, most, places, Gone(most, most)))


def written(path: Path, *slots: list[object]) -> None:
    """The file with slots of any content, numbered from 1."""
    data = bytearray(2 * SLOT)
    for number, content in enumerate(slots, 1):
        payload = msgspec.msgpack.encode(content)
        body = len(payload).to_bytes(4, "little") + number.to_bytes(8, "little") + payload
        body = body.ljust(SLOT - 12, b"\0")
        at = SLOT * (number % 2)
        data[at : at + SLOT] = b"GWPLACES" + zlib.crc32(body).to_bytes(4, "little") + body
    path.write_bytes(data)


def test_version_1_is_read_and_counts_what_is_delivered_from_then_on(path: Path) -> None:
    """A place of version 1 keeps its counts; nobody knows what of the rest was delivered, so it counts as before."""
    written(path, [1, EPOCH, 1000, 900, {"mqtt": [800, 700, 60, 4]}])
    places = Places(VERSION, EPOCH, 1000, 900, {"mqtt": Place(800, 700, 60, 4, 636, 0)})
    assert load(path) == Loaded(1, places, 1)


@pytest.mark.parametrize("content", [[3, EPOCH, 1, 1, {}], [99, "whatever"], [3]])
@pytest.mark.parametrize("newest", [True, False])
def test_a_newer_version_is_told_from_damage(path: Path, content: list[object], newest: bool) -> None:
    """A whole slot of a newer version is refused, whatever it holds and whichever of the two it is."""
    slots = [[1, EPOCH, 1000, 900, {}], content]
    written(path, *(slots if newest else reversed(slots)))
    with pytest.raises(NewerVersion, match=f"format {content[0]}; this program knows {VERSION}"):
        load(path)


@pytest.mark.parametrize("content", [{}, [], ["x", 1], [True], [VERSION, EPOCH], [VERSION, 1, 2, 3, 4]])
def test_a_slot_of_no_sense_is_damaged(path: Path, content: list[object]) -> None:
    """A slot whose checksum is right and whose content is none counts as damaged."""
    written(path, content)
    assert load(path) == Loaded(damaged=True)

"""The journal against a simple model: append, commit, crash, move cursors, overflow, fail, reopen."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gateway.journal import Cursor, Journal
from gateway.journal.places import Place as KeptPlace
from gateway.reading import Item, Reading

from .support import Ear, copy, failing, held, mixed, segments, settled

T = TypeVar("T")

ROOT = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
EXAMPLES = int(os.environ.get("JOURNAL_EXAMPLES", "60"))  # of 50 steps each, for each of the two machines
NAMES = ("one", "two")
# A small journal: a few items fill a record, a few records a segment, a few segments the journal.
SMALL = {
    "gateway.journal.journal.MIN_SEGMENT_BYTES": 1,
    "gateway.journal.journal.PERSIST_S": 3600.0,
    "gateway.journal.segment.BLOCK": 64,
    "gateway.journal.segment.AHEAD": 200,
    "gateway.journal.segment.AHEAD_OF": 150,
    "gateway.journal.writer.RECORD_ITEMS": 6,
    "gateway.journal.writer.RETRY_MIN_S": 0.0005,
    "gateway.journal.writer.RETRY_MAX_S": 0.001,
    "gateway.journal.reader.BUFFER": 512,
    "gateway.journal.recovery.DAMAGED_JUMP": 1 << 21,
}


@dataclasses.dataclass
class Place:
    """What the model knows of a cursor."""

    offset: int  # confirmed
    start: int  # readings below it when it was opened first
    delivered: set[int]  # offsets confirmed
    under_way: set[int]  # offsets read, not confirmed
    read: int  # where to read on
    aside: int = 0  # of the readings confirmed, put aside


class JournalMachine(RuleBasedStateMachine):
    """Items are known by offset: ``durable`` ones were announced, ``pending`` ones only shown."""

    settings: dict[str, Any] = {"segment_bytes": 700, "ring_bytes": 9000}
    overflows = False

    def __init__(self) -> None:
        super().__init__()
        self.patches = [patch(name, value) for name, value in SMALL.items()]
        for each in self.patches:
            each.start()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(dir=ROOT))
        self.starts = 0
        self.number = 0
        self.shown = -1
        self.durable: dict[int, Item] = {}
        self.pending: dict[int, Item] = {}
        self.ear = Ear()
        self.places: dict[str, Place] = {}
        self.on_disk: dict[str, Place] = {}
        self.own = 0  # the place of the reader that keeps its own
        self.cursors: dict[str, Cursor] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    # -- opening -------------------------------------------------------------------------------------------------------

    @initialize()
    def first_open(self) -> None:
        self.directory = self.root / "0"
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.directory, commit_ms=60_000, keep_free_bytes=0, max_pending=1000, **self.settings)
        self.run(self.journal.open())
        self.pending = {}
        assert self.journal.next_offset > self.shown
        assert self.journal.stored == self.readings(self.durable)
        self.cursors = {"own": self.journal.cursor("own", start=self.own)}
        self.places.pop("own", None)
        self.note("own")
        for name in NAMES:
            self.open_cursor(name)

    def open_cursor(self, name: str) -> None:
        cursor = self.cursors[name] = self.journal.cursor(name)
        if name in self.places:
            assert cursor.position.offset == max(self.places[name].offset, self.journal.oldest_offset)
        self.note(name)

    def note(self, name: str) -> None:
        position = self.cursors[name].position
        if name in self.places:
            self.places[name].offset = self.places[name].read = position.offset
            self.places[name].under_way = set()
        else:
            self.places[name] = Place(position.offset, position.readings, set(), set(), position.offset)

    @staticmethod
    def readings(items: dict[int, Item]) -> int:
        return sum(1 for item in items.values() if type(item) is Reading)

    def check_held(self, maybe: dict[int, Item]) -> None:
        """All that is durable and needed is there as it was; of ``maybe`` a first part may be, and is durable then."""
        found = dict(self.run(held(self.journal)))
        known = self.durable | maybe
        oldest = min(found, default=self.journal.next_offset)
        assert found == {offset: known[offset] for offset in known if offset >= oldest and offset in found}
        needed = self.journal.oldest_offset
        if not self.overflows:
            needed = min([self.own, *(place.offset for place in self.places.values())])
        for offset in self.durable:
            assert offset in found or offset < needed
        survived = [offset for offset in maybe if offset in found]
        assert survived == list(maybe)[: len(survived)]
        self.durable |= {offset: maybe[offset] for offset in survived}

    # -- rules ---------------------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 15))
    def append(self, count: int) -> None:
        for _ in range(count):
            item = mixed(self.number)
            offset = self.journal.append(item, self.ear, self.number + 1)
            self.number += 1
            assert offset > self.shown
            self.shown = offset
            self.pending[offset] = item

    @rule()
    def flush(self) -> None:
        heard = len(self.ear.tokens)
        before = self.journal.stats()["dropped_segments"]
        self.run(self.journal.flush())
        if self.journal.stats()["dropped_segments"] > before:
            self.run(settled(self.journal))
            self.keep_places()  # written before what was dropped is unlinked
        assert self.ear.tokens[heard:] == ([self.number] if self.pending else [])
        self.durable |= self.pending
        self.pending = {}

    @rule(
        call=st.sampled_from(["pwritev", "fdatasync", "fsync", "pwrite"]),
        at=st.integers(1, 4),
        code=st.sampled_from([errno.EIO, errno.ENOSPC]),
    )
    def flush_on_a_failing_disk(self, call: str, at: int, code: int) -> None:
        where = str(self.directory) if call == "fsync" else ".seg"
        with failing(call, OSError(code, os.strerror(code)), where=where, at=at):
            self.flush()

    @rule(count=st.integers(1, 40))
    def store(self, count: int) -> None:
        self.append(count)
        self.flush()

    @rule(
        name=st.sampled_from([*NAMES, "own"]),
        times=st.integers(1, 5),
        most=st.integers(5, 20),
        part=st.floats(0, 1),
        aside=st.booleans(),
    )
    def consume(self, name: str, times: int, most: int, part: float, aside: bool) -> None:
        for _ in range(times):
            self.read(name, most)
        self.confirm(name, part, aside)

    @rule(
        name=st.sampled_from([*NAMES, "own"]), most=st.integers(1, 20), count=st.integers(10, 40), part=st.floats(0, 1)
    )
    def write_slowly(self, name: str, most: int, count: int, part: float) -> None:
        """As a sink does that has readings in hand while many more are stored."""
        self.read(name, most)
        self.store(count)
        self.confirm(name, part)

    @rule(name=st.sampled_from([*NAMES, "own"]), most=st.integers(1, 20))
    def read(self, name: str, most: int) -> None:
        if name not in self.cursors:
            return
        cursor, place = self.cursors[name], self.places[name]
        if cursor.is_drained(place.read):
            start = max(place.read, self.journal.oldest_offset)
            assert all(offset < start for offset in self.durable)
            return
        batch = self.run(cursor.read(place.read, max_readings=most, max_delay=0))
        expected = sorted(offset for offset in self.durable if offset >= place.read)
        if self.overflows:
            expected = [offset for offset in expected if offset >= self.journal.oldest_offset]
        got = list(range(batch.base, batch.end))
        assert got == expected[: len(got)]
        assert 0 < len(got) <= most
        assert batch.items == [self.durable[offset] for offset in got]
        assert batch.readings == sum(1 for item in batch.items if type(item) is Reading)
        place.under_way |= set(got)
        place.read = batch.end

    @rule(name=st.sampled_from([*NAMES, "own"]))
    def read_again(self, name: str) -> None:
        """As a reader does that gave up what it had in hand; nothing of that was dropped."""
        place = self.places.get(name)
        if place is not None and self.cursors[name].position.offset == place.offset:
            place.under_way = set()
            place.read = self.cursors[name].position.offset

    @rule(name=st.sampled_from(NAMES), part=st.floats(0, 1))
    def retry(self, name: str, part: float) -> None:
        """As a reader does that delivers what it had put aside."""
        if name in self.cursors:
            count = round(part * self.places[name].aside)
            self.cursors[name].confirm(self.places[name].offset, dead_lettered=-count)
            self.places[name].aside -= count

    @rule(name=st.sampled_from([*NAMES, "own"]), part=st.floats(0, 1), aside=st.booleans())
    def confirm(self, name: str, part: float, aside: bool = False) -> None:
        if name not in self.cursors:
            return
        place = self.places[name]
        under_way = sorted(place.under_way)
        count = round(part * len(under_way))
        if not count:
            return
        upto = under_way[count - 1] + 1
        refused = self.readings({offset: self.durable[offset] for offset in under_way[:count]}) if aside else 0
        self.cursors[name].confirm(upto, dead_lettered=refused)
        place.aside += refused
        place.delivered |= set(under_way[:count])
        place.under_way -= set(under_way[:count])
        place.offset = max(place.offset, upto)
        if name == "own":
            self.own = place.offset

    @rule()
    def store_places(self) -> None:
        self.run(self.journal._store_last())
        self.keep_places()

    def keep_places(self) -> None:
        for name, place in self.places.items():
            if name != "own":
                offset = self.cursors[name].position.offset if name in self.cursors else place.offset
                kept = dataclasses.replace(place, offset=offset, delivered=set(place.delivered), under_way=set())
                self.on_disk[name] = kept

    @rule()
    def reopen(self) -> None:
        self.run(self.journal.close())
        self.durable |= self.pending
        self.keep_places()
        for place in self.places.values():
            place.read = place.offset
        self.open()
        self.check_held({})

    @rule(
        count=st.integers(0, 15),
        part=st.floats(0, 1),
        rest=st.sampled_from([b"", bytes(500), b"rubbish" * 90, b"GWR\x01" * 120]),
    )
    def crash(self, count: int, part: float, rest: bytes) -> None:
        """Cut anywhere in what was written since the last sync that was told, with zeros or rubbish behind it."""
        if count:
            self.append(count)
        self.run(settled(self.journal))
        tail = self.journal._writer._tail
        assert tail is not None
        sizes = {path.name: path.stat().st_size for path in segments(self.directory)}
        sizes[tail.segment.path.name] = tail.used
        self.starts += 1
        target = copy(self.directory, self.root / str(self.starts))
        pending = dict(self.pending)
        self.run(self.journal.flush())
        self.run(settled(self.journal))
        tail = self.journal._writer._tail
        assert tail is not None
        written = []
        for path in segments(self.directory):
            used = tail.used if path.name == tail.segment.path.name else path.stat().st_size
            if used > sizes.get(path.name, 0):
                written.append((path, sizes.get(path.name, 0), used))
        left = round(part * sum(used - before for _, before, used in written))
        if self.overflows and len(pending) > 12:
            left = 0  # some of it may have been dropped at once
        for path, before, used in written:
            keep = min(left, used - before)
            left -= keep
            if keep or before:
                whole = keep == used - before
                (target / path.name).write_bytes(path.read_bytes()[: before + keep] + (b"" if whole else rest))
            if keep < used - before:
                break
        self.run(self.journal.close())
        shutil.rmtree(self.directory)
        self.directory = target
        self.places = {
            name: dataclasses.replace(place, delivered=set(place.delivered), under_way=set(), read=place.offset)
            for name, place in self.on_disk.items()
        }
        # What of the pending survived is found out by reading; the count of readings is checked after that.
        self.journal = Journal(self.directory, commit_ms=60_000, keep_free_bytes=0, max_pending=1000, **self.settings)
        self.run(self.journal.open())
        self.pending = {}
        assert self.journal.next_offset > self.shown
        # A torn record is no damage; with rubbish behind it, it may look like some: that is told, and costs nothing.
        assert self.journal.stats()["damages"] <= any(rest)
        self.check_held(pending)
        self.run(self.journal.close())
        self.open()
        assert self.journal.stats()["damages"] == 0

    @invariant()
    def sums_are_right(self) -> None:
        if not self.cursors:
            return
        assert self.journal.stored == self.readings(self.durable)
        for name, cursor in self.cursors.items():
            place = self.places[name]
            delivered = self.readings({offset: self.durable[offset] for offset in place.delivered})
            assert cursor.lost == 0
            if name != "own":
                assert cursor.began == place.start
                assert cursor.delivered == delivered - place.aside
                assert cursor.dead_lettered == place.aside
                assert (
                    self.journal.stored
                    == place.start + cursor.delivered + place.aside + cursor.overflowed + cursor.pending
                )
            assert cursor.position.offset >= place.offset
            if not self.overflows:
                assert cursor.overflowed == 0
                assert cursor.position.offset == place.offset

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.run(self.journal.close())
        self.loop.close()
        shutil.rmtree(self.root)
        for each in self.patches:
            each.stop()


class OverflowMachine(JournalMachine):
    """The same with a journal that drops its oldest segments."""

    settings = {"segment_bytes": 500, "ring_bytes": 9000, "max_bytes": 3000, "on_full": "drop_oldest"}
    overflows = True


def play(machine: type[JournalMachine], examples: int = EXAMPLES, **options: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


@pytest.mark.parametrize("machine", [JournalMachine, OverflowMachine])
def test_the_journal_keeps_its_promises(machine: type[JournalMachine]) -> None:
    """Whatever happens in whatever order: what was announced is read once, in order, as it was, and sums are right."""
    play(machine)


# Each of these faults must be found by the same play.
FAULTS: dict[str, tuple[type[JournalMachine], str, Any]] = {
    "offsets go on where the last start ended": (JournalMachine, "recovery.JUMP", 0),
    "cursors' places are never written": (JournalMachine, "places.PlacesFile.write", lambda file, places: None),
    "checksums are not looked at": (JournalMachine, "record.is_whole", lambda seed, head, data: head.items < 100),
    "what is dropped is not counted": (
        OverflowMachine,
        "cursor.Cursor.drop_below",
        lambda cursor, position: setattr(cursor, "position", max(cursor.position, position, key=lambda p: p.offset)),
    ),
    "what was under way is counted as dropped": (
        OverflowMachine,
        "cursor.Cursor._take_back",
        lambda cursor, offset: None,
    ),
    "what was put aside is forgotten with the place": (
        JournalMachine,
        "cursor.Cursor.place",
        property(lambda cursor: KeptPlace(cursor.position.offset, cursor.position.readings, cursor.overflowed)),
    ),
    "segments go when one cursor has passed": (
        JournalMachine,
        "roster.Roster.floor",
        property(lambda roster: max((cursor.persisted for cursor in roster), default=None)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str) -> None:
    """The play above fails when the journal is broken on purpose."""
    machine, name, broken = FAULTS[fault]
    with patch(f"gateway.journal.{name}", broken), pytest.raises(Exception):  # noqa: B017, PT011
        play(machine, 300, phases=[Phase.generate], database=None, report_multiple_bugs=False)

"""The device book: sessions, acks, snapshots and replay."""

import shutil
import time
from pathlib import Path

import pytest

from gateway.aside import KEPT
from gateway.bookfile import BookFile, pack
from gateway.devices import DeviceBook
from gateway.errors import GatewayError, Overloaded
from gateway.liveness import Status
from gateway.reading import ASSIGNED, Batch, Description, Mark, Presence, Reading
from gateway.session import Session, Verdict


@pytest.fixture
def book(tmp_path):
    """A book of its own."""
    return DeviceBook(tmp_path / "devices.msgpack", rate=10, burst=20, max_devices=3)


def reading(seq, *, device="a", session="s1", at=1, flags=0):
    """A reading of the device's session."""
    return Reading(device, session, seq, at, at, {"t": 1.0}, flags)


class Link:
    """A connection that keeps its acks."""

    def __init__(self):
        self.acks = []

    def committed(self, seq):
        self.acks.append(seq)

    def replaced(self, contested):
        self.acks.append("replaced")


def test_commit_acks_the_current_session_alone(book):
    """A commit of an earlier session's readings is counted, and nobody is told."""
    device = book.open("a")
    device.link = link = Link()
    assert device.begin("s1", "x") is False
    old = device.session
    device.ledger.received = device.ledger.accepted = 3
    device.committed((2, 5, old))
    assert (device.ledger.stored, device.session.durable, link.acks) == (2, 5, [5])
    device.begin("s2", "x")
    device.committed((3, 6, old))
    assert (device.ledger.stored, device.session.durable, link.acks) == (3, 0, [5])


def test_sessions_resume_by_their_name_alone(book):
    """A connection without a session never resumes one, and its own is not resumed."""
    device = book.open("a")
    device.begin("s1", "x")
    device.session.accept(4)
    assert device.begin("s1", "x") is True
    assert device.begin(None, "fresh") is False
    assert (device.session.id, device.session.highest) == ("fresh", 0)
    assert device.begin("fresh", "x") is False


def test_bound(book):
    """Beyond the bound a new device is refused, known ones are not."""
    for name in "abc":
        book.open(name)
    with pytest.raises(Overloaded):
        book.open("d")
    assert book.open("a").name == "a"


async def test_snapshot_and_replay_meet(book, tmp_path):
    """A saved book and the journal behind it give what was durable: sequence, counts, presence, description."""
    device = book.open("a")
    device.begin("s1", "x")
    device.status = Status("online", 7)
    device.ledger.received, device.ledger.accepted, device.ledger.stored, device.ledger.duplicate = 4, 3, 2, 1
    device.session.accept(9)
    device.session.decided(8)
    device.described = {"name": "Pump"}
    await book.save("epoch", 50)

    again = DeviceBook(tmp_path / "devices.msgpack", rate=10, burst=20)
    again.load("epoch")
    assert again.offset == 50
    found = again.get("a")
    assert found is not None
    assert (found.session.id, found.session.highest, found.session.durable) == ("s1", 8, 8)
    assert found.ledger.as_dict() == {
        "received": 3, "stored": 2, "rejected": 0, "duplicate": 1, "throttled": 0, "dropped": 0, "in_flight": 0,
        "missing": 0,
    }  # fmt: skip
    assert (found.status, found.display_name) == (Status("online", 7, "", confirmed=False), "Pump")

    items = [
        reading(8),
        reading(9, at=20, flags=ASSIGNED),
        Mark("a", "s1", 10),
        Presence("a", "offline", 30, "ping timeout", "s1"),
        reading(1, device="b", session="q"),
        Description("b", 1, {"name": "B"}),
        reading(1, session="s2", at=40),
    ]
    again.replay(Batch(49, items, 4), skip_below=50)
    assert (found.session.id, found.session.highest, found.session.durable) == ("s2", 1, 1)
    assert (found.ledger.received, found.ledger.stored, found.ledger.rejected) == (5, 4, 0)
    assert (found.clock.last, found.last_seen) == (20, 40)
    assert found.status == Status("offline", 30, "ping timeout", confirmed=False)
    other = again.get("b")
    assert other is not None
    assert (other.display_name, other.session.durable) == ("B", 1)


async def test_a_lower_bound_forgets_nobody(book, tmp_path):
    """What is in the snapshot and in the journal is taken in, whatever the bound has become."""
    for name in "abc":
        book.open(name)
    await book.save("epoch", 50)
    again = DeviceBook(tmp_path / "devices.msgpack", rate=10, burst=20, max_devices=1)
    again.load("epoch")
    again.replay(Batch(50, [reading(1, device="d")], 1))
    assert len(again) == 4
    with pytest.raises(Overloaded):
        again.open("e")


def loaded(path, epoch="epoch"):
    """A book that has read the file."""
    book = DeviceBook(path, rate=10, burst=20)
    book.load(epoch)
    return book


async def test_snapshot_of_another_journal(book, tmp_path):
    """Nothing of it is believed, and it is kept."""
    book.open("a")
    await book.save("epoch", 50)
    again = loaded(tmp_path / "devices.msgpack", "another")
    assert (again.offset, len(again)) == (None, 0)
    assert len(again.problems()) == 1
    assert len(list(tmp_path.glob("devices.msgpack.foreign-*"))) == 1
    assert not (tmp_path / "devices.msgpack").exists()


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x94\x01\xa1e\x05\x91\x01", b"\x94\x63\xa1e\x05\x90", b"\xff" * 100])
def test_a_damaged_snapshot_is_set_aside(tmp_path, data):
    """A file that is none is out of the way, kept and told, and the book is empty."""
    path = tmp_path / "devices.msgpack"
    path.write_bytes(data)
    book = loaded(path)
    assert (book.offset, len(book)) == (None, 0)
    assert "kept as devices.msgpack.damaged-" in book.problems()[0]
    (aside,) = tmp_path.iterdir()
    assert aside.read_bytes() == data


def test_a_directory_in_the_place_of_the_snapshot(tmp_path):
    """It is put out of the way like any damage."""
    (tmp_path / "devices.msgpack").mkdir()
    assert loaded(tmp_path / "devices.msgpack").offset is None
    assert [path.name[:24] for path in tmp_path.iterdir()] == ["devices.msgpack.damaged-"]


def test_a_snapshot_that_the_disk_cannot_read(tmp_path):
    """It is put out of the way like any damage."""
    (tmp_path / "devices.msgpack").symlink_to("/proc/self/mem")  # the first read of it fails with EIO
    book = loaded(tmp_path / "devices.msgpack")
    assert (book.offset, len(book.problems())) == (None, 1)


async def test_no_flipped_bit_and_no_cut_gives_a_wrong_book(book, tmp_path):
    """Whatever byte of the file is damaged, nothing of it is believed."""
    for name in "abc":
        book.open(name).begin("s1", "x")
    data = book.snapshot("epoch", 50)
    path = tmp_path / "devices.msgpack"
    for at in range(len(data)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]):
            path.write_bytes(damaged)
            assert (loaded(path).offset, path.exists()) == (None, False)
    assert len(list(tmp_path.iterdir())) == KEPT


def test_a_newer_snapshot_is_refused(book, tmp_path, monkeypatch):
    """A file of a later version is not guessed at, and stays."""
    monkeypatch.setattr("gateway.bookfile.VERSION", 3)
    data = book.snapshot("epoch", 50)
    monkeypatch.undo()
    (tmp_path / "devices.msgpack").write_bytes(data)
    with pytest.raises(GatewayError, match="version 3, this program reads 2") as info:
        loaded(tmp_path / "devices.msgpack")
    assert info.value.hint
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [data]


@pytest.mark.parametrize("version", [1, 2])
async def test_each_version_is_read(tmp_path, version):
    """A snapshot of any layout is taken in; one of an older layout is kept as it was when it is replaced."""
    fixture = Path(__file__).parent / "fixtures" / f"devices-{version}.msgpack"
    path = tmp_path / "devices.msgpack"
    shutil.copy(fixture, path)
    epoch = "00112233445566778899aabbccddeeff"
    book = loaded(path, epoch)
    for found in (book, None):
        if found is None:
            await book.save(epoch, 1_050_000)
            found = loaded(path, epoch)
        assert (found.offset, len(found)) == (1_050_000, 2)
        device = found.get("pump-1")
        assert (device.session.id, device.session.highest, device.display_name) == ("s1", 8, "Boiler pump")
        assert (device.ledger.stored, device.ledger.received, device.clock.last) == (2, 3, 1_764_000_000_000_000_400)
        assert device.status == Status("online", 1_764_000_000_000_000_000, "connected", confirmed=False)
        assert found.get("door").status is None
    copies = [copy.read_bytes() for copy in tmp_path.glob("devices.msgpack.v*")]
    assert copies == ([fixture.read_bytes()] if version == 1 else [])


@pytest.mark.parametrize("body", [{"serial": 1 << 70}, {"name": "\ud800"}, {"x": object()}])
async def test_a_description_that_cannot_be_written_costs_itself_alone(book, tmp_path, body):
    """A value that no MessagePack has is left out of the snapshot; all else is saved."""
    book.open("a").described = body
    book.open("b").described = {"name": "Door"}
    await book.save("epoch", 50)
    again = loaded(tmp_path / "devices.msgpack")
    assert [device.described for device in again] == [{}, {"name": "Door"}]


def test_fields_that_are_added_later_have_defaults(tmp_path):
    """A row with fewer fields, or with more, is read."""
    for row in (["a"], ["a", "s", 3, True, "", 0, "", 0, 0, [], None, 0.0, 0, 0, 0, 0, [], "", [], "more", {"and": 1}]):
        path = tmp_path / "devices.msgpack"
        path.write_bytes(pack("epoch", 5, [row]))
        assert [device.name for device in loaded(path)] == ["a"]


def test_missing_snapshot_is_an_empty_book(book):
    """The first start finds nothing."""
    book.load("e")
    assert (len(book), book.offset) == (0, None)


def test_declared_integers(book):
    """A metric is an integer where its device said so."""
    book.open("a").described = {"metrics": {"n": {"integer": True}, "t": {"unit": "Cel"}}}
    assert book.is_integer("a", "n")
    assert not any(book.is_integer(*names) for names in (("a", "t"), ("a", "x"), ("b", "n")))


async def test_rhythm_and_clock_survive(book, tmp_path):
    """What was learned of a device's interval, and how many of its times were far off."""
    device = book.open("a")
    device.clock.old, device.clock.future = 3, 4
    device.rhythm.begin(0.0)
    device.rhythm.speak(600.0)
    await book.save("epoch", 50)
    (again,) = loaded(tmp_path / "devices.msgpack")
    assert (again.clock.old, again.clock.future, again.rhythm.usual) == (3, 4, 600.0)


async def test_what_came_and_was_held_survives(book, tmp_path):
    """After a restart nothing behind a held number is taken before it comes again, and what came is not missing."""
    session = book.open("a").session = Session("boot", highest=5)
    for seq in (6, 7, 10):
        session.judge(seq, 0.0)
    session.hold(6, 0.0)
    await book.save("epoch", 50)
    (again,) = loaded(tmp_path / "devices.msgpack")
    assert again.session.judge(11, time.monotonic()) is Verdict.HELD
    assert again.session.judge(6, time.monotonic()) is Verdict.NEW
    assert again.session.accept(6) == 0
    assert again.session.judge(11, time.monotonic()) is Verdict.NEW
    assert again.session.accept(11) == 2


def test_a_snapshot_never_replaces_a_later_one(tmp_path):
    """Of two saves that meet, the one that reflects less of the journal is left out."""
    file = BookFile(tmp_path / "devices.msgpack")
    file.write(pack("epoch", 9, [["late"]]), 9)
    file.write(pack("epoch", 5, [["early"]]), 5)
    assert [device.name for device in loaded(tmp_path / "devices.msgpack")] == ["late"]

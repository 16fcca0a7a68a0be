"""Dead letters: put aside for good, with the reason."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.reading import Mark, Presence, Reading
from gateway.sinks.deadletters import DeadLetters, DeadLettersFull

from .memory import reading


def letters(path: Path, **more: int) -> DeadLetters:
    made = DeadLetters(path, clock=lambda: 42, **more)
    made.open()
    return made


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    """Every kind of item and value survives, numbers and their types exactly."""
    items = [
        Reading("d", "s", 1, 5, 6, {"i": 2**63 - 1, "f": 22.0, "t": 0.1, "b": True, "s": 'é"\n'}),
        Mark("d", "s", 2),
        Presence("d", "offline", 7, "ping timeout"),
    ]
    dead = letters(tmp_path / "deep" / "mqtt.jsonl")
    assert dead.append([(10 + n, f"because {n}", item) for n, item in enumerate(items)]) == 3
    found = list(dead.read())
    assert [letter.item for letter in found] == items
    assert [type(value) for value in found[0].item.values.values()] == [int, float, float, bool, str]  # type: ignore[union-attr]
    assert [(letter.offset, letter.time, letter.reason) for letter in found] == [
        (10, 42, "because 0"),
        (11, 42, "because 1"),
        (12, 42, "because 2"),
    ]
    assert all(json.loads(line) for line in dead.path.read_bytes().splitlines())


def test_count_survives_a_restart_and_no_offset_is_put_aside_twice(tmp_path: Path) -> None:
    """What was put aside before a crash and comes again after it stands there once."""
    first = letters(tmp_path / "a")
    first.append([(n, "no", reading(n)) for n in range(5)])
    second = letters(tmp_path / "a")
    assert second.count == 5
    assert second.append([(4, "no", reading(4)), (5, "no", reading(5))]) == 1
    assert [letter.offset for letter in second.read()] == [0, 1, 2, 3, 4, 5]


def test_torn_last_line_is_written_over(tmp_path: Path) -> None:
    """Half a line at the end, as a power cut leaves it, disappears; damage in the middle costs its own line only."""
    dead = letters(tmp_path / "a")
    dead.append([(n, "no", reading(n)) for n in range(3)])
    lines = dead.path.read_bytes().splitlines(keepends=True)
    dead.path.write_bytes(lines[0] + b"\x00\xff{]\n" + lines[1] + lines[2][:-5])
    again = letters(tmp_path / "a")
    assert again.count == 3
    again.append([(7, "no", reading(7))])
    assert [letter.offset for letter in again.read()] == [0, 1, 7]


def test_full_file_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    """At the bound nothing is put aside; after a purge there is room again."""
    dead = letters(tmp_path / "a", max_bytes=600)
    dead.append([(0, "no", reading(0))])
    with pytest.raises(DeadLettersFull):
        dead.append([(n, "no", reading(n)) for n in range(1, 9)])
    assert dead.count == 1
    assert dead.purge() == 1
    assert dead.append([(1, "no", reading(1))]) == 1


def test_append_is_synced_before_it_returns(tmp_path: Path) -> None:
    """The file is synced after its last write, and its directory when it is born."""
    code = (
        "import sys; from pathlib import Path; from gateway.sinks.deadletters import DeadLetters\n"
        "from tests.sinks.memory import reading\n"
        "dead = DeadLetters(Path(sys.argv[1])); dead.open(); dead.append([(0, 'no', reading(0))])\n"
        "print('DONE', flush=True)\n"
    )
    trace = tmp_path / "trace"
    run = ["strace", "-f", "-y", "-e", "trace=pwrite64,fdatasync,fsync,write", "-o", str(trace)]
    try:
        subprocess.run([*run, sys.executable, "-c", code, str(tmp_path / "letters")], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("strace is not on this machine (Debian package strace).")
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line or "DONE" in line]
    kinds = [next(k for k in ("pwrite64", "fdatasync", "fsync", "write") if k in line) for line in calls]
    assert kinds == ["pwrite64", "fdatasync", "fsync", "write"]


def test_purge_is_synced_before_it_returns(tmp_path: Path) -> None:
    """A purged file does not come back with a power cut: its directory is synced."""
    code = (
        "import sys; from pathlib import Path; from gateway.sinks.deadletters import DeadLetters\n"
        "dead = DeadLetters(Path(sys.argv[1])); dead.open(); dead.purge(); print('DONE', flush=True)\n"
    )
    put_aside(tmp_path / "letters")
    trace = tmp_path / "trace"
    run = ["strace", "-f", "-y", "-e", "trace=unlink,fsync,write", "-o", str(trace)]
    try:
        subprocess.run([*run, sys.executable, "-c", code, str(tmp_path / "letters")], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("strace is not on this machine (Debian package strace).")
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line or "DONE" in line]
    kinds = [next(k for k in ("unlink", "fsync", "write") if k in line) for line in calls if "ENOENT" not in line]
    assert kinds == ["unlink", "fsync", "write"]


@pytest.mark.parametrize("what", ["removed", "emptied", "cut", "cut within a line", "another's", "replaced"])
def test_file_that_somebody_changed_takes_what_comes_next(tmp_path: Path, what: str) -> None:
    """Letters put aside after the file was removed or cut by hand are there, whole, behind what is left of it."""
    dead = put_aside(tmp_path / "a", 4)
    lines = dead.path.read_bytes().splitlines(keepends=True)
    left = {"cut": lines[:2], "cut within a line": [*lines[:2], lines[2][:-5]], "another's": lines[2:3]}.get(what, [])
    if what == "removed":
        dead.path.unlink()
    elif what == "replaced":
        dead.path.rename(tmp_path / "kept elsewhere")
        dead.path.touch()
    else:
        dead.path.write_bytes(b"".join(left))
    assert dead.append([(7, "no", reading(7)), (8, "no", reading(8))]) == 2
    found = [letter.offset for letter in letters(tmp_path / "a").read()]
    assert found == [*{"another's": [2]}.get(what, [0, 1] if left else []), 7, 8]
    assert (dead.count, dead.summary()["bytes"]) == (len(found), dead.path.stat().st_size)
    assert letters(tmp_path / "a").damaged == 0


def test_removed_file_is_noticed_by_whoever_removes_from_it(tmp_path: Path) -> None:
    """Nothing is removed or purged of what somebody has removed already, and nothing counted as there."""
    for purge in (False, True):
        dead = put_aside(tmp_path / "a", 3)
        dead.path.unlink()
        assert (dead.purge() if purge else dead.remove({1})) == 0
        assert dead.count == 0


def test_letter_that_is_gone_is_put_aside_again(tmp_path: Path) -> None:
    """What stood in the file before a crash, and comes again after the file was removed, is put aside once more."""
    put_aside(tmp_path / "a", 4)
    dead = DeadLetters(tmp_path / "a")
    dead.open(2)
    dead.path.write_bytes(b"".join(dead.path.read_bytes().splitlines(keepends=True)[:3]))
    assert dead.append([(2, "no", reading(2)), (3, "no", reading(3))]) == 1
    dead.path.unlink()
    assert dead.append([(2, "no", reading(2))]) == 1
    assert [letter.offset for letter in letters(tmp_path / "a").read()] == [2]


@pytest.mark.parametrize("when", ["at start", "while it runs"])
@pytest.mark.parametrize("what", ["a directory", "bad sectors"])
def test_file_that_cannot_be_read_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str, when: str
) -> None:
    """What is damaged beyond reading is kept under another name, and a new file begun."""
    path = tmp_path / "a"
    dead = put_aside(path, 3)
    whole = path.read_bytes()
    if what == "a directory":
        path.unlink()
        path.mkdir()
    elif when == "while it runs":
        path.write_bytes(whole[:-1])
    real = Path.open

    def fail(self: Path, *rest: object, **more: object) -> object:
        if self == path and what == "bad sectors" and path.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, *rest, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        if when == "at start":
            dead.open(0)
            assert (dead.count, dead.uncounted) == (0, set())
        assert dead.append([(2, "no", reading(2)), (7, "no", reading(7))]) == 2
    assert [letter.offset for letter in letters(path).read()] == [2, 7]
    (kept,) = (entry for entry in tmp_path.iterdir() if entry != path)
    assert kept.name.startswith("a.damaged-")
    assert kept.is_dir() or kept.read_bytes() == whole[: kept.stat().st_size]
    assert kept.name in caplog.text


def test_hints_say_what_would_help(tmp_path: Path) -> None:
    """A right, room, or another disk: whatever is missing, and where."""
    dead = DeadLetters(tmp_path / "a")
    for number in (errno.EACCES, errno.EROFS, errno.ENOTDIR):
        assert dead.hint(OSError(number, "no")) == f"the gateway has to be able to read and write {dead.path}"
    assert dead.hint(OSError(errno.ENOSPC, "no")) == f"make room on the disk that holds {dead.path}"
    assert dead.hint(OSError(errno.EIO, "no")) == f"check the disk that holds {dead.path}"


def put_aside(path: Path, count: int = 6, **more: int) -> DeadLetters:
    """Letters 0.. of two reasons, an hour apart."""
    now = [1_764_000_000_000_000_000]
    dead = DeadLetters(path, clock=lambda: now[0], **more)
    dead.open()
    for n in range(count):
        dead.append([(n, "odd" if n % 2 else "even", reading(n))])
        now[0] += 3_600_000_000_000
    return dead


def test_summary_counts_reasons_and_times(tmp_path: Path) -> None:
    """How many, how large, since when, and the reasons, most frequent first; the same after a restart."""
    dead = put_aside(tmp_path / "a", 7)
    summary = dead.summary()
    assert summary == {
        "count": 7,
        "bytes": dead.path.stat().st_size,
        "oldest": 1_764_000_000_000,
        "newest": 1_764_000_000_000 + 6 * 3_600_000,
        "reasons": {"even": 4, "odd": 3},
        "damaged": 0,
    }
    assert letters(tmp_path / "a").summary() == summary
    assert letters(tmp_path / "none").summary() == {
        "count": 0,
        "bytes": 0,
        "oldest": None,
        "newest": None,
        "reasons": {},
        "damaged": 0,
    }


def test_summary_is_bounded(tmp_path: Path) -> None:
    """Ten reasons are named; thousands of different ones take no memory of their own."""
    dead = letters(tmp_path / "a")
    dead.append([(n, f"reason {n if n >= 50 else 0}", reading(n)) for n in range(3000)])
    reasons = dead.summary()["reasons"]
    assert len(reasons) == 10
    assert reasons["reason 0"] == 50
    assert len(dead._census.reasons) <= 257
    assert sum(dead._census.reasons.values()) == 3000


def test_some_are_read(tmp_path: Path) -> None:
    """By number, by offset and by device, always in order."""
    dead = put_aside(tmp_path / "a", 6)
    assert [letter.offset for letter in dead.read(limit=2)] == [0, 1]
    assert [letter.offset for letter in dead.read(offsets={4, 1, 77})] == [1, 4]
    assert [letter.offset for letter in dead.read(device="d-3")] == [3]
    assert [letter.offset for letter in dead.read(limit=1, offsets={4, 1})] == [1]


def test_some_are_removed(tmp_path: Path) -> None:
    """What is removed is gone for good, all others stay as they are, and appending goes on behind them."""
    dead = put_aside(tmp_path / "a", 6)
    before = dead.path.read_bytes().splitlines(keepends=True)
    assert dead.remove({1, 4, 99}) == 2
    assert dead.path.read_bytes() == b"".join(before[n] for n in (0, 2, 3, 5))
    assert (dead.count, dead.summary()["reasons"]) == (4, {"even": 2, "odd": 2})
    dead.append([(6, "even", reading(6))])
    assert [letter.offset for letter in letters(tmp_path / "a").read()] == [0, 2, 3, 5, 6]
    assert dead.remove({0, 2, 3, 5, 6}) == 5
    assert not dead.path.exists()
    assert dead.remove({0}) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == []


def test_refused_again_stays_with_its_new_reason(tmp_path: Path) -> None:
    """In its place, with the time at which it was first put aside."""
    dead = put_aside(tmp_path / "a", 4)
    times = [letter.time for letter in dead.read()]
    assert dead.settle({("", 0)}, {("", 2): "still no"}) == (1, 1)
    found = list(letters(tmp_path / "a").read())
    assert [(letter.offset, letter.reason) for letter in found] == [(1, "odd"), (2, "still no"), (3, "odd")]
    assert [letter.time for letter in found] == times[1:]


def test_what_is_counted_elsewhere_is_told_apart(tmp_path: Path) -> None:
    """Letters of another count (a journal begun anew has the same offsets) are kept, and counted apart."""
    old = DeadLetters(tmp_path / "a", ledger="one")
    old.open()
    old.append([(5, "no", reading(5)), (6, "no", reading(6))])
    new = DeadLetters(tmp_path / "a", ledger="two")
    new.open()
    assert new.append([(5, "no", reading(50))]) == 1
    assert [(letter.offset, letter.ledger) for letter in new.read()] == [(5, "one"), (6, "one"), (5, "two")]
    assert new.settle({("one", 5), ("two", 5)}, {}) == (2, 1)
    assert [letter.offset for letter in new.read()] == [6]


def test_letters_of_what_is_still_in_the_journal_are_known(tmp_path: Path) -> None:
    """What was put aside and not counted before a crash comes again: it is known, and known no more once removed."""
    first = letters(tmp_path / "a")
    first.append([(n, "no", reading(n)) for n in range(8)])
    second = DeadLetters(tmp_path / "a")
    second.open(5)
    assert second.uncounted == {5, 6, 7}
    assert second.append([(5, "no", reading(5))]) == 0
    second.remove({6})
    assert second.uncounted == {5, 7}
    second.purge()
    assert second.uncounted == set()


def test_damaged_value_is_never_read(tmp_path: Path) -> None:
    """Whatever bit of a letter flips, it is passed over or read as it was, and stays for the operator to see."""
    dead = put_aside(tmp_path / "a", 3)
    whole = dead.path.read_bytes()
    good = list(dead.read())
    end = len(whole.splitlines(keepends=True)[0])
    for at in range(end):
        for bit in (0, 3, 6):
            dead.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            found = list(letters(tmp_path / "a").read())
            assert all(letter in good for letter in found), (at, bit)
            assert found[-1] == good[-1]
    dead.path.write_bytes(whole.replace(b'"n":0', b'"n":4', 1))
    again = letters(tmp_path / "a")
    assert again.summary()["damaged"] == 1
    assert again.remove({0, 1}) == 1
    assert dead.path.read_bytes().count(b"\n") == 2


def test_letters_without_a_checksum_are_read(tmp_path: Path) -> None:
    """Lines as written before there was one."""
    path = tmp_path / "a"
    path.write_bytes(b'{"offset":7,"time":42,"reason":"no","item":[0,"d","s",1,5,6,{"t":22.5}]}\n')
    dead = letters(path)
    assert [(letter.offset, letter.ledger, letter.item) for letter in dead.read()] == [
        (7, "", Reading("d", "s", 1, 5, 6, {"t": 22.5}))
    ]


def test_crash_while_removing_leaves_the_file_whole(tmp_path: Path) -> None:
    """Killed at any call of the rewrite, the file is the one before or the one after; a leftover is cleared away."""
    code = (
        "import sys; from pathlib import Path; from gateway.sinks.deadletters import DeadLetters\n"
        "dead = DeadLetters(Path(sys.argv[1])); dead.open(); dead.remove({1, 2}); print('DONE', flush=True)\n"
    )
    outcomes = set()
    for call in ("write", "fsync", "rename", "openat"):
        for when in (1, 2) if call == "fsync" else (1,):
            path = tmp_path / f"{call}{when}" / "a"
            dead = put_aside(path, 5)
            watch = ["strace", "-f", "-P", str(path) + ".new", "-P", str(path.parent)]
            kill = ["-e", f"inject={call}:signal=KILL:when={when}", "-e", f"trace={call}", "-o", "/dev/null"]
            try:
                run = subprocess.run([*watch, *kill, sys.executable, "-c", code, str(path)], capture_output=True)
            except FileNotFoundError:
                pytest.skip("strace is not on this machine (Debian package strace).")
            assert b"DONE" not in run.stdout, (call, when)
            again = letters(path)
            outcomes.add(tuple(letter.offset for letter in again.read()))
            assert [entry.name for entry in path.parent.iterdir()] == ["a"]
            assert again.remove({1, 2}) in (0, 2)
            assert [letter.offset for letter in again.read()] == [0, 3, 4]
            assert dead.path == path
    assert outcomes == {(0, 1, 2, 3, 4), (0, 3, 4)}


def test_appending_while_another_thread_removes_loses_nothing(tmp_path: Path) -> None:
    """One thread puts aside, one removes, one reads: all that is not removed stands there at the end."""
    dead = letters(tmp_path / "a")
    dead.append([(n, "no", reading(n)) for n in range(200)])
    stop = threading.Event()

    def remove() -> None:
        try:
            for n in range(0, 200, 10):
                dead.remove(set(range(n, n + 10)))
        finally:
            stop.set()

    def look() -> None:
        while not stop.is_set():
            found = [letter.offset for letter in dead.read()]
            assert found == sorted(found)
            dead.summary()

    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(remove), pool.submit(look)]
        n = 200
        while not stop.is_set():
            dead.append([(n, f"no {n}", reading(n))])
            n += 1
        for each in work:
            each.result()
    assert [letter.offset for letter in dead.read()] == list(range(200, n))
    assert dead.count == n - 200

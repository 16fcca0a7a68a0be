"""The queue and the thread behind the log, and what a process does with them."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.logs.entry import Entry
from gateway.logs.outlet import Outlet, Stream

from .records import record
from .test_journald import decode

TIMEOUT = 20.0


class Taker:
    """Takes entries while its gate is open."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, entry: Entry) -> None:
        assert self.gate.wait(TIMEOUT)
        self.entries.append(entry)

    @property
    def words(self) -> list[str]:
        return [entry.message for entry in self.entries]


def until(condition: object) -> None:
    """Wait for it."""
    assert callable(condition)
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_entries_are_written_in_order() -> None:
    """What was logged is written in its order by the time that a flush returns."""
    taker = Taker()
    outlet = Outlet(taker)
    for number in range(50):
        outlet.handle(record("entry %d", number))
    outlet.flush()
    assert taker.words == [f"entry {number}" for number in range(50)]
    outlet.close()
    assert outlet.entries == 50


def test_what_does_not_fit_is_counted_and_told() -> None:
    """While nothing is taken nobody waits; what was left out is told in one entry, once there is room."""
    taker = Taker()
    outlet = Outlet(taker, most=10)
    taker.gate.clear()
    outlet.handle(record("first"))
    until(lambda: outlet._queue.qsize() == 0)
    began = time.monotonic()
    for number in range(500):
        outlet.handle(record("entry %d", number, device=f"d{number}", event=f"e{number % 10}"))
    assert time.monotonic() - began < 1.0
    assert outlet.lost == 490
    taker.gate.set()
    until(lambda: len(taker.entries) == 12)
    assert [entry.message for entry in taker.entries if entry.event == "log_lost"] == [
        "490 entries were left out: what takes the log was too slow"
    ]
    outlet.handle(record("later"))
    outlet.close()
    assert taker.words[-1] == "later"
    assert len(taker.entries) == 13


def test_what_repeats_itself_is_told_by_its_number() -> None:
    """Of very many entries of one place in the code a hundred are written, and how many more there were."""
    taker = Taker()
    outlet = Outlet(taker)
    for number in range(1_000):
        outlet.handle(record("entry %d", number))
    for _ in range(150):
        outlet.handle(record("refused", event="device_refused", device="pump-1", level=logging.ERROR))
    for _ in range(150):
        outlet.handle(record("for who wants all", level=logging.DEBUG))
    outlet.handle(record("another", event="device_refused", device="pump-2"))
    outlet.close()
    assert taker.words == [
        *(f"entry {number}" for number in range(100)),
        *["refused"] * 100,
        *["for who wants all"] * 150,
        "another",
        "entry %d … and 900 more of the same in 0 s",
        "refused … and 50 more of the same in 0 s",
    ]
    last = taker.entries[-1]
    assert (last.level, last.event, last.values) == (logging.ERROR, "device_refused", {"count": 50})
    assert outlet.lost == 0


def test_what_repeats_itself_is_told_while_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is told when its time is over, without another entry."""
    monkeypatch.setattr("gateway.logs.outlet.SAME_S", 0.05)
    monkeypatch.setattr("gateway.logs.outlet.LOOK_S", 0.01)
    taker = Taker()
    outlet = Outlet(taker)
    for number in range(101):
        outlet.handle(record("entry %d", number))
    until(lambda: len(taker.entries) == 101)
    assert taker.words[-1].startswith("entry %d … and 1 more of the same")
    outlet.close()


class Unshowable:
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_what_cannot_be_shown_breaks_nothing() -> None:
    """An entry with a value that raises, or that cannot be written, is told as a fault; the next one is written."""
    taker = Taker()

    def write(entry: Entry) -> None:
        if entry.message == "bad":
            raise ValueError("cannot")
        taker(entry)

    outlet = Outlet(write)
    outlet.handle(record("%s", Unshowable()))
    outlet.handle(record("bad"))
    outlet.handle(record("good"))
    outlet.close()
    assert taker.words == [
        "an entry cannot be shown: /gateway/test.py:17: RuntimeError",
        "an entry cannot be shown: ValueError('cannot')",
        "good",
    ]
    assert taker.entries[0].event == "fault"


def test_one_that_takes_nothing_holds_no_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush and the end wait for a bounded time, and later entries are not waited for."""
    monkeypatch.setattr("gateway.logs.outlet.FLUSH_S", 0.05)
    taker = Taker()
    outlet = Outlet(taker)
    taker.gate.clear()
    outlet.handle(record("x"))
    outlet.flush()
    outlet.close()
    outlet.handle(record("y"))
    taker.gate.set()


def test_after_the_end_entries_are_written_at_once() -> None:
    """An entry of the interpreter's last moments, after the thread has ended, is not lost."""
    taker = Taker()
    outlet = Outlet(taker)
    outlet.close()
    outlet.handle(record("last"))
    assert taker.words == ["last"]


def test_a_stream_takes_all_of_a_line() -> None:
    """A pipe that somebody made non-blocking, and is full, gets every byte in the end; one without a reader none."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = b"x" * 300_000
    thread = threading.Thread(target=Stream(writer).write, args=(data,))
    thread.start()
    got = b""
    while len(got) < len(data):
        got += os.read(reader, 65_536)
    thread.join(TIMEOUT)
    assert got == data
    os.close(reader)
    Stream(writer).write(b"nobody")
    os.close(writer)


def run(code: str, *, journal: str | None = None, form: str = "auto", **options: object) -> tuple[int, str]:
    """Run a program that logs; its exit status and standard error."""
    given = f"journald=Journald({journal!r})" if journal else ""
    program = (
        "import logging, os, sys, threading\n"
        "from gateway.logs import configure\n"
        "from gateway.logs.journald import Journald\n"
        f"configure('info', {form!r}, {given})\n"
        "log = logging.getLogger('gateway.test')\n"
    ) + code
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, timeout=60, check=False)
    return done.returncode, done.stderr.decode()


def test_a_crash_loses_no_entry() -> None:
    """An uncaught exception is logged with its traceback after all that was logged before it, in the log's form."""
    status, text = run("for n in range(90): log.info('entry %d', n)\nraise ValueError('so')", form="json")
    assert status == 1
    said = [json.loads(line) for line in text.splitlines()]
    assert [entry["message"] for entry in said] == [
        *(f"entry {number}" for number in range(90)),
        "the gateway has failed: ValueError",
    ]
    assert said[-1]["event"] == "fault"
    assert said[-1]["traceback"].endswith("ValueError: so")


def test_a_reader_that_stands_still_keeps_nobody(tmp_path: Path) -> None:
    """With standard error full and read by nobody the program works on, and ends; what was left out is counted."""
    program = (
        "import logging, time\n"
        "from gateway.logs import configure, stats\n"
        "configure('debug', 'json')\n"
        "log = logging.getLogger('gateway.test')\n"
        "began = time.monotonic()\n"
        "for number in range(20_000): log.debug('entry %d', number)\n"
        "print(time.monotonic() - began, stats()['lost'], flush=True)\n"
    )
    reader, writer = os.pipe()
    try:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=60, check=True)
    finally:
        os.close(writer)
        os.close(reader)
    took, lost = map(float, done.stdout.split())
    assert took < 10
    assert lost > 10_000


def test_what_keeps_it_from_starting_is_an_error_in_the_journal(tmp_path: Path) -> None:
    """Bad settings, which are said before there is a log, have their level where standard error goes to journald."""
    command = [sys.executable, "-m", "gateway", "run"]
    reader, writer = os.pipe()
    status = os.fstat(writer)
    env = {**os.environ, "GATEWAY_LOG__LEVEL": "loud", "GATEWAY_STATE_DIR": str(tmp_path)}
    for stream, level in ((f"{status.st_dev}:{status.st_ino}", "<3>"), ("1:1", "")):
        env["JOURNAL_STREAM"] = stream
        assert subprocess.run(command, stderr=writer, env=env, timeout=60, check=False).returncode == 78
        assert os.read(reader, 65_536).decode().startswith(f"{level}gateway: GATEWAY_LOG__LEVEL: ")
    os.close(reader)
    os.close(writer)


def test_a_thread_that_fails_is_logged() -> None:
    """An exception that ends a thread is an entry."""
    status, text = run("t = threading.Thread(target=lambda: 1 / 0, name='t1')\nt.start(); t.join()")
    assert status == 0
    assert "ERROR   gateway.logs: thread t1 has failed" in text
    assert "ZeroDivisionError" in text


def test_an_abort_tells_where_each_thread_stood() -> None:
    """The watchdog's SIGABRT leaves a traceback of each thread, without values."""
    status, text = run("secret = 'hunter2'\nos.abort()")
    assert status == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in text
    assert 'File "<string>"' in text
    assert "hunter2" not in text


def test_entries_go_to_journald_and_to_stderr_without_it(tmp_path: Path) -> None:
    """A process logs to journald's socket alone; to standard error where there is none."""
    address = str(tmp_path / "socket")
    code = "log.warning('a\\nb', extra={'event': 'device_offline', 'device': 'pump-1'})"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(TIMEOUT)
        assert run(code, journal=address, form="journald") == (0, "")
        said = decode(receiver.recv(1 << 16))
    assert said["MESSAGE"] == "a\nb"
    assert said["DEVICE_ID"] == "pump-1"
    assert said["SYSLOG_IDENTIFIER"] == "gateway"
    status, text = run(code, journal=str(tmp_path / "none"), form="journald")
    assert status == 0
    assert text.endswith("Z WARNING gateway.test: a\\nb\n")


@pytest.mark.parametrize("there", [True, False])
def test_auto_asks_whether_stderr_goes_to_the_journal(tmp_path: Path, there: bool) -> None:
    """Under systemd entries go to journald by themselves; when it is away, its stream gets lines with their level."""
    address = str(tmp_path / "socket")
    code = (
        "status = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino}'\n"
        f"configure('info', 'auto', journald=Journald({address!r}))\n"
        "log.warning('hello')"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(TIMEOUT)
        if there:
            receiver.bind(address)
        status, text = run(code)
        assert status == 0
        if there:
            assert decode(receiver.recv(1 << 16))["MESSAGE"] == "hello"
            assert text == ""
        else:
            assert text.startswith("<4>2")

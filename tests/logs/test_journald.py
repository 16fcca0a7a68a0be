"""journald's native protocol, against a socket of our own in its place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.logs.journald import Journald, encode, takes_stderr


def decode(data: bytes) -> dict[str, str]:
    """The fields of a datagram, read as journald reads them."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, end, data = data[8 : 8 + size], data[8 + size : 9 + size], data[9 + size :]
            assert end == b"\n"
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A datagram socket, and its address."""
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(10)
        yield receiver, address


def test_fields_come_through(listening: tuple[socket.socket, str]) -> None:
    """Values with newlines, equals signs, and of other alphabets arrive as they were; none makes a field of its own."""
    receiver, address = listening
    said = [("MESSAGE", "a\nPRIORITY=0\nb"), ("REASON", "x=y"), ("DEVICE_ID", "größe"), ("HINT", "")]
    journald = Journald(address)
    assert journald.send(said)
    assert decode(receiver.recv(1 << 16)) == dict(said)
    journald.close()
    assert encode([("A", "b\n")]) == b"A\n\x02\x00\x00\x00\x00\x00\x00\x00b\n\n"


def test_a_lone_surrogate_is_sent_escaped() -> None:
    """What UTF-8 cannot hold is written with a backslash."""
    assert encode([("A", "\ud800")]) == b"A=\\ud800\n"


def test_what_is_too_large_comes_as_a_file(listening: tuple[socket.socket, str]) -> None:
    """An entry larger than a datagram is passed as a sealed file in memory."""
    receiver, address = listening
    journald = Journald(address)
    assert journald.send([("MESSAGE", "x" * (4 << 20))])
    data, fds, _, _ = socket.recv_fds(receiver, 1 << 16, 1)
    assert data == b""
    with open(fds[0], "rb") as file:
        file.seek(0)
        assert decode(file.read()) == {"MESSAGE": "x" * (4 << 20)}
        with pytest.raises(PermissionError):
            os.write(os.dup(fds[0]), b"y")
    journald.close()


def test_nobody_there_is_said(tmp_path: Path) -> None:
    """Without a journald the sender knows that the entry was not taken, and finds one that comes back."""
    address = str(tmp_path / "socket")
    journald = Journald(address)
    assert not journald.send([("MESSAGE", "a")])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        assert journald.send([("MESSAGE", "b")])
        assert receiver.recv(100) == b"MESSAGE=b\n"
    assert not journald.send([("MESSAGE", "c")])
    journald.close()


def test_the_journals_stream_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``JOURNAL_STREAM`` counts where it names the very file that is written to: it is inherited by shells, too."""
    with open(tmp_path / "stream", "w") as file:
        fd = file.fileno()
        status = os.fstat(fd)
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not takes_stderr(fd)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert takes_stderr(fd)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert not takes_stderr(fd)
    assert not takes_stderr(fd)

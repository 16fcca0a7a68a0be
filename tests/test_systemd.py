"""What systemd is told, by the few lines used without systemd-python and by the library where it is installed; and the
sockets that it hands over."""

import contextlib
import os
import socket
import sys
import time

import pytest

from gateway import systemd
from gateway.errors import ConfigError


@pytest.fixture
def listener(tmp_path, monkeypatch):
    """A notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setattr(systemd, "_untold", {})
        yield channel


def test_notify(listener):
    """All states arrive in one datagram."""
    assert systemd.notify("READY=1", "STATUS=up")
    assert listener.recv(1000) == b"READY=1\nSTATUS=up"


def test_fallback(listener):
    """The fallback says the same."""
    assert systemd._send(os.environ["NOTIFY_SOCKET"], "STOPPING=1")
    assert listener.recv(1000) == b"STOPPING=1"


def test_manager_that_does_not_read_is_not_waited_for(listener, monkeypatch):
    """What does not fit into its socket is told with the next that does, the latest of each; a reload that is over is
    no more."""
    monkeypatch.setitem(sys.modules, "systemd.daemon", None)  # as without systemd-python
    told = 0
    while told < 100_000 and systemd._send(os.environ["NOTIFY_SOCKET"], "WATCHDOG=1"):
        told += 1
    assert 0 < told < 100_000
    assert not systemd.reloading("reading")
    assert not systemd.notify("READY=1", "STATUS=up")
    while told:
        assert listener.recv(1000) == b"WATCHDOG=1"
        told -= 1
    for state in (b"READY=1\nSTATUS=up\nWATCHDOG=1", b"WATCHDOG=1"):
        assert systemd.notify("WATCHDOG=1")
        assert listener.recv(1000) == state


def test_fallback_reaches_an_abstract_address():
    """A leading @ means an abstract socket."""
    name = f"gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        channel.settimeout(5)
        assert systemd._send("@" + name, "READY=1")
        assert channel.recv(100) == b"READY=1"


def test_nobody_listens(monkeypatch, tmp_path):
    """Without a socket, or with one that is gone, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")
    assert not systemd._send(str(tmp_path / "gone"), "READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("20000000", None, 10.0), ("", None, None), ("x", None, None), ("5000000", "1", None), ("5000000", "self", 2.5)],
)
def test_watchdog_interval(monkeypatch, usec, pid, seconds):
    """Half of the unit's time, if it is meant for this process."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    assert systemd.watchdog_interval() == seconds


def test_reloading_and_extending(listener):
    """A reload is timed by the monotonic clock, a longer start asked for in microseconds; both say what goes on."""
    before = time.monotonic_ns() // 1000
    assert systemd.reloading("reading")
    state, at, status = listener.recv(1000).decode().splitlines()
    assert (state, status) == ("RELOADING=1", "STATUS=reading")
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert systemd.extend(1.5, "replaying")
    assert listener.recv(1000) == b"EXTEND_TIMEOUT_USEC=1500000\nSTATUS=replaying"


@pytest.fixture
def handed(monkeypatch):
    """Hands descriptors over as systemd does, from a number that is free here."""
    made = []

    def hand(*given, names="", pid=None):
        start = 200
        for at, sock in enumerate(given):
            os.dup2(sock.fileno(), start + at, inheritable=True)
            made.append(start + at)
        monkeypatch.setattr(systemd, "SOCKETS_FROM", start)
        monkeypatch.setenv("LISTEN_FDS", str(len(given)))
        monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
        monkeypatch.setenv("LISTEN_FDNAMES", names)

    yield hand
    for fd in made:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_sockets_are_taken_over(handed, tmp_path):
    """TCP and Unix sockets that listen, in their order; the variables are gone, and no child inherits anything."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as two:
        two.bind(str(tmp_path / "s"))
        two.listen()
        handed(one, two, names="gateway.socket:other")
        first, second = systemd.sockets()
        with first, second:
            assert first.getsockname() == one.getsockname()
            assert second.family == socket.AF_UNIX
            assert not os.get_inheritable(first.fileno())
            assert first.gettimeout() == 0.0
    assert not {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} & set(os.environ)
    assert systemd.sockets() == []


def test_sockets_of_another_process(handed):
    """What is meant for somebody else is let be."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        handed(one, pid=1)
        assert systemd.sockets() == []


def test_what_is_no_listening_socket(handed, tmp_path):
    """A datagram socket, one that is connected, and a file are faults in words, named as the unit names them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        handed(datagrams, names="metrics")
        with pytest.raises(ConfigError, match="metrics is not a listening stream socket"):
            systemd.sockets()
    one, two = socket.socketpair()
    with one, two:
        handed(one)
        with pytest.raises(ConfigError, match="descriptor 200 is not a listening stream socket"):
            systemd.sockets()
    with open(tmp_path / "file", "w") as file:
        handed(file)
        with pytest.raises(ConfigError, match="is not a socket"):
            systemd.sockets()

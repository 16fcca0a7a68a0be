"""What systemd is told, by the few lines used without systemd-python and by the library where it is installed."""

import os
import socket

import pytest

from gateway import systemd


@pytest.fixture
def listener(tmp_path, monkeypatch):
    """A notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield channel


def test_notify(listener):
    """All states arrive in one datagram."""
    assert systemd.notify("READY=1", "STATUS=up")
    assert listener.recv(1000) == b"READY=1\nSTATUS=up"


def test_fallback(listener):
    """The fallback says the same."""
    assert systemd._send(os.environ["NOTIFY_SOCKET"], "STOPPING=1")
    assert listener.recv(1000) == b"STOPPING=1"


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

"""The process: an end in time, what systemd is told, sockets that it hands over."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import daemon
from gateway.config import Settings
from gateway.errors import ConfigError
from tests.service import Notify


class Turning:
    """A health that says what it is told to."""

    def __init__(self) -> None:
        self.why = ""

    def alive(self) -> str:
        return self.why

    def body(self) -> dict[str, Any]:
        return {"problems": [], "devices": {"online": 3}}


@pytest.fixture
def notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notify]:
    """Where systemd would listen."""
    with Notify(tmp_path) as notify:
        monkeypatch.setenv("NOTIFY_SOCKET", str(notify.path))
        yield notify


async def test_the_watchdog_is_told_while_all_turns(
    notify: Notify, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In half the unit's time, with a line of status; nothing while the writer is stuck, and at once when it is not."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    health: Any = Turning()
    task = asyncio.create_task(daemon.watchdog(health))
    try:
        for _ in range(3):
            assert "STATUS=3 devices online; all is well" in await asyncio.to_thread(notify.wait, "WATCHDOG=1")
        health.why = "the journal's writer has not turned for 7 s"
        await asyncio.sleep(0.1)
        count = len(notify.rest())
        await asyncio.sleep(0.5)
        assert len(notify.rest()) == count
        assert "the watchdog is told nothing: the journal's writer" in caplog.text
        health.why = ""
        await asyncio.to_thread(notify.wait, "WATCHDOG=1")
    finally:
        task.cancel()


def test_the_watchdog_is_told_nothing_while_the_loop_stands_still(
    notify: Notify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something that holds the loop up holds up what systemd is told."""
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    standing, go_on = threading.Event(), threading.Event()

    async def main() -> None:
        task = asyncio.create_task(daemon.watchdog(Turning()))  # type: ignore[arg-type]
        await asyncio.to_thread(notify.wait, "WATCHDOG=1")
        standing.set()
        go_on.wait(30)
        task.cancel()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert standing.wait(30)
        count = len(notify.rest())
        time.sleep(0.4)
        assert len(notify.rest()) == count
    finally:
        go_on.set()
        thread.join(30)


@pytest.mark.parametrize("gone", [False, True])
async def test_sighup_of_a_terminal_that_goes_away(gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends what was started in the terminal; sent by somebody, SIGHUP asks for a reload."""
    there = True
    monkeypatch.setattr(daemon.os, "isatty", lambda fd: there)
    stop, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    daemon._heed(stop, hangup)
    try:
        there = not gone
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(10):
            await (stop if gone else hangup).wait()
        assert hangup.is_set() != gone
    finally:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def test_a_long_start_asks_for_time_while_it_gets_on(notify: Notify, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what it is at; a step of which nothing is heard for ten minutes is left to the unit's own timeout."""
    now = 0.0
    starting = daemon.Starting(lambda: now)
    monkeypatch.setattr(daemon, "STARTING_S", 0.01)
    task = asyncio.create_task(starting.run())
    starting.note("replaying the journal, 5 items to go")
    told = await asyncio.to_thread(notify.wait, "EXTEND_TIMEOUT_USEC=30000000")
    assert "STATUS=replaying the journal, 5 items to go" in told
    task.cancel()
    now = 599.0
    assert starting.ask()
    now = 600.0
    assert not starting.ask()
    starting.note("opening the history")
    assert starting.ask()


def test_a_socket_beyond_loopback_has_to_be_meant() -> None:
    """As with the settings' own address: without tokens and TLS it is refused, or a warning where that is allowed."""
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    allowed = settings.model_copy(update={"auth": settings.auth.model_copy(update={"allow_insecure": True})})
    with socket.create_server(("0.0.0.0", 0)) as everywhere, socket.create_server(("127.0.0.1", 0)) as here:
        assert daemon._exposed(settings, [here]) == []
        with pytest.raises(ConfigError, match=r"\(0\.0\.0\.0\), without authentication"):
            daemon._exposed(settings, [here, everywhere])
        ((host, missing),) = daemon._exposed(allowed, [here, everywhere])
        assert host == "0.0.0.0"
        assert len(missing) == 2


async def test_a_stop_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever holds a step up, the process ends: nothing that was acked is at stake."""
    left: list[int] = []
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave(status: int) -> None:
        left.append(status)
        loop.call_soon_threadsafe(gone.set)

    monkeypatch.setattr(daemon, "STOP_S", 0.1)
    monkeypatch.setattr(daemon.os, "_exit", leave)
    monkeypatch.setattr(daemon.logging, "shutdown", lambda: None)

    class Hanging:
        port = 0
        sockets = ()

        def __init__(self, settings: Settings, sockets: object, *, progress: object) -> None:
            self.health = Turning()

        @asynccontextmanager
        async def running(self) -> AsyncIterator[None]:
            os.kill(os.getpid(), signal.SIGTERM)
            yield
            await gone.wait()

    monkeypatch.setattr(daemon, "App", Hanging)
    async with asyncio.timeout(10):
        await daemon.run(Settings(_env_file=None))  # type: ignore[call-arg]
    assert left == [1]
    assert "none of it was acked" in caplog.text

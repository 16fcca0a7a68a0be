"""The gateway as a process: signals, what systemd is told and hands over, and an end in time.

SIGTERM and SIGINT stop it, SIGHUP has it read the settings anew.  systemd is told (sd_notify(3)) when it is ready,
that it reloads, that it stops, for as long as a start gets on that it needs more time, and once in half the unit's
watchdog time that it lives: that the loop turns, since this runs on it, and that the journal's writer does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from . import logs, systemd
from .app import App, keep_up
from .config import Settings, is_loopback, lacking
from .errors import ConfigError
from .server.health import Health
from .server.listener import hosts_of

__all__ = ["Starting", "run", "watchdog"]

log = logging.getLogger(__name__)

STOP_S = 9.5  # for all of a stop, whatever a disk does
STARTING_S = 5.0  # between two words of a start that takes long
EXTEND_S = 30.0  # what each asks for
STEP_S = 600.0  # a step of the start that says nothing for as long gets no more time
TOLD_S = 10.0  # between two lines of status, where the unit has no watchdog


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; a second signal is not needed, since every step is bounded.

    Raises :class:`ConfigError` for sockets that cannot be served, and what :meth:`App.running` does.
    """
    stop = asyncio.Event()
    hangup = asyncio.Event()
    _heed(stop, hangup)
    sockets = systemd.sockets()
    exposed = _exposed(settings, sockets)
    starting = Starting()
    app = App(settings, sockets, progress=starting.note)
    asking = asyncio.create_task(starting.run())
    try:
        async with app.running():
            asking.cancel()
            for host, missing in exposed:
                log.warning(
                    "%s is reached from other machines without %s: GATEWAY_AUTH__ALLOW_INSECURE allows it",
                    host,
                    " and ".join(missing),
                    extra={"event": "insecure", "reason": ", ".join(missing)},
                )
            for where in _addresses(settings, app):
                log.info("listening on %s", where, extra={"event": "started"})
            status = f"STATUS=listening on {', '.join(_addresses(settings, app))}"
            await asyncio.to_thread(logs.flush)  # who waits for us to be ready may look there
            systemd.notify("READY=1", status)
            assert app.health is not None
            tasks = [
                asyncio.create_task(keep_up("reload", partial(_reloads, app, hangup, status))),
                asyncio.create_task(keep_up("watchdog", partial(watchdog, app.health))),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()
            systemd.notify("STOPPING=1", "STATUS=stopping")
            # A disk that takes seconds for a sync could hold a step up: what was acked is on it, all else can be left.
            last = threading.Timer(STOP_S, _leave)
            last.daemon = True
            last.start()
        last.cancel()
    finally:
        asking.cancel()
    log.info("stopped", extra={"event": "stopped"})


def _heed(stop: asyncio.Event, hangup: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    terminals = [fd for fd in range(3) if os.isatty(fd)]

    def hung_up() -> None:
        # A terminal that goes away ends what was started in it.
        lost = terminals and not any(map(os.isatty, terminals))
        (stop if lost else hangup).set()

    loop.add_signal_handler(signal.SIGHUP, hung_up)


def _exposed(settings: Settings, sockets: Sequence[socket.socket]) -> list[tuple[str, list[str]]]:
    """Addresses beyond loopback, and what is missing to be safe there.

    The settings were checked for their own address; raises :class:`ConfigError` where a socket's is not allowed.
    """
    missing = lacking(settings)
    hosts = hosts_of(sockets) or [settings.listen.host]
    exposed = [(host, missing) for host in hosts if missing and not is_loopback(host)]
    if exposed and sockets and not settings.auth.allow_insecure:
        raise ConfigError(
            f"the socket handed over is reached from other machines ({exposed[0][0]}), without "
            f"{' and without '.join(missing)}; set these, or GATEWAY_AUTH__ALLOW_INSECURE=true if that is meant, or "
            "have the socket's unit listen on 127.0.0.1"
        )
    return exposed


def _addresses(settings: Settings, app: App) -> list[str]:
    """Where it listens, as URLs."""
    scheme = "https" if settings.tls.cert is not None else "http"
    if not app.sockets:
        return [f"{scheme}://{_in_url(settings.listen.host)}:{app.port}"]
    names = [sock.getsockname() for sock in app.sockets]
    return [
        f"{scheme}://{_in_url(name[0])}:{name[1]}" if isinstance(name, tuple) else f"{scheme} on {os.fsdecode(name)}"
        for name in names
    ]


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Starting:
    """Asks systemd for more time for as long as the start gets on, so that a long recovery is not cut short."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted = clock()
        self._words = "starting"

    def note(self, words: str) -> None:
        """What the start is at."""
        self._noted = self._clock()
        self._words = words

    async def run(self) -> None:
        """Ask, again and again, until cancelled."""
        while True:
            await asyncio.sleep(STARTING_S)
            self.ask()

    def ask(self) -> bool:
        """Ask once, unless nothing was noted for :data:`STEP_S`; whether systemd was asked."""
        return self._clock() - self._noted < STEP_S and systemd.extend(EXTEND_S, self._words)


async def watchdog(health: Health) -> None:
    """Tell systemd that the loop and the writer turn, and how things are in a line; nothing while they do not."""
    interval = systemd.watchdog_interval() or TOLD_S
    told = -interval
    stuck = ""
    while True:
        # Looked at more often than told: what is stuck for a moment costs no more than that moment.
        await asyncio.sleep(min(1.0, interval / 4))
        now = time.monotonic()
        if why := health.alive():
            if not stuck:
                log.error("the watchdog is told nothing: %s", why)
            stuck = why
            continue
        if stuck:
            log.warning("the watchdog is told again")
            stuck, told = "", -interval
        if now - told >= interval:
            told = now
            systemd.notify("WATCHDOG=1", f"STATUS={_status(health)}")


def _status(health: Health) -> str:
    body = health.body()
    problems: Any = body["problems"]
    devices: Any = body["devices"]
    return f"{devices['online']} devices online; {problems[0]['text'] if problems else 'all is well'}"


async def _reloads(app: App, hangup: asyncio.Event, status: str) -> None:
    """Read the settings anew at each SIGHUP."""
    while True:
        await hangup.wait()
        hangup.clear()
        systemd.reloading("reading the settings")
        try:
            await app.reloader.reload()
        finally:
            await asyncio.to_thread(logs.flush)
            systemd.notify("READY=1", status)


def _leave() -> None:
    words = "the stop took longer than %g s: leaving what is not on disk, none of it was acked"
    log.error(words, STOP_S, extra={"event": "stop_cut"})
    logging.shutdown()
    os._exit(1)

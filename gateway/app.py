"""The composition root: builds every room, connects them, and takes them down in the opposite order.

Nothing listens before the settings are checked, the state directory is locked and everything on disk has been read.
Built from the far end to the near one (journal, history, sinks, then listeners) and stopped the other way round, so
that what a device was told is safe has somewhere to go: listeners close (1001 to every peer), the journal commits what
is left, sinks hand over what they can, the device book is saved, history and journal close.  A deadline bounds each
step.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

from . import __version__, liveness, logs, metrics, remotes
from .auth import Tokens
from .auth.tokens import SAVE_S as TOKENS_SAVE_S
from .bookkeeper import BookKeeper
from .capacity import max_connections
from .commands import Commands
from .config import Settings
from .delivery import Delivery
from .devices import SNAPSHOT_S, Device, DeviceBook
from .errors import AuthError, ConfigError, GatewayError, HistoryError, JournalError
from .history import History
from .homeassistant import Announcer
from .hub import Hub
from .journal import Journal
from .lock import Lock
from .pipeline import Pipeline
from .reading import Reading
from .reload import Reloader, Take, appliers, clock_rules, device_settings
from .reserve import Reserve
from .server.access import Access
from .server.control import Control
from .server.desk import Desk
from .server.device import DeviceEndpoint
from .server.doors import Doors
from .server.downlink import Downlink
from .server.exporting import Exporter
from .server.forgetting import Forgetting
from .server.guard import Guard
from .server.health import Health, Problem
from .server.listener import hosts_of, listener
from .server.live import LiveEndpoint, encode_frame
from .server.pages import Pages, assets
from .server.tls import Files, Tls, read_files
from .server.tokendesk import TokenDesk
from .sinks import registry
from .sinks.base import Sink
from .sinks.deadletters import DeadLetters
from .sinks.runner import Runner

__all__ = ["App", "keep_up"]

log = logging.getLogger(__name__)

# The deadlines of a stop add up to less than the 10 s that a service is given.
LISTENERS_STOP_S = 2.5
COMMIT_STOP_S = 1.0
SINKS_STOP_S = 2.0  # and what a sink takes to part from its far side
HISTORY_DELAY_S = 0.25  # at most: a row can be read a second after its ack
AGAIN_S = 1.0  # until work that failed is begun again
REPLAY_READINGS = 1_000
RESERVE_S = 60.0  # between two looks whether the room set aside is there

TITLES = {"history": "History", "mqtt": "MQTT", "sparkplug": "Sparkplug", "influx": "InfluxDB"}


class App:
    """The gateway, built from settings.  ``async with app.running():`` listens; ``app.port`` is then known.

    ``sockets`` are listening ones to serve in place of the settings' address, which others hold too; ``progress`` is
    told what the start is at, in words, over and over while it gets on.

    Raises :class:`~gateway.errors.ConfigError` for files of TLS that cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[socket.socket] = (),
        *,
        progress: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.settings = settings
        self.port = 0
        self.sockets = sockets
        self._progress = progress
        self.health: Health | None = None
        self.live: LiveEndpoint | None = None
        self.server: Any = None
        self.pipeline: Pipeline | None = None
        self.devices: DeviceEndpoint | None = None
        self.downlink: Downlink | None = None
        self.announcer: Announcer | None = None
        self.tls = _tls(settings)
        self.reloader = Reloader(settings, prepare=self._prepare)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        """Everything up; on leaving, everything down, with what was accepted committed.

        Raises :class:`~gateway.errors.StateLocked`, :class:`~gateway.errors.JournalError`,
        :class:`~gateway.errors.HistoryError`, :class:`~gateway.errors.AuthError` for a file of tokens that cannot be
        used, and :class:`~gateway.errors.GatewayError` for an address in use.
        """
        settings = self.settings
        async with AsyncExitStack() as stack:
            stack.enter_context(Lock(settings.state_dir))
            loop = asyncio.get_running_loop()
            reserve = self._reserve = Reserve(settings.state_dir / "reserve")
            tokens = self.tokens = Tokens(
                settings.state_dir / "tokens.json", call=loop.call_soon_threadsafe, reserve=reserve
            )
            tokens.load(sessions=True)
            stack.callback(tokens.close)
            book = DeviceBook(
                settings.state_dir / "devices.msgpack",
                rate=settings.limits.device_rate,
                burst=settings.limits.device_burst,
                max_devices=settings.limits.max_devices,
            )
            book.check()
            stack.callback(reserve.make)  # once all that stands below has given its room back
            journal = Journal(
                settings.state_dir / "journal",
                commit_ms=settings.journal.commit_ms,
                max_bytes=settings.journal.max_bytes,
                on_full=settings.journal.on_full,
                keep_free_bytes=settings.journal.keep_free_bytes,
            )
            self._progress("recovering the journal")
            await journal.open()
            stack.push_async_callback(journal.close)
            self._progress("opening the history")
            history = await _open_history(settings, journal.epoch, reserve)
            stack.push_async_callback(history.close)
            book.load(journal.epoch)
            journal.go_on_behind(max(history.position, book.offset or 0))
            hub: Hub[Any] = Hub(book, encode_frame)
            found_end = await self._replay(journal, history, book, hub)
            book.go_on()
            commands = Commands(settings.state_dir / "commands.db")
            await commands.open()
            stack.push_async_callback(commands.close)
            downlink = self.downlink = Downlink(commands, book)
            runners: list[Runner] = []
            first = journal.next_offset

            def durable() -> int:
                # Between what was found and this run's first offset lies nothing that a sink could take.
                return journal.durable_offset if journal.durable_offset > first else found_end

            delivery = Delivery(durable, lambda: min(runner.taken for runner in runners))
            announcer = self.announcer = remotes.announcer(settings, book, hub.series)
            runners += self._runners(journal, history, book, hub, delivery)
            pipeline = self.pipeline = Pipeline(journal, hub, clock_rules=clock_rules(settings))
            for runner in runners:
                if runner.sink.name == "mqtt":
                    downlink.publish = partial(_publish_state, runner)
                    if announcer is not None:
                        announcer.runner = runner
            keeper = BookKeeper(journal, book)
            stack.push_async_callback(keeper.close)
            await self._start_runners(stack, runners, pipeline, book)
            await self._listen(
                stack, journal, history, book, hub, pipeline, delivery, runners, keeper, tokens, downlink
            )
            yield self
            log.info("stopping")

    def _facts(self) -> dict[str, object]:
        """Where devices connect, and whether they are asked for a token."""
        listen, auth = self.settings.listen, self.settings.auth
        address = {"host": (hosts_of(self.sockets) or [listen.host])[0], "port": self.port, "tls": self.tls is not None}
        return {"listen": address, "asked": auth.mode != "none"}

    async def _replay(self, journal: Journal, history: History, book: DeviceBook, hub: Hub[Any]) -> int:
        """Bring the book and the latest values up to the journal's end; the end of what was found."""
        self._progress("reading the newest values")
        for device, metric, at, received, value in await history.latest():
            hub.restore(Reading(device, "", 0, at, received, {metric: value}))
        since = book.offset if book.offset is not None else 0
        offset = min(since, history.position)
        while (batch := await journal.read_from(offset, REPLAY_READINGS)) is not None:
            self._progress(f"replaying the journal, {journal.durable_offset - batch.end:,} items to go")
            book.replay(batch, skip_below=since)
            for item in batch.items:
                if type(item) is Reading and item.values:
                    hub.restore(item)
            offset = batch.end
        for device_known in book:
            if series := hub.series.get(device_known.name):
                device_known.metrics = series.names()
        hub.begin(journal.next_offset, floor=offset)
        return offset

    def _runners(
        self, journal: Journal, history: History, book: DeviceBook, hub: Hub[Any], delivery: Delivery
    ) -> list[Runner]:
        settings = self.settings
        inbound = {f"{settings.mqtt.prefix}/+/command": self._commanded}
        if settings.mqtt.layout == "thingsboard":
            inbound = {}  # it has topics of its own
        if self.announcer is not None:
            inbound |= self.announcer.inbound
        far = (
            remotes.mqtt(settings, integer=book.is_integer, inbound=inbound),
            remotes.sparkplug(settings, hub.series, integer=book.is_integer),
            remotes.influx(settings, integer=book.is_integer),
        )
        sinks: list[Sink] = [registry.history_sink(history), *filter(None, far)]
        runners = []
        for sink in sinks:
            own = sink.name == "history"  # ours, and nobody to be spared
            cursor = journal.cursor(sink.name, history.position if own else None)
            delay = settings.batch.max_delay_ms / 1000
            letters = DeadLetters(
                settings.state_dir / "dead-letters" / sink.name, ledger=f"{journal.epoch}-{cursor.began}"
            )
            runners.append(
                Runner(
                    sink,
                    cursor,
                    max_readings=settings.batch.max_readings,
                    max_delay=min(delay, HISTORY_DELAY_S) if own else delay,
                    max_per_s=None if own else settings.batch.max_per_s,
                    dead_letters=letters,
                    on_taken=delivery.advance,
                )
            )
        return runners

    async def _start_runners(
        self, stack: AsyncExitStack, runners: list[Runner], pipeline: Pipeline, book: DeviceBook
    ) -> None:
        def tell(device: Device) -> None:
            if device.status is not None:
                for runner in runners:
                    runner.set_state(("presence", device.name), device.status.state.encode())

        for device in book:
            tell(device)
        for name in book.forgotten:  # a broker that was away then has not heard it
            _clear_presence(runners, name)
            if self.announcer is not None:
                self.announcer.forget(name)
        pipeline.on_presence.append(tell)
        tasks = [asyncio.create_task(runner.run(), name=f"sink {runner.sink.name}") for runner in runners]

        async def stop() -> None:
            await asyncio.gather(*(runner.stop(SINKS_STOP_S) for runner in runners))
            await asyncio.gather(*tasks, return_exceptions=True)

        stack.push_async_callback(stop)

    async def _listen(
        self,
        stack: AsyncExitStack,
        journal: Journal,
        history: History,
        book: DeviceBook,
        hub: Hub[Any],
        pipeline: Pipeline,
        delivery: Delivery,
        runners: list[Runner],
        keeper: BookKeeper,
        tokens: Tokens,
        downlink: Downlink,
    ) -> None:
        settings = self.settings
        guard = Guard(settings.origins)
        access = self.access = Access(
            guard,
            tokens,
            mode=settings.auth.mode,
            insecure=settings.auth.allow_insecure,
            max_per_token=settings.limits.max_per_token,
            open_paths=assets(),
        )
        if self.tls is not None:
            access.trust(self.tls.context)
        devices = self.devices = DeviceEndpoint(
            book,
            pipeline,
            delivery,
            device_settings(settings),
            access=access,
            downlink=downlink,
        )
        live = self.live = LiveEndpoint(hub, history, journal, journal.epoch, access=access, downlink=downlink)
        pipeline.on_presence.append(devices.complaints.presence)
        access.on_refused = devices.complaints.stranger
        named = [(r.sink.name, TITLES.get(r.sink.name, r.sink.name), r) for r in runners]
        health = self.health = Health(
            id=settings.id,
            epoch=journal.epoch,
            book=book,
            hub=hub,
            journal=journal,
            history=history,
            runners=named,
            dashboards=live.health,
            messages=lambda: devices.messages,
            device_problems=devices.problems,
            retention_days=settings.history.retention_days,
            others=self._problems,
        )
        desk = Desk(
            book=book,
            journal=journal,
            runners=named,
            refused=devices.refused,
            health=health.body,
            journal_problem=health.journal_problem,
            rate=settings.limits.device_rate,
            burst=settings.limits.device_burst,
            clock_rules=clock_rules(settings),
        )
        reloader = self.reloader
        token_desk = TokenDesk(tokens, self._facts)
        forgetting = Forgetting(
            book,
            pipeline,
            devices,
            cleared=[partial(_clear_presence, runners), *([self.announcer.forget] if self.announcer else [])],
            flush=journal.flush,
            save=keeper.save,
        )
        control = Control(
            settings.state_dir,
            {
                **desk.commands,
                **token_desk.commands,
                **forgetting.commands,
                **Exporter(history, book.is_integer).commands,
                "settings": reloader.describe,
                "send": downlink.send,
                "commands": downlink.list,
                "command-cancel": downlink.cancel,
            },
        )
        sources = _sources(journal, history, book, hub, devices, runners, access)
        pages = Pages(
            book,
            hub,
            history,
            health=health.body,
            alive=health.alive,
            ready=health.ready_problem,
            metrics=lambda accept: metrics.exposition(sources, __version__, accept),
        )
        connections, handshakes = max_connections(settings.limits.max_connections)
        server = self.server = listener(
            (devices, live, Doors(access), pages),
            access,
            host=settings.listen.host,
            port=settings.listen.port,
            heartbeat=(settings.heartbeat.interval_s, settings.heartbeat.timeout_s),
            max_connections=connections,
            max_handshakes=handshakes,
            max_per_address=settings.limits.max_per_address,
            stop_timeout=LISTENERS_STOP_S,
            refused=devices.complaints.refused,
            ssl=self.tls.context if self.tls is not None else None,
            sockets=self.sockets,
        )
        live.max_unknown = min(live.max_unknown, max(4, connections // 4))
        sources.append(("websocket", {}, server.stats))
        sources += [(room, {}, partial(_refused, of)) for room, of in (("dashboards", live), ("control", control))]
        sources += [
            ("ack", {}, lambda: {"latency": journal.ack_latency}),
            ("live", {}, lambda: {"latency": live.latency}),
            *(("sink", {"sink": runner.sink.name}, _latency_of(runner)) for runner in runners),
            ("log", {}, logs.stats),
        ]
        if self.tls is not None:
            sources.append(("tls", {}, self.tls.stats))
        reloader.apply = appliers(
            access=access,
            book=book,
            devices=devices,
            desk=desk,
            guard=guard,
            journal=journal,
            pipeline=pipeline,
            server=server,
        )
        sources.append(("settings", {}, reloader.stats))
        sources.append(("downlink", {}, downlink.stats))

        async def commit() -> None:
            # A disk that fails keeps nobody waiting: the journal tries once more when it closes.
            with suppress(TimeoutError, JournalError):
                async with asyncio.timeout(COMMIT_STOP_S):
                    await journal.flush()

        stack.push_async_callback(commit)
        # gc: what start-up built lives as long as the process; a daemon that allocates in batches needs no hurry.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        if settings.auth.mode != "token" and tokens:
            words = "tokens are there, and nobody is asked for one: GATEWAY_AUTH__MODE is none"
            log.warning(words, extra={"event": "insecure"})
        works: dict[str, Callable[[], Awaitable[None]]] = {
            "access": partial(_every, 1.0, access.watch),
            "commands": partial(_every, 1.0, downlink.watch),
            "live feed": live.run,
            "figures": partial(_every, 1.0, health.sample),
            "presence": partial(_every, 1.0, devices.watch),
            "reserve": partial(_renew, self._reserve),
            "device book": partial(_every, SNAPSHOT_S, keeper.save),
            "relief": partial(_every, 1.0, partial(_relieve, journal, history, keeper, runners)),
            "tokens": partial(_every, TOKENS_SAVE_S, partial(asyncio.to_thread, tokens.save_if_due)),
        }
        if self.announcer is not None:
            works["home assistant"] = partial(_every, 1.0, partial(_in_steps, self.announcer.look))
        for name, work in works.items():
            task = asyncio.create_task(keep_up(name, work), name=name)
            stack.callback(task.cancel)
        loop = asyncio.get_running_loop()
        grace = settings.heartbeat.interval_s + settings.heartbeat.timeout_s
        timer = loop.call_later(grace, _end_of_grace, book, pipeline)
        stack.callback(timer.cancel)
        await stack.enter_async_context(control)
        try:
            await stack.enter_async_context(server)
        except OSError as error:
            raise GatewayError(
                f"cannot listen on {settings.listen.host} port {settings.listen.port}: {error.strerror or error}",
                hint="name another with GATEWAY_LISTEN__HOST and GATEWAY_LISTEN__PORT, or stop what listens there",
            ) from None
        self.port = server.port

        def stopping() -> None:
            control.close()  # it has ended by the time the listeners have
            devices.stopping = True
            devices.complaints.settle(early=True)
            health.ready = False

        stack.callback(stopping)
        health.ready = True

    def _commanded(self, topic: str, payload: bytes) -> None:
        """A command was published."""
        if self.downlink is not None:
            device = topic.removeprefix(f"{self.settings.mqtt.prefix}/").removesuffix("/command")
            self.downlink.received(device, payload)

    def _prepare(self, settings: Settings) -> Take:
        """Read the files of TLS and of tokens anew, in a thread; what puts those of TLS into force, on the loop.

        The tokens hand themselves over.  Raises :class:`~gateway.errors.ConfigError`.
        """
        cert, key = settings.tls.cert, settings.tls.key
        files = read_files(cert, key, settings.tls.client_ca) if self.tls and cert and key else None
        try:
            if self.tokens.reload():
                log.warning("the tokens were changed by somebody else and read anew", extra={"event": "access_changed"})
        except AuthError as error:
            raise ConfigError(f"{error}: {error.hint}") from None
        return partial(self._renew, files)

    def _renew(self, files: Files | None) -> list[str]:
        """Use these files of TLS; in words what is new."""
        if self.tls is None or files is None:
            return []
        before = self.tls.authorities
        found = [f"the file of {name} is another" for name in self.tls.use(files)]
        self.server.renew(files.context)
        # Who was verified by authorities that are still among them stays.
        if ended := self.access.trust(files.context, alone=not before <= files.authorities):
            found.append(f"{ended} connection{'' if ended == 1 else 's'} of a client certificate ended with it")
        return found

    def _problems(self) -> Iterator[Problem]:
        for text, hint in self.reloader.problems():
            yield {"part": "settings", "text": text, "hint": hint}
        if owing := self.tokens.owing:
            yield {
                "part": "tokens",
                "text": f"{owing} token{'' if owing == 1 else 's'} revoked would be good again after a restart: the "
                "disk took nothing.",
                "hint": "Make room on the state directory's disk: it is written within a minute.",
            }
        if self.tls is not None:
            for text, hint in self.tls.problems():
                yield {"part": "tls", "text": text, "hint": hint}


async def _relieve(journal: Journal, history: History, keeper: BookKeeper, runners: list[Runner]) -> None:
    """Before the journal is full of what waits for the gateway alone, have that put on disk ahead of its time."""
    pressing = journal.pressing(("history", "devices"))
    if "history" in pressing:
        with suppress(HistoryError):  # a disk that fails: the history's own sink says so
            await history.flush()
        for runner in runners:
            if runner.sink.name == "history":
                runner.confirm_now()
    if "devices" in pressing:
        await keeper.save()


def _end_of_grace(book: DeviceBook, pipeline: Pipeline) -> None:
    now = time.time_ns()
    for device in list(book):
        if device.status is None or device.link is not None:
            continue
        status = liveness.expire(device.status, now)
        if status is not None and status.state != device.status.state:
            pipeline.presence(device, status)
        elif status is not None:
            device.status = status
            pipeline.shown(device)


def _clear_presence(runners: list[Runner], device: str) -> None:
    for runner in runners:
        runner.set_state(("presence", device), None)


def _tls(settings: Settings) -> Tls | None:
    cert, key = settings.tls.cert, settings.tls.key
    return Tls(cert, key, settings.tls.client_ca) if cert is not None and key is not None else None


async def _open_history(settings: Settings, epoch: str, reserve: Reserve) -> History:
    """Open the history; where it cannot be, with the room that was set aside for that."""
    while True:
        history = History(settings.state_dir / "history.db", **dict(settings.history))
        try:
            await history.open(epoch)
        except HistoryError as error:
            if not reserve.release():
                raise
            log.warning("%s: tried again with the room that was set aside", error)
        else:
            return history


async def keep_up(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Work for as long as the gateway runs: a fault of ours is logged, and the work begun again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s: fault", name)
        await asyncio.sleep(AGAIN_S)


async def _renew(reserve: Reserve) -> None:
    while True:
        await asyncio.to_thread(reserve.renew)
        await asyncio.sleep(RESERVE_S)


def _publish_state(runner: Runner, device: str, state: bytes) -> None:
    runner.tell(("command-state", device), state)


async def _every(seconds: float, work: Callable[[], Any]) -> None:
    while True:
        await asyncio.sleep(seconds)
        result = work()
        if result is not None:
            await result


async def _in_steps(work: Callable[[], Iterator[None]]) -> None:
    for _ in work():
        await asyncio.sleep(0)


def _refused(by: LiveEndpoint | Control) -> dict[str, float]:
    return {f"refused_{reason}": float(count) for reason, count in by.refusals.items()}


def _sources(
    journal: Journal,
    history: History,
    book: DeviceBook,
    hub: Hub[Any],
    devices: DeviceEndpoint,
    runners: list[Runner],
    access: Access,
) -> list[metrics.Source]:
    def readings() -> dict[str, float]:
        counts: dict[str, float] = dict(book.totals().as_dict())
        return counts

    def intake() -> dict[str, float]:
        return {"messages": devices.messages, "notices_dropped": devices.notices_dropped}

    def states() -> dict[str, float]:
        return {state: float(count) for state, count in book.by_state().items()}

    def refusals() -> dict[str, float]:
        return {f"messages_{code}": float(count) for code, count in devices.refusals.items()}

    return [
        ("readings", {}, readings),
        ("devices", {}, states),
        ("intake", {}, intake),
        ("refusals", {}, refusals),
        ("journal", {}, journal.stats),
        ("history", {}, history.stats),
        ("hub", {}, hub.stats),
        ("access", {}, access.stats),
        *(("sink", {"sink": runner.sink.name}, runner.stats) for runner in runners),
    ]


def _latency_of(runner: Runner) -> Callable[[], metrics.Stats]:
    return lambda: {"latency": runner.latency}

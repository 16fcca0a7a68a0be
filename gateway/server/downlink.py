"""Commands on their way: out to devices, and their states back to where they came from.

Out: a device that is connected gets what waits for it one after the other, each once a connection; who does not read is
waited for.  One task for each device that has something waiting, none for others.  Back: a state goes to who sent the
command as long as that one is there, and to MQTT where it came from there, also after a restart.

Bound: what the queue takes (``gateway.commands``), and :data:`INBOUND` messages from MQTT that are not on disk yet;
one more fails, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import msgspec

from ..commands import FAILED, REF_MAX, Command, Commands
from ..devices import Device, DeviceBook
from ..errors import GatewayError, Overloaded, Refusal
from ..globs import matcher
from ..reading import is_device
from .control import Params

__all__ = ["Downlink", "Session"]

log = logging.getLogger(__name__)

MQTT = "mqtt"
CONTROL = "control"
INBOUND = 100
PIECE = 200  # commands listed at once
UNREAD_S = 0.25  # between two looks whether a device reads
DISK_S = 1.0  # until a disk that took nothing is tried again

Tell = Callable[[dict[str, object]], None]
_encode = msgspec.json.Encoder().encode


class _Asked(msgspec.Struct):
    name: str
    params: dict[str, Any] = {}
    ttl_s: float = 60.0
    ref: str = ""


class _List(msgspec.Struct, forbid_unknown_fields=True):
    device: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = "*"


class _Cancel(msgspec.Struct, forbid_unknown_fields=True):
    id: str


class _Sent(_Asked, forbid_unknown_fields=True):
    device: str = ""


_decode = msgspec.json.Decoder(_Asked).decode


class Session:
    """Somebody who sends commands and is told of them, until ``close``."""

    def __init__(self, downlink: Downlink, source: str, tell: Tell) -> None:
        self._downlink = downlink
        self._source = source
        downlink.tellers[source] = tell

    async def send(self, device: str, name: str, params: object, ttl_s: float, ref: str) -> Command:
        """As :meth:`Commands.submit`."""
        return await self._downlink.submit(self._source, device, name, params, ttl_s=ttl_s, ref=ref)

    def close(self) -> None:
        """Nobody is there any more; what was sent goes its way."""
        self._downlink.tellers.pop(self._source, None)


class Downlink:
    """``publish(device, state)`` tells of commands that came by MQTT; None where there is no broker."""

    def __init__(self, commands: Commands, book: DeviceBook) -> None:
        self.tellers: dict[str, Tell] = {}
        self.publish: Callable[[str, bytes], None] | None = None
        self._commands = commands
        self._book = book
        # A source is kept with its command: over a restart no number may come to be somebody else's.
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._went: dict[str, object] = {}  # by command: the connection that it went out on
        self._inbound: set[asyncio.Task[None]] = set()
        self._misaddressed = 0
        commands.watchers.append(self._told)

    def session(self, kind: str, tell: Tell) -> Session:
        """Somebody new; ``kind`` says from where, such as ``live``."""
        return Session(self, f"{kind}-{self._run}-{next(self._numbers)}", tell)

    def stats(self) -> dict[str, float]:
        """Flat numbers."""
        return {**self._commands.stats(), "misaddressed": self._misaddressed}

    async def watch(self) -> None:
        """To be called once a second: what has outlived its time has expired, and connections that ended are let go."""
        if self._went:
            links = {device.link for device in self._book}
            self._went = {command: link for command, link in self._went.items() if link in links}
        await self._commands.expire()

    async def submit(
        self, source: str, device: str, name: str, params: object, *, ttl_s: float, ref: str = ""
    ) -> Command:
        """Take a command, and send it if its device is there; raises as :meth:`Commands.submit`."""
        known = self._book.get(device) if isinstance(device, str) else None
        command = await self._commands.submit(
            source,
            device,
            name,
            params,
            ttl_s=ttl_s,
            ref=ref,
            known=known is not None,
            operator=source.startswith(CONTROL),
        )
        if known is not None:
            self.attend(known)
        return command

    # -- out -----------------------------------------------------------------------------------------------------

    def attend(self, device: Device) -> None:
        """Something waits for the device, or it has connected: send what there is to send."""
        if device.link is not None and device.name not in self._tasks and self._commands.waiting(device.name):
            task = self._tasks[device.name] = asyncio.create_task(self._deliver(device), name=f"to {device.name}")
            task.add_done_callback(lambda done: self._delivered(device))

    def _delivered(self, device: Device) -> None:
        task = self._tasks.pop(device.name)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("commands to %s: fault", device.name, exc_info=error)
            return
        if not task.cancelled() and self._next(device) is not None:
            self.attend(device)  # it has come back since the task looked

    def _next(self, device: Device) -> Command | None:
        link = device.link
        if link is None:
            return None
        return next((c for c in self._commands.waiting(device.name) if self._went.get(c.id) is not link), None)

    async def _deliver(self, device: Device) -> None:
        while (command := self._next(device)) is not None:
            link = device.link
            assert link is not None
            if not link.can_take():
                await asyncio.sleep(UNREAD_S)
                continue
            try:
                sent = await self._commands.sent(command.id)
            except Overloaded:
                await asyncio.sleep(DISK_S)
                continue
            if sent is None:
                continue
            self._went[command.id] = link
            if device.link is link:
                try:
                    link.command(sent.message())
                except (msgspec.MsgspecError, OverflowError, TypeError, ValueError) as error:
                    # One that its device's format has no words for must not hold up those behind it.
                    await self._commands.result(sent.device, sent.id, False, f"it cannot be sent: {error}")
                    continue
                self._commands.tell_sent(sent)
            # Else it may or may not have gone out, as far as the disk knows: it goes again, and says so.

    def asked(self, body: dict[str, object]) -> str:
        """Whose command a ``result`` answers, by its id; empty where there is none."""
        command = self._commands.get(body.get("id"))
        return command.device if command is not None else ""

    async def answered(self, device: str, body: dict[str, object]) -> None:
        """A device's ``result``; raises :class:`Refusal` where nobody waits for it."""
        id, ok = body.get("id"), body.get("ok")
        if not isinstance(id, str) or not isinstance(ok, bool):
            raise Refusal("bad_message", "result: id is a string, ok a boolean")
        await self._commands.result(device, id, ok, body.get("value"))

    # -- back ----------------------------------------------------------------------------------------------------

    def _told(self, command: Command) -> None:
        if command.ended:
            self._went.pop(command.id, None)
        if command.source == MQTT:
            if self.publish is not None:
                self.publish(command.device, _encode(command.told()))
        elif (tell := self.tellers.get(command.source)) is not None:
            tell(command.told())

    # -- from MQTT -----------------------------------------------------------------------------------------------

    def received(self, device: str, payload: bytes) -> None:
        """A command that was published for ``device``; what is none is told as ``failed``, with the reason."""
        if not is_device(device):
            self._misaddressed += 1
            return
        try:
            asked = _decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            self._commands.refusals["bad_command"] += 1
            self._failed(device, "", f"not a command: {error}")
            return
        if len(self._inbound) >= INBOUND:
            self._commands.refusals["queue_full"] += 1
            self._failed(device, asked.ref, "too many commands at once")
            return
        task = asyncio.create_task(self._take(device, asked))
        self._inbound.add(task)
        task.add_done_callback(self._inbound.discard)

    async def _take(self, device: str, asked: _Asked) -> None:
        try:
            await self.submit(MQTT, device, asked.name, asked.params, ttl_s=asked.ttl_s, ref=asked.ref)
        except (Refusal, Overloaded) as error:
            self._failed(device, asked.ref, str(error))

    def _failed(self, device: str, ref: str, reason: str) -> None:
        if self.publish is not None:
            told: dict[str, object] = {"type": "command_state", "device": device, "state": FAILED, "value": reason}
            self.publish(device, _encode({**told, "ref": ref[:REF_MAX]} if ref else told))

    # -- from the command line -----------------------------------------------------------------------------------

    async def list(self, params: Params) -> AsyncIterator[object]:
        """The control command ``commands``: lists of those that wait, for devices that match."""
        wanted = matcher(msgspec.convert(params, _List).device)
        waiting = [command for command in self._commands.all() if wanted(command.device)]
        for start in range(0, len(waiting), PIECE):
            yield [
                {**command.told(), "name": command.name, "expires": command.expires}
                for command in waiting[start : start + PIECE]
            ]
            await asyncio.sleep(0)

    async def cancel(self, params: Params) -> object:
        """The control command ``command-cancel``: give up one that waits."""
        try:
            return (await self._commands.cancel(msgspec.convert(params, _Cancel).id)).told()
        except Refusal as refusal:
            raise GatewayError(str(refusal), hint="`gateway commands` lists those that wait") from None

    async def send(self, params: Params) -> AsyncIterator[object]:
        """The control command ``send``: its states, until it has ended or whoever asked goes away."""
        asked = msgspec.convert(params, _Sent)
        states: asyncio.Queue[dict[str, object]] = asyncio.Queue()  # bounded by the states that one command has
        session = self.session(CONTROL, states.put_nowait)
        with contextlib.closing(session):
            await session.send(asked.device, asked.name, asked.params, asked.ttl_s, asked.ref)
            while True:
                state = await states.get()
                yield state
                if state["state"] in ("done", "failed", "expired"):
                    return

"""Commands for devices: a durable queue of what waits, with a time to live.

A command is on disk, synced, before anybody is told that it is ``queued``, and marked ``sent`` on disk before it goes
out: so after a crash it is known which ones a device may have seen.  One that was sent and is not answered goes out
again when its device comes back, and says so (``again``); one whose time is over before that is ``expired``.  States::

    queued --> sent --> done | failed        the device's own word
       |         |
       +---------+----> expired              its time was over; one that was sent may have been carried out

Those that have ended are told to the watchers and forgotten.

Bounds: :data:`WAITING` commands in all, :data:`RESERVED` more from whoever operates the gateway,
:data:`WAITING_UNKNOWN` for devices that were never seen, :data:`WAITING_DEVICE` for one device, and
:data:`WAITING_BYTES` of parameters in all (then :class:`Refusal` ``queue_full``); each has :data:`PARAMS_BYTES` of them
at the most.  They are held as JSON, since as objects they can take twenty times as much.  SQLite keeps them
(``commands.db``), in one thread of its own, the only one that has the connection: whoever changes something waits for
it, nobody else does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import msgspec

from .aside import remove, set_aside
from .codecs.depth import MAX_DEPTH, is_deep
from .errors import GatewayError, Overloaded, Refusal
from .reading import check_value, is_device

__all__ = ["DONE", "EXPIRED", "FAILED", "QUEUED", "REF_MAX", "SENT", "Command", "Commands"]

log = logging.getLogger(__name__)

QUEUED, SENT, DONE, FAILED, EXPIRED = "queued", "sent", "done", "failed", "expired"
WAITING = 10_000
WAITING_DEVICE = 100
WAITING_UNKNOWN = 1_000
RESERVED = 100
WAITING_BYTES = 16 << 20
PARAMS_BYTES = 8 * 1024
NAME_MAX = 64
REF_MAX = 128
VALUE_BYTES = 8 * 1024  # of a result's value; a longer one is left out
TTL_S = 60.0
TTL_MAX_S = 30 * 86_400.0
VERSION = 1

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One; ``params`` is JSON, ``expires`` in milliseconds, ``times`` how often it went out, ``source`` who is told."""

    id: str
    device: str
    name: str
    params: bytes
    expires: int
    source: str
    ref: str = ""
    state: str = QUEUED
    times: int = 0
    value: object = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in (DONE, FAILED, EXPIRED)

    def message(self) -> dict[str, object]:
        """What its device is sent (PROTOCOL, section 3)."""
        message: dict[str, object] = {"type": "command", "id": self.id, "name": self.name}
        message |= {"params": _decode(self.params), "expires": self.expires}
        if self.times > 1:
            message["again"] = True
        return message

    def told(self) -> dict[str, object]:
        """What its source is told (PROTOCOL, section 5)."""
        told: dict[str, object] = {"type": "command_state"}
        if self.ref:
            told["ref"] = self.ref
        told |= {"id": self.id, "device": self.device, "state": self.state}
        if self.value is not None:
            told["value"] = self.value
        if self.times > 1:
            told["times"] = self.times
        return told


class Commands:
    """The queue in the file ``path``; ``now`` gives seconds.  ``open()`` comes first; of the loop's thread alone.

    ``watchers`` are called with each command whose state changed, on the loop.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.watchers: list[Callable[[Command], None]] = []
        self._path = path
        self._now = now
        self._commands: dict[str, Command] = {}  # in the order in which they came
        self._devices: dict[str, dict[str, None]] = {}  # ids, likewise
        self._unknown: set[str] = set()  # those for devices that had not been seen, since the start
        self._bytes = 0  # of their parameters
        self._thread = ThreadPoolExecutor(1, "commands")
        self._connection: apsw.Connection | None = None
        self.counts = {QUEUED: 0, SENT: 0, DONE: 0, FAILED: 0, EXPIRED: 0}
        self.refusals = {"bad_command": 0, "queue_full": 0, "overloaded": 0}  # by code

    async def open(self) -> None:
        """Read what waits; a file that is damaged is set aside, and said so in the log.

        Raises :class:`GatewayError` for one of a later version, and where the disk does not let it be opened.
        """
        try:
            found = await self._run(self._open)
        except apsw.Error as error:
            raise GatewayError(
                f"{self._path}: {error}", hint="the state directory's disk has to be writable"
            ) from error
        for command in found:
            self._put(command)

    async def close(self) -> None:
        """Close the file."""
        await self._run(self._close)
        self._thread.shutdown()

    def __len__(self) -> int:
        return len(self._commands)

    def stats(self) -> dict[str, float]:
        """Flat numbers: how many wait, how often each state was reached since the start, what was refused by code."""
        refused = {f"refused_{code}": count for code, count in self.refusals.items()}
        return {"waiting": len(self._commands), **self.counts, **refused}

    def get(self, id: object) -> Command | None:
        """The command of that id, if it has not ended."""
        return self._commands.get(id) if isinstance(id, str) else None

    def waiting(self, device: str) -> list[Command]:
        """The commands of a device that have not ended, in order."""
        return [self._commands[id] for id in self._devices.get(device, ())]

    async def submit(
        self,
        source: str,
        device: str,
        name: str,
        params: object = None,
        *,
        ttl_s: float = TTL_S,
        ref: str = "",
        known: bool = True,
        operator: bool = False,
    ) -> Command:
        """Take a command: on disk when this returns, and told as ``queued``.

        ``known``: its device has been seen; ``operator``: it comes from this machine, and has room kept for it.
        Raises :class:`Refusal` (``bad_command``, ``queue_full``) and :class:`Overloaded` where the disk takes nothing.
        """
        try:
            data = _check(device, name, params, ttl_s, ref)
            if len(self._devices.get(device, ())) >= WAITING_DEVICE:
                raise Refusal("queue_full", f"{WAITING_DEVICE} commands wait for {device}")
            if len(self._commands) >= WAITING + RESERVED * operator:
                raise Refusal("queue_full", f"{WAITING} commands wait in all")
            if not known and len(self._unknown) >= WAITING_UNKNOWN:
                raise Refusal("queue_full", f"{WAITING_UNKNOWN} commands wait for devices that were never seen")
            if self._bytes + len(data) > WAITING_BYTES:
                raise Refusal("queue_full", f"the commands that wait have {WAITING_BYTES >> 20} MiB of parameters")
        except Refusal as refusal:
            self.refusals[refusal.code] = self.refusals.get(refusal.code, 0) + 1
            raise
        command = Command(
            id=f"c{secrets.token_hex(6)}",
            device=device,
            name=name,
            params=data,
            expires=round((self._now() + ttl_s) * 1000),
            source=source,
            ref=ref,
        )
        self._put(command)  # counted from now on, so that the bounds hold for those who ask at once
        if not known:
            self._unknown.add(command.id)
        try:
            await self._write(command)
        except Overloaded:
            self.refusals["overloaded"] += 1
            self._drop(command)
            raise
        self._tell(command)
        return command

    async def sent(self, id: str) -> Command | None:
        """It is about to go out: on disk when this returns.  None where it has ended meanwhile.

        Raises :class:`Overloaded` where the disk takes nothing: then it must not go out.
        """
        command = self._commands.get(id)
        if command is None:
            return None
        changed = msgspec.structs.replace(command, state=SENT, times=command.times + 1)
        await self._write(changed)
        if id not in self._commands:
            return None
        self._commands[id] = changed
        return changed

    def tell_sent(self, command: Command) -> None:
        """It went out."""
        self._tell(command)

    async def result(self, device: str, id: str, ok: bool, value: object = None) -> Command:
        """The device's answer; raises :class:`Refusal` (``unknown_command``) where none of that id waits for one."""
        command = self._commands.get(id)
        if command is None or command.device != device or not command.times:
            raise Refusal("unknown_command", "no command of that id is waiting")
        value = _fit(value)
        ended = msgspec.structs.replace(command, state=DONE if ok else FAILED, value=value)
        await self._end([ended])
        return ended

    async def expire(self) -> None:
        """To be called once a second: what has outlived its time is told so."""
        now = self._now() * 1000
        late = [command for command in self._commands.values() if command.expires <= now]
        if late:
            await self._end([msgspec.structs.replace(command, state=EXPIRED) for command in late])

    async def cancel(self, id: str) -> Command:
        """Give up a command that waits, which is told as expired; raises :class:`Refusal` (``unknown_command``)."""
        command = self._commands.get(id)
        if command is None:
            raise Refusal("unknown_command", "no command of that id is waiting")
        ended = msgspec.structs.replace(command, state=EXPIRED)
        await self._end([ended])
        return ended

    def all(self) -> list[Command]:
        """All that wait, the oldest first."""
        return list(self._commands.values())

    async def forget(self, device: str) -> None:
        """The device is forgotten: what waits for it has expired."""
        waiting = self.waiting(device)
        if waiting:
            await self._end([msgspec.structs.replace(command, state=EXPIRED) for command in waiting])

    async def _end(self, commands: list[Command]) -> None:
        mine = [command for command in commands if self._drop(command)]
        try:
            await self._run(lambda: self._delete([command.id for command in mine]))
        except apsw.Error as error:
            # It is told all the same; after a restart it may go out again, and then says so.
            log.warning("commands: %s: %s", self._path, error)
        for command in mine:
            self._tell(command)

    def _put(self, command: Command) -> None:
        self._commands[command.id] = command
        self._devices.setdefault(command.device, {})[command.id] = None
        self._bytes += len(command.params)

    def _drop(self, command: Command) -> bool:
        if self._commands.pop(command.id, None) is None:
            return False
        self._bytes -= len(command.params)
        ids = self._devices[command.device]
        del ids[command.id]
        if not ids:
            del self._devices[command.device]
        self._unknown.discard(command.id)
        return True

    def _tell(self, command: Command) -> None:
        self.counts[command.state] += 1
        for watcher in self.watchers:
            watcher(command)

    async def _write(self, command: Command) -> None:
        try:
            await self._run(lambda: self._save(command))
        except apsw.Error as error:
            raise Overloaded(f"the disk takes no command: {error}") from error

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # -- in the thread -------------------------------------------------------------------------------------------

    def _open(self) -> list[Command]:
        try:
            return self._read()
        except (apsw.CorruptError, apsw.NotADBError, msgspec.DecodeError) as error:
            self._close()
            log.error("commands: %s cannot be read (%s) and is set aside: what waited in it is lost", self._path, error)
            set_aside(self._path, "damaged")
            for end in ("-wal", "-shm"):
                remove(self._path.with_name(self._path.name + end))
            return self._read()

    def _read(self) -> list[Command]:
        connection = self._connection = apsw.Connection(str(self._path))
        connection.set_busy_timeout(1000)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 64")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS command (id TEXT PRIMARY KEY, device TEXT NOT NULL, name TEXT NOT NULL,"
            " params TEXT NOT NULL, expires INTEGER NOT NULL, source TEXT NOT NULL, ref TEXT NOT NULL,"
            " times INTEGER NOT NULL)"
        )
        version = connection.pragma("user_version")
        if version > VERSION:
            self._close()
            raise GatewayError(
                f"{self._path} is of a later version",
                hint="install that version again, or move the file away: commands that wait in it are lost then",
            )
        connection.execute(f"PRAGMA user_version = {VERSION}")
        rows: Iterable[Any] = connection.execute(
            "SELECT id, device, name, params, expires, source, ref, times FROM command ORDER BY rowid"
        )
        return [
            Command(
                id=id,
                device=device,
                name=name,
                params=_encode(_decode(params)),
                expires=expires,
                source=source,
                ref=ref,
                state=SENT if times else QUEUED,
                times=times,
            )
            for id, device, name, params, expires, source, ref, times in rows
        ]

    def _save(self, command: Command) -> None:
        assert self._connection is not None
        if command.times:
            # Not there where its insertion failed, which whoever sent it was told: it must not come up at a restart.
            self._connection.execute("UPDATE command SET times = ? WHERE id = ?", (command.times, command.id))
            return
        self._connection.execute(
            "INSERT INTO command VALUES (?,?,?,?,?,?,?,?)",
            (
                command.id,
                command.device,
                command.name,
                command.params.decode(),
                command.expires,
                command.source,
                command.ref,
                command.times,
            ),
        )

    def _delete(self, ids: list[str]) -> None:
        assert self._connection is not None
        with self._connection:
            self._connection.executemany("DELETE FROM command WHERE id = ?", [(id,) for id in ids])

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _fit(value: object) -> object:
    """A result's value; None for one that is too long, or that JSON or MessagePack cannot say."""
    try:
        msgspec.msgpack.encode(value)
        return value if len(_encode(value)) <= VALUE_BYTES else None
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError, UnicodeError, RecursionError):
        return None


def _check(device: object, name: object, params: object, ttl_s: object, ref: object) -> bytes:
    """The parameters as JSON; raises :class:`Refusal` for a command that is none."""
    if not isinstance(device, str) or not is_device(device):
        raise Refusal("bad_command", "device: not a device's name")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise Refusal("bad_command", f"name: 1 to {NAME_MAX} printable characters")
    if not isinstance(ref, str) or len(ref) > REF_MAX or check_value(ref):
        raise Refusal("bad_command", f"ref: a string of at most {REF_MAX} characters")
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s <= TTL_MAX_S:
        raise Refusal("bad_command", f"ttl_s: a number of seconds above 0, {TTL_MAX_S:.0f} at most")
    if params is None:
        return b"{}"
    if not isinstance(params, dict):
        raise Refusal("bad_command", "params: not an object")
    if is_deep(params):
        raise Refusal("bad_command", f"params: nested more than {MAX_DEPTH} deep")
    try:
        data = _encode(params)
        _pack(_decode(data))  # in whatever format its device speaks: integers have 64 bits
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError, UnicodeError) as error:
        raise Refusal("bad_command", f"params: {error}") from None
    if len(data) > PARAMS_BYTES:
        raise Refusal("bad_command", f"params: {len(data)} bytes, at most {PARAMS_BYTES}")
    return data

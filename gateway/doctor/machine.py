"""The machine: the state directory's disk, the clock, file descriptors, versions."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.metadata
import importlib.util
import os
import platform
import resource
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from .finding import Finding, error, fine, warning

__all__ = ["clock", "descriptors", "disk", "sync", "versions"]

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
SYNCS = 20
SYNC_BYTES = 4096
SYNC_S = 5.0  # for all of them
EPOCH = 1_735_689_600  # 2025-01-01: a clock before it was never set
TIME_ERROR = 5  # adjtimex(2): not synchronised
CONNECTIONS = 1_000  # that every gateway should have file descriptors for
SQLITE = (3, 51, 3)  # the first without the fault of write-ahead logs (https://sqlite.org/wal.html)

# File systems that keep nothing over a restart, and those whose syncs or locks promise less (mount(8)).
VOLATILE = {"tmpfs", "ramfs"}
LAYERED = {"overlay", "aufs"}
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "fuse.glusterfs"}


def disk(directory: Path, max_bytes: int, keep_free: int) -> Iterator[Finding]:
    """Whether the state directory can be written, is nobody else's to read, and has room; sizes in bytes."""
    part = "state"
    nearest = next(place for place in (directory, *directory.parents) if place.exists())
    if nearest != directory:
        if not os.access(nearest, os.W_OK | os.X_OK):
            yield error(
                part,
                f"{directory} is not there and cannot be made: {nearest} is another user's",
                "make it and give it to the gateway's user, or name another with GATEWAY_STATE_DIR",
            )
            return
        yield fine(part, f"{directory} is made at the first start")
    else:
        try:
            with tempfile.TemporaryFile(dir=directory):
                pass
        except OSError as fault:
            yield error(
                part,
                f"{directory} cannot be written ({fault.strerror})",
                "make room"
                if fault.errno in (errno.ENOSPC, errno.EDQUOT)
                else "run this as the gateway's user, or root",
            )
            return
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & stat.S_IWOTH or (mode & stat.S_IROTH and mode & stat.S_IXOTH):
            yield warning(part, f"{directory} is open to every user ({mode:o})", f"chmod o-rwx {directory}")
        else:
            yield fine(part, f"{directory} can be written")
    space = os.statvfs(nearest)
    free = space.f_bavail * space.f_frsize
    held = 0
    for entry in (directory / "journal").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # unlinked since it was listed, by the gateway that runs
            held += entry.stat().st_size if entry.is_file() else 0
    room = f"{_size(free)} free, {_size(max(0, max_bytes - held))} more for the journal at most"
    if free <= keep_free:
        yield error("disk", f"{room}: nothing new is taken", "free some, or lower GATEWAY_JOURNAL__KEEP_FREE_BYTES")
    elif free - keep_free < max_bytes - held:
        yield warning("disk", room, "an outage of a sink may fill it; free some, or lower GATEWAY_JOURNAL__MAX_BYTES")
    else:
        yield fine("disk", room)
    kind = _kind(nearest)
    if kind in VOLATILE:
        yield error("disk", f"{directory} is in memory ({kind}): all is lost at a restart", "set GATEWAY_STATE_DIR")
    elif kind in LAYERED:
        yield warning("disk", f"{directory} is part of a container ({kind}) and goes with it", "mount a volume there")
    elif kind in REMOTE:
        yield warning(
            "disk", f"{directory} is on another machine ({kind})", "take a local disk: syncs and locks are its"
        )


def sync(directory: Path, commit_ms: float) -> Iterator[Finding]:
    """How long the disk takes for what every ack waits for: a write and its sync (fdatasync(2))."""
    took: list[float] = []
    begin = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            while len(took) < SYNCS and time.monotonic() - begin < SYNC_S:
                file.write(bytes(SYNC_BYTES))
                before = time.monotonic()
                os.fdatasync(file.fileno())
                took.append((time.monotonic() - before) * 1000)
    except OSError as fault:
        yield error(
            "sync", f"a file in {directory} cannot be synced ({fault.strerror})", "see dmesg: is the disk well?"
        )
        return
    usual, worst = statistics.median(took), max(took)
    text = f"the disk syncs in {usual:.2g} ms, {worst:.2g} ms at worst of {len(took)}"
    if usual > commit_ms:
        hint = f"acks wait for it: take a faster disk, or set GATEWAY_JOURNAL__COMMIT_MS={min(2000, 2 * usual):.0f}"
        yield warning("sync", text, hint)
    else:
        yield fine("sync", text)


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)), with room for its rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def clock() -> Iterator[Finding]:
    """Whether the clock is set, and kept right by somebody."""
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < EPOCH:
        yield error("clock", f"it says {shown}", "set it: timedatectl set-ntp true, or date --set")
        return
    # Only asks: modes is 0.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(_Timex()))
    if state == TIME_ERROR:
        yield warning("clock", f"{shown}; nothing keeps it right", "timedatectl set-ntp true, or install chrony")
    else:
        yield fine("clock", shown + ("" if state < 0 else ", kept right"))


def descriptors(possible: int, asked: int | None) -> Iterator[Finding]:
    """Whether there are file descriptors for the connections: ``possible`` of them, ``asked`` for by the settings."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"file descriptors for {possible:,} connections"
    if asked is not None and possible < asked:
        yield warning("files", f"{text}, not for {asked:,}", "raise LimitNOFILE= in the unit, or ulimit -n")
    elif possible < CONNECTIONS and asked is None:
        yield warning("files", f"{text} (limit {hard:,})", "raise LimitNOFILE= in the unit, or ulimit -n")
    else:
        yield fine("files", text)


def versions(running: str | None, influx: bool) -> Iterator[Finding]:
    """What this is and stands on; ``running`` is the version of the gateway that runs."""
    import apsw

    names = ("websockets", "msgspec", "paho-mqtt")
    stands_on = [f"{name} {importlib.metadata.version(name)}" for name in names]
    sqlite = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    stands_on.append(f"SQLite {apsw.sqlite_lib_version()}")
    text = f"gateway {__version__}, Python {platform.python_version()}, {', '.join(stands_on)}"
    if running is not None and running != __version__:
        yield warning("versions", f"the running gateway is {running}, this is {__version__}", "restart it")
    if sqlite < SQLITE:
        yield warning("versions", text, "this SQLite has a fault in write-ahead logs: pip install --upgrade apsw")
    else:
        yield fine("versions", text)
    if influx and importlib.util.find_spec("influxdb_client") is None:
        yield error(
            "versions", "GATEWAY_INFLUX__URL is set and influxdb-client is not there", "pip install '.[influx]'"
        )


def _kind(place: Path) -> str:
    """The file system's kind, of the longest mount point above (proc(5), mountinfo)."""
    path = str(place.resolve())
    found = ("", "")
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = before.split()[4].encode().decode("unicode_escape")
        if (path == mount or path.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(found[0]):
            found = mount, after.split()[0]
    return found[1]


def _size(count: float) -> str:
    unit = 0
    while count >= 999.5 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.3g} {UNITS[unit]}"

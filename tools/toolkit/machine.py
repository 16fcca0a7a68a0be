"""A machine with a real systemd, for what can only be tried under one: namespaces of its own on this kernel.

Its root is this machine's file system with a layer above it that is kept in memory, so that nothing done inside is seen
outside, and all of it is gone at the end; process numbers, host name, network (loopback alone) and control groups are
its own.  systemd 252 boots in them in about a second.  Needs root, overlayfs, and the unified control groups mounted
somewhere (without controllers the service manager says so and goes on: limits of memory and tasks are not enforced).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Machine", "why_not"]

SCRIPT = Path(__file__).resolve().parents[1] / "lib" / "machine.sh"
SYSTEMD = Path("/lib/systemd/systemd")
NAMESPACES = ["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup"]
BOOT_S = 60.0
CLONE_NEWNET = 0x40000000
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _groups() -> Path | None:
    """Where the unified hierarchy of control groups is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and options.startswith("rw"):
            return Path(where)
    return None


def why_not() -> str:
    """What keeps this machine from having one inside; empty where nothing does."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists():
        return "needs systemd"
    for program in ["unshare", "nsenter", "bash"]:
        if shutil.which(program) is None:
            return f"needs {program}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "needs overlayfs"
    groups = _groups()
    if groups is None or not os.access(groups, os.W_OK):
        return "needs cgroup2 mounted"
    mounts = "mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && mount -t cgroup2 cgroup2 /mnt"
    if subprocess.run(["unshare", *NAMESPACES, "sh", "-c", mounts], capture_output=True, check=False).returncode != 0:
        return "needs the right to make namespaces and to mount in them"
    return ""


class Machine:
    """``with`` boots it and ends it; ``binds``: directories of the outside and where they are seen, read-only."""

    def __init__(self, directory: Path, binds: Mapping[Path, str] | None = None) -> None:
        self.directory = directory
        self.init = 0
        self._binds = dict(binds or {})
        self._outer: subprocess.Popen[bytes] | None = None
        groups = _groups()
        assert groups is not None
        self._group = groups / f"gateway-machine-{os.getpid()}-{time.monotonic_ns()}"

    def __enter__(self) -> Machine:
        for name in ["layer", "root"]:
            (self.directory / name).mkdir(parents=True)
        (self.directory / "binds").write_text("".join(f"{outer} {inner}\n" for outer, inner in self._binds.items()))
        self._group.mkdir()
        enter = f'echo $$ >"{self._group}/cgroup.procs" && exec "$@"'
        with (self.directory / "boot.log").open("wb") as log:
            self._outer = subprocess.Popen(
                ["sh", "-c", enter, "sh", "unshare", *NAMESPACES, str(SCRIPT), str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._outer is not None
        # With the first process of its namespace all others end.
        for pid in [self.init, self._outer.pid]:
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._outer.wait()
        deadline = time.monotonic() + 10
        while self._group.exists():
            for directory, _, _ in os.walk(self._group, topdown=False):
                with contextlib.suppress(OSError):  # a process in it is still being ended
                    os.rmdir(directory)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._group} could not be removed")
            time.sleep(0.02)

    def _wait_up(self) -> None:
        assert self._outer is not None
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        deadline = time.monotonic() + BOOT_S
        while True:
            ended = self._outer.poll() is not None
            if not ended and (found := children.read_text().split()):
                self.init = int(found[0])
                # systemd's own door: there once it takes orders.
                if Path(f"/proc/{self.init}/root/run/systemd/private").exists():
                    self.run("systemctl", "is-system-running", "--wait", check=False)
                    return
            if ended or time.monotonic() > deadline:
                log = (self.directory / "boot.log").read_text(errors="replace")
                raise RuntimeError(f"systemd did not boot:\n{log}")
            time.sleep(0.02)

    def path(self, inside: str) -> Path:
        """Where a file of the machine is seen from the outside, mounts of the machine included."""
        return Path(f"/proc/{self.init}/root{inside}")

    def command(self, *words: str) -> list[str]:
        """The command line that runs ``words`` inside, as root, with an empty environment."""
        enter = ["nsenter", f"--target={self.init}", "--all", "--root", "--wdns=/"]
        return [*enter, "env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", *words]

    def run(self, *words: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; raises ``RuntimeError`` with what it said where it fails."""
        done = subprocess.run(
            self.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as ``systemctl show`` has it."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def journal(self, unit: str) -> str:
        """What the unit has logged."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def connect(self, port: int) -> socket.socket:
        """A socket connected to that port of the machine's loopback; raises ``OSError``."""
        result: list[socket.socket | OSError] = []

        def inside() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/proc/{self.init}/ns/net") as namespace:
                # Of this thread alone, which ends with it.
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    result.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                result.append(socket.create_connection(("127.0.0.1", port), 10))
            except OSError as error:
                result.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]

"""Small questions about this machine's ports and the processes behind them (proc(5)).

Standard library only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import urllib.error
import urllib.request
from pathlib import Path

__all__ = ["address", "free_port", "is_broker", "is_free", "is_ready", "listeners", "openers"]

LOOPBACK = "127.0.0.1"
TIMEOUT_S = 2.0
LISTEN = "0A"  # of /proc/net/tcp: TCP_LISTEN of the kernel's tcp_states.h

# CONNECT of MQTT 5.0 (3.1): clean start, keep alive 10 s, no properties, empty client identifier.
CONNECT = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
DISCONNECT = b"\xe0\x00"
CONNACK = 0x20


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there.  Raises ``OSError`` for what is none of this machine's, or this user's."""
    family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def free_port(first: int, host: str = LOOPBACK) -> int:
    """The first free port at or above ``first``; raises ``OSError`` when none of the next hundred is free."""
    for port in range(first, min(first + 100, 65_536)):
        if is_free(port, host):
            return port
    raise OSError(f"no free port from {first} on")


def is_broker(port: int) -> bool:
    """Whether a broker speaks MQTT 5 there and takes a client without a password (3.2.2.2: code 0)."""
    try:
        with socket.create_connection((LOOPBACK, port), TIMEOUT_S) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(CONNECT)
            answer = connection.recv(64)
            accepted = len(answer) >= 4 and answer[0] == CONNACK and answer[3] == 0
            if accepted:
                connection.sendall(DISCONNECT)
            return accepted
    except OSError:
        return False


def is_ready(url: str) -> bool:
    """Whether ``url`` answers 200; a proxy of the environment is not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def address(host: str, port: int) -> str:
    """``host:port`` of a URL that reaches a server listening on ``host`` from this machine."""
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listeners(pid: int) -> list[tuple[str, int]]:
    """Where the process listens (TCP): addresses and ports; none for one that is gone, or somebody else's."""
    inodes = {link[8:-1] for link in _open_files(pid) if link.startswith("socket:[")}
    found = []
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTEN and fields[9] in inodes:
                host, _, port = fields[1].partition(":")
                found.append((_host(bytes.fromhex(host)), int(port, 16)))
    return found


def _host(raw: bytes) -> str:
    # Words of 32 bits in network order, each printed as a number of this machine.
    words = f"{len(raw) // 4}I"
    swapped = struct.pack(f"={words}", *struct.unpack(f">{words}", raw))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, swapped)


def openers(path: Path) -> list[int]:
    """The processes that have the file open, as far as this user may see them."""
    name = str(path.resolve())
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    return [pid for pid in pids if pid != os.getpid() and name in _open_files(pid)]


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
            except OSError:
                continue
    except OSError:
        pass
    return found

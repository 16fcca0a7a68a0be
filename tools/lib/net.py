"""Small questions that the shell scripts beside this ask about local ports.

Standard library only.  Usage::

    net.py free-port FIRST      print FIRST or the next free TCP port of 127.0.0.1 (0: any)
    net.py broker PORT          exit 0 if an MQTT broker on 127.0.0.1:PORT takes anonymous clients
    net.py ready URL            exit 0 if URL answers 200
"""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request

HOST = "127.0.0.1"
TIMEOUT_S = 2.0

# CONNECT of MQTT 5.0 (3.1): clean start, keep alive 10 s, no properties, empty client identifier.
CONNECT = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
DISCONNECT = b"\xe0\x00"
CONNACK = 0x20


def free_port(first: int) -> int:
    """The first free port at or above ``first``; raises ``OSError`` when none of the next hundred is free."""
    for port in range(first, min(first + 100, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port from {first} on")


def is_broker(port: int) -> bool:
    """Whether a broker speaks MQTT 5 there and takes a client without a password (3.2.2.2: code 0)."""
    try:
        with socket.create_connection((HOST, port), TIMEOUT_S) as connection:
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


def main(arguments: list[str]) -> int:
    match arguments:
        case ["free-port", first]:
            print(free_port(int(first)))
            return 0
        case ["broker", port]:
            return 0 if is_broker(int(port)) else 1
        case ["ready", url]:
            return 0 if is_ready(url) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A peer behind a link that goes down: no FIN, no reset, nothing comes any more.

Needs a network namespace: root and iproute2.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.ws import Connection, Pool, Router, Server, message_handler

from .support import echo, eventually

pytestmark = pytest.mark.alone

CLIENT = """
import asyncio, sys
from websockets.asyncio.client import connect

async def main():
    async with connect(sys.argv[1], ping_interval=None, compression=None) as client:
        print("open", flush=True)
        async for message in client:
            pass

asyncio.run(main())
"""


class Namespace:
    """A network namespace joined to this one by a pair of links."""

    def __init__(self, number: int) -> None:
        self.name = f"gwtest{number}"
        self.outer, self.inner = f"gwo{number}", f"gwi{number}"
        self.address = f"10.213.{number % 250}.1"
        self.peer = f"10.213.{number % 250}.2"

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)

    def up(self) -> None:
        self.ip("netns", "add", self.name)
        self.ip("link", "add", self.outer, "type", "veth", "peer", "name", self.inner, "netns", self.name)
        self.ip("addr", "add", f"{self.address}/24", "dev", self.outer)
        self.ip("link", "set", self.outer, "up")
        self.ip("-n", self.name, "addr", "add", f"{self.peer}/24", "dev", self.inner)
        self.ip("-n", self.name, "link", "set", self.inner, "up")

    def cut(self) -> None:
        """From here on no packet passes."""
        self.ip("-n", self.name, "link", "set", self.inner, "down")

    def down(self) -> None:
        subprocess.run(["ip", "link", "del", self.outer], check=False, capture_output=True, timeout=10)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True, timeout=10)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("A half-open peer needs a network namespace: run as root, with iproute2 installed.")
    namespace = Namespace(os.getpid() % 10_000)
    try:
        namespace.up()
    except subprocess.CalledProcessError as error:
        namespace.down()
        pytest.skip(f"No network namespace can be made here: {error.stderr.decode().strip()}.")
    yield namespace
    namespace.down()


async def test_a_half_open_peer_is_found(namespace: Namespace) -> None:
    """Within interval + timeout + 1 s, also where our own messages pile up unacknowledged; before that it is not."""
    interval, timeout = 0.6, 0.6
    loop = asyncio.get_running_loop()
    ends: dict[str, tuple[float, int | None, str]] = {}
    sent_to = Pool()

    def closed(ws: Connection) -> None:
        ends[ws.path] = (loop.time(), ws.close_code, ws.reason_lost)

    router = Router()
    router.websocket("/idle", message_handler(echo, inline=True, closed=closed))
    router.websocket("/sent-to", message_handler(echo, inline=True, opened=sent_to.add, closed=closed))
    async with Server(router, host=namespace.address, heartbeat=(interval, timeout), stop_timeout=2) as server:
        command = ["ip", "netns", "exec", namespace.name, sys.executable, "-c", CLIENT]
        clients = [
            await asyncio.create_subprocess_exec(
                *command, f"ws://{namespace.address}:{server.port}{path}", stdout=subprocess.PIPE
            )
            for path in ("/idle", "/sent-to")
        ]
        try:
            for client in clients:
                assert client.stdout is not None
                assert await asyncio.wait_for(client.stdout.readline(), 20) == b"open\n"
            await eventually(lambda: server.connections == 2)
            await asyncio.sleep(2 * (interval + timeout))
            assert not ends
            namespace.cut()
            cut = loop.time()
            while len(ends) < 2 and loop.time() < cut + 10:
                sent_to.broadcast(b"x" * 10_000)
                await asyncio.sleep(0.02)
            assert set(ends) == {"/idle", "/sent-to"}
            for at, *how in ends.values():
                assert how == [1006, "ping timeout"]
                assert at - cut <= interval + timeout + 1
            await eventually(lambda: server.stats()["transports"] == 0)
        finally:
            for client in clients:
                client.kill()
                await client.wait()

"""Socket activation: a manager holds the listening socket, the daemon comes and goes, and nobody is refused."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.service import Notify, Service


@pytest.fixture
def held() -> Iterator[socket.socket]:
    """The manager's socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock:
        yield sock


class Clients:
    """Connect again and again from a few threads: pages, and devices that send a reading and wait for its ack."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._done = False
        self.count: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in (self._page, self._device) * 2]

    def _run(self, work: object) -> None:
        assert callable(work)
        while not self._done:
            try:
                self.count[work()] += 1
            except Exception as error:  # whatever it is, it is counted and judged by the test
                self.count[repr(error)] += 1
            time.sleep(0.005)

    def _page(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request("GET", "/livez")
        status = connection.getresponse().status
        connection.close()
        return f"page {status}"

    def _device(self) -> str:
        url = f"ws://127.0.0.1:{self._port}/v1/devices/d{threading.get_ident()}"
        with connect(url, compression=None, open_timeout=30, proxy=None) as ws:
            try:
                json.loads(ws.recv(30))
                ws.send('{"seq": 1, "t": 1}')
                ws.recv(30)
            except ConnectionClosed as closed:
                return f"closed with {closed.rcvd.code if closed.rcvd else None}"
        return "acked"

    def wait(self, what: str, count: int) -> None:
        """Until it has happened so often."""
        deadline = time.monotonic() + 30
        while self.count[what] < count:
            assert time.monotonic() < deadline, self.count
            time.sleep(0.02)

    def stop(self) -> None:
        self._done = True
        for thread in self._threads:
            thread.join(60)

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def test_a_restart_refuses_nobody(tmp_path: Path, held: socket.socket) -> None:
    """Over a stop and a start each connection is answered in the end; one that a stop meets is told 1001."""
    port = held.getsockname()[1]
    with Notify(tmp_path) as notify, Clients(port) as clients:
        with Service(tmp_path, notify, {}, sockets=[held], names=["gateway.socket"]) as service:
            service.said(f"listening on http://127.0.0.1:{port}")
            clients.wait("acked", 10)
        assert service.process is not None
        assert service.process.returncode == 0
        assert any("STOPPING=1" in told for told in notify.rest())
        with Service(tmp_path, notify, {}, sockets=[held]):
            clients.wait("acked", 20)
            clients.stop()
    assert set(clients.count) <= {"page 200", "acked", "closed with 1001"}, clients.count
    assert clients.count["page 200"] > 10


def test_a_socket_that_others_reach_is_not_served_without_more(tmp_path: Path) -> None:
    """The address of the unit's socket is judged like the settings' own: status 78, and not tried again."""
    with socket.create_server(("0.0.0.0", 0)) as everywhere, Notify(tmp_path) as notify:
        service = Service(tmp_path, notify, {}, sockets=[everywhere]).start()
        assert service.process is not None
        assert service.process.wait(30) == 78
        service.said("reached from other machines (0.0.0.0), without authentication")

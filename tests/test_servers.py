"""Servers for tests: a port that somebody else took meanwhile."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.servers import Missing, Mosquitto, Server, Victoria


@pytest.mark.parametrize("kind", [Mosquitto, Victoria])
def test_another_port_unless_one_was_asked_for(kind: type[Server], tmp_path: Path) -> None:
    """At the first start; who asked for one, or knows it from then on, is told."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        try:
            server, asked = kind(tmp_path / "a"), kind(tmp_path / "b", port)
        except Missing as missing:
            pytest.skip(str(missing))
        with pytest.raises(RuntimeError, match="did not start"):
            asked.start()
        server.port = port
        with server:
            assert server.port != port
            assert server.is_up()
        server.port = port
        with pytest.raises(RuntimeError, match="did not start"):
            server.start()

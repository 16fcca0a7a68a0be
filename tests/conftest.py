"""Fixtures for all tests: real servers on free ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Missing, Mosquitto, Victoria


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running broker of this test's own; skips where mosquitto is not on the machine."""
    try:
        server = Mosquitto(tmp_path / "mosquitto")
    except Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[Victoria]:
    """A running store of this test's own; skips where victoria-metrics is not on the machine."""
    try:
        server = Victoria(tmp_path / "victoria")
    except Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server

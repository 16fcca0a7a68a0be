"""Fixtures for all tests: real servers on free ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import certificates
from tests.certificates import Pair
from tests.servers import Missing, Mosquitto, Victoria

# The same examples in each run, so that a change is judged by what it changed; to look for new ones:
# HYPOTHESIS_PROFILE=default, or tools/fuzz.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def together(nodeid: str) -> str:
    """What a test is run with, one after the other, where tests run side by side: the same for all of those.

    Of the tests that need a browser two run at a time, by files, since more would be slow for each other; those that
    share a machine with a systemd, which takes seconds to start, are together, and so are the benchmarks, each of which
    has a core in mind; the others are each on their own.
    """
    file = nodeid.partition("::")[0]
    name = file.rpartition("/")[2]
    if name.startswith("test_page"):
        return f"browser {len(name) % 2}"
    if name.startswith("test_bench"):
        return "bench"
    return file if file == "tests/integration/test_machine.py" else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Our own groups: the mark ``xdist_group`` of pytest-xdist 3.8 does nothing with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Together(config, log)


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


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the certificates of a file's tests."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def ca(directory: Path) -> Pair:
    """An authority."""
    return certificates.authority(directory)


@pytest.fixture(scope="module")
def server(directory: Path, ca: Pair) -> Pair:
    """The certificate of ``localhost`` that it has signed."""
    return certificates.issue(directory, ca)

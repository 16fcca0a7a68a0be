"""Fixtures for all tests: real servers on free ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import certificates
from tests.certificates import Pair
from tests.servers import Missing, Mosquitto, Victoria

# The same examples in each run, so that a change is judged by what it changed; to look for new ones:
# HYPOTHESIS_PROFILE=default, or tools/fuzz.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side go files; of those that need a browser two at a time, since more would be slow for each other."""
    for item in items:
        name = item.path.name
        group = f"browser {len(name) % 2}" if name.startswith("test_page") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


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

"""Fixtures of the tests that go through the whole gateway: a browser, and a daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.integration import browser
from tests.servers import Missing
from tools.toolkit.servers import Daemon


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A headless Chromium; skips where it or its driver is not on the machine."""
    profile = tmp_path_factory.mktemp("chromium")
    try:
        with browser.chromium(profile) as running:
            yield running
    except Missing as missing:
        pytest.skip(str(missing))
    finally:
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running gateway of this test's own."""
    with Daemon(tmp_path, {"GATEWAY_ID": "barn-north"}) as running:
        yield running

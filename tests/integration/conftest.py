"""Fixtures of the tests that go through the whole gateway: a browser, and a daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.servers import Missing, find
from tools.toolkit.servers import Daemon


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A headless Chromium; skips where it or its driver is not on the machine."""
    try:
        binary, driver = find("chromium", "chromium"), find("chromedriver", "chromium-driver")
    except Missing as missing:
        pytest.skip(str(missing))
    profile = tmp_path_factory.mktemp("chromium")
    options = Options()
    options.binary_location = binary
    options.add_argument("--headless=new")
    options.add_argument("--window-size=1280,900")
    for switch in ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{switch}")
    for switch in ("background-networking", "component-update"):
        options.add_argument(f"--disable-{switch}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running gateway of this test's own."""
    with Daemon(tmp_path, {"GATEWAY_ID": "barn-north"}) as running:
        yield running

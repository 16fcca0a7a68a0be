"""The page in a real browser, against the real daemon, fed by real devices."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from websockets.sync.client import ClientConnection, connect

from tests.servers import Missing, find
from tools.toolkit.servers import Daemon

WAIT_S = 15.0
FIRST_VIEW_BYTES = 150 * 1024

HOSTILE = (
    "<img src=x onerror=window.pwned=1>",
    "<script>window.pwned=1</script>",
    "<svg/onload=window.pwned=1>",
    "javascript:window.pwned=1",
    '"><b onmouseover=window.pwned=1>x</b>',
    "' autofocus onfocus=window.pwned=1 x='",
    "{{constructor.constructor('window.pwned=1')()}}",
    "${window.pwned=1}",
    "</title><script>window.pwned=1</script>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "\u202e<a href=javascript:window.pwned=1>x</a>",
)


@pytest.fixture(scope="module")
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


class Page:
    """The page in the browser, in the words of somebody who looks at it."""

    def __init__(self, browser: Chrome, daemon: Daemon, hash: str = "") -> None:
        self.browser = browser
        browser.get("about:blank")
        browser.get_log("browser")
        browser.get(f"{daemon.address}/{hash}")

    def text(self, selector: str) -> str:
        """What the first element that matches shows, spaces and lines as one space; nothing when it is not seen."""
        script = "const it = document.querySelector(arguments[0]); return it?.checkVisibility() ? it.innerText : ''"
        return " ".join(str(self.run(script, selector)).split())

    def row(self, device: str) -> str:
        return self.text(f'.row[data-device="{device}"]')

    def card(self, metric: str) -> str:
        return self.text(f'.chart[data-metric="{metric}"]')

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait(self, what: str, holds: Callable[[], object]) -> None:
        """Until ``holds()``; fails with the page's text."""
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}\n{self.text('body')[:2000]}"
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Errors in the console, policy violations among them, without those of a gateway that is away."""
        lines = (entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE")
        return [line for line in lines if "ERR_CONNECTION" not in line and "WebSocket connection" not in line]


class Device:
    """A device over one connection; ``seq`` is the last one used."""

    def __init__(self, connection: ClientConnection, seq: int) -> None:
        self._connection = connection
        self._seq = seq

    def describe(self, **body: object) -> None:
        self._connection.send(json.dumps({"type": "describe", **body}))

    def send(self, **values: object) -> None:
        """Send one reading and wait for its ack."""
        self._seq += 1
        self._connection.send(json.dumps({"seq": self._seq, "values": values}))
        while json.loads(self._connection.recv(5)).get("seq") != self._seq:
            pass


@contextmanager
def connected(daemon: Daemon, name: str) -> Iterator[Device]:
    """A device that is connected."""
    url = f"ws://127.0.0.1:{daemon.port}/v1/devices/{name}?session=boot"
    with connect(url, compression=None, proxy=None) as connection:
        yield Device(connection, json.loads(connection.recv(5))["last_seq"])


def test_number_from_frame_to_page(chromium: Chrome, daemon: Daemon) -> None:
    """A number that a device sends stands in the list and large over its chart, with its unit, then the next one."""
    page = Page(chromium, daemon)
    with connected(daemon, "pump-1") as pump:
        pump.describe(name="Boiler pump", metrics={"flow_temperature": {"unit": "Cel"}})
        pump.send(flow_temperature=71.25, door=True, mode="heating")
        page.wait("the number in the list", lambda: "71.25 °C" in page.row("pump-1"))
        assert page.row("pump-1").startswith("Boiler pump pump-1 online, ")
        page.wait("the number over its chart", lambda: page.text(".chart .big") == "71.25 °C")
        pump.send(flow_temperature=72.5, door=False, mode="idle")
        page.wait("the next number in the list", lambda: "72.50 °C" in page.row("pump-1"))
        page.wait("the next number over its chart", lambda: "72.50 °C" in page.card("flow_temperature"))
        page.wait("its extent", lambda: "min 71.25 max 72.50" in page.card("flow_temperature"))
        page.wait("the boolean", lambda: "off" in page.card("door"))
        page.wait("the log of texts", lambda: "idle" in page.card("mode") and "heating" in page.card("mode"))
        page.wait("the ledger", lambda: "2 received = 2 stored" in page.text(".ledger"))
        page.wait("the name", lambda: page.text("#gateway-id") == "barn-north")
        assert page.complaints() == []


def test_offline_is_shown_with_its_reason(chromium: Chrome, daemon: Daemon) -> None:
    """A device that goes away is shown offline in words, counted and found by the filters, its last value kept."""
    page = Page(chromium, daemon)
    with connected(daemon, "stays") as stays:
        stays.send(level=1)
        with connected(daemon, "goes") as goes:
            goes.send(level=63)
            page.wait("both online", lambda: "Online 2" in page.text(".chips"))
            page.wait("the value", lambda: "63" in page.row("goes"))
        page.wait("offline in the list", lambda: "offline" in page.row("goes"))
        assert "63" in page.row("goes"), "the last value is kept"
        page.wait("the counts", lambda: "Online 1 Stale 0 Offline 1" in page.text(".chips"))
        chromium.find_element(By.XPATH, "//*[@class='chips']/button[4]").click()
        page.wait("the filter", lambda: page.row("goes") and not page.row("stays"))
        assert "state=offline" in chromium.current_url
        chromium.find_element(By.CSS_SELECTOR, '.row[data-device="goes"]').click()
        page.wait("the reason", lambda: "offline since" in page.text(".head") and "closed" in page.text(".head"))


def test_hostile_strings_stay_text(chromium: Chrome, daemon: Daemon) -> None:
    """What a device says is shown as text and never runs, also when the content security policy is off."""
    chromium.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    try:
        with connected(daemon, "evil") as evil:
            evil.describe(name=HOSTILE[0], metrics={"note": {"unit": HOSTILE[1]}, "n": {"unit": HOSTILE[2]}})
            evil.send(note=HOSTILE[0], n=1)
            page = Page(chromium, daemon, "#device=evil")
            for payload in HOSTILE:
                evil.send(note=payload, n=1)
            shown = "return [...document.querySelectorAll('.chart .log span')].map((row) => row.textContent)"
            page.wait("all of them in the log", lambda: set(page.run(shown)) == set(HOSTILE))
            page.wait("the name", lambda: page.text(".head h2") == HOSTILE[0])
            page.wait("a unit", lambda: HOSTILE[2] in page.card("n"))
            for view in ("table", "charts"):
                page.run(
                    "location.hash = arguments[0]", f"#device=evil&view={view}&q=<img src=x onerror=window.pwned=1>"
                )
                page.wait("the search's words", lambda: page.row("evil") or "is called" in page.text(".none-found"))
            elements = (
                "return document.querySelectorAll('img, iframe, a, script:not([src]), [onerror], [onload]').length"
            )
            assert page.run(elements) == 0
            assert page.run("return window.pwned ?? null") is None
    finally:
        chromium.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})


def test_recovers_after_restart(chromium: Chrome, daemon: Daemon) -> None:
    """While the daemon is dead the page says so and counts down; when it is back the page goes on without a reload."""
    with connected(daemon, "pump-1") as pump:
        pump.send(pressure=1.5)
        page = Page(chromium, daemon)
        page.wait("the first number", lambda: "1.5" in page.row("pump-1"))
        page.run("window.same = true")
        daemon.kill()
    page.wait("the bar", lambda: "Connection to the gateway lost" in page.text("#lost"))
    assert page.text("#live-word") == "Not live"
    assert "1.5" in page.row("pump-1")
    page.wait("the countdown", lambda: "trying again in" in page.text("#lost"))
    daemon.start()
    with connected(daemon, "pump-1") as pump:
        pump.send(pressure=2.5)
        page.wait("live again", lambda: page.text("#live-word") == "LIVE" and not page.text("#lost"))
        page.wait("the new number", lambda: "2.5" in page.row("pump-1"))
        page.wait("both in the chart", lambda: "min 1.5 max 2.5" in page.card("pressure"))
        assert page.run("return window.same") is True
        assert page.complaints() == []


def test_empty_page_changes_when_the_first_device_knocks(chromium: Chrome, daemon: Daemon) -> None:
    """Without devices the page shows this gateway's address and a program to copy; the program's device replaces it."""
    page = Page(chromium, daemon)
    page.wait("the welcome", lambda: "Connect your first device" in page.text("#welcome"))
    address = page.text("#welcome .where code")
    assert address == f"ws://127.0.0.1:{daemon.port}/v1/devices/my-first-device"
    for language, word in (("Python", "websockets"), ("JavaScript", "new WebSocket"), ("Arduino", "WebSocketsClient")):
        chromium.find_element(By.XPATH, f"//section[@id='welcome']//button[text()='{language}']").click()
        assert word in page.text("#welcome pre")
    with connected(daemon, address.rpartition("/")[2]) as first:
        first.send(temperature=22.5)
        page.wait("the device", lambda: "22.5" in page.row("my-first-device"))
        page.wait("its chart", lambda: "22.5" in page.card("temperature"))
        assert page.text("#welcome") == ""


def test_drag_pauses_and_double_click_goes_live(chromium: Chrome, daemon: Daemon) -> None:
    """A drag over a chart shows that stretch and counts what comes meanwhile; a double click goes back to live."""
    with connected(daemon, "pump-1") as pump:
        pump.send(level=1)
        page = Page(chromium, daemon)
        page.wait("the chart", lambda: page.run("return document.querySelector('.chart .u-over') !== null"))
        over = chromium.find_element(By.CSS_SELECTOR, ".chart .u-over")
        ActionChains(chromium).move_to_element(over).click_and_hold().move_by_offset(40, 0).move_by_offset(
            40, 0
        ).release().perform()
        page.wait("paused", lambda: page.text("#live-word").startswith("Paused"))
        assert "from=" in chromium.current_url
        pump.send(level=2)
        pump.send(level=3)
        page.wait("what came", lambda: page.text("#live-word") == "Paused, 2 new")
        ActionChains(chromium).double_click(over).perform()
        page.wait("live", lambda: page.text("#live-word") == "LIVE")
        assert "from=" not in chromium.current_url


def test_first_view_is_small_and_from_here(chromium: Chrome, daemon: Daemon) -> None:
    """The first view takes less than 150 KiB over the wire, and asks no other host."""
    page = Page(chromium, daemon)
    page.wait("the feed", lambda: page.text("#live-word") == "LIVE")
    resources = page.run(
        "return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map((entry) => [entry.name, entry.encodedBodySize])"
    )
    assert [name for name, _ in resources if not name.startswith(daemon.address)] == []
    assert sum(size for _, size in resources) < FIRST_VIEW_BYTES
    assert len(resources) > 10

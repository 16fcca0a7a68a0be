"""The page in a real browser and devices of all kinds, in the words of the tests that look at it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from websockets.sync.client import ClientConnection, connect

from tests.servers import find
from tools.toolkit.servers import Daemon

__all__ = [
    "WAIT_S",
    "Device",
    "Page",
    "Trace",
    "chromium",
    "connected",
    "downloads",
    "stored",
    "touch",
    "traced",
    "window",
]

WAIT_S = 15.0
AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"
FAULTS = (
    "const [values, done] = arguments, runOnly = values.length ? {type: 'rule', values} : undefined;"
    "const told = (node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ''}`;"
    "axe.run({resultTypes: ['violations'], ...(runOnly && {runOnly})}).then(({violations}) => done("
    "violations.map(({id, help, nodes}) => `${id}: ${help}: ${nodes.slice(0, 4).map(told).join(' | ')}`)))"
)


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """A headless Chromium with its files in ``profile``; raises ``Missing`` where it or its driver is not there."""
    binary, driver = find("chromium", "chromium"), find("chromedriver", "chromium-driver")
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

    def drawn(self, metric: str) -> bool:
        """Whether a metric's chart is."""
        return bool(
            self.run("return !!document.querySelector(`.chart[data-metric='${arguments[0]}'] .u-over`)", metric)
        )

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait(self, what: str, holds: Callable[[], object]) -> None:
        """Until ``holds()``; fails with the page's text."""
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}\n{self.text('body')[:2000]}"
            time.sleep(0.05)

    def press(self, text: str) -> None:
        """The button with this text."""
        self.browser.find_element(By.XPATH, f"//button[normalize-space()='{text}']").click()

    def keys(self, *keys: str) -> None:
        """Type where the focus is."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def width(self) -> tuple[int, int]:
        """Of the window, and of what the page takes in it."""
        return tuple(self.run("return [innerWidth, document.documentElement.scrollWidth]"))

    def faults(self, *rules: str) -> list[str]:
        """What axe-core finds in the way of people with disabilities on what is shown now, by all rules or by these."""
        if not self.run("return 'axe' in window"):
            self.run(f"{AXE.read_text()}; window.axe = axe")
        return list(self.browser.execute_async_script(FAULTS, list(rules)))

    def complaints(self) -> list[str]:
        """Errors in the console, policy violations among them, without those of a gateway that is away."""
        lines = (entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE")
        return [line for line in lines if "ERR_CONNECTION" not in line and "WebSocket connection" not in line]


@contextmanager
def window(browser: Chrome, width: int, height: int, *, mobile: bool = False) -> Iterator[None]:
    """A window of this size, a phone's if ``mobile``."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@contextmanager
def touch(browser: Chrome) -> Iterator[None]:
    """A window that is touched by fingers."""
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 5})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


@contextmanager
def downloads(browser: Chrome, folder: Path) -> Iterator[Callable[[], list[Path]]]:
    """What the page saves goes to ``folder``; gives a function for the files that are there whole."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    try:
        yield lambda: sorted(path for path in folder.iterdir() if path.suffix in (".csv", ".png"))
    finally:
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "default"})


class Trace:
    """What a browser's trace tells of its pages."""

    longest_ms = (
        0.0  # the longest task of a page's main thread, in processor time: what others take of it does not count
    )


@contextmanager
def traced(browser: Chrome) -> Iterator[Trace]:
    """Trace the browser; the result is there at the end."""
    address = browser.capabilities["goog:chromeOptions"]["debuggerAddress"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/json/version", timeout=10) as answer:
        url = json.load(answer)["webSocketDebuggerUrl"]
    config = {"includedCategories": ["toplevel"], "excludedCategories": ["*"]}
    trace = Trace()
    events: list[dict[str, Any]] = []
    with connect(url, max_size=None, compression=None, proxy=None) as link:
        start = {"transferMode": "ReportEvents", "traceConfig": config}
        link.send(json.dumps({"id": 1, "method": "Tracing.start", "params": start}))
        link.recv(10)
        yield trace
        link.send(json.dumps({"id": 2, "method": "Tracing.end"}))
        while (message := json.loads(link.recv(20))).get("method") != "Tracing.tracingComplete":
            events += message["params"]["value"] if message.get("method") == "Tracing.dataCollected" else []
    mains = {
        (it["pid"], it["tid"])
        for it in events
        if it.get("name") == "thread_name" and it["args"]["name"] == "CrRendererMain"
    }
    tasks = [it for it in events if it.get("name") == "ThreadControllerImpl::RunTask" and "tdur" in it]
    times = [it["tdur"] / 1000 for it in tasks if (it["pid"], it["tid"]) in mains]
    assert times, "the browser traced no task"
    trace.longest_ms = max(times)


def stored(daemon: Daemon, device: str, metric: str, count: int) -> bool:
    """Whether so many readings of a metric can be read."""
    query = f"/api/v1/history?device={device}&metric={metric}&from=-60d&to=-0.001s&step=60d&agg=count"
    found = sum(row["value"] for row in json.loads(daemon.get(query)[1]))
    if found != count:
        print(f"{found:,} of {count:,} readings of {device} {metric}")
    return bool(found == count)


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

    def past(self, rows: list[tuple[int, dict[str, object]]]) -> None:
        """Send readings with their times in milliseconds and wait until all are acked."""
        for start in range(0, len(rows), 500):
            batch = []
            for ts, values in rows[start : start + 500]:
                self._seq += 1
                batch.append({"ts": ts, "seq": self._seq, "values": values})
            self._connection.send(json.dumps(batch))
        while json.loads(self._connection.recv(10)).get("seq") != self._seq:
            pass


@contextmanager
def connected(daemon: Daemon, name: str) -> Iterator[Device]:
    """A device that is connected."""
    url = f"ws://127.0.0.1:{daemon.port}/v1/devices/{name}?session=boot"
    with connect(url, compression=None, proxy=None) as connection:
        yield Device(connection, json.loads(connection.recv(5))["last_seq"])

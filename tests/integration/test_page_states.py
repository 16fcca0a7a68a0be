"""What the page tells of states: devices that come, fall silent and go, and a gateway that was away."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from selenium.webdriver import Chrome
from websockets.exceptions import ConnectionClosed

from tests.integration.browser import Device, Page, connected
from tests.servers import free_port
from tools.toolkit.servers import Daemon

# What a screen reader is told, in order.
LISTEN = (
    "window.said = []; const it = document.querySelector('#announce');"
    "new MutationObserver(() => said.push(it.textContent)).observe(it, {childList: true, subtree: true})"
)


def test_appears_goes_stale_goes_offline(chromium: Chrome, daemon: Daemon) -> None:
    """A device appears, is stale when it says nothing, and offline when it goes: each in words, with its reason."""
    with connected(daemon, "other") as other:
        other.send(level=1)
        page = Page(chromium, daemon)
        page.wait("the first device", lambda: page.row("other"))
        page.run(LISTEN)

        def said(words: str) -> bool:
            return any(words in text for text in page.run("return said"))

        with connected(daemon, "pump-1") as pump:
            pump.describe(name="Boiler pump", interval_s=0.5, metrics={"level": {"unit": "m"}})
            pump.send(level=63)
            page.wait("it appears", lambda: re.match(r"Boiler pump pump-1 \S.* 63 m", page.row("pump-1")))
            page.wait("its state", lambda: "Online 2 Stale 0" in page.text(".chips"))
            page.run("location.hash = '#device=pump-1'")
            page.wait("stale", lambda: "pump-1 stale " in page.row("pump-1"))
            page.wait(
                "the reason", lambda: re.search(r"stale since [^,]*: nothing for .* expected", page.text(".head"))
            )
            assert "63 m" in page.row("pump-1"), "the last value is kept"
            dim = "const colour = (it) => getComputedStyle(document.querySelector(it)).color;"
            rows = "return ['other', 'pump-1'].map((name) => colour(`.row[data-device=${name}] .v`))"
            fresh, stale = page.run(dim + rows)
            assert fresh != stale, "and dimmed"
            assert "level" in page.text('.chart.aged[data-metric="level"]').lower(), "in its chart too"
            strip = "return document.querySelectorAll('.strip rect.stale').length"
            page.wait("its stretch of the strip", lambda: page.run(strip) == 1)
            page.wait("it is said", lambda: said("Boiler pump is stale: nothing for"))
        page.wait("offline", lambda: "pump-1 offline " in page.row("pump-1"))
        page.wait("the reason", lambda: "offline since" in page.text(".head") and "closed" in page.text(".head"))
        page.wait("it is said", lambda: said("Boiler pump is offline: closed"))
        other.send(level=2)
        page.wait("a new value", lambda: re.search(r" 2$", page.row("other")))
        assert [it for it in page.run("return said") if " is " not in it] == [], "states alone are announced"


class Talker(threading.Thread):
    """A device that sends a growing number as fast as it is acked, and after a cut connects and sends again what was
    not acked."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self.acked: list[int] = []
        self.ended = threading.Event()
        self._daemon = daemon

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                with connected(self._daemon, "pump-1") as device:
                    self._talk(device)
            except (OSError, ConnectionClosed, TimeoutError):
                time.sleep(0.02)

    def _talk(self, device: Device) -> None:
        while not self.ended.is_set():
            device.send(n=len(self.acked))
            self.acked.append(len(self.acked))


def test_nothing_is_missing_after_the_gateway_was_killed(chromium: Chrome, daemon: Daemon) -> None:
    """The gateway is killed under way and comes back: without a reload the page shows each reading that was acked."""
    talker = Talker(daemon)
    talker.start()
    page = Page(chromium, daemon, "#device=pump-1")
    page.wait("some numbers", lambda: re.search(r" max \d\d", page.card("n")))
    page.run("window.same = true")
    for _ in range(2):
        daemon.kill()
        page.wait("not live", lambda: page.text("#live-word") == "Not live")
        daemon.start()
        before = len(talker.acked)
        page.wait("more of them", lambda before=before: len(talker.acked) > before + 10)
        page.wait("live", lambda: page.text("#live-word") == "LIVE")
    talker.ended.set()
    talker.join(10)
    page.browser.find_element("css selector", ".chart[data-metric=n] .turn").click()
    cells = "return [...document.querySelectorAll('.data tbody tr')].map((row) => Number(row.children[1].textContent))"
    newest = talker.acked[-200:]
    page.wait("all in the table", lambda: set(newest) <= set(page.run(cells)))
    assert len(talker.acked) > 30
    assert page.run("return window.same") is True
    assert page.complaints() == []


def test_what_is_wrong_is_said_first(chromium: Chrome, tmp_path: Path) -> None:
    """A broker that is away stands above all else in words with what to do, and the strip says how long it waits."""
    with Daemon(tmp_path, {"GATEWAY_MQTT__URL": f"mqtt://127.0.0.1:{free_port()}"}) as daemon:
        with connected(daemon, "pump-1") as pump:
            pump.send(level=1)
        page = Page(chromium, daemon)
        page.wait("the problem", lambda: "MQTT cannot be reached: " in page.text("#problems"))
        assert re.search(r"Connection refused\. 1 readings? waits?\. \w.{20,}\.", page.text("#problems"))
        page.wait(
            "its stage",
            lambda: re.search(r"1 behind, (again in \d+ s|trying again): ", page.text("[data-stage=sink-mqtt]")),
        )
        first = "return [...document.querySelector('main').children].find((it) => it.checkVisibility()).id"
        assert page.run(first) == "problems"
        assert page.faults() == []
        daemon.kill()

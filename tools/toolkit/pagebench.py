"""``tools/bench page``: what a browser's tab with the page holds in memory while devices report, and whether it grows.

A gateway, ``gateway simulate`` and a Chromium of its own.  Before each look the browser collects its garbage, so that
what is seen is what the page can still reach.  The page's windows fill up meanwhile (the chosen device's charts for
their range, its readings for an hour): what counts is how it grows over the last half of a long run.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import msgspec
from selenium.common.exceptions import WebDriverException

from tests.integration.browser import Page, chromium
from tests.servers import Missing

from .about import load as load_now
from .about import machine, sentence
from .servers import ROOT, Daemon, Failed, end

__all__ = ["QUICK", "Load", "Look", "Tab", "as_json", "opened", "run", "table"]

COLLECTIONS = 2  # before a look: what the first one finalizes is freed by the second
GLANCES, BETWEEN_S = 3, 0.3  # the page is now and then in the middle of an answer, and holds more for that moment


@dataclass(frozen=True)
class Load:
    """What to run: ``rate`` readings a second of each device, four values a reading."""

    seconds: float = 1500.0
    devices: int = 50
    rate: float = 10.0
    looks: int = 30


QUICK = Load(seconds=3.0, devices=5, looks=3)


@dataclass(frozen=True)
class Look:
    """What a tab holds, sizes in bytes: ``heap`` are the page's objects, ``arrays`` what its typed arrays stand on."""

    heap: int
    arrays: int
    nodes: int
    listeners: int

    @property
    def held(self) -> int:
        """Bytes in all."""
        return self.heap + self.arrays


class Tab:
    """A tab that shows the page; ``report``: at the end, what ``gateway simulate --json`` says."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.report: dict[str, Any] = {}
        self._command("Performance.enable")

    def look(self) -> Look:
        """What is left of garbage collections: of some glances the least of each figure."""
        glances = [self._glance()]
        for _ in range(GLANCES - 1):
            time.sleep(BETWEEN_S)
            glances.append(self._glance())
        return Look(*(min(figures) for figures in zip(*(astuple(one) for one in glances), strict=True)))

    def _glance(self) -> Look:
        for _ in range(COLLECTIONS):
            self._command("HeapProfiler.collectGarbage")
        found = {one["name"]: int(one["value"]) for one in self._command("Performance.getMetrics")["metrics"]}
        arrays = int(self._command("Runtime.getHeapUsage")["backingStorageSize"])
        return Look(found["JSHeapUsedSize"], arrays, found["Nodes"], found["JSEventListeners"])

    def shown(self) -> str:
        """The devices' rows in words: other words after any new reading."""
        return self.page.text(".rows")

    def _command(self, name: str) -> dict[str, Any]:
        result: dict[str, Any] = self.page.browser.execute_cdp_cmd(name, {})
        return result


@contextlib.contextmanager
def opened(load: Load, directory: Path) -> Iterator[Tab]:
    """A tab with the page of a gateway to which devices report until the end of the block.

    Raises ``Missing`` without a browser.
    """
    with chromium(directory / "profile") as browser, Daemon(directory, {}) as daemon:
        words = ["--url", f"ws://127.0.0.1:{daemon.port}", "--devices", str(load.devices), "--rate", str(load.rate)]
        said = directory / "simulate.json"
        with said.open("wb") as output:
            devices = subprocess.Popen(
                [sys.executable, "-m", "gateway", "simulate", *words, "--quiet", "--json"], cwd=ROOT, stdout=output
            )
        try:
            page = Page(browser, daemon)
            page.wait("all devices", lambda: f"All {load.devices:,}" in page.text(".chips") and page.text(".chart"))
            tab = Tab(page)
            yield tab
        finally:
            end(devices)
        tab.report = msgspec.json.decode(said.read_bytes())


def run(load: Load) -> dict[str, Any]:
    """Measure; raises :class:`Failed`."""
    about = machine("uvloop")
    looks: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True) as name:
        try:
            with opened(load, Path(name)) as tab:
                about["Chromium"] = tab.page.browser.capabilities["browserVersion"]
                begin, shown = time.monotonic(), ""
                for number in range(1, load.looks + 1):
                    time.sleep(max(0.0, begin + number * load.seconds / load.looks - time.monotonic()))
                    tab.page.wait("new readings", lambda shown=shown: tab.shown() != shown)
                    shown = tab.shown()
                    at_s = round(time.monotonic() - begin, 1)
                    looks.append({"at_s": at_s, **asdict(tab.look()), "load": load_now()[0]})
        except (Missing, AssertionError, WebDriverException) as failure:  # no browser, no page, a tab that crashed
            raise Failed(str(failure)) from failure
    return {
        "machine": about,
        "devices": load.devices,
        "rate": load.rate,
        "looks": looks,
        "growth_per_s": {name: growth(looks, name) for name in ("heap", "arrays", "nodes", "listeners")},
        "readings": tab.report["taken"],
        "unacked": tab.report["unacked"],
        "load_after": load_now(),
    }


def growth(looks: list[dict[str, Any]], name: str) -> float:
    """How much it grew a second over the last half of the looks: the slope of the line with the least squares."""
    last = looks[len(looks) // 2 :]
    return round(statistics.linear_regression([one["at_s"] for one in last], [one[name] for one in last]).slope, 1)


def table(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    looks, grew = result["looks"], result["growth_per_s"]
    rate = result["devices"] * result["rate"]
    half = looks[len(looks) // 2]["at_s"]
    lines = [
        sentence(result["machine"], result["load_after"]),
        "",
        f"{result['devices']} devices, {rate:,.0f} readings a second of four metrics; {result['readings']:,} readings"
        f" sent, {result['unacked']} without an ack",
        "",
        "| after s | heap MB | typed arrays MB | nodes | listeners | load |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one['at_s']:,.0f} | {one['heap'] / 1e6:.3f} | {one['arrays'] / 1e6:.3f} | {one['nodes']:,}"
        f" | {one['listeners']} | {one['load']} |"
        for one in looks
    ]
    lines += [
        "",
        f"Growth a second, from {half:,.0f} s on: {grew['heap']:,.0f} bytes of heap, {grew['arrays']:,.0f} of typed"
        f" arrays, {grew['nodes']:g} nodes, {grew['listeners']:g} listeners.",
    ]
    return "\n".join(lines)


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()

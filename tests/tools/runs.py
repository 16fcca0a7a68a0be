"""``./tools/run`` in a process, with an empty home directory; or its second half alone, with this Python."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from tools.toolkit.proc import tree

ROOT = Path(__file__).parents[2]
SCRIPT = [str(ROOT / "tools" / "run")]
SECOND_HALF = [sys.executable, str(ROOT / "tools" / "lib" / "run.py")]
TIMEOUT_S = 60.0


class Run:
    """``command`` with these arguments, in ``home``; ``settings`` are environment variables."""

    def __init__(self, home: Path, command: list[str], *arguments: str, **settings: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "XDG_"))}
        environment["PYTHONPATH"] = str(ROOT)
        self.output = home / f"output-{time.monotonic_ns()}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=home,
                env={**environment, "HOME": str(home), **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)

    @property
    def text(self) -> str:
        """Its output so far."""
        return self.output.read_text()

    @property
    def children(self) -> list[int]:
        """The processes that it started."""
        return tree(self.process.pid)[1:]

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in the output; fails when the command ends or the time is over before."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (match := re.search(pattern, self.text)):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)
        return match

    def address(self) -> str:
        """That of the page, as soon as it is said."""
        return self.wait_for(r"live page +(http://127\.0\.0\.1:\d+)/")[1]

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(TIMEOUT_S)

    def stop(self, how: signal.Signals) -> int:
        """Signal it, as Ctrl-C or a service manager does; its exit status, once all its children are gone."""
        family = tree(self.process.pid)
        self.process.send_signal(how)
        status = self.process.wait(TIMEOUT_S)
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
        return status


def get(address: str) -> Any:
    """The JSON there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=5) as response:
        return json.load(response)


def shown(address: str) -> Counter[str]:
    """How many devices that have sent a value are in each state."""
    speaking = {row["device"] for row in get(f"{address}/api/v1/latest")}
    return Counter(device["state"] for device in get(f"{address}/api/v1/devices") if device["device"] in speaking)


def wait_shown(address: str, online: int) -> None:
    """Wait until just so many devices are online and send."""
    deadline = time.monotonic() + TIMEOUT_S
    while shown(address) != {"online": online}:
        assert time.monotonic() < deadline, shown(address)
        time.sleep(0.05)

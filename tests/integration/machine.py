"""A machine with a real systemd and the gateway of this checkout, for tests: see ``tools/toolkit/machine.py``.

The gateway is put there by the real ``tools/install``, with a Python whose pip takes the package from the checkout and
its libraries from this test run's, so that it needs no network and no minute.
"""

from __future__ import annotations

import http.client
import ssl
import sys
import time
from pathlib import Path

from websockets.sync.client import ClientConnection, connect

from tools.toolkit.machine import Machine, why_not

ROOT = Path(__file__).parents[2]
PORT = 8080
PYTHON = "/usr/local/bin/python-of-the-machine"
CHECKOUT = "/srv/checkout"
DROPINS = "/etc/systemd/system/gateway.service.d"
PARTS = ["gateway", "systemd", "config", "tools", "pyproject.toml", "README.md", "LICENSE"]
STATE_S = 30.0

# What "PYTHON -m venv DIR" and "PYTHON -m pip install .. SOURCE" come to.
LAUNCHER = """#!/bin/sh
case "$*" in
    "-m venv "*)
        {python} -m venv --without-pip "$3"
        site=$(echo "$3"/lib/python3.*/site-packages)
        echo /opt/site >"$site/libraries.pth"
        mkdir "$site/pip" && touch "$site/pip/__init__.py"
        cp /usr/local/lib/pip-of-the-machine.py "$site/pip/__main__.py" ;;
    *ensurepip*) ;;
    *) exec {python} "$@" ;;
esac
"""
PIP = """import compileall, glob, os, shutil, sys
site = os.path.dirname(os.path.dirname(__file__))
shutil.copytree(sys.argv[-1] + "/gateway", site + "/gateway")
# As pip does, so that no start has to; what the checkout has compiled is good as long as times and sizes agree.
for made in glob.glob("/outside-checkout/gateway/**/__pycache__", recursive=True):
    shutil.copytree(made, site + made.removeprefix("/outside-checkout"), dirs_exist_ok=True)
compileall.compile_dir(site + "/gateway", quiet=1)
with open(sys.prefix + "/bin/gateway", "w") as file:
    file.write(f"#!{sys.prefix}/bin/python\\nimport sys\\nfrom gateway.cli import main\\nsys.exit(main())\\n")
os.chmod(sys.prefix + "/bin/gateway", 0o755)
"""


def python_inside() -> str:
    """A Python of this version that services may see: not one in a home directory.  Empty: there is none."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for prefix in [sys.base_prefix, "/usr", "/usr/local"]:
        path = Path(prefix).resolve() / "bin" / name
        if path.parts[1] in ("usr", "opt") and path.exists():
            return str(path)
    return ""


def libraries() -> Path:
    """Where those of this test run are."""
    return next(Path(path) for path in sys.path if Path(path, "websockets").exists())


def why_no_host() -> str:
    """What keeps this machine from having one inside; empty where nothing does."""
    return why_not() or ("" if python_inside() else "needs a Python like this one outside of home directories")


class Host(Machine):
    """A machine with a checkout in it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, {libraries(): "/opt/site", ROOT: "/outside-checkout"})

    def __enter__(self) -> Host:
        super().__enter__()
        self.write(PYTHON, LAUNCHER.format(python=python_inside()), 0o755)
        self.write("/usr/local/lib/pip-of-the-machine.py", PIP)
        self.run("mkdir", "-p", CHECKOUT)
        self.run("cp", "-a", *(f"/outside-checkout/{part}" for part in PARTS), CHECKOUT)
        return self

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Make a file of the machine."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def install(self, *arguments: str) -> tuple[int, str]:
        """Run ``tools/install``; its exit status and what it said."""
        names = [f"PYTHON={PYTHON}", "SETTLE_S=0.3"]
        done = self.run("env", *names, f"{CHECKOUT}/tools/install", "--no-doctor", *arguments, check=False)
        return done.returncode, done.stdout + done.stderr

    def drop_in(self, name: str, text: str) -> None:
        """Change the unit; holds from the service's next start on."""
        self.write(f"{DROPINS}/{name}.conf", text)
        self.run("systemctl", "daemon-reload")

    def wait(self, name: str, value: str, unit: str = "gateway.service") -> None:
        """Until a property of the unit is so."""
        deadline = time.monotonic() + STATE_S
        while (now := self.show(unit, name)) != value:
            assert time.monotonic() < deadline, f"{name} is {now}, not {value}: {self.journal(unit)}"
            time.sleep(0.2)

    def status(self) -> dict[str, str]:
        """What the kernel says of the service's process: the lines of ``/proc/PID/status``."""
        # Process numbers are those of the machine.
        text = self.run("cat", f"/proc/{self.show('gateway.service', 'MainPID')}/status").stdout
        return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}

    def get(self, target: str) -> tuple[int, bytes]:
        """Status and body of a GET to the gateway; raises ``OSError``."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        with self.connect(PORT) as connection.sock:
            connection.request("GET", target, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def device(self, name: str, token: str = "", context: ssl.SSLContext | None = None) -> ClientConnection:
        """A device's connection; over TLS with a ``context``."""
        return connect(
            f"{'wss' if context else 'ws'}://127.0.0.1:{PORT}/v1/devices/{name}?session=s",
            ssl=context,
            sock=self.connect(PORT),
            compression=None,
            proxy=None,
            additional_headers={"Authorization": f"Bearer {token}"} if token else {},
            open_timeout=30,
        )

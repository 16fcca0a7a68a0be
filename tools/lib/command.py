#!/opt/gateway/current/bin/python -I
"""The ``gateway`` command of a machine that runs it as a service: with the service's settings and its state directory.

tools/install makes it /usr/local/bin/gateway.  What the service has from its unit is read here from the same places:
the settings file (as far as this user may read it: root), the unit and its drop-ins, the credentials while the service
runs, the state directory.  What the environment says already goes before.
``SERVICE_ROOT`` is a directory to find all of it under.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path


def assignments(text: str) -> dict[str, str]:
    """The variables of an environment file: systemd.exec(5), EnvironmentFile=."""
    found = {}
    for line in re.sub(r"(?<!\\)\\\n", "", text).splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or not name or name[0] in "#;":
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] == "'":
            value = value[1:-1]
        else:
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = value[1:-1]
            value = re.sub(r"\\(.)", r"\1", value)
        found[name.strip()] = value
    return found


def of_unit(said: str) -> dict[str, str]:
    """The settings among what ``systemctl show --property=Environment`` says."""
    words = (word.partition("=") for word in shlex.split(said))
    return {name: value for name, _, value in words if name.startswith("GATEWAY_")}


def ask_systemd() -> str:
    """The variables that the unit and its drop-ins set; nothing where there is no systemd."""
    command = ["systemctl", "show", "--property=Environment", "--value", "gateway.service"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def environment(root: Path) -> dict[str, str]:
    """What the unit gives the service, as far as it is there."""
    found = {}
    try:
        found = assignments((root / "etc/gateway/gateway.env").read_text())
    except (FileNotFoundError, PermissionError):
        pass
    state, credentials = root / "var/lib/gateway", root / "run/credentials/gateway.service"
    if os.access(credentials, os.R_OK | os.X_OK):
        found["CREDENTIALS_DIRECTORY"] = str(credentials)
    unit = of_unit(ask_systemd()) if root == Path("/") else {}
    return {"STATE_DIRECTORY": str(state), **unit, **found}


def main() -> int:
    if sys.argv[1:2] == ["run"]:
        print("gateway: it runs as a service here: systemctl start gateway", file=sys.stderr)
        return 2
    for name, value in environment(Path(os.environ.pop("SERVICE_ROOT", "/"))).items():
        os.environ.setdefault(name, value)
    from gateway.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())

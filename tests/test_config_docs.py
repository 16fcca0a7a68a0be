"""The examples in ``config/`` are complete and work."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import dotenv
import pytest

from gateway.config import load, variables
from gateway.reload import live

CONFIG = Path(__file__).parents[1] / "config"
ENTRY = re.compile(r"^#(GATEWAY_\w+)=(.*)$")

# Their defaults depend on the machine, or are none: the file shows an example.
EXAMPLES = {
    "GATEWAY_BATCH__MAX_PER_S",
    "GATEWAY_ID",
    "GATEWAY_LIMITS__MAX_CONNECTIONS",
    "GATEWAY_LIMITS__MAX_PER_ADDRESS",
    "GATEWAY_LIMITS__MAX_PER_TOKEN",
    "GATEWAY_MQTT__CA",
    "GATEWAY_STATE_DIR",
}


def entries() -> list[tuple[str, str]]:
    """Variable and the comment line above it, of each setting in ``gateway.env``."""
    lines = (CONFIG / "gateway.env").read_text().splitlines()
    return [(match[1], lines[at - 1]) for at, line in enumerate(lines) if (match := ENTRY.match(line))]


def leaf(settings: object, name: str) -> object:
    """The value of a variable in ``settings``; secrets in clear."""
    for part in name.removeprefix("GATEWAY_").lower().split("__"):
        settings = getattr(settings, part)
    return settings.get_secret_value() if hasattr(settings, "get_secret_value") else settings


def test_every_setting_is_documented_once() -> None:
    """``gateway.env`` holds each setting of the code once, under its line of help, which says whether a reload takes
    it, and no other."""
    found = entries()
    assert sorted(name for name, _ in found) == sorted(variables())
    for name, comment in found:
        assert comment == f"# {variables()[name][1]}{' (reload)' if name in live() else ''}", name


def test_every_line_works_and_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of ``gateway.env`` uncommented the settings load, and each is what it is without the file."""
    text = re.sub(r"(?m)^#(?=GATEWAY_)", "", (CONFIG / "gateway.env").read_text())
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    without = load()
    for name, value in dotenv.dotenv_values(stream=io.StringIO(text)).items():
        monkeypatch.setenv(name, value or "")
    given = load()
    for name in variables():
        if name in EXAMPLES:
            assert leaf(given, name), name
        else:
            assert leaf(given, name) == leaf(without, name), name


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")
def test_mosquitto_takes_its_example(tmp_path: Path) -> None:
    """mosquitto starts with ``mosquitto.conf`` (paths and port changed), and knows every line of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = (CONFIG / "mosquitto.conf").read_text()
    for name in ("passwd", "gateway.acl"):
        (tmp_path / name).touch(mode=0o600)
    text = text.replace("listener 1883", f"listener {port}").replace("/var/lib/mosquitto/", f"{tmp_path}/")
    text = text.replace("/etc/mosquitto/", f"{tmp_path}/") + ("user root\n" if os.getuid() == 0 else "")
    (tmp_path / "mosquitto.conf").write_text(text)
    command = ["mosquitto", "-v", "-c", str(tmp_path / "mosquitto.conf")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if " running" in line:
                break
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
    log = "".join(lines)
    assert " running" in log, log
    assert "rror" not in log, log

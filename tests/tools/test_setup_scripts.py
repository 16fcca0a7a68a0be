"""``tools/lib``: what ``./tools/run`` and ``./tools/test`` do to a machine, on made-up machines."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.servers import Mosquitto
from tools.lib import net

ROOT = Path(__file__).parents[2]
SCRIPTS = ["tools/run", "tools/test", "tools/lib/setup.sh", ".ci/run"]

# A Python whose version and parts are said by files beside it; it notes what it is asked to do.
PYTHON = """#!/bin/sh
here=$(dirname "$0")
case "$*" in
    *version_info\\ \\<*) [ ! -e "$here/old" ] ;;
    *ensurepip*) [ -e "$here/has-ensurepip" ] ;;
    *'sys.version_info[:2]'*) echo 3.11 ;;
    --version) echo Python 3.11.2 ;;
    '-m venv '*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    '-m pip '*) echo "$*" >>"$MACHINE/pip-calls" ;;
esac
"""


# The programs of a bare machine that the scripts may count on.
BARE = ["basename", "cat", "chmod", "cksum", "cp", "dirname", "env", "mkdir", "mktemp", "rm", "sh", "tail", "touch"]


class Machine:
    """A checkout with the scripts, and a PATH with only what a bare machine has."""

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "checkout"
        self.bin = directory / "bin"
        self.directory = directory
        shutil.copytree(ROOT / "tools" / "lib", self.checkout / "tools" / "lib")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        self.bin.mkdir()
        for name in BARE:
            path = shutil.which(name)
            assert path
            (self.bin / name).symlink_to(path)
        self.program("id", "echo ${UID_SAID:-1000}")

    def program(self, name: str, text: str) -> None:
        """Put a program of that name on the PATH."""
        path = self.bin / name
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Source ``setup.sh`` and run ``script``; no system directory is searched for programs."""
        bash = shutil.which("bash")
        assert bash
        text = f"set -euo pipefail; . tools/lib/setup.sh; PATH={self.bin}; policy={self.directory}/policy; {script}"
        return subprocess.run(
            [bash, "-c", text, "tools/run"],
            cwd=self.checkout,
            env={"PATH": str(self.bin), "MACHINE": str(self.directory), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_python_it_says_so_in_one_sentence(machine: Machine) -> None:
    """No Python, and one that is too old, end the script with one line that names the version needed."""
    for _ in range(2):
        done = machine.run("make_venv")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "Python 3.11 or newer is needed" in done.stderr
        machine.program("python3", PYTHON)
        (machine.bin / "old").touch()


def test_without_the_right_to_install_it_names_the_package(machine: Machine) -> None:
    """Where python3-venv is missing and apt may not be used, one sentence names the package and how to install it."""
    machine.program("python3", PYTHON)
    machine.program("apt-get", "exit 1")
    done = machine.run("make_venv")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "python3-venv" in done.stderr
    assert "sudo apt install python3.11-venv" in done.stderr


APT_GET = 'echo "$*" >>"$MACHINE/apt-calls"; [ -e "$MACHINE/policy" ] && echo kept >>"$MACHINE/policy-seen"\n'


@pytest.mark.parametrize("how", ["root", "sudo"])
def test_it_installs_what_python_lacks(machine: Machine, how: str) -> None:
    """As root, or with sudo that asks nothing, python3-venv is installed, no service started, and the venv made."""
    machine.program("python3", PYTHON)
    machine.program("apt-get", APT_GET + f"case $* in *install*) touch {machine.bin}/has-ensurepip ;; esac")
    if how == "sudo":
        machine.program("sudo", 'shift; UID_SAID=0 exec "$@"')
    machine.program("true", "exit 0")
    done = machine.run("make_venv", UID_SAID="0" if how == "root" else "1000")
    assert done.returncode == 0, done.stderr
    update, install = machine.calls("apt-calls")
    assert update.endswith("update")
    assert install.endswith("install python3.11-venv")
    assert machine.calls("policy-seen") == ["kept", "kept"]
    assert not (machine.directory / "policy").exists()
    assert (machine.checkout / ".venv" / "bin" / "python").exists()


def test_an_administrators_policy_is_left_alone(machine: Machine) -> None:
    """A policy-rc.d that is already there is neither changed nor removed."""
    machine.program("apt-get", APT_GET)
    (machine.directory / "policy").write_text("theirs")
    assert machine.run("apt_install mosquitto", UID_SAID="0").returncode == 0
    assert (machine.directory / "policy").read_text() == "theirs"


def test_a_failing_apt_is_told_with_its_own_words(machine: Machine) -> None:
    """When apt fails the end of what it said is shown, and the script goes on to say what that means."""
    machine.program("python3", PYTHON)
    machine.program("apt-get", "echo 'E: no such package'; exit 100")
    done = machine.run("make_venv", UID_SAID="0")
    assert done.returncode == 1
    assert "E: no such package" in done.stderr
    assert "could not be installed with apt" in done.stderr


def test_pip_runs_again_only_when_the_project_changed(machine: Machine) -> None:
    """A second run installs nothing; a changed pyproject.toml, or a virtual environment made anew, does."""
    machine.program("python3", PYTHON)
    (machine.bin / "has-ensurepip").touch()
    script = "make_venv; install_package ''"
    for _ in range(2):
        done = machine.run(script)
        assert done.returncode == 0, done.stderr
    assert len(machine.calls("pip-calls")) == 1
    (machine.checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    machine.run(script)
    assert len(machine.calls("pip-calls")) == 2
    shutil.rmtree(machine.checkout / ".venv")
    machine.run("make_venv; install_package influx,test; install_package ''; install_package influx")
    assert len(machine.calls("pip-calls")) == 3
    assert machine.calls("pip-calls")[2].endswith("[influx,test]")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    """The shell scripts are clean by shellcheck."""
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_next_free_port_is_found() -> None:
    """A port that is taken is passed over for the next one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        assert not net.is_free(first)
        assert first < net.free_port(first) <= first + 100
    assert net.is_free(first)
    with pytest.raises(OSError, match="no free port"):
        net.free_port(65_536)


def test_a_process_is_known_by_its_sockets_and_files(tmp_path: Path) -> None:
    """Where a process listens, over IPv4 and IPv6, and which files it has open, is seen; of a dead one nothing."""
    script = "import sys, socket; file = open(sys.argv[1], 'w'); here = socket.create_server(('127.0.0.1', 0)); "
    script += "there = socket.create_server(('::1', 0), family=socket.AF_INET6); "
    script += "print(here.getsockname()[1], there.getsockname()[1], flush=True); sys.stdin.read()"
    path = tmp_path / "lock"
    assert net.openers(path) == []
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        here, there = map(int, child.stdout.readline().split())
        assert sorted(net.listeners(child.pid)) == [("127.0.0.1", here), ("::1", there)]
        assert net.openers(path) == [child.pid]
        child.communicate("")
    assert net.listeners(child.pid) == []
    assert net.openers(path) == []


def test_an_address_reaches_what_listens_everywhere() -> None:
    """What listens on every address is reached by loopback; IPv6 is in brackets."""
    assert net.address("0.0.0.0", 80) == "127.0.0.1:80"
    assert net.address("::", 80) == "[::1]:80"
    assert net.address("10.0.0.5", 80) == "10.0.0.5:80"


def test_readiness_is_status_200() -> None:
    """Only an address that answers 200 is ready; one that answers 503, and a closed port, are not."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert net.is_ready(f"{url}/readyz")
            assert not net.is_ready(f"{url}/other")
        finally:
            server.shutdown()
            thread.join()
    assert not net.is_ready(f"{url}/readyz")


def test_a_broker_is_known_from_its_answer(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """mosquitto is taken for a broker; not one that wants a password, not a server that says something else."""
    assert net.is_broker(mosquitto.port)
    with Mosquitto(tmp_path / "closed", config="allow_anonymous false") as closed:
        assert not net.is_broker(closed.port)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection = other.accept()[0]
            connection.sendall(b"SSH-2.0-x\r\n")
            connection.recv(64)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert not net.is_broker(other.getsockname()[1])
        thread.join()

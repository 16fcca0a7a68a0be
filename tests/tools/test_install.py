"""``tools/install`` below a directory of its own, with a systemctl and a Python that stand in for the real ones.

The same under a real systemd: ``tests/integration/test_machine.py``.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lib.command import assignments, environment, of_unit

ROOT = Path(__file__).parents[2]

# A Python whose virtual environments take no time, and hold a gateway that does next to nothing.  What follows "pip
# install" fails where the file "pip-fails" is there.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *version_info\\ \\<*) ;;
    *ensurepip*) [ ! -e "$MACHINE/no-venv" ] ;;
    *sys.version,*) echo 3.11 ;;
    --version) echo Python 3.11.2 ;;
    *sys.base_prefix*startswith*) [ ! -e "$MACHINE/hidden" ] ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install "*) echo "$*" >>"$MACHINE/pip-calls"
        [ ! -e "$MACHINE/pip-fails" ] || { echo "no such library" >&2; exit 1; }
        printf '#!%s\\n' "$(dirname "$0")/python" >"$(dirname "$0")/gateway" ;;
    *command.py\\ check-config) echo "$SERVICE_ROOT" >>"$MACHINE/checks"; [ ! -e "$MACHINE/bad-settings" ] || exit 78 ;;
    *command.py\\ --help) printf 'commands:\\n    run   start\\n    token   tokens\\n    doctor   look\\n' ;;
    *command.py\\ doctor) echo "doctor: all is well"; [ ! -e "$MACHINE/ill" ] ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""

# systemd, as far as it is asked: what is enabled and active are files; the version that is in "broken" does not
# get ready, and the one in "dies" does, and restarts again and again.
SYSTEMCTL = """#!/usr/bin/env bash
echo "$*" >>"$MACHINE/calls"
words=()
for word in "$@"; do
    case $word in --quiet | --property | --value) ;; --now) now=yes ;; *) words+=("$word") ;; esac
done
release=$(basename "$(readlink "$TOP/opt/gateway/current")")
case ${words[0]:-} in
    --version) echo "systemd $(cat "$MACHINE/version" 2>/dev/null || echo 252) (252.39-1)" ;;
    enable) touch "$MACHINE/enabled-${words[1]}" ;;
    disable) rm -f "$MACHINE/enabled-${words[1]}"; [ -z "${now:-}" ] || rm -f "$MACHINE/active-${words[1]}" ;;
    start) touch "$MACHINE/active-${words[1]}" ;;
    stop) for unit in "${words[@]:1}"; do rm -f "$MACHINE/active-$unit"; done ;;
    is-enabled) [ -e "$MACHINE/enabled-${words[1]}" ] ;;
    is-active) [ -e "$MACHINE/active-${words[1]}" ] ;;
    restart)
        rm -f "$MACHINE/active-${words[1]}"
        echo "$release" >>"$MACHINE/started"
        ! grep -q "^${release%%-*}" "$MACHINE/broken" 2>/dev/null || exit 1
        touch "$MACHINE/active-${words[1]}" ;;
    show)
        case ${words[1]} in
            NRestarts) if grep -q "^${release%%-*}" "$MACHINE/dies" 2>/dev/null; then date +%N; else echo 0; fi ;;
            StatusText) echo "listening on 127.0.0.1:8080" ;;
        esac ;;
esac
"""


class Machine:
    """A checkout, a directory to install below, and programs that stand in for the machine's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.top = directory / "top"
        self.checkout = directory / "checkout"
        self.bin = directory / "bin"
        for name in ["tools/lib", "systemd", "config"]:
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ["tools/install", "pyproject.toml", "README.md", "LICENSE"]:
            shutil.copy(ROOT / name, self.checkout / name)
        self.bin.mkdir()
        for name, text in {"python3": PYTHON, "systemctl": SYSTEMCTL}.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.version("1.0.0")

    def version(self, number: str) -> None:
        """Make the checkout one of that version."""
        (self.checkout / "gateway").mkdir(exist_ok=True)
        (self.checkout / "gateway" / "__init__.py").write_text(f'__version__ = "{number}"\n')

    def install(self, *arguments: str, live: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``tools/install --root``; ``live``: there is a systemd to talk to."""
        names = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "MACHINE": str(self.directory),
            "TOP": str(self.top),
            "PYTHON": str(self.bin / "python3"),
            "REAL_PYTHON": sys.executable,
            "SETTLE_S": "0",
        }
        if live:
            names["SYSTEMCTL"] = str(self.bin / "systemctl")
        return subprocess.run(
            [self.checkout / "tools" / "install", "--root", self.top, *arguments],
            env=names,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def installed(self, *arguments: str) -> str:
        """Install without a fault; what it said."""
        done = self.install(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def note(self, name: str, text: str = "") -> None:
        """What the stand-ins go by."""
        (self.directory / name).write_text(text)

    def noted(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def current(self) -> str:
        """The release that is in force."""
        return Path(os.readlink(self.top / "opt/gateway/current")).name

    @property
    def releases(self) -> set[str]:
        return {path.name for path in (self.top / "opt/gateway/releases").iterdir()}

    @property
    def settings(self) -> Path:
        return self.top / "etc/gateway/gateway.env"

    def unit(self, name: str) -> Path:
        return self.top / "etc/systemd/system" / name

    def files(self) -> dict[str, tuple[int, bytes]]:
        """All that is installed: mode and content."""
        return {
            str(path.relative_to(self.top)): (
                path.lstat().st_mode,
                os.readlink(path).encode() if path.is_symlink() else path.read_bytes(),
            )
            for path in self.top.rglob("*")
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def put_data(machine: Machine) -> Path:
    """What the service keeps, where systemd has it."""
    data = machine.top / "var/lib/private/gateway/journal/1.seg"
    data.parent.mkdir(parents=True)
    data.write_bytes(b"data")
    (machine.top / "var/lib/gateway").symlink_to("private/gateway")
    return data


def test_it_installs_and_starts_the_service(machine: Machine) -> None:
    """Program, units, settings and command are where they belong, the service is enabled and up, the doctor asked."""
    said = machine.installed()
    assert machine.current.startswith("1.0.0-")
    # Nothing that is installed names the directory that it was built below.
    assert (machine.top / "opt/gateway/current/bin/gateway").read_text().startswith("#!/opt/gateway/releases/1.0.0-")
    for name in ["gateway.service", "gateway.socket", "gateway.service.d/credentials.conf.example"]:
        assert machine.unit(name).read_bytes() == (ROOT / "systemd" / name).read_bytes()
    assert not machine.unit("gateway.service.d/notify-reload.conf").exists()
    assert machine.settings.read_bytes() == (ROOT / "config/gateway.env").read_bytes()
    assert machine.settings.stat().st_mode & 0o777 == 0o600
    assert machine.settings.parent.stat().st_mode & 0o777 == 0o750
    command = machine.top / "usr/local/bin/gateway"
    assert command.read_bytes() == (ROOT / "tools/lib/command.py").read_bytes()
    assert command.stat().st_mode & 0o777 == 0o755
    assert (machine.directory / "enabled-gateway.service").exists()
    assert not (machine.directory / "enabled-gateway.socket").exists()
    assert machine.noted("started") == [machine.current]
    assert "runs: listening on 127.0.0.1:8080" in said
    assert "gateway token create NAME" in said
    assert "doctor: all is well" in said


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    """The same again builds nothing, restarts nothing, and leaves every file as it was."""
    machine.installed()
    files = machine.files()
    machine.installed()
    assert machine.files() == files
    assert len(machine.noted("pip-calls")) == 1
    assert len(machine.noted("started")) == 1


def test_a_service_that_is_down_is_started_again(machine: Machine) -> None:
    """An enabled service that does not run is started; one that somebody disabled is left alone."""
    machine.installed()
    (machine.directory / "active-gateway.service").unlink()
    machine.installed()
    assert len(machine.noted("started")) == 2
    (machine.directory / "active-gateway.service").unlink()
    (machine.directory / "enabled-gateway.service").unlink()
    machine.version("1.1.0")
    assert "stays so" in machine.installed()
    assert len(machine.noted("started")) == 2
    assert machine.current.startswith("1.1.0-")


def test_an_upgrade_keeps_data_and_settings(machine: Machine) -> None:
    """A newer checkout takes over; data, settings and drop-ins stay, and so does the version before, no older one."""
    machine.installed()
    first = machine.current
    data = put_data(machine)
    machine.settings.write_text("GATEWAY_LISTEN__PORT=9000\n")
    dropin = machine.unit("gateway.service.d/own.conf")
    dropin.write_text("[Service]\n")
    machine.version("1.1.0")
    machine.installed()
    second = machine.current
    assert second.startswith("1.1.0-")
    assert machine.releases == {first, second}
    assert data.read_bytes() == b"data"
    assert machine.settings.read_text() == "GATEWAY_LISTEN__PORT=9000\n"
    assert dropin.exists()
    machine.version("1.2.0")
    machine.installed()
    assert machine.releases == {second, machine.current}
    assert machine.noted("started") == [first, second, machine.current]


def test_settings_that_somebody_changed_are_theirs(machine: Machine) -> None:
    """New settings replace those that nobody touched; else they are laid beside them, once, until taken over."""
    machine.installed()
    new = machine.settings.with_name("gateway.env.new")
    stock = machine.checkout / "config/gateway.env"
    stock.write_text(stock.read_text() + "#GATEWAY_NEW=1\n")
    machine.installed()
    assert machine.settings.read_bytes() == stock.read_bytes()
    assert not new.exists()
    machine.settings.write_text("GATEWAY_ID=mine\n")
    machine.version("1.1.0")
    assert ".new" not in machine.installed()
    stock.write_text(stock.read_text() + "#GATEWAY_NEWER=1\n")
    assert "gateway.env.new" in machine.installed()
    assert new.read_bytes() == stock.read_bytes()
    assert new.stat().st_mode & 0o777 == 0o600
    assert machine.settings.read_text() == "GATEWAY_ID=mine\n"
    new.unlink()
    machine.installed()
    assert not new.exists()


@pytest.mark.parametrize("how", ["broken", "dies"])
def test_a_version_that_does_not_come_up_is_rolled_back(machine: Machine, how: str) -> None:
    """One that gets not ready, or not for long, gives way to the version before, with the units of that."""
    machine.installed()
    first = machine.current
    data = put_data(machine)
    own = machine.unit("gateway.service")
    own.write_text(own.read_text() + "# changed by hand\n")
    before = {name: file for name, file in machine.files().items() if "releases/" not in name}
    machine.version("2.0.0")
    unit = machine.checkout / "systemd/gateway.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSec=31"))
    machine.note(how, "2.0.0")
    done = machine.install()
    assert done.returncode == 1
    name = max(machine.releases)
    assert f"{name} did not come up ready; {first} runs again" in done.stderr
    assert machine.current == first
    assert {name: file for name, file in machine.files().items() if "releases/" not in name} == before
    assert machine.noted("started") == [first, name, first]
    assert data.read_bytes() == b"data"
    assert "no version from before" in machine.install("--back").stderr
    # Mended, it is taken without being built again.
    machine.note(how)
    calls = len(machine.noted("pip-calls"))
    machine.installed()
    assert machine.current == name
    assert len(machine.noted("pip-calls")) == calls
    assert "WatchdogSec=31" in own.read_text()


def test_a_first_version_that_does_not_come_up_stays_for_a_remedy(machine: Machine) -> None:
    """Where there is nothing to go back to the files stay in place, and it says so."""
    machine.note("broken", "1.0.0")
    done = machine.install()
    assert done.returncode == 1
    assert "after a remedy" in done.stderr
    assert machine.unit("gateway.service").exists()


def test_settings_that_cannot_be_used_stop_an_upgrade(machine: Machine) -> None:
    """The new version looks at the settings before the old one is touched."""
    machine.installed()
    first, files = machine.current, machine.files()
    machine.version("2.0.0")
    machine.note("bad-settings")
    done = machine.install()
    assert done.returncode == 78
    assert "nothing was changed" in done.stderr
    assert machine.current == first
    assert {name: file for name, file in machine.files().items() if "2.0.0" not in name} == files
    assert machine.noted("started") == [first]


def test_a_build_that_fails_leaves_nothing(machine: Machine) -> None:
    """Libraries that cannot be had are told in a sentence, and the version that runs is not touched."""
    machine.installed()
    first, releases = machine.current, machine.releases
    machine.version("2.0.0")
    machine.note("pip-fails")
    done = machine.install()
    assert done.returncode == 1
    assert "no such library" in done.stderr
    assert "--wheels DIR" in done.stderr
    assert (machine.current, machine.releases) == (first, releases)


def test_it_installs_from_wheels_without_an_index(machine: Machine) -> None:
    """With ``--wheels`` pip asks no index; without such a directory it ends at once."""
    (machine.directory / "wheels").mkdir()
    machine.installed("--wheels", str(machine.directory / "wheels"))
    (call,) = machine.noted("pip-calls")
    assert f"--no-index --find-links {machine.directory}/wheels" in call
    done = machine.install("--wheels", str(machine.directory / "none"))
    assert done.returncode == 2
    assert "there is no directory" in done.stderr


def test_the_same_version_can_be_built_anew_and_left_again(machine: Machine) -> None:
    """``--fresh`` builds beside what runs, a plain run then keeps to that, and ``--back`` takes the one before."""
    machine.installed()
    first = machine.current
    machine.installed("--fresh")
    assert machine.current == f"{first}.2"
    machine.installed("--fresh")
    assert machine.current == f"{first}.3"
    machine.installed()
    assert machine.current == f"{first}.3"
    machine.installed("--back")
    assert machine.current == f"{first}.2"
    assert machine.noted("started")[-1] == f"{first}.2"


def test_the_socket_is_systemds_when_asked(machine: Machine) -> None:
    """``--socket`` takes the address from the settings, lasts over runs and upgrades, and ``--no-socket`` ends it."""
    machine.installed()
    machine.settings.write_text("GATEWAY_LISTEN__HOST=::\nGATEWAY_LISTEN__PORT=9000\n")
    machine.installed("--socket")
    listen = machine.unit("gateway.socket.d/listen.conf")
    assert listen.read_text().endswith("[Socket]\nListenStream=\nListenStream=[::]:9000\n")
    calls = machine.noted("calls")
    assert calls.index("stop gateway.service") < calls.index("start gateway.socket")
    assert calls.index("start gateway.socket") < len(calls) - calls[::-1].index("restart gateway.service") - 1
    machine.installed()
    machine.version("1.1.0")
    machine.installed()
    assert (machine.directory / "active-gateway.socket").exists()
    machine.installed("--no-socket")
    assert not (machine.directory / "enabled-gateway.socket").exists()
    assert not (machine.directory / "active-gateway.socket").exists()
    assert not listen.exists()
    assert (machine.directory / "active-gateway.service").exists()


def test_a_newer_systemd_gets_the_newer_type(machine: Machine) -> None:
    """From systemd 253 on the drop-in for ``notify-reload`` is there, with an older one it is not."""
    machine.note("version", "257")
    machine.installed()
    dropin = machine.unit("gateway.service.d/notify-reload.conf")
    assert dropin.exists()
    machine.note("version", "252")
    machine.installed()
    assert not dropin.exists()


def test_uninstalling_leaves_settings_and_data(machine: Machine) -> None:
    """The program and its units go, what is the operator's stays; ``--purge`` takes that, too."""
    machine.installed("--socket")
    data = put_data(machine)
    dropin = machine.unit("gateway.service.d/own.conf")
    dropin.write_text("[Service]\n")
    said = machine.installed("--uninstall")
    assert f"settings ({machine.top}/etc/gateway) and data ({machine.top}/var/lib/gateway) are still there" in said
    assert f"--root {machine.top} --uninstall --purge" in said
    assert not (machine.top / "opt/gateway").exists()
    assert not machine.unit("gateway.service").exists()
    assert not machine.unit("gateway.socket").exists()
    assert not (machine.top / "usr/local/bin/gateway").exists()
    assert not (machine.directory / "enabled-gateway.service").exists()
    assert not (machine.directory / "active-gateway.socket").exists()
    assert data.exists()
    assert machine.settings.exists()
    assert dropin.exists()
    machine.installed("--uninstall", "--purge")
    assert not [name for name in machine.files() if "systemd" in name or "gateway" in name]


def test_it_comes_back_with_its_data_after_uninstalling(machine: Machine) -> None:
    """Installed again, it finds data and settings as they were left."""
    machine.installed()
    data = put_data(machine)
    machine.settings.write_text("GATEWAY_ID=mine\n")
    machine.installed("--uninstall")
    machine.installed()
    assert data.exists()
    assert machine.settings.read_text() == "GATEWAY_ID=mine\n"


def test_a_virtual_environment_in_its_place_is_replaced(machine: Machine) -> None:
    """One that stands in /opt/gateway itself, as installed by hand, is gone once the new one runs, not before."""
    opt = machine.top / "opt/gateway"
    (opt / "bin").mkdir(parents=True)
    (opt / "pyvenv.cfg").touch()
    (opt / "bin/gateway").touch()
    machine.note("pip-fails")
    assert machine.install().returncode == 1
    assert (opt / "bin/gateway").exists()
    (machine.directory / "pip-fails").unlink()
    machine.installed()
    assert {path.name for path in opt.iterdir()} == {"current", "releases", ".lock"}


def test_somebody_elses_command_is_left_alone(machine: Machine) -> None:
    """A program of that name that is not ours is neither replaced nor removed."""
    other = machine.top / "usr/local/bin/gateway"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\n")
    assert "somebody else's" in machine.installed()
    machine.installed("--uninstall")
    assert other.read_text() == "#!/bin/sh\n"


def test_an_image_is_made_without_systemd(machine: Machine) -> None:
    """Below ``--root`` without a systemd files are put in place, and nothing is said to be running."""
    done = machine.install(live=False)
    assert done.returncode == 0, done.stderr
    assert "is in place" in done.stderr
    assert machine.noted("started") == []
    assert machine.unit("gateway.service").exists()


def test_a_python_that_the_service_cannot_see_is_refused(machine: Machine) -> None:
    """One in a home directory, which the unit hides, is refused in a sentence before anything is made."""
    machine.note("hidden")
    done = machine.install()
    assert done.returncode == 1
    assert "the service cannot see" in done.stderr
    assert machine.files() == {}


def test_without_python3_venv_it_names_the_package(machine: Machine) -> None:
    """Where it may not install what Debian leaves out of Python, it says what to install."""
    machine.note("no-venv")
    done = machine.install()
    assert done.returncode == 1
    assert "apt install python3." in done.stderr
    assert machine.files() == {}


def test_one_installation_at_a_time(machine: Machine) -> None:
    """A second one ends at once while the first is under way."""
    lock = machine.top / "opt/gateway/.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = machine.install()
    assert done.returncode == 1
    assert "another installation is under way" in done.stderr
    assert not (machine.top / "opt/gateway/current").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--verbose"], "unknown argument --verbose"),
        (["--wheels"], "--wheels takes a value"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--extras", "a b"], "--extras takes names"),
        (["--back"], "no gateway is installed"),
        (["--uninstall"], "no gateway is installed"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(machine: Machine, arguments: list[str], said: str) -> None:
    """What cannot be done is said in one line, and nothing is done."""
    done = machine.install(*arguments)
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not machine.top.exists() or machine.files() == {}


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    """The scripts are clean by shellcheck."""
    done = subprocess.run(
        ["shellcheck", "-x", "tools/install", "tools/deb", "tools/lib/machine.sh"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_help_names_every_option() -> None:
    """Each option that is understood is explained."""
    text = (ROOT / "tools/install").read_text()
    usage = text.partition("<<'END'\n")[2].partition("\nEND\n")[0]
    known = set(
        re.findall(r"(?<=[ (|])--[a-z-]+(?=[ )|])", text.partition("while [ $# -gt 0 ]")[2].partition("done")[0])
    )
    assert known
    for option in known - {"--help"}:
        assert re.search(rf"{option}\b", usage), option


def test_the_command_takes_the_services_settings(tmp_path: Path) -> None:
    """The command of the machine sees what the unit gives the service: settings, credentials, state directory."""
    assert environment(tmp_path) == {"STATE_DIRECTORY": f"{tmp_path}/var/lib/gateway"}
    (tmp_path / "etc/gateway").mkdir(parents=True)
    (tmp_path / "etc/gateway/gateway.env").write_text("# a\n#GATEWAY_X=1\nGATEWAY_ID=one\n")
    (tmp_path / "run/credentials/gateway.service").mkdir(parents=True)
    assert environment(tmp_path) == {
        "STATE_DIRECTORY": f"{tmp_path}/var/lib/gateway",
        "GATEWAY_ID": "one",
        "CREDENTIALS_DIRECTORY": f"{tmp_path}/run/credentials/gateway.service",
    }


def test_what_a_drop_in_sets_is_taken_too() -> None:
    """The settings that systemd says the unit has, whatever is in them."""
    assert of_unit('GATEWAY_ID=one "GATEWAY_X=a b" LANG=C\n') == {"GATEWAY_ID": "one", "GATEWAY_X": "a b"}
    assert of_unit("\n") == {}


def test_an_environment_file_is_read_as_systemd_does() -> None:
    """Comments, quotes, backslashes and lines that go on are as in systemd.exec(5)."""
    text = '; c\n\nA=1 # not a comment\n B = x \nC="a \\"b\\""\nD=\'a\\b\'\nE=a\\\nb\nF=p$q\nnonsense\nG=\n=x\n'
    assert assignments(text) == {
        "A": "1 # not a comment",
        "B": "x",
        "C": 'a "b"',
        "D": "a\\b",
        "E": "ab",
        "F": "p$q",
        "G": "",
    }

"""``gateway completion``: what shells take, and that bash completes with it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from gateway.cli import COMMANDS, main
from gateway.cli.completion import SHELLS

CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"], "tcsh": ["tcsh", "-n"]}


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_it(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: pytest.TempPathFactory) -> None:
    """Every command is in it, and where the shell is on this machine it finds no fault."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if shutil.which(shell) is not None:
        file = f"{tmp_path}/script"
        with open(file, "w") as opened:
            opened.write(script)
        checked = subprocess.run([*CHECKS[shell], file], capture_output=True, text=True, check=False, timeout=30)
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"), [("de", "devices"), ("dead-letters re", "retry"), ("devices --js", "--json")]
)
def test_bash_completes(words: str, expected: str) -> None:
    """Commands, what they are followed by, and options."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not on this machine.")
    script = """
source <("$1" -m gateway completion bash)
COMP_WORDS=(gateway $2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p gateway | sed -E 's/.*-F ([^ ]+).*/\\1/') gateway "${COMP_WORDS[-1]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""
    found = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, words], capture_output=True, text=True, check=True, timeout=30
    )
    assert expected in found.stdout.split(), found


def test_an_unknown_shell() -> None:
    """It is wrong usage."""
    with pytest.raises(SystemExit) as usage:
        main(["completion", "cmd"])
    assert usage.value.code == 2

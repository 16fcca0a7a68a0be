"""``tools/fuzz``: a short run of every target, and that each one sees its seam broken."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from gateway.codecs import SUBPROTOCOLS, model
from gateway.session import Session, Verdict
from gateway.ws import Response, reader
from tools.toolkit import fuzzing

ROOT = Path(__file__).parents[2]

# Executions that take about a second; fixed, so that a test is the same on any machine.
RUNS = {
    "reader": 3_000,
    "handshake": 3_000,
    "path": 20_000,
    "json": 20_000,
    "msgpack": 20_000,
    "cbor": 8_000,
    "senml-json": 5_000,
    "senml-cbor": 8_000,
    "influx": 8_000,
    "session": 30_000,
    "device": 5_000,
    "live": 2_000,
    "control": 4_000,
}


@pytest.fixture(scope="module", autouse=True)
def _end_loops() -> Iterator[None]:
    yield
    from tools.toolkit import fuzz_http, fuzz_requests

    fuzz_http._rig().loop.close()
    fuzz_http._rig.cache_clear()
    fuzz_requests._loop().close()
    fuzz_requests._loop.cache_clear()


def test_every_format_has_a_target() -> None:
    """A format that is new is fuzzed from its first day."""
    assert {name.removeprefix("gateway.v1.") for name in SUBPROTOCOLS} <= set(fuzzing.TARGETS)


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_nothing_breaks(name: str, tmp_path: Path) -> None:
    """Mutated seeds find nothing wrong with any seam."""
    outcome = fuzzing.run_plain(fuzzing.load(name), tmp_path, runs=RUNS[name], seconds=60, seed=1)
    assert not outcome.words, outcome.detail
    assert outcome.executions == RUNS[name]
    assert not list(tmp_path.iterdir())


# What a fault of each seam looks like: (target, what the finding says, how it is made)


def _long_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    extent = reader._extent

    def wrong(data: bytes, at: int, here: int) -> int:
        return extent(data, at, here) + (here > 1 and data[at + 1] == 0xFE)

    monkeypatch.setattr(reader, "_extent", wrong)


def _no_text_check(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def decode(self, data: bytes, final: bool) -> str:
            return ""

    monkeypatch.setattr(reader.codecs, "getincrementaldecoder", lambda name: Careless)


def _lost_at_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = reader.Reader._go_on

    def wrong(self: Any) -> None:
        if not self._paused:
            self._tail = self._tail[:-1]
        go_on(self)

    monkeypatch.setattr(reader.Reader, "_go_on", wrong)


def _no_length(monkeypatch: pytest.MonkeyPatch) -> None:
    serialize = Response.serialize

    def wrong(self: Response, *, head: bool = False) -> bytes:
        return serialize(self, head=head).replace(b"Content-Length", b"X-Length")

    monkeypatch.setattr(Response, "serialize", wrong)


def _another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("websockets.server.accept_key", lambda key: "wrong")


def _forgotten_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ws.server.Server.left", lambda self, reception: None)


def _decoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ws.request.unquote_to_bytes", lambda text: unquote_to_bytes(unquote_to_bytes(text)))


def _any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_known", set())
    monkeypatch.setattr(model, "is_metric", lambda name: True)


def _wider_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "INT64_MAX", 1 << 64)


def _coarse_times(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = model.time_to_ns
    monkeypatch.setattr(model, "time_to_ns", lambda ts: exact(ts) // 1000 * 1000)


def _no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Session.judge

    def judge(self: Session, seq: int, now: float) -> Verdict:
        return Verdict.NEW if (verdict := real(self, seq, now)) is Verdict.HELD else verdict

    monkeypatch.setattr(Session, "judge", judge)


def _early_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "decided", lambda self, seq: True)
    monkeypatch.setattr(Session, "durable", property(lambda self: self.highest, lambda self, seq: None))


FAULTS: list[tuple[str, str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("reader", "instead of|written after the end", _long_frames),
    ("reader", "sent", _no_text_check),
    ("reader", "instead of", _lost_at_pause),
    ("handshake", "length", _no_length),
    ("handshake", "another key", _another_key),
    ("handshake", "still holds", _forgotten_connection),
    ("path", "instead of", _decoded_twice),
    ("json", "what is no value", _any_name),
    ("json", "what is no value", _wider_integers),
    ("msgpack", "instead of", _coarse_times),
    ("session", "not HELD", _no_hold),
    ("device", "was kept behind", _no_hold),
    ("device", "ack", _early_ack),
]


@pytest.mark.parametrize(
    ("name", "words", "plant"), FAULTS, ids=[f"{name}{plant.__name__}" for name, _, plant in FAULTS]
)
def test_a_fault_is_found(
    name: str, words: str, plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault planted at the seam is found, and the input that shows it is kept."""
    monkeypatch.setattr(fuzzing, "SHRINK_S", 0.1)
    target = fuzzing.load(name)
    plant(monkeypatch)
    outcome = fuzzing.run_plain(target, tmp_path, runs=400_000, seconds=120, seed=1)
    assert outcome.finding is not None
    assert any(word in outcome.words for word in words.split("|"))
    assert [outcome.finding] == list(tmp_path.iterdir())
    assert fuzzing.check(target, outcome.finding.read_bytes())
    monkeypatch.undo()
    assert not fuzzing.check(target, outcome.finding.read_bytes())


def _broken(data: bytes) -> None:
    if b"no" in data:
        raise ValueError("it said no")


BROKEN = fuzzing.Target("broken", "a target that breaks", _broken, (b"yes yes yes", b"maybe"), (b"no",))


def test_a_finding_is_made_shorter(tmp_path: Path) -> None:
    """What the finding does not need is left out of the input that is kept."""
    outcome = fuzzing.run_plain(BROKEN, tmp_path, seed=3)
    assert outcome.finding is not None
    assert outcome.finding.read_bytes() == b"no"
    assert outcome.finding.name.startswith("broken-")
    assert outcome.words == "ValueError: it said no"


def test_seeds_come_first_and_the_same_seed_makes_the_same_inputs(tmp_path: Path) -> None:
    """Every seed is run as it is; two runs with the same random seed run the same inputs, within the bound."""
    seen: list[bytes] = []
    target = fuzzing.Target("t", "", seen.append, (b"a" * 30, b"b", b""), (b"token",), max_bytes=40)
    fuzzing.run_plain(target, tmp_path, runs=500, seed=5)
    first = seen.copy()
    seen.clear()
    fuzzing.run_plain(target, tmp_path, runs=500, seed=5)
    assert seen == first
    assert first[:3] == [b"a" * 30, b"b", b""]
    assert max(map(len, first)) == 40
    assert len(set(first)) > 250


def test_mutation_never_changes_what_it_is_given() -> None:
    """The pool stays as it is, whatever is made of it."""
    pool = [b"", b"abc", bytes(range(256))]
    rng = random.Random(1)
    for _ in range(2000):
        assert len(fuzzing.mutate(rng, rng.choice(pool), pool, (b"x",), 300)) <= 300
    assert pool == [b"", b"abc", bytes(range(256))]


# The command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """``main`` of tools/fuzz in this process, with findings in a directory of its own."""
    loader = importlib.machinery.SourceFileLoader("tools_fuzz", str(ROOT / "tools" / "fuzz"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_loader("tools_fuzz", loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)
    monkeypatch.setitem(fuzzing.TARGETS, "broken", __name__)
    monkeypatch.setattr(fuzzing, "load", lambda name: BROKEN if name == "broken" else LOAD(name))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["tools/fuzz", "--directory", str(tmp_path), *arguments])
        status: int = script.main()
        return status

    return run


LOAD = fuzzing.load


def test_a_finding_is_exit_status_1(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says how often each target ran and what broke, and how to see it again."""
    assert command("broken", "path", "--mutator", "plain", "--seconds", "0.2", "--seed", "1") == 1
    said = capsys.readouterr()
    broken, path = said.out.splitlines()
    assert broken.startswith("broken: ")
    assert broken.endswith("executions in 0 s: ValueError: it said no")
    assert path.endswith(": no finding")
    (kept,) = (tmp_path / "findings").iterdir()
    assert f"tools/fuzz broken --input {kept}" in said.err
    assert command("broken", "--input", str(kept)) == 1
    assert "it said no" in capsys.readouterr().out
    kept.write_bytes(b"yes")
    assert command("broken", "--input", str(kept)) == 0


def test_without_atheris_it_says_so_and_goes_on(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where atheris is missing and cannot be installed, one line says why, and the plain mutator does the work."""
    calls: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, "", "warning\nno such wheel")

    monkeypatch.setattr(fuzzing, "has_atheris", lambda: False)
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(sys, "prefix", "/somewhere/venv")
    assert command("session", "--seconds", "0.1") == 0
    (install,) = calls
    assert install[1:4] == ["-m", "pip", "install"]
    assert install[-1].startswith("atheris")
    installing, without, session = capsys.readouterr().out.splitlines()
    assert installing == "Installing atheris into /somewhere/venv with pip (once)."
    assert "(no such wheel)" in without
    assert session.startswith("session: ")
    assert command("session", "--seconds", "0.1", "--mutator", "atheris") == 1


def test_outside_a_virtual_environment_nothing_is_installed(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's Python is left as it is."""
    monkeypatch.setattr(fuzzing, "has_atheris", lambda: False)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was run"))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert command("session", "--seconds", "0.1") == 0
    assert "no virtual environment" in capsys.readouterr().out


def test_an_unknown_target_is_refused(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """A target that there is not ends with exit status 2 and names those that there are."""
    with pytest.raises(SystemExit) as end:
        command("nothing")
    assert end.value.code == 2
    assert "reader, handshake, path" in capsys.readouterr().err


@pytest.mark.skipif(not fuzzing.has_atheris(), reason="needs atheris, which tools/fuzz installs")
def test_atheris_drives_a_target(tmp_path: Path) -> None:
    """Under atheris a target runs, and its corpus grows."""
    target = fuzzing.load("session")
    outcome = fuzzing.run_atheris(target, tmp_path / "findings", tmp_path / "corpus" / "session", seconds=1, seed=1)
    assert not outcome.words, outcome.detail
    assert outcome.executions > len(target.seeds)
    assert len(list((tmp_path / "corpus" / "session").iterdir())) > len(target.seeds)

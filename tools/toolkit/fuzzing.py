"""``tools/fuzz``: bytes for what stands between a socket and a handler, until something breaks.

A target (:class:`Target`) is a function of bytes that raises where something is wrong.  Two drive it:

- atheris, libFuzzer for Python, which follows the code that an input reaches; in a process of its own, since it never
  gives control back, with the modules under test instrumented (``python -m tools.toolkit.fuzzing TARGET FLAGS..``);
- a plain mutator of the target's seeds, where atheris cannot be had, and in the tests.

What broke is made shorter and kept as ``TARGET-SHA1`` under the directory for findings; ``tools/fuzz TARGET --input
FILE`` runs it again.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TARGETS", "Finding", "Outcome", "Target", "has_atheris", "load", "mutate", "run_atheris", "run_plain"]

ROOT = Path(__file__).resolve().parents[2]

# Target to module; the module has the target in a dictionary TARGETS of its own.
TARGETS = {
    "reader": "tools.toolkit.fuzz_frames",
    "handshake": "tools.toolkit.fuzz_http",
    "path": "tools.toolkit.fuzz_path",
    "json": "tools.toolkit.fuzz_messages",
    "msgpack": "tools.toolkit.fuzz_messages",
    "cbor": "tools.toolkit.fuzz_formats",
    "senml-json": "tools.toolkit.fuzz_formats",
    "senml-cbor": "tools.toolkit.fuzz_formats",
    "influx": "tools.toolkit.fuzz_formats",
    "session": "tools.toolkit.fuzz_messages",
    "device": "tools.toolkit.fuzz_device",
    "live": "tools.toolkit.fuzz_requests",
    "control": "tools.toolkit.fuzz_requests",
}
INSTRUMENTED = ["gateway", "websockets"]
HANG_S = 10
SHRINK_S = 3.0


class Finding(AssertionError):
    """What a target says is wrong."""


@dataclass(frozen=True)
class Target:
    """``check`` raises for a finding; ``tokens`` are pieces that inputs are likely to need."""

    name: str
    about: str
    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...] = ()
    max_bytes: int = 4096


@dataclass
class Outcome:
    """What became of a target: how often it ran, and where the input that broke it is kept."""

    target: str
    executions: int = 0
    seconds: float = 0.0
    finding: Path | None = None
    words: str = ""
    detail: str = ""


def load(name: str) -> Target:
    """The target of that name."""
    found: Target = importlib.import_module(TARGETS[name]).TARGETS[name]
    return found


def has_atheris() -> bool:
    """Whether atheris can be imported by this interpreter."""
    return importlib.util.find_spec("atheris") is not None


def check(target: Target, data: bytes) -> str:
    """Run ``target`` once; the traceback where it broke, else nothing."""
    try:
        target.check(data)
    except Exception:
        return traceback.format_exc()
    return ""


def keep(target: Target, data: bytes, words: str, directory: Path, outcome: Outcome) -> None:
    """Shorten and save an input that broke ``target``."""
    data = shrink(target, data, SHRINK_S)
    directory.mkdir(parents=True, exist_ok=True)
    outcome.finding = directory / f"{target.name}-{hashlib.sha1(data).hexdigest()[:16]}"
    outcome.finding.write_bytes(data)
    outcome.detail = check(target, data) or words
    outcome.words = outcome.detail.strip().splitlines()[-1]


def shrink(target: Target, data: bytes, seconds: float) -> bytes:
    """Leave out what the finding does not need: runs of bytes, ever shorter ones."""
    end = time.monotonic() + seconds
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + size :]
            if check(target, shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


# The plain mutator


def mutate(rng: random.Random, data: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], limit: int) -> bytes:
    """One input made of another: a few small changes, pieces of the pool's, tokens."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(made) + 1)
        kind = rng.randrange(9)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif kind == 1 and made:
            made[at % len(made)] = rng.choice((0, 1, 0x7D, 0x7E, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
        elif kind == 2:
            made[at:at] = rng.randbytes(rng.choice((1, 1, 2, 4, 16)))
        elif kind == 3:
            del made[at : at + rng.choice((1, 1, 2, 4, 16, 64))]
        elif kind == 4:
            made[at:at] = made[at : at + rng.choice((1, 4, 16, 64, 256))] * rng.choice((1, 1, 2, 8))
        elif kind == 5 and tokens:
            made[at:at] = rng.choice(tokens)
        elif kind == 6 and tokens:
            token = rng.choice(tokens)
            made[at : at + len(token)] = token
        elif kind == 7:
            other = rng.choice(pool)
            begin = rng.randrange(len(other) + 1)
            made[at:at] = other[begin : begin + rng.choice((4, 16, 64, 256))]
        elif kind == 8:
            del made[at:]
            made += rng.choice(pool)[at:]
    return bytes(made[:limit])


def run_plain(
    target: Target, directory: Path, *, seconds: float = 60.0, runs: int | None = None, seed: int | None = None
) -> Outcome:
    """Mutate seeds for ``seconds``, or ``runs`` times where that comes first; stop at the first finding."""
    rng = random.Random(seed)
    outcome = Outcome(target.name)
    pool = list(target.seeds)
    begin = time.monotonic()
    while (runs is None or outcome.executions < runs) and time.monotonic() - begin < seconds:
        at = outcome.executions
        data = pool[at] if at < len(pool) else mutate(rng, rng.choice(pool), pool, target.tokens, target.max_bytes)
        before = time.monotonic()
        words = check(target, data)
        outcome.executions += 1
        if not words and time.monotonic() - before > HANG_S:
            words = f"it took {time.monotonic() - before:.0f} s"
        if words:
            keep(target, data, words, directory, outcome)
            break
    outcome.seconds = time.monotonic() - begin
    return outcome


# atheris


def run_atheris(
    target: Target, findings: Path, corpus: Path, *, seconds: float = 60.0, seed: int | None = None
) -> Outcome:
    """Let atheris have ``target`` for ``seconds``; what reaches new code stays in ``corpus`` for the next time."""
    outcome = Outcome(target.name)
    for directory in (findings, corpus):
        directory.mkdir(parents=True, exist_ok=True)
    for data in target.seeds:
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    tokens = corpus.parent / f"{target.name}.dict"
    quoted = ("".join(rf"\x{byte:02x}" for byte in token) for token in target.tokens)
    tokens.write_text("".join(f'"{token}"\n' for token in quoted))
    crash = findings / f"{target.name}-raw-"
    command = [sys.executable, "-m", "tools.toolkit.fuzzing", target.name]
    command += [
        f"-max_total_time={max(1, round(seconds))}",
        f"-artifact_prefix={crash}",
        f"-max_len={target.max_bytes}",
    ]
    command += [f"-timeout={HANG_S}", "-rss_limit_mb=2048", "-print_final_stats=1", f"-dict={tokens}", str(corpus)]
    if seed is not None:
        command.insert(-1, f"-seed={seed}")
    begin = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    outcome.seconds = time.monotonic() - begin
    said = (done.stdout + done.stderr).decode(errors="replace")
    counts = re.findall(r"number_of_executed_units:\s*(\d+)", said) or re.findall(r"^#(\d+)\t", said, re.MULTILINE)
    outcome.executions = int(counts[-1]) if counts else 0
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
    if covered:
        outcome.detail = "edges {}, features {}, inputs kept {}".format(*covered[-1])
    raw = sorted(findings.glob(f"{crash.name}*"))
    for path in raw:
        data = path.read_bytes()
        path.unlink()
        keep(target, data, said[-4000:], findings, outcome)
    if done.returncode and not raw:
        outcome.words = f"atheris ended with status {done.returncode}"
        outcome.detail = said[-4000:]
    return outcome


def _main(name: str, flags: list[str]) -> None:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    atheris.Setup([name, *flags], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    os.chdir(ROOT)
    _main(sys.argv[1], sys.argv[2:])

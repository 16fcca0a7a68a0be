"""``tools/chaos``: a short form of every case, and that each one finds the fault planted for it.

They wait more than they work, so several run at once.
"""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tools.toolkit import chaos, chaos_mute, chaos_peers
from tools.toolkit.chaos_rig import Cannot, Rig

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]

AT_ONCE = 3 * (os.cpu_count() or 1)
# Rounds, and seconds of load in each, that come to a second or two; the clock's heartbeat is a part of its seconds, and
# has to bear what the others take of the machine.
SHORT = {
    "shutdown": (1, 0.4),
    "kill9": (4, 0.4),
    "killstep": (2, 0.3),
    "powercut": (1, 0.4),
    "eio": (1, 0.3),
    "full": (1, 0.2),
    "enospc": (1, 0.4),
    "bitflip": (1, 0.3),
    "truncate": (1, 0.3),
    "gone": (1, 0.6),
    "proxy": (2, 0.4),
    "acl": (1, 0.2),
    "drain": (1, 1.0),
    "http": (4, 0.3),
    "clock": (2, 4.0),
    "storm": (1, 0.3),
    "slowloris": (1, 0.3),
    "mute": (1, 0.2),
    "sigstop": (3, 0.8),
}
CONTROLS = [
    (name, control)
    for name in SHORT
    for control, planted in chaos.load(name).controls.items()
    if not planted.slow and name != "sigstop"
]
Key = tuple[str, str]


def work(key: Key) -> chaos.Outcome:
    """Run a case in its short form, with a fault planted where the key names one."""
    name, control = key
    case, (rounds, seconds) = chaos.load(name), SHORT[name]
    if not control:
        return asyncio.run(chaos.run(case, rounds=rounds, seconds=seconds, seed=1))
    run = chaos.run(case, seconds=seconds, control=case.controls[control], seed=1, patience=2)
    return asyncio.run(run)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[Key, Future[chaos.Outcome]]]:
    """What the chosen tests want to know, under way."""
    items: list[Any] = [item for item in request.session.items if "runs" in getattr(item, "fixturenames", ())]
    wanted = [item.callspec.params["key"] for item in items]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(AT_ONCE) as pool:
        patch.setattr(chaos_peers, "DEVICES", 300)
        patch.setattr(chaos_mute, "MUTE", 300)
        patch.setattr(chaos_mute, "FILES", 1024)
        yield {key: pool.submit(work, key) for key in wanted}


def result(outcome: chaos.Outcome) -> chaos.Outcome:
    """The outcome of a case that was run."""
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    return outcome


def kept(outcome: chaos.Outcome) -> None:
    """Nothing is wrong, and something was looked at."""
    assert outcome.faults == [], outcome.log
    assert outcome.acked


def found(key: Key, outcome: chaos.Outcome) -> None:
    """What was planted was found."""
    assert chaos.load(key[0]).controls[key[1]].found_in(outcome.faults), (outcome.faults, outcome.log)


@pytest.mark.parametrize("key", [(name, "") for name in SHORT if name != "sigstop"], ids=lambda key: key[0])
def test_promises_are_kept(key: Key, runs: dict[Key, Future[chaos.Outcome]]) -> None:
    """Under the harm of each case nothing acked is lost, nothing is wrong, and nothing claims more than is true."""
    kept(result(runs[key].result()))


@pytest.mark.parametrize("key", CONTROLS, ids="-".join)
def test_a_planted_fault_is_found(key: Key, runs: dict[Key, Future[chaos.Outcome]]) -> None:
    """The same case of a daemon with a fault of its own finds it; if so many at once leave it no chance, alone."""
    outcome = result(runs[key].result())
    if not chaos.load(key[0]).controls[key[1]].found_in(outcome.faults):
        outcome = work(key)
    found(key, outcome)


def test_acks_do_not_wait_for_a_sink_that_stands_still() -> None:
    """A broker that answers nothing moves the acks of devices by 10 ms or 10 % at most; alone, since it is measured."""
    for _ in range(3):  # what others do on this machine is measured too: what is the gateway's own doing comes again
        outcome = result(work(("sigstop", "")))
        if not outcome.faults:
            break
    kept(outcome)
    found(("sigstop", "waits"), result(work(("sigstop", "waits"))))


def test_every_case_has_a_short_form_and_a_control() -> None:
    """None is left out here."""
    assert set(SHORT) == set(chaos.CASES)
    assert all(chaos.load(name).controls for name in chaos.CASES)


# The command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``main`` of tools/chaos in this process, with two cases: one that finds something, one that cannot be run."""
    loader = importlib.machinery.SourceFileLoader("tools_chaos", str(ROOT / "tools" / "chaos"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_loader("tools_chaos", loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)

    async def lossy(rig: Rig) -> None:
        rig.notes.append(f"{rig.rounds} rounds")
        rig.fault("pump-1 7: acked and not in history")

    async def idle(rig: Rig) -> None:
        raise Cannot("mounting needs root")

    control = {"silent": chaos.Control("", "acked and not in history"), "unseen": chaos.Control("", "twice")}
    cases = {
        "lossy": chaos.Case("lossy", "loses things", lossy, control, rounds=3),
        "idle": chaos.Case("idle", "does nothing", idle, {}),
    }
    monkeypatch.setattr(chaos, "CASES", dict.fromkeys(cases, ""))
    monkeypatch.setattr(chaos, "load", cases.__getitem__)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["tools/chaos", *arguments])
        status: int = script.main()
        return status

    return run


def test_a_broken_promise_is_exit_status_1(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is said as it is found; a table ends it, in which a case that could not be run says why."""
    assert command() == 1
    said = capsys.readouterr()
    assert "pump-1 7: acked and not in history" in said.err
    heading, lossy, idle = (line.split() for line in said.out.splitlines())
    assert heading == ["case", "rounds", "sent", "acked", "stored", "delivered", "lost", "time", "verdict"]
    assert lossy == ["lossy", "3", "0", "0", "0", "0", "0", "0", "s", "FAILED", "3", "rounds"]
    assert idle[-5:] == ["s", "skipped", "mounting", "needs", "root"]
    assert command("idle") == 0
    assert command("lossy", "--rounds", "7") == 1
    assert "7 rounds" in capsys.readouterr().out


def test_a_control_that_is_not_found_is_exit_status_1(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``--control`` each planted fault has to be found, and that alone counts."""
    assert command("lossy", "--control") == 1
    said = capsys.readouterr().err
    assert "lossy silent: FAILED" in said
    assert said.count("the control was not found") == 1
    assert "nothing says 'twice'" in said


def test_the_list_and_an_unknown_case(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """``--list`` says what each case does; a case that there is not is exit status 2."""
    assert command("--list") == 0
    assert capsys.readouterr().out.splitlines()[0] == "lossy      loses things (controls: silent, unseen)"
    with pytest.raises(SystemExit) as end:
        command("nothing")
    assert end.value.code == 2
    assert "there are lossy, idle" in capsys.readouterr().err

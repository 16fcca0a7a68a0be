"""``tools/chaos``: a short form of every case, and that each one finds the fault planted for it.

They wait more than they work, so several run at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tools.toolkit import chaos, chaos_peers

AT_ONCE = 3 * (os.cpu_count() or 1)
# Rounds, and seconds of load in each, that come to a second or two.
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
    "clock": (2, 1.0),
    "storm": (1, 0.3),
    "slowloris": (1, 0.3),
    "sigstop": (3, 0.5),
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
    """The same case of a daemon with a fault of its own finds it."""
    found(key, result(runs[key].result()))


def test_acks_do_not_wait_for_a_sink_that_stands_still() -> None:
    """A broker that answers nothing moves the acks of devices by 10 ms or 10 % at most; alone, since it is measured."""
    kept(result(work(("sigstop", ""))))
    found(("sigstop", "waits"), result(work(("sigstop", "waits"))))


def test_every_case_has_a_short_form_and_a_control() -> None:
    """None is left out here."""
    assert set(SHORT) == set(chaos.CASES)
    assert all(chaos.load(name).controls for name in chaos.CASES)

"""Each check is needed: without it every case that names it fails."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from tests.hostile import doors
from tests.hostile.checks import CHECKS
from tests.hostile.corpus import cases
from tests.hostile.doors import knock
from tests.hostile.test_corpus import LIMITS, SOON, newest
from tests.running import Running, gateway

MANY = 4  # of a check and door are enough: the others are of the same kind


def test_every_check_is_named_by_a_case() -> None:
    """No case names a check that there is not, and each has one at least."""
    assert {case.check for case in cases()} - {""} == set(CHECKS)


@pytest.mark.parametrize("check", CHECKS)
async def test_cases_fail_without_their_check(check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else comes back, or is stored, for every case that names it."""
    monkeypatch.setattr(doors.Patience, "seconds", 0.2)
    chosen = [case for case in cases() if case.check == check]
    some = [case for _, group in groupby(chosen, lambda case: case.source) for case in list(group)[:MANY]]
    CHECKS[check](monkeypatch)

    async def kept(gw: Running) -> bool:
        try:
            outcome = await knock(gw, case.door, case.sent)
            if outcome != case.expected:
                return False
            return case.stored is None or await newest(gw, gw.victim) == case.stored  # type: ignore[attr-defined]
        except (AssertionError, OSError, EOFError, ValueError):
            return False

    async with gateway(tmp_path / "all", limits=LIMITS, **SOON) as gw:
        for number, case in enumerate(some):
            if case.limits is None:
                assert not await kept(gw), str(case)
            else:
                async with gateway(tmp_path / f"{number}", limits=LIMITS | case.limits, **SOON) as own:
                    assert not await kept(own), str(case)

"""A far side that is tried: whatever its sink does, there is a finding, in time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.doctor import far
from gateway.doctor.finding import Finding
from gateway.reading import Batch


class Sink:
    """Raises where it is told to, and hangs where it is told to."""

    def __init__(self, *, fault: Exception | None = None, closing: Exception | None = None, hangs: str = "") -> None:
        self.fault = fault
        self.closing = closing
        self.hangs = hangs

    async def open(self) -> None:
        """Nothing."""

    async def ready(self) -> bool:
        """New."""
        return True

    async def write(self, batch: Batch) -> int:
        """Take it, or not."""
        if self.hangs == "write":
            await asyncio.sleep(60)
        if self.fault is not None:
            raise self.fault
        return batch.end

    async def close(self) -> None:
        """End, or not."""
        if self.hangs == "close":
            await asyncio.sleep(60)
        if self.closing is not None:
            raise self.closing


async def tried(sink: Sink) -> Finding:
    async with asyncio.timeout(20):
        return await far._try("broker", sink, {}, "takes it")  # type: ignore[arg-type]


@pytest.mark.parametrize("sink", [Sink(), Sink(hangs="close"), Sink(closing=ConnectionResetError(104, "reset"))])
async def test_what_was_taken_is_fine_however_the_end_goes(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A goodbye that is not answered, or fails, is not waited for and is no fault."""
    monkeypatch.setattr(far, "CLOSE_S", 0.05)
    found = await tried(sink)
    assert (found.level, found.text.partition(" (")[0]) == ("ok", "takes it")


@pytest.mark.parametrize(
    ("sink", "text"),
    [
        (Sink(fault=PermissionError(13, "Permission denied", "ca.pem")), "Permission denied"),
        (Sink(fault=OSError("no route"), hangs="close"), "no route"),
        (Sink(hangs="write"), "no answer within 0.05 s"),
    ],
)
async def test_whatever_it_raises_is_a_finding(sink: Sink, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is no error of the gateway's own."""
    monkeypatch.setattr(far, "ANSWER_S", 0.05)
    monkeypatch.setattr(far, "CLOSE_S", 0.05)
    found = await tried(sink)
    assert found.level == "error"
    assert text in found.text
    assert found.hint

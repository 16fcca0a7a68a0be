"""What an ack is worth: the daemon dies under load, and nothing that it acked is missing or stands twice.

SIGKILL leaves the kernel's buffers alone and cannot show a missing fsync; the order of system calls can.  Each check is
shown to fail with a daemon that does it wrong.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.integration.crashing import Device, Killing, launcher
from tests.integration.syscalls import acks_before_sync
from tests.servers import Mosquitto
from tools.toolkit.proc import tree
from tools.toolkit.servers import Daemon

ROUNDS = 10
FROZEN_ROUNDS = (3, 7)  # the broker answers nothing: what was journaled waits for the next start

EARLY_ACK = """
import asyncio
from gateway.journal import Journal
append = Journal.append
def early(self, item, waiter=None, token=0):
    offset = append(self, item, waiter, token)
    if waiter is not None:
        asyncio.get_running_loop().call_soon(waiter.committed, token)
    return offset
Journal.append = early
"""

EARLY_CURSOR = """
from gateway.journal import journal, cursor
journal.PERSIST_S = 0.02
read = cursor.Cursor.read
async def early(self, offset, **options):
    batch = await read(self, offset, **options)
    if self.name == "mqtt":
        self.confirm(batch.end)
    return batch
cursor.Cursor.read = early
"""

# The history goes to disk every few commits, so that kills fall into that too.
FLUSHING = """
from gateway.history import History
History.__init__.__kwdefaults__["flush_s"] = 0.06
"""

HISTORY_FORGETS = (
    FLUSHING
    + """
open_ = History.open
async def forget(self, *arguments):
    await open_(self, *arguments)
    self.position = self.end = 0
History.open = forget
"""
)


@pytest.mark.parametrize("patch", ["", FLUSHING], ids=["as it is", "history flushing"])
async def test_nothing_acked_is_lost_or_doubled_by_ten_kills(tmp_path: Path, mosquitto: Mosquitto, patch: str) -> None:
    """After ten SIGKILLs under load each acked reading is in history exactly once, and was relayed to MQTT."""
    async with Killing(tmp_path, mosquitto, patch=patch) as killing:
        for number in range(ROUNDS):
            await killing.round((0.1, 0.5), broker_frozen=number in FROZEN_ROUNDS)
        assert min(device.acked for device in killing.devices) > 200
        assert await killing.settle() == []


async def test_an_early_ack_is_found_out_by_a_kill(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """With a daemon that acks what it has only in memory, acked readings are missing after a kill."""
    async with Killing(tmp_path, mosquitto, patch=EARLY_ACK, GATEWAY_JOURNAL__COMMIT_MS="2000") as killing:
        await killing.round((0.5, 0.5))
        faults = await killing.settle()
    assert any("not in history" in fault for fault in faults)


async def test_an_early_cursor_is_found_out_by_a_kill(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """With a daemon that moves its cursor before the broker confirmed, readings are missing on MQTT after a kill."""
    async with Killing(tmp_path, mosquitto, patch=EARLY_CURSOR) as killing:
        await killing.round((1.0, 1.0), broker_frozen=True)
        faults = await killing.settle()
    assert any("missing on MQTT" in fault for fault in faults)
    assert not any("not in history" in fault for fault in faults)


async def test_a_history_that_forgets_its_place_is_found_out(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """With a history that takes the journal from the beginning again after a start, readings stand twice in it."""
    async with Killing(tmp_path, mosquitto, patch=HISTORY_FORGETS) as killing:
        await killing.round((0.5, 0.5))
        faults = await killing.settle()
    assert any("2 times in history" in fault for fault in faults)
    assert not any("not in history" in fault for fault in faults)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("patch", ["", EARLY_ACK], ids=["as it is", "acking early"])
async def test_an_ack_is_written_after_the_sync_of_its_record(tmp_path: Path, patch: str) -> None:
    """Every write of an ack to a device's socket begins after an fdatasync of the file with its record has ended."""
    trace = tmp_path / "trace"
    calls = "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync"
    prefix = ["strace", "-f", "-y", "-qq", "-s", "1000000", "-e", calls, "-e", "signal=none", "-o", str(trace)]
    daemon = Daemon(tmp_path, {}, prefix=prefix, launcher=launcher(patch) if patch else None)
    devices = [Device(f"pump-{n}") for n in range(2)]
    await asyncio.to_thread(daemon.start)
    try:
        await asyncio.wait_for(asyncio.gather(*(device.run(daemon.port, 0.005, until=60) for device in devices)), 20)
    finally:
        os.kill(tree(daemon.pid)[1], signal.SIGTERM)
        await asyncio.to_thread(daemon.process.wait, 15)  # type: ignore[union-attr]
    assert all(device.acked >= 60 for device in devices)
    checked, faults = acks_before_sync(trace.read_text(errors="replace"), [device.name for device in devices])
    assert checked >= 10
    if patch:
        assert faults
    else:
        assert faults == []

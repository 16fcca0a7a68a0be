"""What an ack is worth before any crash: SIGKILL leaves the kernel's buffers alone and cannot show a missing fsync, the
order of system calls can.  Crashes themselves are cases of ``tools/chaos`` (tests/tools/test_chaos.py)."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tests.integration.syscalls import acks_before_sync
from tools.toolkit.chaos_device import Fleet, until
from tools.toolkit.chaos_faults import ACK_BEFORE_SYNC
from tools.toolkit.chaos_rig import Rig

ACKS = 60  # of each device


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("patch", ["", ACK_BEFORE_SYNC], ids=["as it is", "acking early"])
async def test_an_ack_is_written_after_the_sync_of_its_record(tmp_path: Path, patch: str) -> None:
    """Every write of an ack to a device's socket begins after an fdatasync of the file with its record has ended.

    A daemon that acks early is found out.
    """
    trace = tmp_path / "trace"
    calls = "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync"
    prefix = ["strace", "-D", "-f", "-y", "-q", "-s", "1000000", "-e", calls, "-e", "signal=none", "-o", str(trace)]
    async with Rig(tmp_path, patch=patch) as rig:
        rig.fleet = Fleet(2)
        await rig.start(prefix=prefix)
        async with rig.load(400.0) as fleet:
            assert await until(lambda: min(device.acked for device in fleet.devices) >= ACKS, 20)
        await rig.terminate(15)
        # strace is not our child, and writes on for a moment.
        ended = re.compile(rf"^{rig.daemon.pid} +\+\+\+ exited with 0", re.MULTILINE).search
        assert await until(lambda: ended(trace.read_text(errors="replace")[-10_000:]), 10)
    text = await asyncio.to_thread(trace.read_text, errors="replace")
    checked, faults = acks_before_sync(text, [device.name for device in fleet.devices])
    assert checked >= 10
    assert bool(faults) == bool(patch), faults

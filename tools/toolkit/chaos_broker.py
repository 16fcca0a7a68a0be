"""Brokers that are cut off, that deny, that stand still, and that come back."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from pathlib import Path

from tests.servers import Mosquitto

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_device import until
from .chaos_proxy import Proxy
from .chaos_rig import Rig
from .proc import resident_bytes

__all__ = ["CASES"]

RATE = 500.0
MORE_MS, MORE = 10.0, 0.1  # how much later the 99th of 100 acks may come while a sink stands still
BACKLOG_PER_S, LIVE_PER_S, DRAINED_PER_S = 4000.0, 1000.0, 5000.0
RESIDENT_MB = 150


async def proxy(rig: Rig) -> None:
    """A proxy before the broker cuts in the middle of a PUBACK, delays, throttles, swallows and refuses."""
    broker = await rig.broker()
    async with Proxy(broker.port) as between:
        rig.settings["GATEWAY_MQTT__URL"] = f"mqtt://127.0.0.1:{between.port}"
        await rig.start(patch=faults.HASTY_RETRY)
        async with rig.load(RATE):
            for number in range(rig.rounds):
                between.heal()
                # Every second round a cut, each other harm in between.
                harm = ("cut", "delay", "cut", "throttle", "cut", "swallow", "cut", "refuse")[number % 8]
                if harm == "cut":
                    cuts = between.cuts
                    between.cut_after_pubacks = rig.rng.randrange(1, 60)
                    await until(lambda cuts=cuts: between.cuts > cuts, rig.patience)
                elif harm == "delay":
                    between.delay_s = 0.01
                elif harm == "throttle":
                    between.bytes_per_s = 20_000
                elif harm == "swallow":
                    between.swallows = True
                else:
                    between.refuses = True
                    between.reset()
                await asyncio.sleep(rig.seconds)
            between.heal()
        await rig.settle()
        rig.notes.append(f"{between.cuts} cuts, {between.connections} connections, {rig.fars[0].repeats} repeats")
        if between.cuts < rig.rounds // 2:
            rig.fault(f"only {between.cuts} cuts in {rig.rounds} rounds")


ACL = "topic read #\ntopic write gateway/status\ntopic write gateway/+/presence\n"


async def acl(rig: Rig) -> None:
    """The broker's access list denies telemetry: the sink stops with a hint and drops nothing; then it is allowed."""
    rules = rig.directory / "acl"
    rules.write_text(ACL)
    config = f"allow_anonymous true\nmax_queued_messages 1000000\nacl_file {rules}"
    broker = await rig.broker(config)
    await rig.start(patch=faults.HASTY_RETRY)
    for _ in range(rig.rounds):
        async with rig.load(RATE) as fleet:
            stopped = await rig.wait_sink("mqtt", lambda sink: sink["state"] == "stopped")
            await asyncio.sleep(rig.seconds)
            await fleet.quiet()
            if not await fleet.all_acked():
                rig.fault("not all was acked while the broker denied")
        if stopped is None:
            rig.fault("the sink did not stop")
        elif not stopped["hint"] or "refused" not in stopped["reason"]:
            rig.fault(f"the sink says {stopped['reason']!r}, and what to do: {stopped['hint']!r}")
        sink = await rig.sink("mqtt")
        held = fleet.acked - rig.fars[0].count
        if sink["pending"] < held or sink["dead_lettered"]:
            rig.fault(f"of {held} that were denied {sink['pending']} wait, {sink['dead_lettered']} are put aside")
        await _allow(broker, rules, ACL + "topic write gateway/+/telemetry\n")
        await rig.settle()
        await _allow(broker, rules, ACL)
        if rig.faults:
            return


async def _allow(broker: Mosquitto, rules: Path, text: str) -> None:
    """Change the access list, and have the broker read it."""
    rules.write_text(text)
    assert broker.process is not None
    broker.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(0.1)


async def sigstop(rig: Rig) -> None:
    """A broker that stands still moves the acks of devices by 10 ms or 10 % at the 99th percentile, at most."""
    broker = await rig.broker()
    await rig.start()
    pairs = []
    async with rig.load(RATE):
        await asyncio.sleep(0.5)
        for _ in range(rig.rounds):
            without = await _ack_p99(rig)
            broker.freeze()
            pairs.append((without, await _ack_p99(rig)))
            broker.thaw()
            await rig.wait_sink("mqtt", lambda sink: sink["pending"] < RATE)
    await rig.settle()
    without = statistics.median(pair[0] for pair in pairs)
    more = statistics.median(pair[1] - pair[0] for pair in pairs)
    rig.notes.append(f"ack p99 {without:.0f} ms, {more:+.0f} ms with a sink that stands still")
    if more > max(MORE_MS, MORE * without):
        rig.fault(f"acks came {more:.0f} ms later than {without:.0f} ms while the sink stood still")


async def _ack_p99(rig: Rig) -> float:
    """Of readings sent in the next seconds, in ms."""
    latencies: list[float] = []
    for device in rig.fleet.devices:
        device.latencies = latencies
    await asyncio.sleep(rig.seconds)
    for device in rig.fleet.devices:
        device.latencies = None
    return sorted(latencies)[int(len(latencies) * 0.99)] * 1000 if latencies else 0.0


async def drain(rig: Rig) -> None:
    """What a broker missed comes in order, at 5,000 a second or more, while 1,000 a second go on; within 150 MB."""
    broker = await rig.broker()
    await rig.start()
    far, fleet = rig.fars[0], rig.fleet
    rates, resident = [], 0
    for _ in range(rig.rounds):
        broker.freeze()
        async with rig.load(BACKLOG_PER_S):
            await asyncio.sleep(rig.seconds)
            await fleet.quiet()
            await fleet.all_acked()
        async with rig.load(LIVE_PER_S):
            await asyncio.sleep(0.3)
            had = far.count
            broker.thaw()
            await until(lambda had=had: far.count > had, 30.0)
            begin = time.monotonic()
            # What came within the last half second is not behind.
            while far.count < fleet.acked - LIVE_PER_S / 2 and time.monotonic() - begin < 60 + 4 * rig.seconds:
                resident = max(resident, await rig.ask(resident_bytes, rig.daemon.pid))
                await asyncio.sleep(0.02)
            rates.append((far.count - had) / (time.monotonic() - begin))
    await rig.settle()
    rate = statistics.median(rates)
    rig.notes.append(f"{rate:,.0f} readings/s, at most {resident / 1e6:.0f} MB resident")
    if rate < DRAINED_PER_S:
        rig.fault(f"the backlog came at {rate:,.0f} readings/s")
    if resident > RESIDENT_MB * 1e6:
        rig.fault(f"{resident / 1e6:.0f} MB resident")


CASES = {
    "proxy": Case(
        "proxy",
        "a proxy cuts in the middle of a PUBACK, delays, throttles, swallows, refuses",
        proxy,
        {"unheard": Control(faults.UNAVAILABLE_IS_TAKEN, "acked and missing on mqtt")},
        rounds=16,
        seconds=0.7,
    ),
    "acl": Case(
        "acl",
        "the broker denies telemetry by its access list, then allows it",
        acl,
        {"unheard": Control(faults.REFUSED_IS_TAKEN, "the sink did not stop")},
        rounds=2,
    ),
    "sigstop": Case(
        "sigstop",
        "the broker stands still: what becomes of the acks",
        sigstop,
        {"waits": Control(faults.INTAKE_WAITS_FOR_SINK, "while the sink stood still")},
        rounds=5,
        seconds=3.0,
    ),
    "drain": Case(
        "drain",
        "a backlog drains while readings go on",
        drain,
        {
            "reversed": Control(faults.BATCHES_REVERSED, " after "),
            "slow": Control(faults.SLOW_BATCHES, "the backlog came at"),
        },
        rounds=1,
        seconds=10.0,
    ),
}

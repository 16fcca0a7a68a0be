"""A time-series store that answers badly.

Whatever else it does, it never takes every 97th reading of a device: with others in one request it writes those and
answers 400, as InfluxDB does (a partial write).
"""

from __future__ import annotations

import asyncio
import time

from tests.sinks.store import FakeStore, Request, answer

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_check import Far
from .chaos_rig import Rig

__all__ = ["CASES"]

RATE = 500.0
POISON = 97
RETRY_AFTER_S = 2
LINES_MAX = 50  # of a request, while it answers 413
HARM = ("401", "413", "429", "500", "hang", "close", "204")


class Store:
    """Answers as ``harm`` says; what it took is in ``far``."""

    def __init__(self) -> None:
        self.far = Far("influx")
        self.harm = "204"
        self.asked_at = 0.0  # monotonic, of the last request that was told to come later
        self.too_early = 0.0  # seconds by which a request came before it should have

    def respond(self, request: Request) -> bytes | None:
        """The answer's bytes; None: never."""
        now = time.monotonic()
        if self.asked_at:
            self.too_early = max(self.too_early, self.asked_at + RETRY_AFTER_S - now)
            self.asked_at = 0.0
        if self.harm == "401":
            return answer(401, '{"code":"unauthorized","message":"unauthorized access"}')
        if self.harm == "413" and len(request.lines) > LINES_MAX:
            return answer(413, "too large")
        if self.harm == "429":
            self.asked_at = now
            return answer(429, "slow down", Retry_After=str(RETRY_AFTER_S))
        if self.harm == "500":
            return answer(500, "oh")
        if self.harm == "hang":
            return None
        refused = [line for line in request.lines if not self._take(line)]
        if self.harm == "close":
            return answer(204)[:12] + FakeStore.CUT
        if refused:
            return answer(400, f'{{"code":"invalid","message":"partial write: {len(refused)} points dropped"}}')
        return answer(204)

    def _take(self, line: str) -> bool:
        """One line, ``telemetry,device=pump-1 n=1,half=0.5,mark="pump-1-1." 1764000000000000000``."""
        head, fields, at = line.split(" ")
        values: dict[str, float | str] = {}
        for field in fields.split(","):
            name, _, value = field.partition("=")
            values[name] = value.strip('"') if value.startswith('"') else float(value)
        n = int(values["n"])
        if n % POISON == 0:
            return False
        self.far.take(head.partition("device=")[2], n, values, int(at) // 1_000_000)
        return True


async def http(rig: Rig) -> None:
    """The store refuses, is busy, hangs, closes, and never takes one reading in 97: those alone are put aside."""
    store = Store()
    server = await rig.stack.enter_async_context(FakeStore())
    server.respond = store.respond
    rig.fars.append(store.far)
    rig.settings |= {"GATEWAY_INFLUX__URL": server.url, "GATEWAY_INFLUX__TOKEN": "token", "GATEWAY_INFLUX__ORG": "org"}
    await rig.start(patch=faults.HASTY_RETRY + faults.HASTY_STORE)
    async with rig.load(RATE) as fleet:
        for number in range(rig.rounds):
            store.harm = HARM[number % len(HARM)]
            begun = time.monotonic()
            if store.harm == "401":
                stopped = await rig.wait_sink("influx", lambda sink: sink["state"] == "stopped")
                if stopped is None or "GATEWAY_INFLUX__TOKEN" not in stopped["hint"]:
                    rig.fault(f"401 does not stop the sink with a hint: {stopped}")
            if store.harm == "429":
                await rig.wait_sink("influx", lambda sink: "429" in sink["reason"])
                store.harm = "204"
            await asyncio.sleep(max(0.0, rig.seconds - (time.monotonic() - begun)))
        store.harm = "204"
        await fleet.quiet()
        await fleet.all_acked()
        poison = {(device.name, n) for device in fleet.devices for n in range(POISON, device.sent + 1, POISON)}
    rig.excused["influx"] = poison
    await rig.settle()
    sink = await rig.wait_sink("influx", lambda sink: sink["pending"] == 0)
    if sink is None or sink["dead_lettered"] != len(poison):
        rig.fault(f"{len(poison)} readings are never taken, put aside were {sink and sink['dead_lettered']}")
    if store.too_early > 0.05:
        rig.fault(f"a request came {store.too_early:.1f} s before Retry-After was over")
    rig.notes.append(f"{len(server.requests)} requests, {len(poison)} put aside, {store.far.repeats} repeats")


CASES = {
    "http": Case(
        "http",
        "the store answers 204, 400 with a partial write, 401, 413, 429, 500, hangs, closes in the middle",
        http,
        {
            "unheard": Control(faults.STORE_ERRORS_UNHEARD, "acked and missing on influx"),
            "impatient": Control(faults.RETRY_AFTER_UNHEARD, "before Retry-After was over", rounds=3),
        },
        rounds=7,
        seconds=2.5,
    ),
}

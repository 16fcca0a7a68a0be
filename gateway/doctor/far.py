"""The far sides: one real reading of a device ``gateway-doctor`` to each, with all that the gateway's own need.

By the sinks themselves, so that what they would say is what is found; what is retained is cleared again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .. import remotes
from ..errors import GatewayError
from ..reading import Batch, Reading
from ..sinks.base import Rejected
from .finding import Finding, error, fine

if TYPE_CHECKING:
    from ..config import Settings
    from ..sinks.base import Key, Sink

__all__ = ["DEVICE", "far_sides"]

DEVICE = "gateway-doctor"
ANSWER_S = 20.0  # for each
CLOSE_S = 5.0  # for its goodbye


async def far_sides(settings: Settings, *, running: bool) -> AsyncIterator[Finding]:
    """The broker and the store, where there are any; ``running``: the gateway itself is connected to them."""
    if settings.mqtt.url:
        states: dict[Key, bytes | None] = {("presence", DEVICE): None}
        if not running:  # else it would speak against the gateway
            states["topic", f"{settings.mqtt.prefix}/status"] = b"offline"
        topics = f"{settings.mqtt.prefix}/{DEVICE}/telemetry and /presence"
        try:
            sink = remotes.mqtt(settings, guest=True)
        except (OSError, ValueError) as fault:
            yield error("broker", str(fault), "see GATEWAY_MQTT__URL and GATEWAY_MQTT__CA")
        else:
            assert sink is not None
            yield await _try("broker", sink, states, f"takes what is published to {topics}")
    if settings.influx.url:
        try:
            sink = remotes.influx(settings)
        except ImportError:
            return  # said with the versions
        assert sink is not None
        yield await _try("influx", sink, {}, f"takes what is written to {settings.influx.bucket}")


async def _try(part: str, sink: Sink, states: dict[Key, bytes | None], taken: str) -> Finding:
    now = time.time_ns()
    reading = Reading(device=DEVICE, session="", seq=0, time=now, received=now, values={"ok": True})
    begin = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_S):
            await sink.open()
            await sink.ready()
            await sink.write(Batch(0, [reading], 1))
            if states:
                await sink.state(states)
    except Rejected as fault:
        return error(part, "; ".join(fault.reasons.values()), "its log has the details")
    except GatewayError as fault:
        return error(part, str(fault), fault.hint or "is it up, and is the address right?")
    except TimeoutError:
        return error(part, f"no answer within {ANSWER_S:g} s", "is it up, and is the address right?")
    except OSError as fault:
        return error(part, str(fault), "is it up, and is the address right?")
    finally:
        with contextlib.suppress(OSError, GatewayError):  # a TimeoutError is one
            async with asyncio.timeout(CLOSE_S):
                await sink.close()
    return fine(part, f"{taken} ({(time.monotonic() - begin) * 1000:,.0f} ms)")

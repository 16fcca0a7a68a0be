"""Whether the primary host application is there, by the STATE it retains (Sparkplug 3.0.0, 4.7 and 5.4).  Pure."""

from __future__ import annotations

import msgspec

from gateway.sinks.sparkplug_node import NAMESPACE

__all__ = ["PrimaryHost"]


class _State(msgspec.Struct):
    online: bool
    timestamp: int


class PrimaryHost:
    """``online`` follows what is heard on ``topic``; a word older than the one before is not heeded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.topic = f"{NAMESPACE}/STATE/{name}"
        self.online = False
        self._since = -1

    def heard(self, payload: bytes) -> bool:
        """Whether ``online`` is another now; raises ``ValueError``: it is no STATE."""
        try:
            state = msgspec.json.decode(payload, type=_State)
        except msgspec.MsgspecError:
            raise ValueError("not a STATE of Sparkplug 3.0") from None
        if state.timestamp < self._since:
            return False
        self._since = state.timestamp
        before, self.online = self.online, state.online
        return before != state.online

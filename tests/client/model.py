"""A gateway as PROTOCOL section 3 describes it, for one device: small enough to be seen right.

Pure.  It judges the client: the outbox's state machine runs against it, and the fake gateway speaks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GIVE_UP_S = 10.0


@dataclass
class Session:
    id: str
    highest: int = 0
    durable: int = 0
    held: int = 0
    held_at: float = 0.0  # when the held number was last sent


@dataclass
class GatewayModel:
    """``hold(n)`` makes it refuse to keep the next n fresh readings; a metric named ``bad`` is refused for good."""

    device: str = "pump-1"
    rate: dict[str, float] | None = None
    max_message_bytes: int = 65_536
    store: list[dict[str, Any]] = field(default_factory=list)  # readings, durable, in order
    pending: list[dict[str, Any]] = field(default_factory=list)  # readings, taken and not yet durable
    refused: set[int] = field(default_factory=set)
    session: Session | None = None
    duplicates: int = 0
    dropped: int = 0
    holding: int = 0
    hold_code: str = "throttled"
    retry_after_ms: int = 250
    repeat_notice: bool = False  # say it again for each reading behind a held one
    unnumbered: int = 0

    def hold(self, count: int, code: str = "throttled", retry_after_ms: int = 250) -> None:
        self.holding = count
        self.hold_code = code
        self.retry_after_ms = retry_after_ms

    def connect(self, session: str, time_ms: int = 0) -> dict[str, Any]:
        resumed = self.session is not None and self.session.id == session
        if not resumed:
            self.session = Session(session)
        assert self.session is not None
        welcome: dict[str, Any] = {
            "type": "welcome",
            "device": self.device,
            "session": session,
            "resumed": resumed,
            "last_seq": self.session.durable,
            "heartbeat_s": 20,
            "max_message_bytes": self.max_message_bytes,
            "time": time_ms,
        }
        if self.rate is not None:
            welcome["rate"] = self.rate
        return welcome

    def receive(self, message: Any, now: float) -> list[dict[str, Any]]:
        """The replies to one decoded message of readings."""
        replies: list[dict[str, Any]] = []
        for index, reading in enumerate(message if isinstance(message, list) else [message]):
            reply = self._reading(reading, now)
            if reply is not None:
                if isinstance(message, list) and reply["type"] == "error":
                    reply["index"] = index
                replies.append(reply)
        return replies

    def _reading(self, reading: dict[str, Any], now: float) -> dict[str, Any] | None:
        session = self.session
        assert session is not None
        seq = reading.get("seq", 0)
        if not seq:
            self.unnumbered += 1
            self.pending.append(reading)
            return None
        if seq <= session.highest:
            self.duplicates += 1
            return {"type": "ack", "seq": session.durable} if session.durable else None
        if seq == session.held:
            session.held_at = now
        if session.held and seq > session.held:
            if now - session.held_at < GIVE_UP_S:
                self.dropped += 1
                return self._notice(session.held) if self.repeat_notice else None
            session.held = 0
        if self.holding:
            self.holding -= 1
            session.held = seq
            session.held_at = now
            return self._notice(seq)
        session.highest = seq
        session.held = 0
        if "bad" in reading["values"]:
            self.refused.add(seq)
            return {"type": "error", "code": "bad_value", "detail": "values.bad: no", "seq": seq}
        self.pending.append(reading)
        return None

    def _notice(self, seq: int) -> dict[str, Any]:
        notice: dict[str, Any] = {"type": "throttled", "seq": seq, "dropped": 1}
        if self.hold_code == "overloaded":
            notice = {"type": "error", "code": "overloaded", "detail": "disk full", "seq": seq}
        return notice | {"retry_after_ms": self.retry_after_ms}

    def commit(self) -> list[dict[str, Any]]:
        """The group commit, and its ack."""
        self.store += [reading for reading in self.pending if reading["values"]]
        self.pending.clear()
        session = self.session
        if session is None or session.highest == session.durable:
            return []
        session.durable = session.highest
        return [{"type": "ack", "seq": session.durable}]

    def crash(self) -> None:
        """What was not durable is gone."""
        self.pending.clear()
        if self.session is not None:
            self.session = Session(self.session.id, self.session.durable, self.session.durable)

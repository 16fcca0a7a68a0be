"""What a server counts."""

from __future__ import annotations

__all__ = ["Counters"]

# What a refusal is called where whoever refused gave no reason.
REASONS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method",
    408: "request_timeout",
    413: "body",
    414: "target_size",
    426: "version",
    429: "too_many",
    431: "head_size",
    500: "internal_error",
    503: "unavailable",
    504: "answer_timeout",
}


class Counters:
    """Totals since the server's start; ``refused`` by HTTP status, ``reasons`` of these in words,
    ``closed`` by close code, ``lost`` by reason."""

    __slots__ = (
        "accepted",
        "bytes_in",
        "bytes_out",
        "close_timeouts",
        "closed",
        "handler_errors",
        "handshakes_cut",
        "handshakes_failed",
        "lost",
        "messages_in",
        "opened",
        "pages",
        "reasons",
        "refused",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.opened = 0
        self.pages = 0
        self.messages_in = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.close_timeouts = 0
        self.handler_errors = 0
        self.handshakes_cut = 0
        self.handshakes_failed = 0
        self.refused: dict[int, int] = {}
        self.reasons: dict[str, int] = {}
        self.closed: dict[int, int] = {}
        self.lost: dict[str, int] = {}

    def refuse(self, status: int, reason: str = "") -> None:
        """Count a request answered with ``status`` instead of what it asked for; the same for all of it by default."""
        self.refused[status] = self.refused.get(status, 0) + 1
        reason = reason or REASONS.get(status, "other")
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def close(self, code: int, lost: str) -> None:
        """Count the end of a connection."""
        self.closed[code] = self.closed.get(code, 0) + 1
        if lost:
            self.lost[lost] = self.lost.get(lost, 0) + 1

    def flat(self) -> dict[str, int | float]:
        """All of it under flat names: ``refused_404``, ``refusals_not_found``, ``closed_1000``, ``lost_reset``."""
        flat: dict[str, int | float] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("refused", "reasons", "closed", "lost")
        }
        flat.update({f"refused_{status}": count for status, count in self.refused.items()})
        flat.update({f"refusals_{reason}": count for reason, count in self.reasons.items()})
        flat.update({f"closed_{code}": count for code, count in self.closed.items()})
        flat.update({f"lost_{reason.replace(' ', '_')}": count for reason, count in self.lost.items()})
        return flat

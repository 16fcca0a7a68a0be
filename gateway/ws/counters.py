"""What a server counts."""

from __future__ import annotations

__all__ = ["Counters"]


class Counters:
    """Totals since the server's start; ``refused`` by HTTP status, ``closed`` by close code, ``lost`` by reason."""

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
        self.closed: dict[int, int] = {}
        self.lost: dict[str, int] = {}

    def refuse(self, status: int) -> None:
        """Count a request answered with ``status`` instead of what it asked for."""
        self.refused[status] = self.refused.get(status, 0) + 1

    def close(self, code: int, lost: str) -> None:
        """Count the end of a connection."""
        self.closed[code] = self.closed.get(code, 0) + 1
        if lost:
            self.lost[lost] = self.lost.get(lost, 0) + 1

    def flat(self) -> dict[str, int | float]:
        """All of it under flat names: ``refused_404``, ``closed_1000``, ``lost_ping_timeout``."""
        flat: dict[str, int | float] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("refused", "closed", "lost")
        }
        flat.update({f"refused_{status}": count for status, count in self.refused.items()})
        flat.update({f"closed_{code}": count for code, count in self.closed.items()})
        flat.update({f"lost_{reason.replace(' ', '_')}": count for reason, count in self.lost.items()})
        return flat

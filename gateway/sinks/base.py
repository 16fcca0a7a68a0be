"""The contract between the runner and a sink, and what each may raise.

A sink knows one far side and nothing of retries, back-off or cursors: it writes what it is given or says why
not.  The runner owns order, repetition and dead letters.

Concurrency: the runner never has two calls to one sink under way.  All are made on the event loop's thread; a
sink that blocks does so in a thread of its own and bounds it by a time-out.  A call may be cancelled; after
that the sink is only closed, or its ``ready`` is called again.

Delivery: ``write`` is given the same readings again after any exception, so a far side sees each at least
once, those of one device in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.reading import Batch

__all__ = ["Cursor", "Key", "Position", "Refused", "Rejected", "Sink", "Stopped", "Unavailable"]

Key = tuple[str, ...]
"""Names a piece of state, such as ``("presence", "pump-1")``."""


class Unavailable(GatewayError):
    """The far side is away or overloaded: the same again later, not before ``retry_after_s`` where it said so.

    ``reached``: it is there, and has turned us away for now.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, hint: str = "", reached: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        self.reached = reached


class Stopped(GatewayError):
    """The far side turns us away until somebody changes something; ``hint`` says what.  Nothing is dropped."""


class Rejected(GatewayError):
    """Some items of the batch will never be taken: ``reasons`` by index into ``batch.items``.

    ``rest_safe`` says that all others of the batch are safe on the far side; else they are written again.
    """

    def __init__(self, reasons: Mapping[int, str], *, rest_safe: bool = False) -> None:
        super().__init__("; ".join(f"item {index}: {reason}" for index, reason in list(reasons.items())[:3]))
        self.reasons = dict(reasons)
        self.rest_safe = rest_safe


class Refused(GatewayError):
    """The batch as a whole was turned away for what it holds, and the far side did not say which item it was.

    The runner halves it until a single reading is left.
    """


class Position(Protocol):
    """A place in the journal: ``readings`` were stored below ``offset``."""

    @property
    def offset(self) -> int: ...
    @property
    def readings(self) -> int: ...


class Cursor(Protocol):
    """A sink's place in the journal (gateway.journal.Cursor)."""

    @property
    def position(self) -> Position: ...
    @property
    def pending(self) -> int: ...
    @property
    def delivered(self) -> int: ...
    @property
    def began(self) -> int: ...
    @property
    def dead_lettered(self) -> int: ...
    @property
    def overflowed(self) -> int: ...
    @property
    def lost(self) -> int: ...
    def is_drained(self, offset: int) -> bool: ...
    async def read(self, offset: int, *, max_readings: int = 1000, max_delay: float = 0.25) -> Batch: ...
    def confirm(self, offset: int, *, dead_lettered: int = 0) -> None: ...


class Sink(Protocol):
    """One far side."""

    name: str
    refuses: bool
    """Whether ``write`` may ever raise ``Rejected`` or ``Refused``; where not, no dead letters are needed."""
    keeps_states: bool
    """Whether the far side keeps anything but readings; where not, ``state`` and ``tell`` are never called."""
    lost: Callable[[], None] | None
    """Set by the runner; called on the loop when a connection ends outside a call, so that ``ready`` comes soon."""

    async def open(self) -> None:
        """Get ready to work; a far side that is away is not an error here."""
        ...

    async def ready(self) -> bool:
        """Be connected, where there is something to connect; called before each write and after ``lost``.

        True: the connection is new, and all state has to be sent again.  Raises ``Unavailable``, ``Stopped``.
        """
        ...

    async def write(self, batch: Batch) -> int:
        """Hand over ``batch``; returns the offset below which everything is safe on the far side.

        That is ``batch.end``, less where the far side makes things safe later; then a batch without items comes
        now and then, to ask again.  Raises ``Unavailable``,
        ``Stopped``, ``Rejected``, ``Refused``.
        """
        ...

    async def state(self, changes: Mapping[Key, bytes | None]) -> None:
        """Make known the latest value of each key, in no particular order; ``None`` clears what was kept of
        it.

        Returns when all are safe.  Raises ``Unavailable``, ``Stopped``.
        """
        ...

    async def tell(self, events: Sequence[tuple[Key, bytes]]) -> None:
        """Make known each of these once, in order; returns when all are safe.  Raises ``Unavailable``, ``Stopped``."""
        ...

    async def close(self) -> None:
        """Part from the far side in good order, within seconds; never raises for a far side that is away."""
        ...

    def stats(self) -> dict[str, float]:
        """Numbers for the metrics, all of this process' life or of now."""
        ...

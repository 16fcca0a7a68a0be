"""Groups of like subscriptions, and the subscribers in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from .accumulator import Changes, Entry, Every
from .selection import Names, Selection, Subscription

__all__ = ["PENDING_MAX", "Frame", "Group", "Member", "Subscriber"]

PENDING_MAX = {"every": 512 * 1024, "latest": 128 * 1024}

Frame = TypeVar("Frame")
Frame_contra = TypeVar("Frame_contra", contravariant=True)


class Member(Protocol[Frame_contra]):
    """A dashboard's connection, as the hub sees it."""

    def send(self, frame: Frame_contra) -> None:
        """Send without waiting; a member that cannot take it is not told, but see :attr:`pending_bytes`."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that the peer has not taken yet, socket buffer included."""


class Subscriber(Generic[Frame]):
    """One subscription of one member.

    It is *current* while it gets what its group gets: then ``own`` and ``behind`` are None.
    """

    __slots__ = (
        "behind",
        "due",
        "end",
        "failed",
        "group",
        "held",
        "member",
        "own",
        "place",
        "queued",
        "recovered",
        "rest",
        "start",
        "told",
        "whole",
    )

    def __init__(self, member: Member[Frame], group: Group[Frame], start: int, told: int) -> None:
        self.member = member
        self.group = group
        self.start = start  # the offset behind which its updates begin
        self.told = told  # the change of presence up to which it was told
        self.own: Every | None = None
        self.behind: Changes | None = None
        self.rest: list[str] | None = None  # the devices; None: its snapshot is complete
        self.place = 0  # among them, to which the snapshot has come
        self.end = 0  # the place where it ends
        self.recovered = False
        self.whole = False  # updates begin at `start`, whatever later values the snapshot shows
        self.held = True  # no updates are sent until its history has been
        self.due = False  # it is to be sent what its group was sent
        self.failed = False  # so did an attempt
        self.queued = False

    @property
    def current(self) -> bool:
        """Whether its group's updates are its own."""
        return self.own is None and self.behind is None

    @property
    def slow(self) -> bool:
        """Whether its peer must read first; what is left of a snapshot waits sooner, so that it makes nobody slow."""
        mode = "latest" if self.rest is not None else self.group.subscription.mode
        return self.member.pending_bytes > PENDING_MAX[mode]

    def rejoin(self, offset: int, recent: Sequence[Entry], floor: int, covers: Callable[[int], bool]) -> None:
        """In ``latest``: what came up to ``offset`` is shown elsewhere as far as that ``covers`` its time.

        ``recent`` came behind its start; where that is not all (``floor``), newest values may be shown again.
        """
        if self.behind is None or floor > self.start + 1:
            return
        selection = self.group.selection
        self.behind = Changes(offset, self.group.passed)
        for at, reading in recent:
            if at <= offset and not covers(reading.time) and selection.device(reading.device):
                if not self.behind.known:
                    self.behind.sent_to, self.behind.whole = at - 1, False
                self.behind.known.setdefault(reading.device, at - 1)

    def shown(self, devices: list[str]) -> None:
        """The snapshot has shown these as they are now: updates of them begin here."""
        if self.own:
            self.own.forget(frozenset(devices))
        elif self.behind is not None and self.behind.known:
            for name in devices:
                self.behind.known.pop(name, None)


class Group(Generic[Frame]):
    """All subscribers of equal subscriptions; ``changes`` of ``latest``, ``shared`` of ``every``."""

    __slots__ = (
        "changes",
        "due",
        "every",
        "failed",
        "moved",
        "passed",
        "queued",
        "selection",
        "sending",
        "shared",
        "subscribers",
        "subscription",
        "told",
    )

    def __init__(self, subscription: Subscription, names: Names, offset: int, told: int) -> None:
        self.subscription = subscription
        self.every = subscription.mode == "every"
        self.selection = Selection(subscription, names)
        self.changes = Changes(offset, 0)
        self.shared = Every(self.selection, offset)
        self.passed = 0  # values published that it covers
        self.told = told
        self.subscribers: dict[Member[Frame], Subscriber[Frame]] = {}
        self.due = subscription.ticks
        self.sending = False
        self.failed = False  # so did an attempt to tell it of what was published, or to send it
        self.queued = False
        self.moved: Frame | None = None  # what those are told who were moved here from `every`

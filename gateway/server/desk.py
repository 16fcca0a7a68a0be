"""What the control socket's commands do: one method a command, named in :attr:`Desk.commands`.

Answers that grow with the number of devices or letters are streamed in pieces, so that neither the loop nor memory is
held by one that asks.  Reads every part; changes nothing but dead letters, by their sink's runner.

=================== ============================================ ==========================================
command             parameters                                   answer
=================== ============================================ ==========================================
``health``                                                       the body of ``/healthz``
``devices``         ``device`` (glob)                            items: lists of rows of ``/api/v1/devices``
``explain``         ``device``                                   see :mod:`.explain`
``dead-letters``    ``sink``                                     a list: sink, title, count, bytes, oldest..
``.. show``         ``sink``, ``offsets``, ``limit``             items: lists of letters
``.. retry``        ``sink``, ``offsets``                        a list: sink, delivered, left, reason
``.. purge``        ``sink``, ``offsets``                        a list: sink, purged
``tail``            ``device`` (glob)                            items: lists of journalled items, endless
``top``             ``limit``, ``interval_s``                    items: health, busiest devices, endless
=================== ============================================ ==========================================
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import chain, islice, pairwise
from operator import itemgetter
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from ..clock import ClockRules
from ..devices import Device, DeviceBook
from ..errors import GatewayError
from ..globs import matcher
from ..reading import ASSIGNED, FUTURE, OLD, Batch, Description, Item, Mark, Presence, Reading
from ..sinks.deadletters import DeadLetter
from .control import Command, Params
from .explain import SinkFacts, explain
from .refusals import Refusals
from .rows import device_row

__all__ = ["Desk", "SinkRunner"]

PIECE = 200  # rows or letters sent at once
SLICE = 1_000  # devices looked at in one step of the loop
LIKELY = 50  # names that an unknown one is compared with at length
LETTERS_MAX = 10_000  # shown at once
SCAN_ITEMS = 2_000  # of the journal, read at once
SCAN_S = 1.0  # for counting what waits; what was not counted by then is said so
TAIL_S = 0.1  # between two looks at the journal
TAIL_BEHIND = 20_000  # items; who lags more jumps ahead, and is told
FLAGS = {ASSIGNED: "assigned", OLD: "old", FUTURE: "future"}

T = TypeVar("T")
Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Offsets = Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=10_000)] | None


class SinkRunner(Protocol):
    """A sink's runner, as far as commands go."""

    @property
    def taken(self) -> int: ...

    def health(self) -> dict[str, Any]: ...

    def stats(self) -> dict[str, float]: ...

    async def dead_letter_summary(self) -> dict[str, Any]: ...

    async def dead_letters_list(
        self, limit: int | None = None, offsets: set[int] | None = None, device: str = ""
    ) -> Sequence[DeadLetter]: ...

    async def dead_letters_retry(self, offsets: set[int] | None) -> dict[str, Any]: ...

    async def dead_letters_purge(self, offsets: set[int] | None) -> int: ...


class Journal(Protocol):
    """The journal, as far as commands go."""

    @property
    def durable_offset(self) -> int: ...

    def next_held(self, offset: int) -> int: ...

    async def read_from(self, offset: int, max_readings: int = 1000) -> Batch | None: ...


class _Devices(msgspec.Struct, forbid_unknown_fields=True):
    device: Glob = "*"


class _Explain(msgspec.Struct, forbid_unknown_fields=True):
    device: str


class _Letters(msgspec.Struct, forbid_unknown_fields=True):
    sink: str | None = None
    offsets: Offsets = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LETTERS_MAX)] | None = None


class _Top(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 50
    interval_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 1.0


class Desk:
    """``runners`` are (name, title, runner); ``health`` gives the body of ``/healthz``, ``journal_problem`` words where
    the journal takes nothing; ``rate`` and ``burst`` are the limits of a device, readings a second and at once;
    ``clock_rules`` say what becomes of times far off."""

    def __init__(
        self,
        *,
        book: DeviceBook,
        journal: Journal,
        runners: Sequence[tuple[str, str, SinkRunner]],
        refused: Refusals,
        health: Callable[[], dict[str, object]],
        journal_problem: Callable[[], str],
        rate: float,
        burst: float,
        clock_rules: ClockRules,
        now: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._journal = journal
        self._runners = runners
        self._refused = refused
        self._health = health
        self._journal_problem = journal_problem
        self._rate = rate
        self._burst = burst
        self._clock_rules = clock_rules
        self._now = now
        self._monotonic = monotonic
        self.commands: dict[str, Command] = {
            "health": self.health,
            "devices": self.devices,
            "explain": self.explain,
            "dead-letters": self.dead_letters,
            "dead-letters show": self.show_letters,
            "dead-letters retry": self.retry_letters,
            "dead-letters purge": self.purge_letters,
            "tail": self.tail,
            "top": self.top,
        }

    def configure(self, *, rate: float, burst: float, clock_rules: ClockRules) -> None:
        """Other limits and rules from now on."""
        self._rate, self._burst, self._clock_rules = rate, burst, clock_rules

    async def health(self, params: Params) -> object:
        """The body of ``/healthz``."""
        return self._health()

    async def devices(self, params: Params) -> AsyncIterator[object]:
        """Rows of the devices whose names match, by name."""
        wanted = matcher(msgspec.convert(params, _Devices).device)
        names = []
        for some in _pieces(list(self._book), SLICE):
            names += [device.name for device in some if wanted(device.name)]
            await asyncio.sleep(0)
        names.sort()
        for piece in _pieces(names, PIECE):
            known = (self._book.get(name) for name in piece)
            yield [device_row(device) for device in known if device is not None]
            await asyncio.sleep(0)

    # -- one device --------------------------------------------------------------------------------------------------

    async def explain(self, params: Params) -> object:
        """All about one device; raises :class:`GatewayError` for one that is not known."""
        device = await self._device(msgspec.convert(params, _Explain).device)
        sinks = await self._sinks(device)
        return explain(
            device,
            now=self._now(),
            rate=self._rate,
            burst=self._burst,
            clock_rules=self._clock_rules,
            refused=self._refused.of(device.name),
            sinks=sinks,
            journal_problem=self._journal_problem(),
        )

    async def _device(self, name: str) -> Device:
        device = self._book.get(name)
        if device is not None:
            return device
        near = await self._near(name[:64])
        raise GatewayError(
            f"no device called {name[:64]!r} has ever connected here",
            hint=f"similar: {', '.join(near)}" if near else "`gateway devices` lists those that have",
        )

    async def _near(self, name: str) -> list[str]:
        """The names most like it, three at most, of those that share most pairs of letters with it."""
        wanted = _pairs(name)
        likely: list[tuple[int, str]] = []
        for some in _pieces(list(self._book), SLICE):
            counted = ((2 * len(wanted & _pairs(known.name)) - len(known.name), known.name) for known in some)
            likely = nlargest(LIKELY, chain(likely, counted))
            await asyncio.sleep(0)
        return difflib.get_close_matches(name, [known for _, known in likely], 3)

    async def _sinks(self, device: Device) -> list[SinkFacts]:
        put_aside = [await self._put_aside(runner, device.name) for _, _, runner in self._runners]
        taken = [runner.taken for _, _, runner in self._runners]
        waiting, counted = await self._waiting(device.name, taken)
        facts = []
        for at, (name, title, runner) in enumerate(self._runners):
            health, stats = runner.health(), runner.stats()
            facts.append(
                SinkFacts(
                    name=name,
                    title=title,
                    state=health["state"],
                    reason=health["reason"],
                    hint=health["hint"],
                    next_try_s=health["next_try_s"],
                    reached=bool(health.get("reached")),
                    waiting=waiting[at],
                    counted=counted,
                    behind=int(health["behind"]),
                    overflowed=int(stats.get("overflowed", 0)),
                    lost=int(stats.get("lost", 0)),
                    put_aside=put_aside[at],
                )
            )
        return facts

    async def _put_aside(self, runner: SinkRunner, device: str) -> dict[str, int]:
        """The reasons of the device's dead letters, the commonest first."""
        if not runner.health()["dead_letters"]:
            return {}
        letters = await runner.dead_letters_list(device=device)
        counts = Counter(letter.reason for letter in letters)
        return dict(counts.most_common())

    async def _waiting(self, device: str, taken: Sequence[int]) -> tuple[list[int], bool]:
        """How many durable readings of the device each sink has yet to take, and whether that is all of them.

        They are counted in the journal, since no count of each device and sink is kept.
        """
        counts = [0] * len(taken)
        end = self._journal.durable_offset
        offset = min(taken, default=end)
        deadline = self._monotonic() + SCAN_S
        while offset < end:
            batch = await self._journal.read_from(offset, SCAN_ITEMS)
            if batch is None:
                break
            for at, item in enumerate(batch.items, batch.base):
                if type(item) is Reading and item.device == device and at < end:
                    for sink, below in enumerate(taken):
                        counts[sink] += at >= below
            offset = batch.end
            if offset < end and self._monotonic() > deadline:
                return counts, False
            await asyncio.sleep(0)
        return counts, True

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def dead_letters(self, params: Params) -> object:
        """How many there are of each sink, and why."""
        wanted = msgspec.convert(params, _Letters)
        return [
            {"sink": name, "title": title, **await runner.dead_letter_summary()}
            for name, title, runner in self._chosen(wanted.sink)
        ]

    async def show_letters(self, params: Params) -> AsyncIterator[object]:
        """The letters, sink by sink, the oldest first."""
        wanted = msgspec.convert(params, _Letters)
        left = wanted.limit or LETTERS_MAX
        offsets = set(wanted.offsets) if wanted.offsets else None
        for name, _, runner in self._chosen(wanted.sink):
            letters = await runner.dead_letters_list(left, offsets)
            left -= len(letters)
            for piece in _pieces(letters, PIECE):
                yield [letter_row(name, letter) for letter in piece]
            if left <= 0:
                return

    async def retry_letters(self, params: Params) -> object:
        """Give them to their sinks again."""
        wanted = msgspec.convert(params, _Letters)
        offsets = set(wanted.offsets) if wanted.offsets else None
        chosen = self._chosen(wanted.sink)
        # Side by side: each may take as long as its far side does.
        results = await asyncio.gather(*(runner.dead_letters_retry(offsets) for _, _, runner in chosen))
        return [
            {"sink": name, "title": title, **result} for (name, title, _), result in zip(chosen, results, strict=True)
        ]

    async def purge_letters(self, params: Params) -> object:
        """Forget them."""
        wanted = msgspec.convert(params, _Letters)
        offsets = set(wanted.offsets) if wanted.offsets else None
        return [
            {"sink": name, "title": title, "purged": await runner.dead_letters_purge(offsets)}
            for name, title, runner in self._chosen(wanted.sink)
        ]

    def _chosen(self, sink: str | None) -> Sequence[tuple[str, str, SinkRunner]]:
        chosen = [runner for runner in self._runners if sink in (None, runner[0])]
        if not chosen:
            names = ", ".join(name for name, _, _ in self._runners)
            raise GatewayError(f"there is no sink {str(sink)[:64]!r} here", hint=f"the sinks are: {names}")
        return chosen

    # -- what goes on ------------------------------------------------------------------------------------------------

    async def tail(self, params: Params) -> AsyncIterator[object]:
        """What becomes durable from now on, in order; lists of entries as :func:`entry_of` makes them.

        Who reads too slowly jumps ahead, and gets how many items were left out.
        """
        wanted = matcher(msgspec.convert(params, _Devices).device)
        offset = self._journal.durable_offset
        while True:
            offset = self._journal.next_held(offset)
            behind = self._journal.durable_offset - offset
            if behind > TAIL_BEHIND:
                offset += behind
                yield [{"kind": "left_out", "items": behind}]
            batch = await self._journal.read_from(offset, SCAN_ITEMS)
            if batch is None:
                await asyncio.sleep(TAIL_S)
                continue
            offset = batch.end
            found = (pair for pair in enumerate(batch.items, batch.base) if wanted(pair[1].device))
            for piece in _pieces([entry_of(at, item) for at, item in found], PIECE):
                yield piece

    async def top(self, params: Params) -> AsyncIterator[object]:
        """Every ``interval_s``: health, and the ``limit`` devices that sent most since the last time."""
        wanted = msgspec.convert(params, _Top)
        before = await self._received()
        last = self._monotonic()
        while True:
            await asyncio.sleep(wanted.interval_s)
            now = self._monotonic()
            counts = await self._received()
            busiest: list[tuple[int, str]] = []
            for some in _pieces(counts.items(), SLICE):
                news = ((count - before.get(name, 0), name) for name, count in some)
                busiest = nlargest(wanted.limit, chain(busiest, news), key=itemgetter(0))
                await asyncio.sleep(0)
            rows = []
            for piece in _pieces(busiest, PIECE):
                for count, name in piece:
                    device = self._book.get(name)
                    if device is not None:
                        rows.append({**device_row(device), "per_s": round(count / max(now - last, 1e-3), 1)})
                await asyncio.sleep(0)
            before, last = counts, now
            yield {"health": self._health(), "devices": rows}

    async def _received(self) -> dict[str, int]:
        """How many readings of each device have come."""
        counts = {}
        for some in _pieces(list(self._book), SLICE):
            counts.update({device.name: device.ledger.received for device in some})
            await asyncio.sleep(0)
        return counts


def _pairs(name: str) -> set[str]:
    """Each two letters that follow each other, and the first and the last one."""
    return {*map("".join, pairwise(name)), name[:1], name[-1:]}


def letter_row(sink: str, letter: DeadLetter) -> dict[str, object]:
    """A dead letter for people and for JSON: ``put_aside`` when, in milliseconds, ``item`` as :func:`entry_of`."""
    return {
        "sink": sink,
        "offset": letter.offset,
        "put_aside": letter.time // 1_000_000,
        "reason": letter.reason,
        "item": entry_of(letter.offset, letter.item),
    }


def entry_of(offset: int, item: Item) -> dict[str, object]:
    """A journalled item: ``kind`` is reading, refused, presence or description; times in milliseconds."""
    entry: dict[str, object] = {"offset": offset, "device": item.device}
    match item:
        case Reading():
            entry |= {
                "kind": "reading",
                "session": item.session,
                "seq": item.seq,
                "time": item.time // 1_000_000,
                "received": item.received // 1_000_000,
                "values": item.values,
                "flags": [name for flag, name in FLAGS.items() if item.flags & flag],
            }
            if item.via:
                entry["via"] = item.via
        case Mark():
            entry |= {"kind": "refused", "session": item.session, "seq": item.seq}
        case Presence():
            entry |= {
                "kind": "presence",
                "state": item.state,
                "since": item.since // 1_000_000,
                "reason": item.reason,
            }
        case Description():
            entry |= {"kind": "description", "received": item.received // 1_000_000, "body": item.body}
    return entry


def _pieces(things: Iterable[T], size: int) -> Iterator[list[T]]:
    found = iter(things)
    while piece := list(islice(found, size)):
        yield piece

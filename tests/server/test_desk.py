"""What the control socket's commands answer, from a running gateway and from stand-ins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.clock import ClockRules
from gateway.devices import DeviceBook
from gateway.errors import GatewayError
from gateway.journal import Journal
from gateway.reading import ASSIGNED, OLD, Description, Item, Mark, Presence, Reading
from gateway.server import desk as desk_module
from gateway.server.desk import Desk, entry_of
from gateway.server.refusals import Refusals
from gateway.sinks.deadletters import DeadLetter

MS = 1_000_000


class Runner:
    """A sink's runner that only knows what it is given."""

    def __init__(self, taken: int = 0, letters: Sequence[DeadLetter] = (), **health: Any) -> None:
        self.taken = taken
        self.letters = list(letters)
        self.state = {"state": "ok", "reason": "", "hint": "", "next_try_s": None, "behind": 0, **health}

    def health(self) -> dict[str, Any]:
        return {**self.state, "dead_letters": len(self.letters)}

    def stats(self) -> dict[str, float]:
        return {}

    async def dead_letter_summary(self) -> dict[str, Any]:
        return {"count": len(self.letters)}

    async def dead_letters_list(
        self, limit: int | None = None, offsets: set[int] | None = None, device: str = ""
    ) -> list[DeadLetter]:
        found = [letter for letter in self.letters if offsets is None or letter.offset in offsets]
        return [letter for letter in found if device in ("", letter.item.device)][:limit]

    async def dead_letters_retry(self, offsets: set[int] | None) -> dict[str, Any]:
        return {"delivered": await self.dead_letters_purge(offsets), "left": len(self.letters), "reason": ""}

    async def dead_letters_purge(self, offsets: set[int] | None) -> int:
        before = len(self.letters)
        self.letters = [letter for letter in self.letters if offsets is not None and letter.offset not in offsets]
        return before - len(self.letters)


def letter(offset: int, device: str = "pump-1", reason: str = "too long") -> DeadLetter:
    return DeadLetter(offset, offset * MS, reason, Reading(device, "s", 1, MS, 2 * MS, {"t": 1.5}))


def make(journal: Any, *runners: tuple[str, Runner], book: DeviceBook | None = None) -> Desk:
    return Desk(
        book=book or DeviceBook(Path("/nowhere"), rate=100, burst=200),
        journal=journal,
        runners=[(name, name.upper(), runner) for name, runner in runners],
        refused=Refusals(),
        health=lambda: {"status": "ok"},
        journal_problem=lambda: "",
        rate=100,
        burst=200,
        clock_rules=ClockRules(),
    )


async def items(answer: Any, enough: int | None = None) -> list[Any]:
    """What a stream gives, its lists joined; the first ``enough`` of it."""
    got: list[Any] = []
    async with asyncio.timeout(10):
        stream: AsyncIterator[Any] = answer
        async for piece in stream:
            got += piece
            if enough is not None and len(got) >= enough:
                break
        await stream.aclose()  # type: ignore[attr-defined]
    return got


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """An open journal with a short commit time."""
    made = Journal(tmp_path / "journal", commit_ms=1)
    await made.open()
    yield made
    await made.close()


def reading(device: str, seq: int) -> Reading:
    return Reading(device, "s", seq, seq * MS, seq * MS, {"t": seq})


async def test_devices_come_in_pieces_by_name() -> None:
    """All that match, each once, however many there are."""
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    for number in range(450):
        book.open(f"d{number:03}")
    desk = make(None, book=book)
    pieces = [piece async for piece in desk.devices({})]
    assert [len(piece) for piece in pieces] == [200, 200, 50]
    assert [row["device"] for piece in pieces for row in piece] == [f"d{number:03}" for number in range(450)]
    assert [row["device"] for row in await items(desk.devices({"device": "d00?"}))] == [f"d00{n}" for n in range(10)]


async def test_bad_parameters_are_refused() -> None:
    """Unknown and ill-typed ones, by the library's error, which the socket answers."""
    desk = make(None)
    for command, params in (
        ("devices", {"device": 1}),
        ("devices", {"devise": "x"}),
        ("dead-letters show", {"limit": 0}),
        ("dead-letters retry", {"offsets": ["1"]}),
        ("dead-letters purge", {"offsets": []}),
        ("top", {"interval_s": 0}),
    ):
        answer: Any = desk.commands[command](params)
        with pytest.raises(msgspec.ValidationError):
            await (items(answer) if hasattr(answer, "aclose") else answer)


async def test_an_unknown_device_is_told_with_the_like() -> None:
    """Names that are near, or where to look."""
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    book.open("pump-1")
    desk = make(None, book=book)
    with pytest.raises(GatewayError) as error:
        await desk.explain({"device": "pmp-1"})
    assert error.value.hint == "similar: pump-1"
    with pytest.raises(GatewayError) as error:
        await desk.explain({"device": "zzz"})
    assert "gateway devices" in error.value.hint


async def test_a_name_among_very_many_does_not_hold_up_the_loop() -> None:
    """An unknown name is compared at length with the likeliest alone, and the others are looked at in pieces."""
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    for number in range(20_000):
        book.open(f"device-{number:05}-boiler-room")
    longest, count = await held_up(refused(make(None, book=book).explain({"device": "device-1234-boiler-rom"})))
    hint = await refused(make(None, book=book).explain({"device": "device-12345-boilr-room"}))
    assert hint.startswith("similar: device-12345-boiler-room, ")
    assert count > 10
    assert longest < 0.25, longest


async def test_lists_of_very_many_do_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn between the pieces of ``devices``, and while ``top`` looks for the busiest."""
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    for number in range(5_000):
        book.open(f"d{number:05}")
    desk = make(None, book=book)
    turns: list[float] = []
    sleep = asyncio.sleep

    async def turn(delay: float) -> None:
        turns.append(delay)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", turn)
    assert len(await items(desk.devices({}))) == 5_000
    assert turns.count(0) >= 5_000 / desk_module.PIECE
    turns.clear()
    stream: Any = desk.top({"interval_s": 0.1})
    first = asyncio.ensure_future(anext(stream))
    while 0.1 not in turns:
        await sleep(0)
    book.get("d04321").ledger.received = 7  # type: ignore[union-attr]
    assert (await first)["devices"][0]["device"] == "d04321"
    assert turns.count(0) >= 2 * 5_000 / desk_module.SLICE
    await stream.aclose()


async def refused(answer: Any) -> str:
    """The hint of what a command refuses."""
    with pytest.raises(GatewayError) as error:
        await answer
    return error.value.hint


async def held_up(work: Any) -> tuple[float, int]:
    """The longest that the loop was held while ``work`` went on, in seconds, and how often it turned."""
    task = asyncio.ensure_future(work)
    longest, count, last = 0.0, 0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, count, last = max(longest, now - last), count + 1, now
    await task
    return longest, count


async def test_what_waits_for_a_sink_is_counted_by_device(journal: Journal) -> None:
    """Of this device alone, and from each sink's own place on, in memory or on disk."""
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    for name in ("pump-1", "pump-2"):
        book.open(name).ledger.stored = 100
    offsets = [journal.append(reading(f"pump-{1 + n % 2}", n)) for n in range(200)]
    journal.append(Mark("pump-1", "s", 500))
    await journal.flush()
    desk = make(
        journal,
        ("history", Runner(journal.durable_offset)),
        ("mqtt", Runner(offsets[100], state="waiting", reason="connection refused", next_try_s=3.0)),
        ("influx", Runner(0)),
        book=book,
    )
    told: Any = await desk.explain({"device": "pump-1"})
    assert [(sink["sink"], sink["waiting"], sink["counted"]) for sink in told["sinks"]] == [
        ("history", 0, True),
        ("mqtt", 50, True),
        ("influx", 100, True),
    ]
    assert "connection refused" in told["sinks"][1]["text"]


async def test_counting_what_waits_ends_in_time(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog that takes longer to count is told as at least so many."""
    monkeypatch.setattr(desk_module, "SCAN_ITEMS", 10)
    monkeypatch.setattr(desk_module, "SCAN_S", -1.0)
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    book.open("pump-1").ledger.stored = 30
    for number in range(30):
        journal.append(reading("pump-1", number + 1))
    await journal.flush()
    told: Any = await make(journal, ("mqtt", Runner()), book=book).explain({"device": "pump-1"})
    assert (told["sinks"][0]["waiting"], told["sinks"][0]["counted"]) == (10, False)
    assert told["sinks"][0]["text"].startswith("Has yet to take at least 10")


async def test_dead_letters_of_the_device_are_told(journal: Journal) -> None:
    """By reason, the commonest first; those of others are not."""
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    book.open("pump-1").ledger.stored = 3
    letters = [letter(1), letter(2, reason="bad"), letter(3, "pump-2"), letter(4, reason="bad")]
    told: Any = await make(journal, ("mqtt", Runner(letters=letters)), book=book).explain({"device": "pump-1"})
    assert list(told["sinks"][0]["put_aside"].items()) == [("bad", 2), ("too long", 1)]


async def test_dead_letters_are_shown_retried_and_purged() -> None:
    """Of all sinks or one, all or some; an unknown sink is refused with the names there are."""
    mqtt, influx = Runner(letters=[letter(n) for n in range(1, 6)]), Runner(letters=[letter(7)])
    desk = make(None, ("mqtt", mqtt), ("influx", influx))
    assert await desk.dead_letters({}) == [
        {"sink": "mqtt", "title": "MQTT", "count": 5},
        {"sink": "influx", "title": "INFLUX", "count": 1},
    ]
    shown = await items(desk.show_letters({}))
    assert [(row["sink"], row["offset"]) for row in shown] == [*(("mqtt", n) for n in range(1, 6)), ("influx", 7)]
    assert shown[0]["put_aside"] == 1
    assert shown[0]["item"]["values"] == {"t": 1.5}
    assert [row["offset"] for row in await items(desk.show_letters({"limit": 2}))] == [1, 2]
    assert [row["offset"] for row in await items(desk.show_letters({"sink": "influx"}))] == [7]
    assert [row["offset"] for row in await items(desk.show_letters({"offsets": [3, 7]}))] == [3, 7]
    assert await desk.retry_letters({"sink": "mqtt", "offsets": [1, 2]}) == [
        {"sink": "mqtt", "title": "MQTT", "delivered": 2, "left": 3, "reason": ""}
    ]
    assert await desk.purge_letters({}) == [
        {"sink": "mqtt", "title": "MQTT", "purged": 3},
        {"sink": "influx", "title": "INFLUX", "purged": 1},
    ]
    for command in (desk.dead_letters, desk.retry_letters, desk.purge_letters):
        with pytest.raises(GatewayError) as error:
            await command({"sink": "kafka"})
        assert error.value.hint == "the sinks are: mqtt, influx"


async def test_tail_gives_what_becomes_durable_from_now_on(journal: Journal) -> None:
    """Only what matches, in order, nothing of before."""
    journal.append(reading("pump-1", 1))
    await journal.flush()
    stream = make(journal).tail({"device": "pump-*"})
    first = asyncio.ensure_future(items(stream, 2))
    await asyncio.sleep(0)
    for item in (reading("tank", 2), reading("pump-1", 3), Presence("pump-2", "offline", 5 * MS, "gone")):
        journal.append(item)
    await journal.flush()
    assert [(entry["kind"], entry["device"]) for entry in await first] == [
        ("reading", "pump-1"),
        ("presence", "pump-2"),
    ]


async def test_a_tail_that_lags_jumps_ahead_and_says_so(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many items it left out; what is behind the jump comes whole."""
    monkeypatch.setattr(desk_module, "TAIL_BEHIND", 5)
    stream = make(journal).tail({})
    journal.append(reading("pump-1", 1))
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await journal.flush()
    assert [entry["seq"] for entry in await first] == [1]
    for number in range(2, 12):
        journal.append(reading("pump-1", number))
    await journal.flush()
    assert await anext(stream) == [{"kind": "left_out", "items": 10}]
    journal.append(reading("pump-1", 99))
    await journal.flush()
    assert [entry["seq"] for entry in await anext(stream)] == [99]
    await stream.aclose()


async def test_top_gives_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The busiest devices first, by what they sent since the time before."""
    book = DeviceBook(Path("/nowhere"), rate=100, burst=200)
    for name in ("quiet", "busy", "busiest"):
        book.open(name).ledger.received = 1000
    stream = make(None, book=book).top({"limit": 2, "interval_s": 0.1})
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    book.open("busy").ledger.received += 5
    book.open("busiest").ledger.received += 50
    item = await first
    assert [row["device"] for row in item["devices"]] == ["busiest", "busy"]
    assert item["devices"][0]["per_s"] == pytest.approx(500, rel=0.5)
    assert item["health"] == {"status": "ok"}
    assert [row["per_s"] for row in (await anext(stream))["devices"]] == [0, 0]
    await stream.aclose()


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            Reading("d", "s", 3, 5 * MS, 6 * MS, {"t": 1}, ASSIGNED | OLD),
            {
                "kind": "reading",
                "session": "s",
                "seq": 3,
                "time": 5,
                "received": 6,
                "values": {"t": 1},
                "flags": ["assigned", "old"],
            },
        ),
        (Mark("d", "s", 4), {"kind": "refused", "session": "s", "seq": 4}),
        (
            Presence("d", "offline", 7 * MS, "gone"),
            {"kind": "presence", "state": "offline", "since": 7, "reason": "gone"},
        ),
        (Description("d", 8 * MS, {"name": "D"}), {"kind": "description", "received": 8, "body": {"name": "D"}}),
    ],
)
def test_entries(item: Item, expected: dict[str, Any]) -> None:
    """Each kind of item in words and milliseconds."""
    assert entry_of(9, item) == {"offset": 9, "device": "d", **expected}

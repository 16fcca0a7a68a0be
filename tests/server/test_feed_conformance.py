"""Section 5 of the contract, request by request: what is taken, what is refused, and in what shape answers come.

One gateway for all tests, a socket and devices of its own for each.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from tests.running import Running, gateway
from tests.server.feeding import FAST, JSON, MSGPACK, SHAPES, Feed, conforms, device, feed, fresh, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gw(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The gateway."""
    async with gateway(tmp_path_factory.mktemp("feed"), **FAST) as running:
        yield running


@pytest.mark.parametrize(
    "message",
    [
        [],
        {},
        {"type": "news"},
        {"type": "heartbeat"},
        {"type": "heartbeat", "time": 1764000000.5},
        {"type": "heartbeat", "time": 1764000000000, "more": 1},
        {"type": "update", "id": "m", "offset": 1, "data": {"a": {"t": [1764000000000, 1]}}},
        {"type": "update", "id": "m", "offset": 1, "data": {}, "skipped": 0},
        {"type": "update", "id": "m", "offset": True, "data": {}},
        {"type": "snapshot", "id": "m", "offset": 1, "recovered": 1, "devices": {}},
        {"type": "presence", "id": "m", "devices": {"a": {"state": "away", "since": 1764000000000}}},
    ],
)
async def test_the_check_itself(message: Any) -> None:
    """What does not conform is found out."""
    assert not conforms(message)


# -- hello ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        ([JSON], JSON),
        ([MSGPACK], MSGPACK),
        ([JSON, MSGPACK], MSGPACK),
        (["gateway.v9.protobuf"], None),
        (["gateway.v9.protobuf", JSON], JSON),
    ],
)
async def test_hello(gw: Running, offered: list[str], chosen: str | None) -> None:
    """It is the first message, in the form of the subprotocol that was chosen, and names the stream."""
    async with gw.live(**({"subprotocols": offered} if offered else {})) as ws:
        assert ws.subprotocol == chosen
        hello = await Feed(ws).next("hello")
        assert (hello["auth"], hello["heartbeat_s"]) == ("ok", 5)
        assert abs(hello["time"] - time.time() * 1000) < 60_000
        assert {"subscriptions", "globs", "max_message_bytes"} <= set(hello["limits"])
        async with feed(gw) as other:
            assert other.hello["epoch"] == hello["epoch"]


async def test_heartbeat(gw: Running) -> None:
    """It comes as often as hello says, to those without a subscription as well, in each form."""
    async with feed(gw) as plain, feed(gw, MSGPACK) as packed:
        for one in (plain, packed):
            assert abs((await one.next("heartbeat"))["time"] - time.time() * 1000) < 60_000


# -- what is refused --------------------------------------------------------------------------------------------------

# Objects: sent in both formats.  The id is x in all that have one which can be one.
SUBSCRIBE = {"type": "subscribe", "id": "x"}
BAD: list[tuple[str, Any, str]] = [
    ("no object", [1, 2], ""),
    ("a number", 7, ""),
    ("text", "subscribe", ""),
    ("nothing", None, ""),
    ("empty", {}, ""),
    ("no type", {"id": "x"}, "x"),
    ("type null", {"type": None, "id": "x"}, "x"),
    ("type a number", {"type": 7, "id": "x"}, "x"),
    ("type in capitals", {"type": "SUBSCRIBE", "id": "x"}, "x"),
    ("type unknown", {"type": "party", "id": "x"}, "x"),
    *[
        (f"a message of ours: {kind}", {"type": kind, "id": "x"}, "x")
        for kind in SHAPES
        if kind not in ("heartbeat", "command")
    ],
    ("id empty", {"type": "subscribe", "id": ""}, ""),
    ("id a number", {"type": "subscribe", "id": 7}, ""),
    ("id null", {"type": "subscribe", "id": None}, ""),
    ("id a list", {"type": "subscribe", "id": ["x"]}, ""),
    ("id too long", {"type": "subscribe", "id": "y" * 65}, "y" * 64),
    *[
        (f"{field} {what}", {**SUBSCRIBE, field: value}, "x")
        for field in ("devices", "metrics")
        for what, value in (
            ("text", "*"),
            ("null", None),
            ("a number", 1),
            ("an object", {"a": 1}),
            ("with a number", ["a", 1]),
            ("with null", [None]),
            ("with a list", [["a"]]),
            ("with a glob too long", ["a" * 129]),
            ("too many", [f"d{n}" for n in range(1001)]),
            ("too many patterns", [f"d{n}*" for n in range(101)]),
            ("too many stars", ["*" * 101] * 5),
        )
    ],
    *[
        (f"mode {mode!r}", {**SUBSCRIBE, "mode": mode}, "x")
        for mode in ("", "all", "Latest", "every ", 1, None, ["every"], True)
    ],
    *[
        (f"{field} {value!r}", {**SUBSCRIBE, field: value}, "x")
        for field in ("interval_ms", "history_s")
        for value in (-1, -0.001, -(10**30), 10**30, 1e300, "100", "", None, True, [100], {"s": 1})
    ],
    ("interval too long", {**SUBSCRIBE, "interval_ms": 3_600_001}, "x"),
    ("history too long", {**SUBSCRIBE, "history_s": 366 * 86_400 + 1}, "x"),
    *[(f"epoch {epoch!r}", {**SUBSCRIBE, "epoch": epoch, "after": 1}, "x") for epoch in (7, True, ["e"], {})],
    *[(f"after {after!r}", {**SUBSCRIBE, "after": after}, "x") for after in ("8412", 1.5, True, [1], {})],
    ("unsubscribe of none", {"type": "unsubscribe", "id": "x"}, "x"),
    ("unsubscribe of main, which is none", {"type": "unsubscribe"}, "main"),
    ("unsubscribe with a number", {"type": "unsubscribe", "id": 7}, ""),
    ("unsubscribe with null", {"type": "unsubscribe", "id": None}, ""),
    ("a token that is none", {"type": "auth", "token": 7}, ""),
]
# As they stand, to a socket of JSON.
BAD_TEXT: list[tuple[str, str | bytes, str]] = [
    ("empty", "", ""),
    ("white", " \n", ""),
    ("no JSON", "subscribe", ""),
    ("cut", '{"type":"subscribe","id":"x"', "x"),
    ("cut in the id", '{"type":"subscribe","id":"x', ""),
    ("cut behind another id", '{"type":"command","params":{"id":"y"},"id":"x","name":', "x"),
    ("an id that is a part of another", '{"type":"command","params":{"id":"y"},"name":', ""),
    ("an id as a value", '{"type":"id","name":"id","a":["id","y"],"id":x', ""),
    ("a number that is none before the id", '{"type":"subscribe","interval_ms":0x10,"id":"x"}', "x"),
    ("two", '{"type":"subscribe"}{"type":"subscribe"}', ""),
    ("a byte order mark", '\ufeff{"type":"subscribe"}', ""),
    ("a control character", '{"type":"subscribe","id":"\x00"}', ""),
    ("half a surrogate", '{"type":"subscribe","id":"\\ud800"}', ""),
    ("NaN", '{"type":"subscribe","id":"x","interval_ms":NaN}', "x"),
    ("Infinity", '{"type":"subscribe","id":"x","history_s":Infinity}', "x"),
    ("a number that no float holds", '{"type":"subscribe","id":"x","interval_ms":1e400}', "x"),
    ("very deep", "[" * 30_000, ""),
    ("very deep in a field", '{"type":"subscribe","id":"x","devices":' + "[" * 30_000, "x"),
    ("binary, empty", b"", ""),
    ("binary, no MessagePack", b"\xc1", ""),
    ("binary, not UTF-8", b"\x81\xa4type\xa3\xff\xfe\xfd", ""),
]
BAD_PACKED: list[tuple[str, str | bytes, str]] = [
    ("empty", b"", ""),
    ("unused code", b"\xc1", ""),
    ("cut", msgspec.msgpack.encode(SUBSCRIBE)[:-1], ""),
    ("two", msgspec.msgpack.encode(SUBSCRIBE) * 2, ""),
    ("bytes for a name", msgspec.msgpack.encode({**SUBSCRIBE, "devices": [b"a"]}), "x"),
    ("bytes for a key", msgspec.msgpack.encode({b"type": "subscribe"}), ""),
    ("NaN for an interval", msgspec.msgpack.encode({**SUBSCRIBE, "interval_ms": float("nan")}), "x"),
    ("NaN for a time", msgspec.msgpack.encode({**SUBSCRIBE, "history_s": float("nan")}), "x"),
    ("infinite", msgspec.msgpack.encode({**SUBSCRIBE, "history_s": float("inf")}), "x"),
    ("very deep", b"\x91" * 60_000, ""),
    ("text, no JSON", "\x81", ""),
]


@pytest.mark.parametrize("subprotocol", ["", MSGPACK], ids=["json", "msgpack"])
@pytest.mark.parametrize(("request_", "id"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_bad_requests(gw: Running, subprotocol: str, request_: Any, id: str) -> None:
    """Each is answered by one error with the id, if there is one, and nothing else; the socket goes on."""
    if subprotocol == MSGPACK and "1000000000000000000000000000000" in repr(request_):
        pytest.skip("MessagePack has no such integers")
    async with feed(gw, subprotocol) as one:
        await refused(one, request_, id)


@pytest.mark.parametrize(
    ("subprotocol", "message", "id"),
    [(JSON, *row[1:]) for row in BAD_TEXT] + [(MSGPACK, *row[1:]) for row in BAD_PACKED],
    ids=[f"json-{row[0]}" for row in BAD_TEXT] + [f"msgpack-{row[0]}" for row in BAD_PACKED],
)
async def test_undecodable_requests(gw: Running, subprotocol: str, message: str | bytes, id: str) -> None:
    """What is no message at all is answered in the same way, however often it comes."""
    async with feed(gw, subprotocol) as one:
        for _ in range(6):
            await refused(one, message, id)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('{"type":"subscribe","id":"a\\ud800"}', "half of a surrogate pair"),
        ('{"type":"subscribe","id":"\\udc00a"}', "half of a surrogate pair"),
        ('{"type":"subscribe","id":"\\ud800\\u0041","devices":["*"]}', "half of a surrogate pair"),
        ("", "empty"),
        (" \r\n", "empty"),
        ('{"type":"subscribe"', "ends too early"),
        ('{"type":"subscribe","id":"a\\ud8', "ends too early"),
        (b"", "empty"),
        (b"\x81\xa4", "ends too early"),
    ],
)
async def test_undecodable_requests_are_told_apart(gw: Running, message: str | bytes, words: str) -> None:
    """Half a character, nothing at all and a message without its end are each called what they are."""
    async with feed(gw, JSON if isinstance(message, str) else MSGPACK) as one:
        await one.ask(message)
        assert words in (await one.next("error"))["detail"]


@pytest.mark.parametrize("change", [{"mode": "some"}, {"devices": [f"d{n}*" for n in range(101)]}, {"history_s": -1}])
async def test_a_refused_change_leaves_the_subscription(gw: Running, change: dict[str, Any]) -> None:
    """A bad request under an id in use is refused; what was subscribed under it goes on."""
    name = fresh()
    async with device(gw, name, {"t": 1}) as say, feed(gw) as one:
        await one.subscribe(id="x", devices=[name])
        await refused(one, {"type": "subscribe", "id": "x", **change}, "x")
        await say({"t": 2})
        update = await one.next("update")
        assert (update["id"], update["data"][name]["t"][-1][1]) == ("x", 2)


async def test_limits(gw: Running) -> None:
    """As many subscriptions as hello says, one more is refused with its id; an id in use counts once."""
    async with feed(gw) as one:
        most = one.hello["limits"]["subscriptions"]
        for n in range(most):
            await one.subscribe(id=f"s{n}", devices=["nobody"])
        await one.ask({"type": "subscribe", "id": "x", "devices": ["nobody"]})
        error = await one.next("error")
        assert (error["code"], error["id"]) == ("too_many_subscriptions", "x")
        assert (await one.subscribe(id="s3", devices=["nobody"]))["id"] == "s3"
        await one.ask({"type": "unsubscribe", "id": "s5"})
        assert (await one.subscribe(id="x", devices=["nobody"]))["id"] == "x"


@pytest.mark.parametrize(("more", "taken"), [(0, True), (1, False)])
async def test_size_of_a_message(gw: Running, more: int, taken: bool) -> None:
    """One as large as hello says is read; a larger one closes the connection with 1009."""
    async with feed(gw) as one:
        head, tail = '{"type":"subscribe","id":"x","devices":["nobody"],"note":"', '"}'
        size = one.hello["limits"]["max_message_bytes"] + more
        await one.ask(head + "n" * (size - len(head) - len(tail)) + tail)
        if taken:
            assert (await one.next("snapshot"))["id"] == "x"
            return
        with pytest.raises(ConnectionClosed):
            await one.next()
        assert one.ws.close_code == 1009
        assert one.ws.close_reason == f"frame with {size} bytes exceeds limit of {size - 1} bytes"


# -- what is taken ----------------------------------------------------------------------------------------------------

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("defaults", {}),
    ("an id as long as can be", {"id": "y" * 64}),
    ("an id of any characters", {"id": '<ä\u2028"\\\t\U0001f600'}),
    ("empty lists", {"devices": [], "metrics": []}),
    ("lists as long as can be", {"devices": [f"d{n}" for n in range(1000)], "metrics": [f"m{n}" for n in range(1000)]}),
    ("a glob as long as can be", {"devices": ["a" * 128]}),
    ("an empty glob", {"devices": [""]}),
    ("the same glob again and again", {"devices": ["*"] * 50}),
    ("no interval", {"interval_ms": 0}),
    ("an interval with a fraction", {"interval_ms": 99.5}),
    ("the longest interval", {"interval_ms": 3_600_000}),
    ("no history", {"history_s": 0}),
    ("a moment of history", {"history_s": 0.001}),
    ("much history", {"history_s": 366 * 86_400}),
    ("every", {"mode": "every"}),
    ("nothing to resume", {"epoch": None, "after": None}),
    ("after without epoch", {"after": 1}),
    ("epoch without after", {"epoch": "5f"}),
    ("an offset of the past", {"epoch": "5f", "after": -1}),
    ("an offset of the far future", {"epoch": "5f", "after": 2**63 - 1}),
    ("a field of a later version", {"colour": "green", "nested": {"a": [1]}}),
]


@pytest.mark.parametrize("subprotocol", ["", MSGPACK], ids=["json", "msgpack"])
@pytest.mark.parametrize("options", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
async def test_good_subscriptions(gw: Running, subprotocol: str, options: dict[str, Any]) -> None:
    """A snapshot under its id comes first, then the history if one was asked for, and no more until something comes."""
    async with feed(gw, subprotocol) as one:
        snapshot = await one.subscribe(**options)
        while snapshot.get("more"):
            snapshot = await one.next("snapshot")
        id = options.get("id", "main")
        assert (snapshot["id"], snapshot["recovered"]) == (id, False)
        if options.get("history_s"):
            while not (history := await one.next("history"))["last"]:
                assert history["id"] == id
        await one.quiet()


@pytest.mark.parametrize(
    "request_",
    [{"type": "heartbeat"}, {"type": "heartbeat", "time": 5}, {"type": "auth", "token": "t"}, {"type": "auth"}],
)
async def test_what_needs_no_answer(gw: Running, request_: dict[str, Any]) -> None:
    """A heartbeat, and a token where none is asked for, are taken in silence."""
    async with feed(gw) as one:
        await one.ask(request_)
        await one.quiet()


async def test_either_form_is_read(gw: Running) -> None:
    """Text is JSON and binary is MessagePack on every socket; the answers are in the socket's own form."""
    async with feed(gw) as plain, feed(gw, MSGPACK) as packed:
        request = {"type": "subscribe", "id": "x", "devices": ["nobody"]}
        await plain.ask(msgspec.msgpack.encode(request))
        await packed.ask(json.dumps(request))
        for one in (plain, packed):
            assert (await one.next("snapshot"))["id"] == "x"


@pytest.mark.parametrize("subprotocol", ["", MSGPACK], ids=["json", "msgpack"])
async def test_a_command_is_answered_under_its_ref(gw: Running, subprotocol: str) -> None:
    """Whatever becomes of it, and also where it is a bad one."""
    async with feed(gw, subprotocol) as one:
        good = {"type": "command", "ref": "r1", "device": "nobody", "name": "set", "params": {"rpm": 1}, "ttl_s": 1}
        for request in (good, {**good, "ttl_s": "x"}, {"type": "command", "ref": "r1"}):
            await one.ask(request)
            answer = await one.next()
            assert (answer["type"] in ("error", "command_state"), answer.get("ref")) == (True, "r1")
            if request is not good:
                assert answer["code"] == "bad_request"

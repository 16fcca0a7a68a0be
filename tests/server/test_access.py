"""Who may have what, over real sockets: devices, dashboards, pages; tokens that end; strangers."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.auth import Tokens
from gateway.server.access import NEEDS, Access
from gateway.server.guard import Guard
from gateway.server.peer import is_local
from gateway.ws import Request, Response
from gateway.ws.request import Headers
from tests.running import acked, gateway, receive, send
from tests.server.visitor import another_address, ask, basic, bearer, cookie, gate

REASONS = ("a token is needed: send auth first", "the token is not valid")


async def closing(ws, seen=None):
    """Read to the end, keep it in ``seen``; the close code and reason."""
    seen = [] if seen is None else seen
    try:
        async with asyncio.timeout(10):
            while True:
                seen.append(await ws.recv())
    except ConnectionClosed:
        return ws.close_code, ws.close_reason


def device(gw, name, token):
    return gw.device(name, additional_headers=bearer(token))


async def opened(gw, token):
    """A dashboard that has said who it is in its first message."""
    ws = await gw.live()
    assert (await receive(ws, "hello"))["auth"] == "required"
    await send(ws, {"type": "auth", "token": token})
    return ws


# -- devices ------------------------------------------------------------------------------------------------------


async def test_a_device_connects_with_its_token(tmp_path):
    """Bearer or Basic, under its own name: then everything is as without tokens."""
    async with gate(tmp_path) as gw:
        token = gw.token("device:pump-*")
        async with device(gw, "pump-1", token) as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 1, "t": 1})
            await acked(ws, 1)
        async with gw.device("pump-2", additional_headers=basic("pump-2", token)) as ws:
            assert (await receive(ws))["device"] == "pump-2"


async def test_a_device_may_use_only_its_own_name(tmp_path):
    """A token that does not cover the name, or Basic of another name, is refused with 403."""
    async with gate(tmp_path) as gw:
        token = gw.token("device:pump-*")
        for name, headers in (("tank", bearer(token)), ("tank", basic("pump-1", token)), ("pump-2", basic("x", token))):
            answer = await ask(gw.port, f"/v1/devices/{name}", headers, upgrade=True)
            assert answer.status == 403, name
        assert gw.stats()["refused_scope"] == 3


async def test_without_a_token_is_401_and_says_how(tmp_path):
    """401 names both schemes to devices, Bearer alone elsewhere, and says of a wrong token that it is invalid."""
    async with gate(tmp_path) as gw:
        answer = await ask(gw.port, "/v1/devices/pump-1", upgrade=True)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == ('Bearer realm="gateway", Basic realm="gateway", charset="UTF-8"')
        answer = await ask(gw.port, "/metrics", bearer("no"))
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="gateway", error="invalid_token"'
        assert gw.stats()["refused_no_token"] == gw.stats()["refused_bad_token"] == 1
        text = (await ask(gw.port, "/metrics", bearer(gw.token("metrics")))).body.decode()
        assert 'gateway_access_refused_total{reason="bad_token"} 1.0' in text
        assert "gateway_access_refusals_total 2.0" in text


async def test_who_knocks_is_listed(tmp_path):
    """Refused devices are listed, newest first, to those who may let them in; their secrets are not."""
    async with gate(tmp_path) as gw:
        mine, secret = gw.token("live:command:new-*"), "a-secret-of-its-own-0123456789"
        other = gw.token("device:old")
        for headers in ({}, bearer(secret), bearer(secret), bearer(other)):
            assert (await ask(gw.port, "/v1/devices/new-1", headers, upgrade=True)).status in (401, 403)
        await ask(gw.port, "/v1/devices/elsewhere", upgrade=True)
        await ask(gw.port, "/v1/devices/a b", upgrade=True)
        answer = await ask(gw.port, "/api/v1/pending", bearer(mine))
        rows = json.loads(answer.body)
        assert {row["device"] for row in rows} == {"new-1"}
        assert [row["count"] for row in rows if row["fingerprint"]] == [2]
        assert rows[0].keys() == {"device", "fingerprint", "first", "last", "count", "address"}
        assert secret not in answer.body.decode()
        assert other.partition(".")[2] not in answer.body.decode()
        assert (await ask(gw.port, "/api/v1/pending", bearer(gw.token("live:read")))).status == 403


async def test_a_device_that_was_let_in_gets_in(tmp_path):
    """A secret of a device's own is its token from the moment that it is let in."""
    async with gate(tmp_path) as gw:
        secret = "a-secret-of-its-own-0123456789"
        with pytest.raises(InvalidStatus):
            await device(gw, "pump-9", secret)
        await asyncio.to_thread(gw.app.tokens.admit, "pump-9")
        async with device(gw, "pump-9", secret) as ws:
            await receive(ws, "welcome")
        with pytest.raises(InvalidStatus):
            await device(gw, "pump-8", secret)


async def test_a_revoked_token_ends_what_it_opened(tmp_path):
    """At once, with 1008 and the reason, for devices and dashboards; others stay, and the device is offline for it."""
    async with gate(tmp_path) as gw:
        token, other = gw.token("device:pump-1", "live:read"), gw.token("device:*", "live:read")
        async with device(gw, "pump-1", token) as ws, device(gw, "tank", other) as stays:
            await receive(ws, "welcome")
            await receive(stays, "welcome")
            live = await gw.live(additional_headers=bearer(token))
            await receive(live, "hello")
            gw.revoke(token)
            assert await closing(ws) == (1008, "token revoked")
            assert await closing(live) == (1008, "token revoked")
            await send(stays, {"seq": 1, "t": 1})
            await acked(stays, 1)
            with pytest.raises(InvalidStatus):
                await device(gw, "pump-1", token)
            rows = json.loads((await ask(gw.port, "/api/v1/devices", bearer(other))).body)
            assert {row["device"]: row["reason"] for row in rows}["pump-1"] == "token revoked"
        assert gw.stats()["ended"] == 2


async def test_it_ends_what_a_first_message_opened(tmp_path):
    """However somebody has said who it is."""
    async with gate(tmp_path) as gw:
        token = gw.token("live:read")
        ws = await opened(gw, token)
        await send(ws, {"type": "subscribe"})
        await receive(ws, "snapshot")
        gw.revoke(token)
        assert await closing(ws) == (1008, "token revoked")


async def test_a_rotated_token_ends_what_it_opened(tmp_path):
    """The one in its place opens the same."""
    async with gate(tmp_path) as gw:
        token = gw.token("device:pump-1")
        async with device(gw, "pump-1", token) as ws:
            await receive(ws, "welcome")
            _, fresh = await asyncio.to_thread(gw.app.tokens.rotate, token.partition(".")[0])
            assert await closing(ws) == (1008, "token revoked")
        async with device(gw, "pump-1", fresh) as ws:
            await receive(ws, "welcome")


async def test_an_expired_token_ends_what_it_opened(tmp_path):
    """Within a second or two, with 1008 and the reason."""
    async with gate(tmp_path) as gw:
        token = gw.token("device:pump-1", "live:read", expires_s=3600)
        async with device(gw, "pump-1", token) as ws, gw.live(additional_headers=bearer(token)) as live:
            gw.app.tokens._now = gw.app.access._guests._now = lambda: time.time() + 3600
            assert await closing(ws) == (1008, "token expired")
            assert await closing(live) == (1008, "token expired")
        with pytest.raises(InvalidStatus):
            await device(gw, "pump-1", token)


async def test_connections_of_one_token_are_bounded(tmp_path):
    """One more gets 429 with Retry-After; a device that comes again takes its own place; one that left makes room."""
    async with gate(tmp_path, limits={"max_per_token": 2}) as gw:
        token = gw.token("device:*", "live:read")
        first, second = await device(gw, "a", token), await device(gw, "b", token)
        await receive(first)
        await receive(second)
        answer = await ask(gw.port, "/v1/devices/c", bearer(token), upgrade=True)
        assert (answer.status, answer.headers["retry-after"]) == (429, "10")
        assert (await ask(gw.port, "/v1/live", bearer(token), upgrade=True)).status == 429
        live = await opened(gw, token)
        assert (await closing(live))[0] == 1008
        again = await device(gw, "a", token)
        await receive(again)
        assert (await closing(first))[0] == 4001
        assert (await ask(gw.port, "/v1/devices/c", bearer(token), upgrade=True)).status == 429
        await second.close()
        third = await device(gw, "c", token)
        await receive(third)
        await third.close()
        await again.close()
        assert gw.stats()["refused_per_token"] == 4


async def test_attempts_that_fail_are_bounded_by_address(tmp_path):
    """After 20 failures an address is told to wait; who is right is let in from there all the same, and others."""
    async with gate(tmp_path) as gw:
        gw.app.access._attempts._clock = lambda: 0.0
        source, token = another_address(), gw.token("device:pump-1")
        for _ in range(20):
            assert (
                await ask(gw.port, "/v1/devices/pump-1", bearer("x" * 30), upgrade=True, source=source)
            ).status == 401
        for path in ("/v1/devices/pump-1", "/metrics", "/healthz"):
            answer = await ask(gw.port, path, bearer("x" * 30), source=source)
            assert answer.status == 429, path
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert (await ask(gw.port, "/v1/devices/pump-1", bearer(token), upgrade=True, source=source)).status == 101
        assert (await ask(gw.port, "/v1/devices/pump-1", bearer("x"), upgrade=True)).status == 401
        assert (await ask(gw.port, "/healthz", source=source)).status == 401
        assert gw.stats()["refused_attempts"] == 3


# -- dashboards ---------------------------------------------------------------------------------------------------


async def test_a_dashboard_says_who_it_is_in_its_first_message(tmp_path):
    """Known at the handshake, hello says ok; else required, and the first message has the token."""
    async with gate(tmp_path) as gw:
        token = gw.token("live:read")
        async with gw.live(additional_headers=bearer(token)) as ws:
            assert (await receive(ws, "hello"))["auth"] == "ok"
            await send(ws, {"type": "subscribe"})
            await receive(ws, "snapshot")
        ws = await opened(gw, token)
        await send(ws, {"type": "subscribe"})
        await receive(ws, "snapshot")
        await ws.close()


async def test_any_other_first_message_ends_it(tmp_path):
    """1008 for a wrong token, and for anything else before a token; nothing is told."""
    auth = [{"type": "auth", "token": "nonsense"}, {"type": "auth"}, {"type": "auth", "token": 7}]
    others = [{"type": "subscribe"}, {"type": "command", "device": "a", "name": "x"}, {"type": "heartbeat"}, []]
    async with gate(tmp_path) as gw:
        for first in (*auth, *others, "not json", b"\x81"):
            async with gw.live() as ws:
                await receive(ws, "hello")
                await send(ws, first, {"type": "subscribe"})
                assert await closing(ws, seen := []) in [(1008, reason) for reason in REASONS], first
                assert seen == []


async def test_a_token_without_live_scope_is_refused(tmp_path):
    """403 at the handshake, 1008 with the first message."""
    async with gate(tmp_path) as gw:
        token = gw.token("device:*", "metrics")
        assert (await ask(gw.port, "/v1/live", bearer(token), upgrade=True)).status == 403
        ws = await opened(gw, token)
        assert (await closing(ws))[0] == 1008


async def test_who_says_nothing_is_let_go(tmp_path, monkeypatch):
    """Without a first message in time 1008; one who has said it stays."""
    async with gate(tmp_path) as gw:
        stays = await opened(gw, gw.token("live:read"))
        monkeypatch.setattr("gateway.server.live.AUTH_S", 0.2)
        ws = await gw.live()
        assert (await closing(ws))[0] == 1008
        assert gw.stats()["refused_no_token"] == 1
        await asyncio.sleep(0.3)
        await send(stays, {"type": "subscribe"})
        await receive(stays, "snapshot")
        await stays.close()


async def test_who_says_nothing_gives_way_to_others(tmp_path):
    """Beyond the bound the oldest that has not said who it is is cut; who has said it, and who comes, is served."""
    async with gate(tmp_path) as gw:
        gw.app.live.max_unknown = 3
        stays = await opened(gw, gw.token("live:read"))
        silent = [await gw.live() for _ in range(5)]
        assert [(await closing(ws))[0] for ws in silent[:2]] == [1006, 1006]
        assert gw.stats()["refused_crowd"] == 2
        late = await opened(gw, gw.token("live:read"))
        for ws in (stays, late):
            await send(ws, {"type": "subscribe"})
            await receive(ws, "snapshot")
        for ws in (*silent, stays, late):
            await ws.close()
        async with asyncio.timeout(10):
            while gw.app.live.unknown or gw.app.live.clients:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_first_messages_that_fail_are_bounded_by_address(tmp_path):
    """They count as attempts that failed, like headers."""
    async with gate(tmp_path) as gw:
        gw.app.access._attempts._clock = lambda: 0.0
        for _ in range(21):
            ws = await opened(gw, "x" * 30)
            assert (await closing(ws))[0] == 1008
        assert gw.stats()["refused_bad_token"] == 20
        assert gw.stats()["refused_attempts"] == 1


async def test_a_dashboard_is_shown_only_what_it_may_read(tmp_path):
    """Snapshot, updates, presence, history, rows: a glob in live:read covers all, whatever is subscribed to."""
    async with gate(tmp_path) as gw:
        all_of, some = gw.token("device:*", "live:read", "live:command"), gw.token("live:read:pump-*", "metrics")
        async with device(gw, "pump-1", all_of) as pump, device(gw, "secret-tank", all_of) as tank:
            for ws in (pump, tank):
                await receive(ws, "welcome")
                await send(ws, {"seq": 1, "t": 1, "ts": 1764000000000})
                await acked(ws, 1)
            text: list[str] = []
            for seq, mode in ((2, "latest"), (3, "every")):
                live = await gw.live(additional_headers=bearer(some))

                async def until(kind, ids, contains, live=live):
                    async with asyncio.timeout(10):
                        while ids:
                            text.append(await live.recv())
                            message = json.loads(text[-1])
                            if message["type"] == kind and contains(message):
                                ids.discard(message["id"])

                for id, devices in (("a", []), ("b", ["*"]), ("c", ["secret-tank"]), ("d", ["secret-*", "pump-1"])):
                    subscribe = {"type": "subscribe", "id": id, "devices": devices, "mode": mode, "history_s": 9e6}
                    await send(live, subscribe)
                await until("history", set("abcd"), lambda message: message["last"])
                await send(tank, {"seq": seq, "t": 6})
                await acked(tank, seq)
                await send(pump, {"seq": seq, "t": 5})
                await until("update", set("abd"), lambda message: "pump-1" in message["data"])
                for name in ("secret-2", "pump-2"):
                    async with device(gw, name, all_of) as late:
                        await receive(late, "welcome")
                await until("presence", set("ab"), lambda message: "pump-2" in message["devices"])
                await live.close()
            for path in (
                "devices",
                "latest",
                "history?from=0",
                "history?from=0&device=secret-*",
                "latest?device=secret-*",
                "presence?from=0",
                "presence?device=secret-*",
            ):
                answer = await ask(gw.port, f"/api/v1/{path}", bearer(some))
                assert answer.status == 200
                text.append(answer.body.decode())
            for query in ("from=0&step=1d", "from=0&format=csv", "from=0&device=secret-tank", "from=0&device=pump-1"):
                answer = await ask(gw.port, f"/api/v1/history?{query}", bearer(some))
                assert answer.status == 200
                text.append(answer.body.decode())
            assert "pump-1" in text[-1]
            text.append((await ask(gw.port, "/healthz", bearer(some))).body.decode())
            text.append((await ask(gw.port, "/metrics", bearer(some))).body.decode())
            assert not [line for line in text if "secret" in line]
            rows = json.loads((await ask(gw.port, "/api/v1/latest", bearer(all_of))).body)
            assert {row["device"] for row in rows} == {"pump-1", "secret-tank"}


async def test_like_subscriptions_of_like_readers_share_their_frames(tmp_path):
    """Who may read the same shares a group; who may read less has one of its own."""
    async with gate(tmp_path) as gw:
        tokens = [gw.token("live:read"), gw.token("live:read", "metrics"), gw.token("live:read:pump-*")]
        hub = gw.app.live.hub
        clients = []
        for token, groups in zip(tokens, (1, 1, 2), strict=True):
            ws = await gw.live(additional_headers=bearer(token))
            clients.append(ws)
            await send(ws, {"type": "subscribe"})
            await receive(ws, "snapshot")
            assert hub.stats()["groups"] == groups
        for ws in clients:
            await ws.close()


async def test_health_names_only_devices_that_one_may_read(tmp_path):
    """Problems of devices name those of the reader's scope; a sink's words are for those who may read all."""
    async with gate(tmp_path) as gw:
        gw.app.devices._clocks_off = [("pump-1", 90_000), ("secret-tank", -90_000)]
        some = json.loads((await ask(gw.port, "/healthz", bearer(gw.token("live:read:pump-*")))).body)
        every = json.loads((await ask(gw.port, "/healthz", bearer(gw.token("live:read")))).body)
        assert "pump-1" in str(some["problems"])
        assert "secret-tank" not in str(some)
        assert "secret-tank" in str(every["problems"])


async def test_commands_need_their_scope(tmp_path):
    """A command for a device that the token does not cover is forbidden, and answered with its ref."""
    async with gate(tmp_path) as gw:
        ws = await opened(gw, gw.token("live:command:pump-*"))
        await send(ws, {"type": "command", "ref": "x1", "device": "tank", "name": "x"})
        error = await receive(ws, "error")
        assert (error["ref"], error["code"]) == ("x1", "forbidden")
        await send(ws, {"type": "command", "ref": "x2", "device": "pump-1", "name": "x"})
        state = await receive(ws, "command_state")
        assert (state["ref"], state["state"]) == ("x2", "queued")
        await send(ws, {"type": "subscribe", "id": "s"})
        error = await receive(ws, "error")
        assert (error["id"], error["code"]) == ("s", "forbidden")
        await ws.close()


# -- browsers -----------------------------------------------------------------------------------------------------


async def login(gw, token, headers=None, **options):
    return await ask(gw.port, "/login", {**bearer(token), **(headers or {})}, method="POST", **options)


async def test_a_login_trades_the_token_for_a_cookie(tmp_path):
    """The cookie is for this site's requests alone, and not for scripts; it opens what the token may."""
    async with gate(tmp_path) as gw:
        answer = await login(gw, gw.token("live:read"))
        assert (answer.status, answer.body) == (204, b"")
        session, *attributes = answer.headers["set-cookie"].split("; ")
        assert attributes == ["Max-Age=2592000", "Path=/", "HttpOnly", "SameSite=Strict"]
        session = session.removeprefix("gateway_session=")
        assert (await ask(gw.port, "/api/v1/devices", cookie(session))).status == 200
        assert (await ask(gw.port, "/metrics", cookie(session))).status == 403
        assert (await ask(gw.port, "/v1/live", cookie(session), upgrade=True)).status == 101
        async with gw.live(additional_headers=cookie(session)) as ws:
            assert (await receive(ws, "hello"))["auth"] == "ok"
        own = {**cookie(session), "Origin": "http://localhost:8080"}
        assert (await ask(gw.port, "/v1/live", own, upgrade=True, host="localhost:8080")).status == 101


async def test_a_session_ends_with_its_token(tmp_path):
    """Revoking the token ends the session, and what it had opened."""
    async with gate(tmp_path) as gw:
        token = gw.token("live:read")
        session = (await login(gw, token)).headers["set-cookie"].partition(";")[0].partition("=")[2]
        async with gw.live(additional_headers=cookie(session)) as ws:
            await receive(ws, "hello")
            gw.revoke(token)
            assert await closing(ws) == (1008, "token revoked")
        assert (await ask(gw.port, "/healthz", cookie(session))).status == 401


async def test_logout_ends_the_session(tmp_path):
    """The very session, wherever its cookie was copied to, and what it has open; not its token, nor another of it."""
    async with gate(tmp_path) as gw:
        token = gw.token("live:read")
        mine, other = [
            (await login(gw, token)).headers["set-cookie"].partition(";")[0].partition("=")[2] for _ in range(2)
        ]
        async with (
            gw.live(additional_headers=cookie(mine)) as ws,
            gw.live(additional_headers=cookie(other)) as going_on,
            gw.live(additional_headers=bearer(token)) as program,
        ):
            for one in (ws, going_on, program):
                await receive(one, "hello")
            assert (await ask(gw.port, "/logout", cookie(mine), method="POST")).status == 204
            assert await closing(ws) == (1008, "signed out")
            assert (await ask(gw.port, "/healthz", cookie(mine))).status == 401
            assert (await ask(gw.port, "/v1/live", cookie(mine), upgrade=True)).status == 101  # to say who it is
            for one in (going_on, program):
                await send(one, {"type": "subscribe"})
                await receive(one, "snapshot")
            assert (await ask(gw.port, "/healthz", cookie(other))).status == 200
    async with gate(tmp_path) as gw:
        assert (await ask(gw.port, "/healthz", cookie(mine))).status == 401
        assert (await ask(gw.port, "/healthz", cookie(other))).status == 200


async def test_logout_takes_the_cookie_away(tmp_path):
    """Whoever asks, from our own page."""
    async with gate(tmp_path) as gw:
        answer = await ask(gw.port, "/logout", method="POST")
        assert answer.status == 204
        assert answer.headers["set-cookie"].startswith("gateway_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict")


async def test_only_our_own_page_may_log_in_or_out(tmp_path):
    """What a browser says of another page's request is believed; a body is never read."""
    cases = [
        ({}, 204),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 204),
        ({"Sec-Fetch-Site": "none"}, 204),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Length": "4"}, 413),
        ({"Transfer-Encoding": "chunked"}, 413),
    ]
    async with gate(tmp_path) as gw:
        token = gw.token("live:read", "device:*")
        for headers, status in cases:
            assert (await login(gw, token, headers)).status == status, headers
            assert (await ask(gw.port, "/logout", headers, method="POST")).status == status, headers


async def test_what_does_not_log_in(tmp_path):
    """No token, a wrong one, one of a device, Basic, a cookie, a token in the address: none is traded."""
    async with gate(tmp_path) as gw:
        token = gw.token("live:read")
        session = (await login(gw, token)).headers["set-cookie"].partition(";")[0].partition("=")[2]
        for headers, status in (
            ({}, 401),
            (bearer("nonsense"), 401),
            (bearer(gw.token("device:*", "metrics")), 403),
            (basic("x", token), 401),
            (cookie(session), 401),
        ):
            answer = await ask(gw.port, f"/login?token={token}", headers, method="POST")
            assert answer.status == status, headers
            assert "set-cookie" not in answer.headers
        assert (await ask(gw.port, "/login", bearer(token))).status == 405


async def test_without_tokens_a_login_gives_nothing(tmp_path):
    """In mode none it is taken and there is no cookie, and nobody is asked for one."""
    async with gateway(tmp_path) as gw:
        answer = await ask(gw.port, "/login", method="POST")
        assert answer.status == 204
        assert "set-cookie" not in answer.headers
        assert (await ask(gw.port, "/api/v1/pending")).status == 200


# -- all addresses ------------------------------------------------------------------------------------------------


async def test_every_address_is_in_the_table(tmp_path):
    """An address is open by being named, never by being forgotten."""
    async with gate(tmp_path) as gw:
        router = gw.app.server.router
        patterns = {
            route.pattern
            for table in router._tables.values()
            for route in [*table.literal.values(), *table.entries]
            if hasattr(route, "pattern")
        }
        known = gw.app.access._needs
        assert patterns <= set(known)
        assert {"/v1/live", "/login", "/", "/app.js"} <= patterns
        assert not [
            path for path in set(known) - set(NEEDS) if path.startswith(("/api/", "/v1/", "/metrics", "/healthz"))
        ]


async def test_an_address_that_the_table_does_not_know_is_nobodys(tmp_path):
    """403, with any token."""
    async with gate(tmp_path) as gw:
        del gw.app.access._needs["/metrics"]
        token = gw.token("device:*", "live:read", "live:command", "metrics")
        assert (await ask(gw.port, "/metrics", bearer(token))).status == 403


async def test_answers_carry_the_headers_of_a_careful_site(tmp_path):
    """No answer can be framed, taken for another type, or embedded by another origin; nor promises TLS for years."""
    async with gate(tmp_path) as gw:
        for path in ("/", "/livez", "/healthz", "/api/v1/devices", "/app.js"):
            headers = (await ask(gw.port, path)).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"], path
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "strict-transport-security" not in headers


def asking(tmp_path, **options):
    """Access of its own, and its tokens."""
    tokens = Tokens(tmp_path / "tokens.json")
    tokens.load(sessions=True)
    return Access(Guard(hostname="barn"), tokens, **options), tokens


def request(route, token="", remote="127.0.0.1", **params):
    headers = Headers([("Host", "localhost"), *bearer(token).items()])
    made = Request("GET", route.replace("{device}", params.get("device", "")), headers, remote=(remote, 5))
    made.route, made.path_params = route, params
    return made


async def test_a_token_that_ends_while_its_request_waits_opens_nothing(tmp_path):
    """A device that has to wait for its name, or for one of its token's places, is looked at again."""
    access, tokens = asking(tmp_path, mode="token", max_per_token=1)
    record, token = tokens.create(["device:*"])
    grant = tokens.verify(token)

    async def waits(asked):
        if asked.path_params["device"] == "a":
            access._guests.enter(grant, "b", lambda code, reason: None)
        else:
            tokens.revoke(record.id)
        return Response(101)

    got = await access(request("/v1/devices/{device}", token, device="a"), waits)
    assert (got.status, got.headers["Retry-After"]) == (429, "10")
    got = await access(request("/v1/devices/{device}", token, device="b"), waits)
    assert (got.status, "WWW-Authenticate" in got.headers) == (401, True)


async def test_who_has_no_place_does_not_wait_for_one(tmp_path):
    """At the token's bound the request goes no further."""
    access, tokens = asking(tmp_path, mode="token", max_per_token=1)
    token = tokens.create(["device:*"])[1]
    access._guests.enter(tokens.verify(token), "b", lambda code, reason: None)
    went = []
    assert (await access(request("/v1/devices/{device}", token, device="a"), went.append)).status == 429
    assert went == []


async def test_without_tokens_other_machines_are_refused(tmp_path):
    """In mode none, whatever socket they come by, unless it was said that they may come."""

    async def pages(asked):
        return Response(200)

    for insecure, remote, status in (
        (False, "127.0.0.1", 200),
        (False, "::1", 200),
        (False, "192.168.1.5", 403),
        (True, "192.168.1.5", 200),
    ):
        access, _ = asking(tmp_path, mode="none", insecure=insecure)
        assert (await access(request("/healthz", remote=remote), pages)).status == status


def test_which_addresses_are_this_machines():
    """Loopback, in whichever clothes, and Unix sockets."""
    assert all(map(is_local, [("127.0.0.1", 1), ("127.9.9.9", 1), ("::1", 1, 0, 0), ("::ffff:127.0.0.1", 1), "", None]))
    for host in ("192.168.1.5", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1", "0.0.0.0", "nonsense"):
        assert not is_local((host, 1)), host

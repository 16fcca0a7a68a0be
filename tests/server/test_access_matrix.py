"""Nobody gets past: who it is, from which page, under which name, at each address; over TLS with real certificates.

:data:`MAY` says what each visitor may have, written down from the contract's section 1, not from the gateway's table.
Whatever is not in it has to be refused, and every request is made.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.certificates import Pair, authority, issue, trusting
from tests.server.visitor import Gate, another_address, ask, basic, bearer, cookie, gate


class Address(NamedTuple):
    path: str
    method: str = "GET"
    upgrade: bool = False
    good: int = 200


ADDRESSES = {
    "pump-1": Address("/v1/devices/pump-1", upgrade=True, good=101),
    "pump-2": Address("/v1/devices/pump-2", upgrade=True, good=101),
    "tank": Address("/v1/devices/tank", upgrade=True, good=101),
    "live": Address("/v1/live", upgrade=True, good=101),
    "page": Address("/"),
    "asset": Address("/app.js"),
    "description": Address("/openapi.yaml"),
    "livez": Address("/livez"),
    "readyz": Address("/readyz"),
    "healthz": Address("/healthz"),
    "metrics": Address("/metrics"),
    "devices": Address("/api/v1/devices"),
    "latest": Address("/api/v1/latest"),
    "history": Address("/api/v1/history"),
    "presence": Address("/api/v1/presence"),
    "pending": Address("/api/v1/pending"),
    "login": Address("/login", method="POST", good=204),
    "logout": Address("/logout", method="POST", good=204),
}
OPEN = {"page", "asset", "description", "livez", "readyz", "logout"}
UNSAID = {"live"}  # who has shown nothing may still say who it is, in its first message
READ = {"healthz", "devices", "latest", "history", "presence", "live"}
ALL = {*ADDRESSES}

# Visitor: what it may have, from a page of ours or from no page at all.
MAY: dict[str, set[str]] = {
    "nobody": OPEN | UNSAID,
    "token of pump-*": OPEN | {"pump-1", "pump-2"},
    "token of all devices": OPEN | {"pump-1", "pump-2", "tank"},
    "token of live:read": OPEN | READ | {"login"},
    "token of live:read:tank": OPEN | READ | {"login"},
    "token of live:command:tank": OPEN | {"live", "pending", "login"},
    "token of metrics": OPEN | {"metrics"},
    "token of everything": ALL,
    "token that has expired": OPEN,
    "token that was revoked": OPEN,
    "token that was rotated": OPEN,
    "token with a byte changed": OPEN,
    "id of a token alone": OPEN,
    "hash of a token": OPEN,
    "token in the address": OPEN | UNSAID,
    "token in a cookie": OPEN | UNSAID,
    "token under another scheme": OPEN,
    "token twice": OPEN,
    "empty token": OPEN,
    "Basic pump-1": OPEN | {"pump-1"},
    "Basic of another name": OPEN,
    "Basic, not base64": OPEN,
    "Basic without a colon": OPEN,
    "session of live:read": OPEN | READ,
    "session of everything": OPEN | READ | {"pending", "metrics"},
    "session of a revoked token": OPEN | UNSAID,
    "session with a byte changed": OPEN | UNSAID,
    "session as a token": OPEN,
    "session, token wrong": OPEN,
    "certificate pump-1": OPEN | UNSAID | {"pump-1"},
    "certificate *": OPEN | UNSAID,
    "certificate of two names": OPEN | UNSAID,
    "certificate pump-1, token wrong": OPEN,
    "certificate pump-1, token of live:read": OPEN | READ | {"login"},
    "certificate pump-1, session of live:read": OPEN | READ | {"pump-1"},
}
# From a page elsewhere nothing may be had, not even what is open; but no page can make a browser send a device's token.
NOT_ASKED = {name for name in MAY if name in ("token of pump-*", "token of all devices", "token of everything")} | {
    "Basic pump-1"
}


CLOSELY = {"nobody", "token of everything", "session of everything", "certificate pump-1"}  # every page, every name


class Visitor(NamedTuple):
    headers: dict[str, str]
    tls: ssl.SSLContext
    query: str = ""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """An authority, the gateway's certificate, and clients'."""
    directory = tmp_path_factory.mktemp("pki")
    ca = authority(directory)
    return {
        "ca": ca,
        "server": issue(directory, ca, "localhost"),
        "pump-1": issue(directory, ca, "pump-1", client=True),
        "*": issue(directory, ca, "*", file="star", client=True),
        "two": issue(directory, ca, "pump-1/CN=tank", file="two", client=True),
        "expired": issue(directory, ca, "pump-1", file="expired", days=-1, client=True),
        "as a server": issue(directory, ca, "pump-1", file="as-server"),
        "stranger": issue(directory, authority(directory, "other"), "pump-1", file="stranger", client=True),
    }


@asynccontextmanager
async def secure(state: Path, pki: dict[str, Pair], **sections: Any) -> AsyncIterator[Gate]:
    tls = {"cert": pki["server"].cert, "key": pki["server"].key, "client_ca": pki["ca"].cert}
    async with gate(state, tls=tls, **sections) as gw:
        yield gw


async def session(gw: Gate, pki: dict[str, Pair], token: str) -> str:
    answer = await ask(gw.port, "/login", bearer(token), method="POST", tls=trusting(pki["ca"]))
    assert answer.status == 204
    assert answer.headers["set-cookie"].endswith("; Secure")
    return answer.headers["set-cookie"].partition(";")[0].partition("=")[2]


async def visitors(gw: Gate, pki: dict[str, Pair]) -> dict[str, Visitor]:
    plain = trusting(pki["ca"])
    shown = {name: trusting(pki["ca"], pki[name]) for name in ("pump-1", "*", "two")}
    read, pumps = gw.token("live:read"), gw.token("device:pump-*")
    everything = gw.token("device:*", "live:read", "live:command", "metrics")
    gone, rotated, brief = gw.token("live:read"), gw.token("device:*"), gw.token("device:*", expires_s=1.0)
    of_gone, of_read, of_all, beside = [await session(gw, pki, token) for token in (gone, read, everything, read)]
    gw.revoke(gone)
    gw.app.tokens.rotate(rotated.partition(".")[0])
    record = next(record for record in gw.app.tokens.list() if record.id == everything.partition(".")[0])
    changed = everything[:-1] + ("A" if everything[-1] != "A" else "B")
    await asyncio.sleep(1.0)
    scheme = f"Token {everything}"
    found = {
        "nobody": Visitor({}, plain),
        "token of pump-*": Visitor(bearer(pumps), plain),
        "token of all devices": Visitor(bearer(gw.token("device:*")), plain),
        "token of live:read": Visitor(bearer(read), plain),
        "token of live:read:tank": Visitor(bearer(gw.token("live:read:tank")), plain),
        "token of live:command:tank": Visitor(bearer(gw.token("live:command:tank")), plain),
        "token of metrics": Visitor(bearer(gw.token("metrics")), plain),
        "token of everything": Visitor(bearer(everything), plain),
        "token that has expired": Visitor(bearer(brief), plain),
        "token that was revoked": Visitor(bearer(gone), plain),
        "token that was rotated": Visitor(bearer(rotated), plain),
        "token with a byte changed": Visitor(bearer(changed), plain),
        "id of a token alone": Visitor(bearer(record.id), plain),
        "hash of a token": Visitor(bearer(f"{record.id}.{record.sha256}"), plain),
        "token in the address": Visitor({}, plain, f"token={everything}&access_token={everything}"),
        "token in a cookie": Visitor(cookie(everything), plain),
        "token under another scheme": Visitor({"Authorization": scheme}, plain),
        "token twice": Visitor({"Authorization": f"Bearer {everything}", "authorization": "Bearer x"}, plain),
        "empty token": Visitor({"Authorization": "Bearer "}, plain),
        "Basic pump-1": Visitor(basic("pump-1", pumps), plain),
        "Basic of another name": Visitor(basic("pump-9", everything), plain),
        "Basic, not base64": Visitor({"Authorization": f"Basic pump-1:{everything}"}, plain),
        "Basic without a colon": Visitor({"Authorization": basic("", everything)["Authorization"][:-4]}, plain),
        "session of live:read": Visitor(cookie(of_read), plain),
        "session of everything": Visitor(cookie(of_all), plain),
        "session of a revoked token": Visitor(cookie(of_gone), plain),
        "session with a byte changed": Visitor(cookie(of_all[:-1] + ("0" if of_all[-1] != "0" else "1")), plain),
        "session as a token": Visitor(bearer(of_all), plain),
        "session, token wrong": Visitor({**cookie(of_all), **bearer("x")}, plain),
        "certificate pump-1": Visitor({}, shown["pump-1"]),
        "certificate *": Visitor({}, shown["*"]),
        "certificate of two names": Visitor({}, shown["two"]),
        "certificate pump-1, token wrong": Visitor(bearer("x"), shown["pump-1"]),
        "certificate pump-1, token of live:read": Visitor(bearer(read), shown["pump-1"]),
        "certificate pump-1, session of live:read": Visitor(cookie(beside), shown["pump-1"]),
    }
    assert found.keys() == MAY.keys()
    return found


async def status(gw: Gate, address: str, visitor: Visitor, *, origin: str = "", host: str = "localhost") -> int:
    path, method, upgrade, _ = ADDRESSES[address]
    headers = {**visitor.headers, **({"Origin": origin} if origin else {})}
    query = f"?{visitor.query}" if visitor.query else ""
    options = {"method": method, "upgrade": upgrade, "host": host, "tls": visitor.tls, "source": another_address()}
    answer = await ask(gw.port, path + query, headers, **options)  # type: ignore[arg-type]
    return answer.status


async def test_nobody_gets_past(tmp_path: Path, pki: dict[str, Pair]) -> None:
    """Each visitor at each address, from no page, from ours, from one elsewhere, and under a name that is not ours."""
    async with secure(tmp_path, pki) as gw:
        host = f"localhost:{gw.port}"
        faults = []
        for name, visitor in (await visitors(gw, pki)).items():
            for address, (_, _, _, good) in ADDRESSES.items():
                may = address in MAY[name]
                asked = name not in NOT_ASKED or address in OPEN | {"login"}
                checks = [("", host, may)]
                if name in CLOSELY:
                    checks += [(f"https://{host}", host, may), ("", "evil.example", False)]
                    checks += [("null", host, may and not asked)]
                if len(MAY[name]) > len(OPEN):
                    checks += [("http://evil.example", host, may and not asked)]
                for origin, at, lets_in in checks:
                    got = await status(gw, address, visitor, origin=origin, host=at)
                    if (got == good) is not lets_in or (not lets_in and got not in (401, 403)):
                        faults.append(f"{name} at {address}, from {origin or 'no page'}, to {at}: {got}")
        assert not faults, "\n".join(faults)


async def test_certificates_that_do_not_count(tmp_path: Path, pki: dict[str, Pair]) -> None:
    """One of another authority, one that has expired and one that is for servers end the handshake of TLS."""
    async with secure(tmp_path, pki) as gw:
        for name in ("stranger", "expired", "as a server"):
            with pytest.raises((OSError, EOFError, asyncio.IncompleteReadError)):
                await status(gw, "pump-1", Visitor({}, trusting(pki["ca"], pki[name])))
        with pytest.raises((OSError, EOFError, asyncio.IncompleteReadError)):
            await ask(gw.port, "/v1/devices/pump-1", upgrade=True)


SESSIONS = [  # Host, Origin, Sec-Fetch-Site, and whether the cookie counts
    ("localhost", "", "", True),
    ("localhost", "https://localhost", "same-origin", True),
    ("192.168.1.5:8080", "https://192.168.1.5:8080", "same-origin", True),
    ("localhost", "", "none", True),
    ("localhost", "", "same-origin", True),
    ("localhost", "https://localhost:3000", "same-site", False),
    ("localhost", "https://127.0.0.1", "cross-site", False),
    ("192.168.1.5", "http://192.168.1.6", "", False),
    ("localhost", "", "cross-site", False),
    ("localhost", "", "same-site", False),
    ("localhost", "https://dash.example", "cross-site", False),
    ("localhost", "file://", "", False),
    ("evil.example", "https://evil.example", "same-origin", False),
    ("evil@localhost", "", "", False),
    ("localhost.evil.example", "", "", False),
]


async def test_a_session_is_for_our_own_page(tmp_path: Path) -> None:
    """Not for a page of another port, of another address, of a listed origin, or of a name made to point here."""
    async with gate(tmp_path, origins=["https://dash.example"]) as gw:
        answer = await ask(gw.port, "/login", bearer(gw.token("live:read")), method="POST")
        value = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
        for case in SESSIONS:
            host, origin, site, may = case
            headers = {**cookie(value), "Origin": origin, "Sec-Fetch-Site": site}
            headers = {name: text for name, text in headers.items() if text}
            got = await ask(gw.port, "/api/v1/devices", headers, host=host)
            assert got.status in ((200,) if may else (401, 403)), case
            live = await ask(gw.port, "/v1/live", headers, host=host, upgrade=True)
            assert live.status in ((101,) if may else (101, 403)), "who is not known may say so with the first message"

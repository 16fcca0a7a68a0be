"""Whatever headers hold: an answer, and never a way in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth import Tokens
from gateway.server.access import NEEDS, Access, Need
from gateway.server.guard import Guard
from gateway.ws import Request, Response
from gateway.ws.request import Headers

# What a header field can hold when it comes here (``gateway.ws.request``): ISO 8859-1 without controls.
_text = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60)
_near = st.sampled_from(
    ["Bearer ", "Basic ", "basic cHVtcC0xOng=", "gateway_session=", "localhost", "http://", "[::1]", ":", "@", ".", ";"]
)
_field = st.lists(st.one_of(_text, _near), max_size=6).map("".join)
_fields = st.dictionaries(
    st.sampled_from(["Authorization", "Cookie", "Host", "Origin", "Sec-Fetch-Site"]), _field, max_size=5
)
_subject = st.lists(
    st.lists(st.tuples(st.sampled_from(["commonName", "countryName"]), _text), max_size=3).map(tuple), max_size=3
)


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Access:
    directory: Path = tmp_path_factory.mktemp("access")
    tokens = Tokens(directory / "tokens.json")
    tokens.load(sessions=True)
    tokens.create(["device:*", "live:read", "live:command", "metrics"])
    return Access(Guard(["https://dash.example"], hostname="barn"), tokens, mode="token")


@settings(max_examples=200, deadline=None)
@given(fields=_fields, subject=_subject, route=st.sampled_from([*NEEDS, "/elsewhere"]))
async def test_no_header_is_a_way_in(access: Access, fields: dict[str, str], subject: list[object], route: str) -> None:
    """Without a token, session or certificate of ours nothing is reached but what is open to all."""
    request = Request(
        "GET",
        "/v1/devices/pump-1",
        Headers(fields.items()),
        remote=("192.0.2.1", 5),
        peer_certificate={"subject": tuple(subject)},
    )
    request.route, request.path_params = route, {"device": "pump-1"}
    reached = []

    async def page(request: Request) -> Response:
        reached.append(request.state["grant"])
        return Response(200)

    answer = await access(request, page)
    if reached:
        assert reached == [None]
        assert NEEDS[route] in (Need.NOTHING, Need.LOGOUT, Need.LIVE)
    else:
        assert answer.status in (401, 403, 429)

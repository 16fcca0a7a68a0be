"""What both documents say: who the API is of, and how one says who one is.  Pure."""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..server.access import NEEDS, Need
from ..server.credentials import COOKIE

__all__ = ["DESCRIPTION", "INFO", "SECURITY", "needed"]

INFO = {
    "title": "telemetry-gateway",
    "version": __version__,
    "license": {"name": "MIT", "identifier": "MIT"},
}
DESCRIPTION = (
    "Names and shapes change by addition only: a reader takes fields and types of messages that it does not know. "
    "Times are integers in milliseconds since the epoch, UTC, where nothing else is said. In mode `none` of "
    "GATEWAY_AUTH__MODE nobody is asked for a token; in every mode a request of a Host or a web Origin that is not the "
    "gateway's own, nor listed in GATEWAY_ORIGINS, is refused."
)

# Which of the schemes lets one in where so much is needed; any one of them is enough.
SECURITY: dict[Need, tuple[str, ...]] = {
    Need.NOTHING: (),
    Need.DEVICE: ("token", "deviceAndToken", "certificate"),
    Need.LIVE: ("token", "session"),
    Need.READ: ("token", "session"),
    Need.COMMAND: ("token", "session"),
    Need.METRICS: ("token", "session"),
    Need.LOGIN: ("token",),
    Need.LOGOUT: (),
}
SCHEMES: dict[str, dict[str, Any]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token that `gateway token create` has made, of a scope that the address needs.",
    },
    "deviceAndToken": {
        "type": "http",
        "scheme": "basic",
        "description": "A device's name and its token.",
    },
    "certificate": {"description": "A client certificate of GATEWAY_TLS__CLIENT_CA whose CN is the device's name."},
    "session": {
        "in": "cookie",
        "name": COOKIE,
        "description": "A browser's session, from `POST /login`; for the gateway's own page alone.",
    },
}


def needed(path: str) -> Need:
    """What an address asks for."""
    return NEEDS.get(path, Need.NOTHING)

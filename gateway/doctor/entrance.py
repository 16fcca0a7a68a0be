"""Who gets in, and where: the address to listen on, its certificate, the tokens."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator

from .. import pem
from ..auth import Tokens
from ..config import Settings, is_loopback, lacking
from ..errors import GatewayError
from ..server.tls import Tls
from .finding import Finding, error, fine, warning

__all__ = ["certificate", "port", "tokens"]

_HINTS = {
    errno.EADDRINUSE: "stop what listens there, or take another GATEWAY_LISTEN__PORT",
    errno.EACCES: "ports below 1024 are root's: take another, or let systemd listen (gateway.socket)",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address: see GATEWAY_LISTEN__HOST",
}


def port(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether the address can be listened on, or is: ``running`` says that the gateway does."""
    host, number = settings.listen.host, settings.listen.port
    where = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    if running:
        yield fine("port", f"the gateway listens on {where}")
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)  # another one that listens is found here
    except socket.gaierror as fault:
        yield error("port", f"{host}: {fault.strerror}", "see GATEWAY_LISTEN__HOST")
    except OSError as fault:
        words = os.strerror(fault.errno) if fault.errno else str(fault)
        yield error("port", f"{where}: {words}", _HINTS.get(fault.errno or 0, "see GATEWAY_LISTEN__HOST and PORT"))
    else:
        yield fine("port", f"{where} is free")


def certificate(settings: Settings) -> Iterator[Finding]:
    """For how long the certificate holds; that the files can be used was checked with the settings."""
    tls = settings.tls
    if tls.cert is None or tls.key is None:
        return
    found = Tls(tls.cert, tls.key, tls.client_ca)
    problems = list(found.problems())
    for text, hint in problems:
        level = error if found.expires_in_s <= 0 else warning
        yield level("certificate", text.rstrip("."), hint.rstrip("."))
    if not problems:
        yield fine("certificate", f"{tls.cert} holds for {found.expires_in_s / 86_400:,.0f} more days")
    if tls.client_ca is not None:
        left = pem.validity(pem.certificates(tls.client_ca)).ends - time.time()
        if left <= 0:
            yield error("certificate", f"{tls.client_ca} has expired: no device gets in by its own", "renew it")


def tokens(settings: Settings) -> Iterator[Finding]:
    """Whether anybody gets in who should, and nobody who should not."""
    part = "access"
    if settings.auth.mode != "token":
        if is_loopback(settings.listen.host):
            yield fine(part, "programs on this machine alone get in; nothing asks who they are")
    else:
        store = Tokens(settings.state_dir / "tokens.json")
        try:
            store.load()
        except GatewayError as fault:
            yield error(part, str(fault), fault.hint)
            return
        if len(store):
            yield fine(part, f"{len(store):,} token{'s' if len(store) > 1 else ''}")
        elif settings.tls.client_ca is None:
            yield warning(part, "there is no token, so nobody gets in", "gateway token create NAME")
    if not is_loopback(settings.listen.host) and (lacks := lacking(settings)):
        yield warning(part, f"open beyond this machine without {' and '.join(lacks)}", "README: Who may connect")

"""What the page may do, and that it needs no more: its content security policy against what is served."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

from gateway.server.pages import assets
from tests.server.visitor import ask, gate

ALLOWED = {
    "default-src": {"'none'"},
    "script-src": {"'self'"},
    "style-src": {"'self'"},
    "img-src": {"'self'", "data:"},
    "connect-src": {"'self'"},
    "base-uri": {"'none'"},
    "form-action": {"'none'"},
    "frame-ancestors": {"'none'"},
}
NOTHING = {"default-src": {"'none'"}, "frame-ancestors": {"'none'"}}


def policy(headers: dict[str, str]) -> dict[str, set[str]]:
    """The directives of a policy."""
    parts = [part.split() for part in headers["content-security-policy"].split(";")]
    return {name: set(sources) for name, *sources in parts}


class Inline(HTMLParser):
    """Collects what a policy without 'unsafe-inline' keeps from working, and what comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        if tag == "style" or (tag == "script" and not given.get("src")) or tag in ("iframe", "object", "embed", "base"):
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "nonce", "integrity"):
                self.faults.append(f"{tag} {name}")
            if name in ("src", "href", "action", "data", "poster", "srcset"):
                parts = urlsplit(value or "")
                if parts.scheme or parts.netloc:
                    self.faults.append(f"{tag} {name}={value}")


async def test_the_page_needs_no_more_than_its_policy_allows(tmp_path):
    """No inline script or style, no handler in an attribute, nothing from elsewhere; frames are forbidden."""
    async with gate(tmp_path) as gw:
        pages = [path for path in assets() if path.endswith(("/", ".html"))]
        assert "/" in pages
        for path in pages:
            answer = await ask(gw.port, path)
            assert answer.status == 200
            assert policy(answer.headers) == ALLOWED
            found = Inline()
            found.feed(answer.body.decode())
            assert found.scripts
            assert found.faults == []
        for path in assets():
            assert policy((await ask(gw.port, path)).headers) == ALLOWED, path


async def test_everything_else_may_nothing(tmp_path):
    """An answer that is no page runs, loads and frames nothing, whatever it holds."""
    async with gate(tmp_path) as gw:
        for path in ("/livez", "/readyz", "/healthz", "/metrics", "/api/v1/history", "/v1/devices/a"):
            assert policy((await ask(gw.port, path)).headers) == NOTHING, path


def test_what_is_inline_is_found():
    """The search finds what it is to find."""
    for text in (
        "<script>x</script>",
        "<style>x</style>",
        '<p style="x">',
        '<p onclick="x">',
        '<script src="https://elsewhere/x.js"></script>',
        '<script src="//elsewhere/x.js"></script>',
        '<a href="javascript:x">',
    ):
        found = Inline()
        found.feed(text)
        assert found.faults, text

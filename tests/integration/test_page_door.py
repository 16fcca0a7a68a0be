"""The page of a gateway that asks for tokens: signing in and out, sessions that end, and devices that knocked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gateway.cli.daemon import dial
from tests.integration.browser import Page, touch, window
from tools.toolkit.servers import Daemon

READ = ("live:read", "live:command")


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A gateway that asks for tokens."""
    settings = {"GATEWAY_ID": "barn-north", "GATEWAY_AUTH__MODE": "token"}
    with Daemon(tmp_path_factory.mktemp("asking"), settings) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def filled(asking: Daemon) -> Daemon:
    """The same with two devices that have sent something."""
    device = {"Authorization": f"Bearer {token(asking, 'device:*')[1]}"}
    for name in ("pump-1", "silo-1"):
        url = f"ws://127.0.0.1:{asking.port}/v1/devices/{name}"
        with connect(url, additional_headers=device, compression=None, proxy=None) as connection:
            connection.recv(5)
            connection.send('{"seq": 1, "values": {"level": 63}}')
            while '"ack"' not in str(connection.recv(5)):
                pass
    return asking


@pytest.fixture
def visitor(chromium: Chrome) -> Iterator[Chrome]:
    """A browser that has no session, before and after."""
    chromium.get("about:blank")
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    yield chromium
    chromium.get("about:blank")
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})


def ask(daemon: Daemon, command: str, **params: object) -> Any:
    with dial(daemon.state) as gateway:
        return gateway.ask(command, **params)


def token(daemon: Daemon, *scopes: str, **more: object) -> tuple[str, str]:
    """A new token: its id, and itself."""
    made = ask(daemon, "token-create", scopes=scopes, **more)
    return made["id"], made["token"]


def knock(daemon: Daemon, name: str, secret: str = "") -> None:
    """A stranger asks for a device's address."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    url = f"ws://127.0.0.1:{daemon.port}/v1/devices/{name}"
    with pytest.raises(InvalidStatus), connect(url, additional_headers=headers, proxy=None):
        pass


def sign_in(page: Page, secret: str) -> None:
    page.wait("the door", lambda: "Sign in" in page.text("#door"))
    page.wait("the focus", lambda: page.run("return document.activeElement.id") == "token")
    page.keys(secret, Keys.ENTER)


def test_welcome_says_how_a_device_gets_its_token(visitor: Chrome, asking: Daemon) -> None:
    """Where tokens are asked for, the empty page says how the first device gets one, and tells who knocks meanwhile."""
    assert asking.get("/healthz")[0] == 401
    knock(asking, "pump-8")
    page = Page(visitor, asking)
    sign_in(page, token(asking, *READ)[1])
    page.wait("the welcome", lambda: "gateway token create my-first-device --sketch" in page.text("#welcome"))
    for language in ("Python", "JavaScript", "Arduino"):
        page.press(language)
        assert "the-token-of-my-first-device" in page.text("#welcome pre")
    page.wait("the knock", lambda: page.text("#knocks summary") == "An unknown device knocked: pump-8")
    assert page.faults() == []
    ask(asking, "admit", device="pump-8", fingerprint="none")


def test_door_leads_to_where_the_address_points(visitor: Chrome, filled: Daemon) -> None:
    """A wrong token is told; the right one leads on, is in no address and no storage, and signing out ends it."""
    _, secret = token(filled, *READ)
    page = Page(visitor, filled, "#dark&device=silo-1&range=1h")
    page.wait("the door", lambda: "gateway token create --scope live:read" in page.text("#door"))
    assert page.text("#way") == page.text("#main") == page.text(".bar .seg") == ""
    field = "const it = document.querySelector('#token');"
    field += "return [it.type, it.autocomplete, it.form.elements[0].autocomplete]"
    assert page.run(field) == ["password", "current-password", "username"]
    assert page.faults() == []
    page.keys("?", "w", "/")
    assert page.run("return document.querySelector('#token').value") == "?w/", "no key does anything else"
    page.keys(Keys.ENTER)
    page.wait("the word", lambda: "not valid here" in page.text(".problem"))
    page.keys("mistyped", Keys.TAB)
    page.press("Show")
    assert page.run(field)[0] == "text"
    page.press("Sign in")
    page.wait("the word", lambda: "not valid here" in page.text(".problem"))
    assert page.run(field)[0] == "password"
    assert page.faults() == []
    page.run("document.querySelector('#token').select()")
    page.keys(secret, Keys.ENTER)
    page.wait("the device", lambda: page.text(".head h2") == "silo-1" and page.text("#live-word") == "LIVE")
    assert visitor.current_url.endswith("#dark&device=silo-1&range=1h")
    kept = (
        "return JSON.stringify([location.href, document.cookie, {...localStorage}, {...sessionStorage}, history.state])"
    )
    assert secret not in page.run(kept)
    assert secret not in page.run("return document.documentElement.outerHTML")
    page.wait("a sign-out", lambda: page.text("#sign-out") == "Sign out")
    page.press("Sign out")
    page.wait("the door", lambda: page.text("#door") and not page.text("#main"))
    assert page.text(".problem") == ""
    page.browser.refresh()
    page.wait("the door again", lambda: page.text("#door"))
    assert [line for line in page.complaints() if "401" not in line] == []


def test_session_that_ends_leads_to_the_door(visitor: Chrome, filled: Daemon) -> None:
    """A token that is revoked ends what it opened at once, with a word, and nothing of it is left on the page."""
    id, secret = token(filled, *READ)
    page = Page(visitor, filled, "#device=pump-1")
    sign_in(page, secret)
    page.wait("the device", lambda: page.card("level"))
    ask(filled, "token-revoke", id=id)
    page.wait("the door", lambda: "The session has ended: token revoked." in page.text("#door"))
    assert page.run("return document.querySelectorAll('.row, .chart, #way li').length") == 0
    assert page.faults() == []
    with window(visitor, 360, 800, mobile=True), touch(visitor):
        assert page.width() == (360, 360)
        small = "return [...document.querySelectorAll('#door button, #token')].map((it) => it.clientHeight)"
        assert min(page.run(small)) >= 42, "44 with its lines"
        assert page.faults() == []


def test_token_that_may_not_read_is_told_so(visitor: Chrome, filled: Daemon) -> None:
    """A device's token, and one for commands alone, do not open the page, and the word says which scope does."""
    page = Page(visitor, filled)
    for scope in ("device:pump-1", "live:command"):
        sign_in(page, token(filled, scope)[1])
        page.wait("the word", lambda: "it needs the scope live:read" in page.text(".problem"))
        page.browser.refresh()
    sign_in(page, token(filled, "live:read:pump-*")[1])
    page.wait("what it may read", lambda: page.row("pump-1"))
    assert page.row("silo-1") == ""
    assert page.text("#knocks") == "", "that is for those who may send commands"


def test_devices_that_knocked_are_shown(visitor: Chrome, filled: Daemon) -> None:
    """Unknown devices that knocked are a quiet notice with the command for each; the one let in goes from it."""

    for name, secret in (("pump-7", ""), ("pump-7", "a-secret-of-its-own-0123"), ("pump-9", ""), ("silo-1", "")):
        knock(filled, name, secret)
    page = Page(visitor, filled, "#dark&device=pump-1")
    sign_in(page, token(filled, *READ)[1])
    page.wait("the notice", lambda: page.text("#knocks summary").startswith("2 unknown devices knocked: pump-"))
    assert page.text("#knocks summary").endswith("; silo-1 was refused")
    assert page.text("#knocks li") == "", "it is quiet"
    page.browser.find_element("css selector", "#knocks summary").click()
    page.wait("the names", lambda: "pump-9 from 127.0.0.1" in page.text("#knocks"))
    commands = page.run("return [...document.querySelectorAll('#knocks code')].map((it) => it.textContent)")
    assert sorted(re.sub(r"[0-9a-f]{12}", "<digits>", command) for command in commands) == [
        "gateway devices --admit pump-7 --fingerprint <digits>",
        "gateway devices --admit pump-7 --fingerprint none",
        "gateway devices --admit pump-9",
        "gateway devices --admit silo-1",
    ]
    assert "a device of this name is known here" in page.text("#knocks")
    assert page.faults() == []
    with window(visitor, 360, 800, mobile=True):
        assert page.width() == (360, 360)
    assert [line for line in page.complaints() if "401" not in line] == []

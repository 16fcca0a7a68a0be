"""Settings that change while the gateway runs: what SIGHUP does and what check-config says of it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr
from websockets.exceptions import InvalidStatus

from gateway import config
from gateway.cli.check_config import _lines
from gateway.config import Settings, leaves, variables
from gateway.errors import ConfigError
from gateway.reload import Change, Reloader, changes, live, merged
from tests.running import Running, acked, gateway, receive, send

LEAVES = {leaf.variable: leaf for leaf in leaves()}


@pytest.fixture(scope="module")
def base() -> Settings:
    """Settings as they are at the start, with TLS in use; nothing is read from the files."""
    settings = Settings(_env_file=None, state_dir=Path("/var/lib/gateway"))  # type: ignore[call-arg]
    files = {"cert": Path("cert.pem"), "key": Path("key.pem"), "client_ca": Path("ca.pem")}
    return settings.model_copy(update={"tls": settings.tls.model_copy(update=files)})


def changed(settings: Settings, variable: str) -> Settings:
    """The same with another value of one setting; of the right type, whatever it would mean."""
    leaf = LEAVES[variable]
    value = leaf.of(settings)
    owner = settings if leaf.section is None else getattr(settings, leaf.section)
    kinds = get_args(type(owner).model_fields[leaf.name].annotation)
    choices = [choice for choice in kinds if isinstance(choice, str)]
    other: Any
    if choices:
        other = next((choice for choice in choices if choice != value), choices[0])
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, int | float):
        other = value + 1
    elif isinstance(value, SecretStr):
        other = SecretStr(value.get_secret_value() + "canary")
    elif isinstance(value, Path):
        other = value / "other"
    elif isinstance(value, list):
        other = [*value, "https://dash.example"]
    elif value is None:
        other = Path("other") if Path in kinds else 7
    else:
        other = value + "x"
    if leaf.section is None:
        return settings.model_copy(update={leaf.name: other})
    return settings.model_copy(update={leaf.section: owner.model_copy(update={leaf.name: other})})


@pytest.fixture
def running(base: Settings) -> Reloader:
    """The settings of a running gateway, which notes what it is told to put into force."""
    return Reloader(base, {variable: lambda settings: None for variable in live()}, load=lambda: base)


@pytest.mark.parametrize("variable", sorted(variables()))
async def test_a_reload_and_check_config_agree(
    variable: str, base: Settings, running: Reloader, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each setting: where a reload is said to be enough it takes the value, else the log names it for a restart."""
    caplog.set_level(logging.INFO, "gateway")
    new = changed(base, variable)
    told: list[Settings] = []
    running.apply = {**running.apply, **({variable: told.append} if variable in running.apply else {})}
    running._load = lambda: new
    answer: Any = await running.describe({})
    assert "canary" not in json.dumps(answer)
    lines = list(_lines(new, json.loads(json.dumps(answer))))
    assert len(lines) == 1
    assert lines[0].startswith(f"{variable}: ")
    assert "canary" not in lines[0]
    found = await running.reload()
    is_live = variable in live()
    assert found == [Change(variable, is_live)]
    assert ("a reload is enough" in lines[0]) == is_live
    assert ("needs a restart" in lines[0]) != is_live
    assert (f"{variable} has changed and needs a restart" in caplog.text) != is_live
    assert (LEAVES[variable].of(running.settings) == LEAVES[variable].of(new)) == is_live
    assert told == ([running.settings] if is_live else [])
    assert "canary" not in caplog.text
    # What was taken differs no longer; what needs a restart does until there was one.
    assert await running.reload() == ([] if is_live else [Change(variable, False)])


def test_tls_is_neither_begun_nor_ended_while_it_runs(base: Settings) -> None:
    """The certificate can be another; with TLS where there was none, or none where there was, a restart is needed."""
    without = base.model_copy(update={"tls": config.Tls()})
    for old, new in ((base, without), (without, base)):
        assert {change.live for change in changes(old, new)} == {False}
        assert merged(old, new) == old


async def test_several_at_once(base: Settings, running: Reloader, caplog: pytest.LogCaptureFixture) -> None:
    """What can be is taken, once, and the rest is left; what puts several into force is called once."""
    caplog.set_level(logging.INFO, "gateway")
    new = base
    for variable in ("GATEWAY_LIMITS__DEVICE_RATE", "GATEWAY_LIMITS__DEVICE_BURST", "GATEWAY_LISTEN__PORT"):
        new = changed(new, variable)
    told: list[Settings] = []
    running.apply = dict.fromkeys(live(), told.append)
    running._load = lambda: new
    await running.reload()
    assert told == [running.settings]
    assert (running.settings.limits, running.settings.listen) == (new.limits, base.listen)
    assert "GATEWAY_LIMITS__DEVICE_RATE, GATEWAY_LIMITS__DEVICE_BURST changed" in caplog.text
    assert "GATEWAY_LISTEN__PORT has changed and needs a restart" in caplog.text


@pytest.mark.parametrize("where", ["load", "prepare"])
async def test_faults_change_nothing(
    where: str, base: Settings, running: Reloader, caplog: pytest.LogCaptureFixture
) -> None:
    """Every fault is in the log and a problem until a reload succeeds; check-config says that it would be refused."""

    def fail(*_: object) -> Settings:
        raise ConfigError("GATEWAY_A: bad\nGATEWAY_B: worse")

    new = changed(base, "GATEWAY_LOG__LEVEL")
    told: list[Settings] = []
    running.apply = dict.fromkeys(live(), told.append)
    if where == "load":
        running._load = fail
    else:
        running._load, running._prepare = (lambda: new), fail
    assert await running.reload() is None
    assert running.settings == base
    assert not told
    assert "GATEWAY_A: bad" in caplog.text
    assert "GATEWAY_B: worse" in caplog.text
    ((text, hint),) = running.problems()
    assert "GATEWAY_A: bad; GATEWAY_B: worse" in text
    assert "SIGHUP" in hint
    if where == "load":
        answer: Any = await running.describe({})
        lines = list(_lines(new, answer))
        assert "needs a restart, or a reload once" in lines[0]
        assert lines[1:] == ["a reload would be refused: GATEWAY_A: bad", "a reload would be refused: GATEWAY_B: worse"]
    running._load, running._prepare = (lambda: base), (lambda settings: list)
    assert await running.reload() == []
    assert list(running.problems()) == []
    assert running.stats() == {"reloads": 1, "failures": 1}


async def test_what_is_read_is_read_beside_the_loop_and_handed_over_on_it(
    base: Settings, running: Reloader, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits for a file or a lock holds nobody up; what is put into force has the loop to itself."""
    caplog.set_level(logging.INFO, "gateway")
    threads: list[threading.Thread] = []

    def take() -> list[str]:
        threads.append(threading.current_thread())
        return ["a file is another"]

    def prepare(settings: Settings) -> Callable[[], list[str]]:
        threads.append(threading.current_thread())
        return take

    running._prepare = prepare
    assert await running.reload() == []
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [False, True]
    assert "none was changed; a file is another" in caplog.text


async def test_a_fault_while_settings_are_put_into_force_brings_all_back(base: Settings, running: Reloader) -> None:
    """Not half of them is in force: those before are, everywhere, and the next reload tries all again."""
    new = base
    for variable in ("GATEWAY_LIMITS__DEVICE_RATE", "GATEWAY_ORIGINS", "GATEWAY_LOG__LEVEL"):
        new = changed(new, variable)
    in_force = dict.fromkeys(live(), base)
    broken = ["GATEWAY_LOG__LEVEL"]

    def of(variable: str) -> Callable[[Settings], None]:
        def apply(settings: Settings) -> None:
            in_force[variable] = settings
            if variable in broken and settings is not base:
                raise RuntimeError("out of order")

        return apply

    running.apply = {variable: of(variable) for variable in live()}
    running._load = lambda: new
    with pytest.raises(RuntimeError, match="out of order"):
        await running.reload()
    assert running.settings is base
    assert all(settings is base for settings in in_force.values())
    assert running.stats() == {"reloads": 0, "failures": 1}
    ((text, _),) = running.problems()
    assert "could not be put into force" in text
    broken.clear()
    assert len(await running.reload() or ()) == 3
    assert in_force["GATEWAY_ORIGINS"] is running.settings
    assert not list(running.problems())


async def test_tokens_that_are_being_written_hold_nobody_up(tmp_path: Path) -> None:
    """A reload waits for their lock beside the loop."""
    async with gateway(tmp_path) as gw:
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with gw.app.tokens._lock:
                held.set()
                go_on.wait(20)

        holding = asyncio.create_task(asyncio.to_thread(hold))
        await asyncio.to_thread(held.wait, 20)
        try:
            reloading = asyncio.create_task(reload(gw))
            assert (await asyncio.wait_for(gw.get("/livez"), 10))[0] == 200
            assert not reloading.done()
        finally:
            go_on.set()
        await holding
        await reloading


async def test_what_the_environment_of_the_gateway_says_needs_a_restart(base: Settings, running: Reloader) -> None:
    """A reload cannot see past a variable that the gateway was started with, and check-config knows."""
    new = changed(base, "GATEWAY_LOG__LEVEL")
    answer: Any = await running.describe({})  # a reload would find what is in force
    (line,) = _lines(new, answer)
    assert "needs a restart: a reload would not find it" in line


async def test_all_that_can_be_changed_is_put_into_force(tmp_path: Path) -> None:
    """The running gateway has something to call for each."""
    async with gateway(tmp_path) as gw:
        assert set(gw.app.reloader.apply) == live()


# -- what each does -------------------------------------------------------------------------------------------------


async def reload(gw: Running, **sections: Any) -> None:
    """Change settings of a running gateway."""
    old = gw.app.reloader.settings
    update = {
        name: getattr(old, name).model_copy(update=given) if isinstance(given, dict) else given
        for name, given in sections.items()
    }
    gw.app.reloader._load = lambda: old.model_copy(update=update)
    assert await gw.app.reloader.reload() is not None


async def test_limits_of_devices(tmp_path: Path) -> None:
    """Rate and burst hold for devices that are connected and for new ones, and so do the policy and the metrics."""
    async with gateway(tmp_path, limits={"device_rate": 0.001, "device_burst": 1}) as gw, gw.device("a") as ws:
        assert (await receive(ws, "welcome"))["rate"] == {"per_s": 0.001, "burst": 1}
        await send(ws, {"seq": 1, "t": 1}, {"seq": 2, "t": 1})
        await receive(ws, "throttled")
        await reload(gw, limits={"device_rate": 1000.0, "device_burst": 50.0, "max_metrics": 2})
        await asyncio.sleep(0.01)
        await send(ws, {"seq": 2, "t": 1}, {"seq": 3, "t": 1})
        await acked(ws, 3)
        await send(ws, {"seq": 4, "t": 1, "u": 1, "v": 1})
        assert "more than 2 metrics" in (await receive(ws, "error"))["detail"]
        async with gw.device("b") as other:
            assert (await receive(other, "welcome"))["rate"] == {"per_s": 1000.0, "burst": 50.0}
        await reload(gw, limits={"device_rate": 0.001, "device_burst": 1.0, "policy": "close"})
        await send(ws, *({"seq": seq, "t": 1} for seq in range(5, 10)))
        await asyncio.wait_for(ws.wait_closed(), 10)
        assert ws.close_code == 1008


async def test_how_many_there_may_be(tmp_path: Path) -> None:
    """Connections in all, of an address, and devices: newcomers are judged by the new bounds, nobody is thrown out."""
    async with gateway(tmp_path) as gw, gw.device("a") as ws:
        await receive(ws, "welcome")
        for limits, status in (({"max_connections": 1}, 503), ({"max_per_address": 1}, 429), ({"max_devices": 1}, 503)):
            await reload(gw, limits=limits)
            with pytest.raises(InvalidStatus) as refused:
                await gw.device("b")
            assert refused.value.response.status_code == status
            await reload(gw, limits={"max_connections": None, "max_per_address": None, "max_devices": 10})
        async with gw.device("b") as other:
            await receive(other, "welcome")
        await send(ws, {"seq": 1, "t": 1})
        await acked(ws, 1)


async def test_how_many_connections_a_token_may_have(tmp_path: Path) -> None:
    """The next one is judged by the new bound."""
    async with gateway(tmp_path, auth={"mode": "token"}) as gw:
        _, token = gw.app.tokens.create(["live:read"])
        headers = {"Authorization": f"Bearer {token}"}
        async with gw.live(additional_headers=headers) as one:
            await receive(one, "hello")
            await reload(gw, limits={"max_per_token": 1})
            with pytest.raises(InvalidStatus):
                await gw.live(additional_headers=headers)
            await reload(gw, limits={"max_per_token": None})
            async with gw.live(additional_headers=headers) as two:
                await receive(two, "hello")


async def test_origins_clock_rules_log_level_and_the_journals_bounds(tmp_path: Path) -> None:
    """Each takes effect at once."""
    root = logging.getLogger()
    level = root.level
    try:
        async with gateway(tmp_path) as gw, gw.device("a") as ws:
            await receive(ws, "welcome")
            origin = {"Origin": "https://dash.example"}
            assert (await gw.get("/api/v1/devices", origin))[0] == 403
            await reload(gw, origins=["https://dash.example"])
            assert (await gw.get("/api/v1/devices", origin))[0] == 200
            await reload(gw, clock={"old": "refuse"})
            await send(ws, {"seq": 1, "ts": 1_000_000, "values": {"t": 1}})
            await receive(ws, "error")
            await reload(gw, log={"level": "error"})
            assert root.level == logging.ERROR
            await reload(gw, journal={"keep_free_bytes": 1 << 60})
            assert (await gw.get("/readyz"))[0] == 503
            await reload(gw, journal={"keep_free_bytes": 0})
            assert (await gw.get("/readyz"))[0] == 200
            await reload(gw, journal={"max_bytes": 16 << 20})
            assert b"gateway_journal_max_bytes 1.6777216e+07" in (await gw.get("/metrics"))[2]
    finally:
        root.setLevel(level)

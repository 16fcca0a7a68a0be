"""Settings from the environment, every fault named at once."""

import json

import pytest

from gateway.cli import main
from gateway.config import lacking, load, shown, variables
from gateway.errors import ConfigError
from tests.certificates import authority, issue


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No settings but a test's own."""
    import os

    for name in list(os.environ):
        if name.startswith("GATEWAY_") or name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_of_the_contract():
    """The defaults that other programs rely on."""
    settings = load()
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 8080)
    assert (settings.limits.device_rate, settings.limits.device_burst, settings.limits.policy) == (100, 200, "drop")
    assert (settings.limits.max_message_bytes, settings.limits.max_connections) == (65_536, None)
    assert (settings.journal.commit_ms, settings.journal.on_full) == (50, "refuse")
    assert (settings.batch.max_readings, settings.batch.max_delay_ms) == (1000, 250)
    assert (settings.heartbeat.interval_s, settings.heartbeat.timeout_s) == (20, 20)
    assert (settings.mqtt.url, settings.mqtt.prefix, settings.mqtt.qos, settings.mqtt.layout) == (
        "",
        "gateway",
        1,
        "flat",
    )
    assert settings.influx.measurement == "telemetry"


def test_environment_dotenv_credentials_and_toml(monkeypatch, tmp_path):
    """The environment wins over .env, that over credentials, that over the TOML file."""
    (tmp_path / ".env").write_text("GATEWAY_LISTEN__PORT=1\nGATEWAY_ID=from-dotenv\nOTHER=x\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "GATEWAY_MQTT__PASSWORD").write_text("secret\n")
    toml = tmp_path / "gateway.toml"
    toml.write_text('id = "from-toml"\n[mqtt]\nurl = "mqtt://broker"\npassword = "other"\n[log]\nlevel = "debug"\n')
    monkeypatch.setenv("GATEWAY_CONFIG", str(toml))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("GATEWAY_LISTEN__PORT", "2")
    settings = load()
    assert (settings.listen.port, settings.id, settings.log.level) == (2, "from-dotenv", "debug")
    assert (settings.mqtt.url, settings.mqtt.password.get_secret_value()) == ("mqtt://broker", "secret")


def test_a_certificate_from_credentials(monkeypatch, tmp_path):
    """Its files stand beside the secrets in the credentials' directory, and its settings name them."""
    pair = issue(tmp_path, authority(tmp_path))
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for source, name in zip(pair, ("tls-cert.pem", "tls-key.pem"), strict=True):
        (credentials / name).write_bytes(source.read_bytes())
        (credentials / name).chmod(0o400)
    (credentials / "GATEWAY_MQTT__PASSWORD").write_text("secret\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("GATEWAY_TLS__CERT", f"{credentials}/tls-cert.pem")
    monkeypatch.setenv("GATEWAY_TLS__KEY", f"{credentials}/tls-key.pem")
    settings = load()
    assert settings.tls.cert == credentials / "tls-cert.pem"
    assert settings.mqtt.password.get_secret_value() == "secret"


def test_every_fault_is_named_at_once(monkeypatch):
    """The variable, what is wrong and an accepted form, a line each."""
    faulty = {
        "GATEWAY_LISTEN__PORT": "x",
        "GATEWAY_LISTEN__HOST": "0.0.0.0",
        "GATEWAY_MQTT__URL": "http://broker",
        "GATEWAY_MQTT__ULR": "mqtt://broker",
        "GATEWAY_ORIGINS": "dash.example",
        "GATEWAY_LIMITS__POLICY": "panic",
        "GATEWAY_JOURNAL__COMMIT_MS": "nan",
        "GATEWAY_AUTH__MODE": "password",
        "GATEWAY_TLS__CERT": "/nowhere/cert.pem",
        "GATEWAY_TLS__KEY": "/nowhere/key.pem",
        "GATEWAY_STATE_DIR": "",
        "GATEWAY_ID": "a b",
    }
    for name, value in faulty.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as info:
        load()
    lines = str(info.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(faulty)
    assert any("GATEWAY_MQTT__URL?" in line for line in lines if "ULR" in line)


def test_what_is_shown_can_be_read_again(monkeypatch, tmp_path, capsys):
    """The output of config show is a .env file, unset ones included; names of nobody's section are let be."""
    monkeypatch.setenv("GATEWAY_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("GATEWAY_LIMITS__MAX_CONNECTIONS", "")
    assert main(["config", "show"]) == 0
    shown_before = capsys.readouterr().out
    (tmp_path / ".env").write_text(shown_before)
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().out == shown_before


def test_beyond_loopback_needs_tokens_and_tls(monkeypatch, tmp_path):
    """Listening where others reach it, without tokens or without TLS, is a fault that names what is missing."""
    pair = issue(tmp_path, authority(tmp_path))
    monkeypatch.setenv("GATEWAY_LISTEN__HOST", "::")
    for mode, secure, missing in (
        ("none", False, {"GATEWAY_AUTH__MODE=token", "GATEWAY_TLS__CERT"}),
        ("none", True, {"GATEWAY_AUTH__MODE=token"}),
        ("token", False, {"GATEWAY_TLS__CERT"}),
        ("token", True, set()),
    ):
        monkeypatch.setenv("GATEWAY_AUTH__MODE", mode)
        monkeypatch.setenv("GATEWAY_TLS__CERT", str(pair.cert) if secure else "")
        monkeypatch.setenv("GATEWAY_TLS__KEY", str(pair.key) if secure else "")
        if not missing:
            assert load().listen.host == "::"
            assert lacking(load()) == []
            continue
        with pytest.raises(ConfigError, match="ALLOW_INSECURE") as info:
            load()
        every = {"GATEWAY_AUTH__MODE=token", "GATEWAY_TLS__CERT"}
        assert {name for name in every if name in str(info.value)} == missing
        monkeypatch.setenv("GATEWAY_AUTH__ALLOW_INSECURE", "true")
        assert len(lacking(load())) == len(missing)
        monkeypatch.delenv("GATEWAY_AUTH__ALLOW_INSECURE")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["set GATEWAY_MQTT__URL"]),
        ({"GATEWAY_MQTT__URL": "mqtt://broker", "GATEWAY_MQTT__LAYOUT": "influx"}, ["does not read the layout influx"]),
        ({"GATEWAY_MQTT__LAYOUT": "thingsboard"}, ["set GATEWAY_MQTT__URL", "does not read the layout thingsboard"]),
        ({"GATEWAY_MQTT__URL": "mqtt://broker", "GATEWAY_MQTT__LAYOUT": "batch"}, []),
    ],
)
def test_home_assistant_needs_a_broker_and_a_layout_that_it_reads(monkeypatch, variables, words):
    """Anything else is a fault of the setting that asks for it."""
    for name, value in {**variables, "GATEWAY_HOMEASSISTANT__ENABLED": "yes"}.items():
        monkeypatch.setenv(name, value)
    if not words:
        assert load().homeassistant.enabled
        return
    with pytest.raises(ConfigError) as info:
        load()
    lines = str(info.value).splitlines()
    assert len(lines) == len(words)
    assert all(
        line.startswith("GATEWAY_HOMEASSISTANT__ENABLED:") and word in line
        for line, word in zip(lines, words, strict=True)
    )


def test_secrets_are_masked(monkeypatch):
    """Neither passwords nor tokens are shown."""
    monkeypatch.setenv("GATEWAY_MQTT__URL", "mqtt://user:canary@broker")
    monkeypatch.setenv("GATEWAY_MQTT__PASSWORD", "canary")
    monkeypatch.setenv("GATEWAY_INFLUX__TOKEN", "canary")
    assert "canary" not in json.dumps(shown(load()))
    assert set(shown(load())) == set(variables())


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [
        ("INFLUX", "http://h:1/?token=canary", "GATEWAY_INFLUX__TOKEN"),
        ("INFLUX", "http://h:1/#canary", "GATEWAY_INFLUX__TOKEN"),
        ("MQTT", "mqtt://h:1?password=canary", "GATEWAY_MQTT__PASSWORD"),
        ("MQTT", "mqtt://user:canary#1@h", "GATEWAY_MQTT__PASSWORD"),
        ("MQTT", "mqtt://user:canary/1@h", "GATEWAY_MQTT__PASSWORD"),
        ("MQTT", "mqtt://user:canary[@h", "GATEWAY_MQTT__PASSWORD"),
    ],
)
def test_a_secret_in_a_url_where_it_is_not_masked(monkeypatch, capsys, name, url, says):
    """In its query or fragment, or cut off there, it is a fault that names where it belongs, and is never shown."""
    monkeypatch.setenv(f"GATEWAY_{name}__URL", url)
    for command in (["check-config"], ["config", "show"]):
        assert main(command) == 78
        said = "".join(capsys.readouterr())
        assert f"GATEWAY_{name}__URL: " in said
        assert says in said
        assert "canary" not in said


@pytest.mark.parametrize(
    ("host", "works"),
    [
        *((host, True) for host in ("127.0.0.1", "::1", "localhost", "gw-1.example.", "my_host", "::", "fe80::1%lo")),
        *((host, False) for host in ("127.0.0.1:1", "name:1", "[::1]", "a b", "a..b", "-a", "300.1.1.1", "x" * 64)),
    ],
)
def test_a_host_is_an_address_or_a_name(monkeypatch, host, works):
    """What is neither cannot be listened on, and is said so before the start."""
    monkeypatch.setenv("GATEWAY_LISTEN__HOST", host)
    monkeypatch.setenv("GATEWAY_AUTH__ALLOW_INSECURE", "true")
    if works:
        assert load().listen.host == host
        return
    with pytest.raises(ConfigError, match="GATEWAY_LISTEN__HOST: not an address or a name"):
        load()
    assert main(["run"]) == 78


def test_commands(monkeypatch, capsys):
    """check-config ends with 0 or 78 and names the faults on stderr; config show prints what is in force."""
    assert main(["check-config"]) == 0
    monkeypatch.setenv("GATEWAY_LISTEN__PORT", "70000")
    assert main(["check-config", "--json"]) == 78
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["ok"] is False
    assert "GATEWAY_LISTEN__PORT" in err
    assert main(["run"]) == 78
    monkeypatch.delenv("GATEWAY_LISTEN__PORT")
    assert main(["config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["GATEWAY_LISTEN__PORT"] == 8080


def test_misspelt_sections_of_files(monkeypatch, tmp_path):
    """A section that there is not is named, whichever source it stands in."""
    toml = tmp_path / "gateway.toml"
    toml.write_text('[mqqt]\nurl = "mqtt://broker"\n')
    (tmp_path / ".env").write_text("GATEWAY_LISTNE__PORT=1\n")
    monkeypatch.setenv("GATEWAY_CONFIG", str(toml))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load()
    assert "GATEWAY_MQQT__URL: this version has no such setting; GATEWAY_MQTT__URL?" in str(error.value)
    assert "GATEWAY_LISTNE__PORT: this version has no such setting; GATEWAY_LISTEN__PORT?" in str(error.value)


@pytest.mark.parametrize("variable", ["GATEWAY_LISTEN", "GATEWAY_AUTH"])
def test_a_value_in_a_sections_place(monkeypatch, variable):
    """It is a fault like others, and no traceback."""
    monkeypatch.setenv(variable, "5")
    with pytest.raises(ConfigError, match=variable):
        load()


def test_a_value_in_a_sections_place_in_a_file(monkeypatch, tmp_path):
    """Likewise in a TOML file."""
    toml = tmp_path / "gateway.toml"
    toml.write_text('listen = "0.0.0.0"\nauth = 1\n')
    monkeypatch.setenv("GATEWAY_CONFIG", str(toml))
    with pytest.raises(ConfigError) as error:
        load()
    assert "GATEWAY_LISTEN: " in str(error.value)
    assert "GATEWAY_AUTH: " in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("GATEWAY_MQTT__CA", "/nowhere/ca.pem", "No such file"),
        ("GATEWAY_MQTT__PREFIX", "a" * 200, "longer than 128"),
        ("GATEWAY_JOURNAL__COMMIT_MS", "5000", "above 2000"),
        ("GATEWAY_HISTORY__RETENTION_DAYS", "200000", "above 36500"),
        ("GATEWAY_JOURNAL__MAX_BYTES", "1000000", "below 16777216, the least"),
        ("GATEWAY_LIMITS__DEVICE_RATE", "2e6", "above 1000000, the most"),
        ("GATEWAY_LIMITS__DEVICE_RATE", "1e-320", "below 0.001"),
        ("GATEWAY_HEARTBEAT__INTERVAL_S", "1e-9", "below 0.01"),
    ],
)
def test_values_that_would_break_it_are_refused(monkeypatch, variable, value, words):
    """What the gateway could not live with is a fault at the start, in words."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=words) as error:
        load()
    assert variable in str(error.value)


def test_paths_and_names_as_people_write_them(monkeypatch):
    """A tilde is a home, and localhost is loopback however it is written."""
    monkeypatch.setenv("HOME", "/home/pi")
    monkeypatch.setenv("GATEWAY_STATE_DIR", "~/gw")
    monkeypatch.setenv("GATEWAY_LISTEN__HOST", "LOCALHOST")
    assert str(load().state_dir) == "/home/pi/gw"


def test_a_topic_has_to_fit_its_layout(monkeypatch):
    """{metric} names one value, ThingsBoard has topics of its own, and a template has to be one."""
    bad = [
        ("batch", "{device}/metric/{metric}", "use flat"),
        ("thingsboard", "{device}/telemetry", "its own topics"),
        ("flat", "{device}/{metric}", "a level of its own"),
    ]
    for layout, topic, words in bad:
        monkeypatch.setenv("GATEWAY_MQTT__LAYOUT", layout)
        monkeypatch.setenv("GATEWAY_MQTT__TOPIC", topic)
        with pytest.raises(ConfigError, match=words) as raised:
            load()
        assert str(raised.value).startswith("GATEWAY_MQTT__TOPIC: ")
    for layout, topic in [("flat", "{prefix}/{device}/metric/{metric}"), ("influx", "site/{device}/lines")]:
        monkeypatch.setenv("GATEWAY_MQTT__LAYOUT", layout)
        monkeypatch.setenv("GATEWAY_MQTT__TOPIC", topic)
        assert load().mqtt.topic == topic

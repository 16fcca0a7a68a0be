"""Settings: every one an environment variable ``GATEWAY_<SECTION>__<NAME>``, declared once, here.

Read, in this order of precedence, from the environment, from ``.env`` in the working directory, from files in systemd's
credentials directory (secrets), and from a TOML file that ``GATEWAY_CONFIG`` names.  Validation only: nothing is opened
but those files, and those that settings name.

A setting that can be changed while the gateway runs is marked ``LIVE``, or ``LIVE_WITH_TLS`` where that goes only while
there is TLS before and after; any other needs a restart.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from . import pem
from .errors import ConfigError
from .reading import is_device
from .topics import TEMPLATE, problem

__all__ = ["Settings", "is_loopback", "lacking", "load", "shown"]

PREFIX = "GATEWAY_"
MIB = 1 << 20
_ORIGINS_EXAMPLE = '["https://dash.example"]'

LIVE: dict[str, Any] = {"live": "always"}
LIVE_WITH_TLS: dict[str, Any] = {"live": "with_tls"}


def _state_dir() -> Path:
    given = os.environ.get("STATE_DIRECTORY")  # systemd.exec(5)
    if given:
        return Path(given.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "gateway"


def is_loopback(host: str) -> bool:
    """Whether listening on ``host`` reaches this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    """Whether it is an IP address or can be a host's name (RFC 1123, 2.1; ``_`` is found in practice)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        return len(host) <= 253 and all(map(_label, labels)) and not labels[-1].isdecimal()
    return True


_label = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)").fullmatch

T = TypeVar("T")
# A variable that is there and empty means the same as one that is not.
Unset = Annotated[T | None, BeforeValidator(lambda given: None if given == "" else given)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Listen(Section):
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 or :: for all.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes a free one.")

    @field_validator("host")
    @classmethod
    def _host(cls, host: str) -> str:
        if not _is_host(host):
            raise ValueError("not an address or a name; a port is GATEWAY_LISTEN__PORT, and :: stands without brackets")
        return host


class Auth(Section):
    mode: Literal["none", "token"] = Field(
        "none", description="Who may connect: none, everybody on this machine; token, who has one that allows it."
    )
    allow_insecure: bool = Field(
        False, description="Listen beyond loopback without tokens or without TLS; every start warns of it."
    )


class Tls(Section):
    cert: Unset[Path] = Field(
        None, description="PEM file of the server's certificate, its chain behind it.", json_schema_extra=LIVE_WITH_TLS
    )
    key: Unset[Path] = Field(
        None, description="PEM file of its private key, without a passphrase.", json_schema_extra=LIVE_WITH_TLS
    )
    client_ca: Unset[Path] = Field(
        None,
        description="PEM file of the authorities whose client certificates let devices in; default: none.",
        json_schema_extra=LIVE_WITH_TLS,
    )


class Mqtt(Section):
    url: str = Field("", description="mqtt://[user:password@]host[:1883] or mqtts://host[:8883]; empty: no relay.")
    prefix: str = Field(
        "gateway", max_length=128, pattern=r"^[^+#\x00/]+(/[^+#\x00/]+)*$", description="First levels of every topic."
    )
    qos: int = Field(
        1, ge=0, le=1, description="Quality of service of telemetry: 1, acknowledged by the broker; 0, sent once."
    )
    layout: Literal["flat", "batch", "influx", "thingsboard"] = Field(
        "flat",
        description="flat: a message a reading; batch, influx (lines): one a device and flush; thingsboard: its own.",
    )
    topic: str = Field(
        TEMPLATE,
        max_length=256,
        description="Where telemetry goes; {prefix}/{device}/metric/{metric} with flat: a message a value.",
    )
    expiry_s: int = Field(
        0, ge=0, le=0xFFFF_FFFF, description="How long the broker keeps telemetry for who is away (seconds); 0: always."
    )
    username: str = Field("", description="Instead of the one in the URL.")
    password: SecretStr = Field(SecretStr(""), description="Instead of the one in the URL.")
    ca: Unset[Path] = Field(None, description="PEM file of the authorities to trust with mqtts; default: the system's.")

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return _check_url(url, ("mqtt", "mqtts"), "GATEWAY_MQTT__PASSWORD")

    @field_validator("topic")
    @classmethod
    def _topic(cls, topic: str, info: ValidationInfo) -> str:
        fault = problem(topic)
        layout = info.data.get("layout", "flat")
        if not fault and "{metric}" in topic and layout != "flat":
            fault = f"{{metric}} names one value, and the layout {layout} has many in a message: use flat"
        if not fault and layout == "thingsboard" and topic != TEMPLATE:
            fault = "ThingsBoard takes its own topics alone: leave it unset"
        if fault:
            raise ValueError(fault)
        return topic

    @field_validator("ca")
    @classmethod
    def _ca(cls, ca: Path | None) -> Path | None:
        if ca is not None:
            try:
                ca.read_bytes()
            except OSError as error:
                raise ValueError(f"{ca}: {error.strerror}") from None
        return ca


class HomeAssistant(Section):
    enabled: bool = Field(False, description="Tell Home Assistant of the devices, over MQTT (device discovery).")
    prefix: str = Field(
        "homeassistant",
        max_length=128,
        pattern=r"^[^+#\x00/]+(/[^+#\x00/]+)*$",
        description="First levels of its discovery topics, as set in its MQTT integration.",
    )


class Influx(Section):
    url: str = Field("", description="http://host:8086 of InfluxDB 2, 3 Core or VictoriaMetrics; empty: off.")
    token: SecretStr = Field(SecretStr(""), description="API token with write access to the bucket.")
    org: str = Field("", description="Organisation (InfluxDB 2).")
    bucket: str = Field("gateway", min_length=1, description="Bucket or database to write to.")
    measurement: str = Field("telemetry", min_length=1, pattern=r"^[^\x00-\x1f]+$", description="Measurement's name.")

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return _check_url(url, ("http", "https"), "GATEWAY_INFLUX__TOKEN")


_SPARKPLUG_ID = r"^[^+#/\x00]*$"  # Sparkplug 3.0.0, 4.1


class Sparkplug(Section):
    enabled: bool = Field(False, description="Be a Sparkplug B edge node on the broker of GATEWAY_MQTT__URL.")
    group: str = Field("gateway", min_length=1, max_length=128, pattern=_SPARKPLUG_ID, description="Group id.")
    node: str = Field(
        "", max_length=128, pattern=_SPARKPLUG_ID, description="Edge node id, alone in its group; empty: GATEWAY_ID."
    )
    primary_host: str = Field(
        "",
        max_length=128,
        pattern=_SPARKPLUG_ID,
        description="Id of the host application without which nothing is published; empty: none.",
    )
    aliases: bool = Field(
        True, description="Values have aliases; false: name and data type, for hosts that do not keep those of births."
    )


class Limits(Section):
    device_rate: float = Field(
        100, ge=0.001, le=1e6, description="Readings a second a device may send.", json_schema_extra=LIVE
    )
    device_burst: float = Field(
        200, ge=1, le=1e6, description="Readings a device may send at once after a pause.", json_schema_extra=LIVE
    )
    policy: Literal["drop", "delay", "close"] = Field(
        "drop",
        description="Beyond the rate: drop and say so, delay (read no more until there is room), or close (1008).",
        json_schema_extra=LIVE,
    )
    max_message_bytes: int = Field(65_536, ge=256, le=16 * MIB, description="Largest message of a device.")
    max_connections: Unset[int] = Field(
        None,
        ge=1,
        description="Connections in all; default: what there are file descriptors for.",
        json_schema_extra=LIVE,
    )
    max_per_address: Unset[int] = Field(
        None, ge=1, description="Connections of one address; default: none.", json_schema_extra=LIVE
    )
    max_per_token: Unset[int] = Field(
        None, ge=1, description="Connections of one token or client certificate; default: none.", json_schema_extra=LIVE
    )
    max_metrics: int = Field(
        1_000,
        ge=1,
        description="Metrics a device may send; a reading with one more is refused.",
        json_schema_extra=LIVE,
    )
    max_series: int = Field(
        200_000,
        ge=1,
        description="Metrics of all devices together; a reading with one more is refused.",
        json_schema_extra=LIVE,
    )
    max_devices: int = Field(
        20_000, ge=1, description="Devices remembered; a new one beyond is refused with 503.", json_schema_extra=LIVE
    )


class Subdevices(Section):
    senml_base_name: bool = Field(False, description="Base names of SenML name sub-devices, and n alone the metric.")
    influx_tag: str = Field(
        "", max_length=64, description="Tag of line protocol whose value names the sub-device: host; default: none."
    )


class ClockSection(Section):
    old: Literal["flag", "correct", "refuse"] = Field(
        "flag",
        description="A time too old: keep it flagged, take the time of receipt instead, or refuse the reading.",
        json_schema_extra=LIVE,
    )
    future: Literal["flag", "correct", "refuse"] = Field(
        "flag", description="A time too far ahead: likewise.", json_schema_extra=LIVE
    )
    old_after_s: float = Field(
        86_400, ge=1, le=1e9, description="Old is this long before the receipt (seconds).", json_schema_extra=LIVE
    )
    future_after_s: float = Field(
        60, ge=1, le=1e9, description="Ahead is this long after the receipt (seconds).", json_schema_extra=LIVE
    )


class Journal(Section):
    commit_ms: float = Field(50, ge=1, le=2_000, description="Group commit: readings are synced this often (ms).")
    max_bytes: int = Field(
        1024 * MIB, ge=16 * MIB, description="Disk the journal may take (bytes).", json_schema_extra=LIVE
    )
    on_full: Literal["refuse", "drop_oldest"] = Field(
        "refuse", description="At max_bytes: refuse new readings, or drop the oldest that a sink still lacks."
    )
    keep_free_bytes: int = Field(
        64 * MIB,
        ge=0,
        description="Disk left free for others; below it as at max_bytes (bytes).",
        json_schema_extra=LIVE,
    )


class BatchSettings(Section):
    max_readings: int = Field(1000, ge=1, le=100_000, description="Readings a sink gets at once.")
    max_delay_ms: float = Field(250, ge=0, le=60_000, description="How long a sink's batch may wait to fill (ms).")
    max_per_s: Unset[float] = Field(
        None, gt=0, description="Readings a second that MQTT and InfluxDB each get at most; default: no ceiling."
    )


class Heartbeat(Section):
    interval_s: float = Field(20, ge=0.01, le=3600, description="Ping a silent connection this often (seconds).")
    timeout_s: float = Field(20, ge=0.01, le=3600, description="Dead after this long without an answer (seconds).")


class HistorySettings(Section):
    retention_days: float = Field(30, gt=0, le=36_500, description="Days of readings kept in the embedded history.")
    minutes_days: float = Field(
        180,
        gt=0,
        le=36_500,
        description="Days of what each minute amounts to: min, max, mean, count, last; RETENTION_DAYS at least.",
    )
    hours_days: float = Field(
        3650, gt=0, le=36_500, description="Days of the same of each hour; as long as minutes at least."
    )


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe entries to write.", json_schema_extra=LIVE
    )
    format: Literal["auto", "console", "json", "journald"] = Field(
        "auto",
        description="console for people, json: an object a line, journald, or auto: journald as a service, else "
        "console.",
    )


class Settings(BaseSettings):
    """All settings; frozen."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    listen: Listen = Listen()
    state_dir: Path = Field(
        default_factory=_state_dir, description="Directory of the journal, history and device book."
    )
    id: str = Field(default_factory=socket.gethostname, description="This gateway's name, on MQTT and on the page.")
    origins: Annotated[list[str], NoDecode] = Field(
        [], description=f"Further web origins that may connect: {_ORIGINS_EXAMPLE}.", json_schema_extra=LIVE
    )
    auth: Auth = Auth()
    tls: Tls = Tls()
    mqtt: Mqtt = Mqtt()
    homeassistant: HomeAssistant = HomeAssistant()
    sparkplug: Sparkplug = Sparkplug()
    influx: Influx = Influx()
    limits: Limits = Limits()
    subdevices: Subdevices = Subdevices()
    clock: ClockSection = ClockSection()
    journal: Journal = Journal()
    batch: BatchSettings = BatchSettings()
    heartbeat: Heartbeat = Heartbeat()
    history: HistorySettings = HistorySettings()
    log: Log = Log()

    @field_validator("state_dir", mode="before")
    @classmethod
    def _not_empty(cls, given: object) -> object:
        if given == "":
            raise ValueError("empty")
        return os.path.expanduser(given) if isinstance(given, str) else given

    @field_validator("id")
    @classmethod
    def _is_name(cls, given: str) -> str:
        if not is_device(given):
            raise ValueError("letters, digits and _ . : - only, 64 at most, the first a letter or digit")
        return given

    @field_validator("origins", mode="before")
    @classmethod
    def _json_list(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        try:
            return json.loads(given)
        except ValueError:
            raise ValueError(f"{given!r} is not a JSON list; accepted: [] or {_ORIGINS_EXAMPLE}") from None

    @field_validator("origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            parts = urlsplit(origin)
            if origin != "null" and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path):
                raise ValueError(f"{origin!r} is not an origin such as https://dash.example or http://10.0.0.5:3000")
        return origins

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, given: Any, handler: ModelWrapValidatorHandler[Settings]) -> Settings:
        """Raises :class:`ConfigError` with all faults, those between settings included."""
        faults = []
        settings = None
        try:
            settings = handler(given)
        except ValidationError as error:
            faults = [_fault(fault) for fault in error.errors(include_url=False)]
        faults += _strangers(given)
        host = str(_inner(given, "listen", "host", "127.0.0.1"))
        insecure = _inner(given, "auth", "allow_insecure", False)
        missing = _lacking(_inner(given, "auth", "mode", "none"), _inner(given, "tls", "cert", None))
        allowed = _is_true(insecure)
        if missing and _is_host(host) and not is_loopback(host) and not allowed:
            faults.append(
                f"GATEWAY_LISTEN__HOST: {host} is reached from other machines, without {' and '.join(missing)}; set "
                "these, or GATEWAY_AUTH__ALLOW_INSECURE=true if that is meant, or listen on 127.0.0.1"
            )
        faults += _tls_faults(given)
        faults += _homeassistant_faults(given)
        if _is_true(_inner(given, "sparkplug", "enabled", False)) and not _inner(given, "mqtt", "url", ""):
            faults.append("GATEWAY_SPARKPLUG__ENABLED: there is no broker; name one with GATEWAY_MQTT__URL")
        if settings is None or faults:
            raise ConfigError("\n".join(faults))
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources = [init_settings, env_settings, dotenv_settings]
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")  # systemd.exec(5), LoadCredential=
        if credentials:
            sources.append(
                NestedSecretsSettingsSource(
                    file_secret_settings,
                    secrets_dir=credentials,
                    secrets_prefix=PREFIX,
                    secrets_nested_delimiter="__",
                )
            )
        config = os.environ.get("GATEWAY_CONFIG")
        if config:
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=config))
        return tuple(sources)


def _check_url(url: str, schemes: tuple[str, ...], secret: str) -> str:
    """The URL, if it has a place for nothing that would be shown; ``secret`` is the setting for what has to be kept.

    Nothing of a URL that is refused is told: its parts are not where they seem.
    """
    if not url:
        return url
    accepted = " or ".join(f"{scheme}://host:port" for scheme in schemes)
    encoded = "/ ? # [ ] in a password are written %2F %3F %23 %5B %5D"
    if "?" in url or "#" in url:
        raise ValueError(f"it has a query or fragment, which is not used: give a secret by {secret}; {encoded}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            f"its host or port cannot be read; accepted: {accepted}; give a secret by {secret}; {encoded}"
        ) from None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise ValueError(f"not a URL this takes; accepted: {accepted}")
    return url


def _lacking(mode: object, cert: object) -> list[str]:
    """What protects a listener beyond loopback and is not set, in words."""
    found = []
    if mode != "token":
        found.append("authentication (GATEWAY_AUTH__MODE=token)")
    if not cert:
        found.append("TLS (GATEWAY_TLS__CERT and GATEWAY_TLS__KEY)")
    return found


def lacking(settings: Settings) -> list[str]:
    """What the gateway lacks to be safe beyond loopback, in words."""
    return _lacking(settings.auth.mode, settings.tls.cert)


def load() -> Settings:
    """The settings; raises :class:`~gateway.errors.ConfigError` that names every fault, a line each."""
    config = os.environ.get("GATEWAY_CONFIG")
    if config and not os.path.isfile(config):
        raise ConfigError(f"GATEWAY_CONFIG: no file {config}")
    try:
        return Settings()
    except (OSError, ValueError, SettingsError) as error:  # a TOML file, .env or credential that cannot be read
        raise ConfigError(f"{config or '.env'}: {error}") from None


def _strangers(given: Any) -> list[str]:
    """Settings that there are not: sections of the environment, and of what was read from files.

    A section's misspelt name is found by its model; this finds sections that there are not.  Names without a section
    in the environment may be anybody's (Kubernetes makes GATEWAY_PORT for a service of that name).
    """
    sections = {name for name, field in Settings.model_fields.items() if _section(field.annotation)}
    given = given if isinstance(given, dict) else {}
    # The source of a .env file gives names without the prefix, and those of other programs as they are.
    found = [name for name in dotenv_values(".env") if name.removeprefix(PREFIX).lower() in given]
    faults = []
    for name in sorted({*os.environ, *found}):
        section, separator, _ = name.removeprefix(PREFIX).partition("__")
        if name.startswith(PREFIX) and separator and section.lower() not in sections:
            faults.append(_no_such(name))
    for name, value in given.items():
        if name not in Settings.model_fields and isinstance(value, dict):  # a section of a TOML file
            faults += [_no_such(variable((name, key))) for key in value]
    return faults


def _tls_faults(given: Any) -> Iterator[str]:
    """What is wrong with the files of TLS."""
    names = ("cert", "key", "client_ca")
    paths = [Path(value) if (value := str(_inner(given, "tls", name, None) or "")) else None for name in names]
    for name, words in pem.faults(*paths).items():
        yield f"{variable(('tls', name))}: {words}"


def _homeassistant_faults(given: Any) -> Iterator[str]:
    """What Home Assistant is told needs an MQTT broker, and a layout that it reads."""
    if not _is_true(_inner(given, "homeassistant", "enabled", False)):
        return
    if not _inner(given, "mqtt", "url", ""):
        yield (
            "GATEWAY_HOMEASSISTANT__ENABLED: Home Assistant is told over MQTT, and there is no broker; set "
            "GATEWAY_MQTT__URL, such as mqtt://host:1883, to the one that it uses"
        )
    layout = _inner(given, "mqtt", "layout", "flat")
    if layout in ("influx", "thingsboard"):
        yield (
            f"GATEWAY_HOMEASSISTANT__ENABLED: Home Assistant does not read the layout {layout}; set "
            "GATEWAY_MQTT__LAYOUT to flat or batch"
        )


def _is_true(given: object) -> bool:
    return str(given).lower() in ("1", "true", "yes", "on", "t", "y")


def _inner(given: Any, section: str, name: str, default: object) -> object:
    inner = given.get(section) if isinstance(given, dict) else None
    return inner.get(name, default) if isinstance(inner, dict) else default


def _no_such(name: str) -> str:
    near = difflib.get_close_matches(name, list(variables()), 1)
    return f"{name}: this version has no such setting" + (f"; {near[0]}?" if near else "")


def _section(kind: Any) -> type[Section] | None:
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def variable(location: tuple[Any, ...]) -> str:
    """The environment variable of a field's location."""
    return PREFIX + "__".join(str(part) for part in location[:2]).upper()


class Leaf(NamedTuple):
    """One setting; ``live`` is ``always``, ``with_tls`` or empty: whether it can be changed while the gateway runs."""

    variable: str
    section: str | None
    name: str
    live: str

    def of(self, settings: Settings) -> Any:
        """Its value."""
        return getattr(getattr(settings, self.section) if self.section is not None else settings, self.name)


def leaves() -> Iterator[Leaf]:
    """Every setting."""
    for name, field in Settings.model_fields.items():
        kind = _section(field.annotation)
        if kind is None:
            yield Leaf(variable((name,)), None, name, _live(field))
        else:
            for inner, leaf in kind.model_fields.items():
                yield Leaf(variable((name, inner)), name, inner, _live(leaf))


def _live(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("live", "")) if isinstance(extra, dict) else ""


def variables() -> dict[str, tuple[Any, str]]:
    """Every setting's variable, with its default and its line of help."""
    found: dict[str, tuple[Any, str]] = {}
    for name, field in Settings.model_fields.items():
        kind = _section(field.annotation)
        if kind is not None:
            for inner, leaf in kind.model_fields.items():
                found[variable((name, inner))] = (leaf.default, leaf.description or "")
        else:
            found[variable((name,))] = (field.get_default(call_default_factory=True), field.description or "")
    return found


# Pydantic's kinds of faults in plain words; ``{}`` are filled from the fault's context.
_WORDS = {
    "int_parsing": "not a whole number",
    "float_parsing": "not a number",
    "bool_parsing": "not true or false",
    "finite_number": "not a finite number",
    "greater_than": "not above {gt:.15g}",
    "greater_than_equal": "below {ge:.15g}, the least that works",
    "less_than_equal": "above {le:.15g}, the most that works",
    "literal_error": "not one of {expected}",
    "string_too_short": "empty",
    "string_too_long": "longer than {max_length} characters",
}


def _fault(fault: Any) -> str:
    location = fault["loc"]
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] in _WORDS:
        message = _WORDS[fault["type"]].format(**fault.get("ctx", {}))
    if not location:
        return message
    name = variable(location)
    if fault["type"] == "extra_forbidden":
        return _no_such(name)
    help_text = variables().get(name, (None, ""))[1]
    return f"{name}: {message[:1].lower()}{message[1:]}" + (f" ({help_text})" if help_text else "")


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as variables and plain values, secrets and passwords in URLs masked."""
    values: dict[str, Any] = {}
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            for inner, leaf in value.items():
                values[variable((name, inner))] = _masked(leaf)
        else:
            values[variable((name,))] = _masked(value)
    return values


def _masked(value: Any) -> Any:
    if isinstance(value, str) and "@" in value and "://" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://***@{rest.rpartition('@')[2]}"
    return value

"""The service under a real systemd, with all that its unit forbids: installed, used, broken, upgraded, removed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.logs import EVENTS
from tests.certificates import authority, issue, trusting
from tests.integration.machine import CHECKOUT, DROPINS, PORT, PYTHON, Host, why_no_host

pytestmark = pytest.mark.skipif(why_no_host() != "", reason=why_no_host())

SETTINGS = "/etc/gateway/gateway.env"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A machine with the gateway installed; each test leaves it running, the last one removed."""
    with Host(tmp_path_factory.mktemp("machine")) as machine:
        status, said = machine.install()
        assert status == 0, said + machine.journal("gateway.service")
        machine.drop_in("quick", "[Service]\nRestartSec=100ms\n")
        yield machine


def send(host: Host, device: str, numbers: range) -> None:
    """Readings ``n`` of those numbers, all of them acked durably."""
    with host.device(device) as ws:
        for number in numbers:
            ws.send(json.dumps({"seq": number, "n": number}))
        while True:
            message = json.loads(ws.recv(timeout=30))
            if message["type"] == "ack" and message["seq"] == numbers[-1]:
                return


def stored(host: Host, device: str, count: int) -> list[int]:
    """The values of ``n`` in the history, once there are so many: it may lag behind the journal by some 100 ms."""
    deadline = time.monotonic() + 30
    while True:
        status, body = host.get(f"/api/v1/history?device={device}&metric=n&from=0")
        assert status == 200, body
        values = [row["value"] for row in json.loads(body)]
        if len(values) >= count or time.monotonic() > deadline:
            return values
        time.sleep(0.05)


def test_it_works_under_its_unit(host: Host) -> None:
    """A device is served, acked after a sync, kept in the history and over a restart, where little is allowed."""
    assert host.show("gateway.service", "ActiveState") == "active"
    status = host.status()
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Umask"] == "0077"
    assert {status[name] for name in ["CapEff", "CapPrm", "CapBnd", "CapAmb"]} == {"0" * 16}
    assert "0" not in status["Uid"].split()
    send(host, "pump-1", range(1, 101))
    assert stored(host, "pump-1", 100) == list(range(1, 101))
    assert b"\nprocess_resident_memory_bytes " in host.get("/metrics")[1]
    host.run("systemctl", "restart", "gateway.service")
    assert stored(host, "pump-1", 100) == list(range(1, 101))
    assert "pump-1" in host.run("gateway", "devices").stdout
    assert host.run("stat", "--format=%a %U", "/var/lib/private/gateway").stdout.split() == ["700", "gateway"]


def test_its_entries_are_the_journals(host: Host) -> None:
    """What the gateway logs is found by kind, device and reason, with its level, and not a second time as a line."""
    with host.device("noisy") as ws:
        ws.send('{"a b":1}')
        while json.loads(ws.recv(timeout=30))["type"] != "error":
            pass
    command = ["journalctl", "--unit=gateway.service", "--output=json", "DEVICE_ID=noisy"]
    deadline = time.monotonic() + 30
    while len(lines := host.run(*command, f"MESSAGE_ID={EVENTS['device_refused'].id}").stdout.splitlines()) < 1:
        assert time.monotonic() < deadline, host.journal("gateway.service")
        time.sleep(0.05)
    (entry,) = map(json.loads, lines)
    assert entry["MESSAGE"] == "noisy: refused: 'a b': not a metric's name"
    assert (entry["PRIORITY"], entry["EVENT"], entry["CODE"]) == ("4", "device_refused", "bad_name")
    assert entry["REASON"] == "'a b': not a metric's name"
    assert (entry["SYSLOG_IDENTIFIER"], entry["_TRANSPORT"]) == ("gateway", "journal")
    said = host.journal("gateway.service")
    assert said.count("noisy: refused") == 1


PROBE = """
import ctypes, errno, mmap, os, socket, sys
def tried(what, call):
    try:
        call()
    except OSError as error:
        print(what, errno.errorcode.get(error.errno, error.errno))
    except PermissionError:
        print(what, "EPERM")
    else:
        print(what, "allowed")
libc = ctypes.CDLL(None, use_errno=True)
def system_call(*words):
    if libc.syscall(*words) < 0:
        raise OSError(ctypes.get_errno(), "")
tried("state", lambda: open(os.environ["STATE_DIRECTORY"] + "/probe", "w").close())
tried("thread", lambda: __import__("threading").Thread(target=int).start())
tried("internet", lambda: socket.socket(socket.AF_INET6).close())
tried("usr", lambda: open("/usr/probe", "w").close())
tried("opt", lambda: open("/opt/gateway/probe", "w").close())
tried("shadow", lambda: open("/etc/shadow").close())
tried("settings", lambda: open("/etc/gateway/gateway.env").close())
tried("home", lambda: open("/home/somebody/for-all").close())
tried("init", lambda: os.stat("/proc/1/exe"))
tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close())
tried("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
tried("executable", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close())
tried("namespace", lambda: system_call(272, 0x10000000))
tried("io_uring", lambda: system_call(425, 1, 0))
tried("keyring", lambda: system_call(250, 0, -3, 0))
tried("setuid", lambda: os.setuid(0))
tried("chroot", lambda: os.chroot("/"))
tried("nice", lambda: os.nice(-1))
"""


@pytest.mark.skipif(__import__("platform").machine() != "x86_64", reason="numbers of system calls are of x86_64")
def test_all_else_is_refused(host: Host) -> None:
    """A program that runs in the gateway's place can write its state and open a port, and nothing of the rest."""
    host.write("/opt/probe.py", PROBE)
    host.write("/home/somebody/for-all", "")
    unit = host.path("/etc/systemd/system/gateway.service").read_text()
    unit = unit.replace(
        "ExecStart=/opt/gateway/current/bin/gateway run", "ExecStart=/opt/gateway/current/bin/python /opt/probe.py"
    )
    host.write(
        "/etc/systemd/system/probe.service",
        unit.replace("Type=notify", "Type=oneshot").replace("StateDirectory=gateway", "StateDirectory=probe"),
    )
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "probe.service")
    said = dict(line.split() for line in host.journal("probe.service").splitlines() if len(line.split()) == 2)
    allowed = {"state", "thread", "internet"}
    assert {what for what, how in said.items() if how == "allowed"} == allowed
    assert len(said) == 18, said


def test_it_comes_back_after_a_crash_but_not_with_bad_settings(host: Host) -> None:
    """Killed, it is there again with what it acked; settings that cannot be used end it with 78, and that stays so."""
    send(host, "pump-2", range(1, 11))
    restarts = int(host.show("gateway.service", "NRestarts"))
    host.run("systemctl", "kill", "--signal=SIGKILL", "gateway.service")
    host.wait("NRestarts", str(restarts + 1))
    host.wait("ActiveState", "active")
    assert stored(host, "pump-2", 10) == list(range(1, 11))
    settings = host.path(SETTINGS)
    text = settings.read_text()
    settings.write_text("GATEWAY_MQTT__LAYOUT=heavy\n")
    try:
        assert host.run("systemctl", "restart", "gateway.service", check=False).returncode != 0
        assert host.show("gateway.service", "ExecMainStatus") == "78"
        time.sleep(0.5)
        assert host.show("gateway.service", "ActiveState") == "failed"
        assert host.show("gateway.service", "NRestarts") == "0"
        assert "GATEWAY_MQTT__LAYOUT" in host.journal("gateway.service")
    finally:
        settings.write_text(text)
        host.run("systemctl", "restart", "gateway.service")


def test_the_watchdog_ends_one_that_hangs(host: Host) -> None:
    """A gateway that does not turn is ended and started anew; one that turns tells it in time."""
    host.drop_in("watchdog", "[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\n")
    try:
        host.run("systemctl", "restart", "gateway.service")
        pid = host.show("gateway.service", "MainPID")
        time.sleep(4)
        assert host.show("gateway.service", "MainPID") == pid
        host.run("kill", "-STOP", pid)
        host.wait("NRestarts", "1")
        host.wait("ActiveState", "active")
        assert host.show("gateway.service", "MainPID") != pid
    finally:
        host.path(f"{DROPINS}/watchdog.conf").unlink()
        host.run("systemctl", "daemon-reload")


def test_a_reload_changes_no_process(host: Host) -> None:
    """``systemctl reload`` reaches the gateway, which goes on, its connections with it."""
    pid = host.show("gateway.service", "MainPID")
    with host.device("pump-3") as ws:
        host.run("systemctl", "reload", "gateway.service")
        ws.send('{"seq":1,"n":1}')
        while json.loads(ws.recv(timeout=30))["type"] != "ack":
            pass
    host.wait("ActiveState", "active")
    assert host.show("gateway.service", "MainPID") == pid


def test_a_broker_is_reached_with_a_password_that_is_a_credential(host: Host) -> None:
    """Under the unit it finds a broker by name and logs in with what ``LoadCredential=`` gives it."""
    if host.run("which", "mosquitto", check=False).returncode != 0:
        pytest.skip("needs mosquitto")
    host.write("/srv/broker/passwords", "")
    host.run("mosquitto_passwd", "-b", "/srv/broker/passwords", "gateway", "sesame")
    host.write("/srv/broker/conf", "user root\nlistener 1883 127.0.0.1\npassword_file /srv/broker/passwords\n")
    host.run("systemd-run", "--unit=broker", "mosquitto", "-c", "/srv/broker/conf")
    host.write("/etc/gateway/mqtt-password", "sesame\n", 0o600)
    host.drop_in(
        "broker",
        "[Service]\nLoadCredential=GATEWAY_MQTT__PASSWORD:/etc/gateway/mqtt-password\n"
        "Environment=GATEWAY_MQTT__URL=mqtt://localhost GATEWAY_MQTT__USERNAME=gateway\n",
    )
    try:
        host.run("systemctl", "restart", "gateway.service")
        send(host, "pump-4", range(1, 4))
        deadline = time.monotonic() + 30
        while True:
            sinks = {sink["name"]: sink for sink in json.loads(host.get("/healthz")[1])["sinks"]}
            if sinks["mqtt"]["delivered"] >= 3:
                break
            assert time.monotonic() < deadline, sinks["mqtt"]
            time.sleep(0.05)
        assert "mqtt://localhost" in host.run("gateway", "config", "show").stdout
        assert "sesame" not in host.run("systemctl", "show", "gateway.service").stdout
    finally:
        host.path(f"{DROPINS}/broker.conf").unlink()
        host.run("systemctl", "daemon-reload")


def test_the_example_of_credentials_serves_tls(host: Host, tmp_path: Path) -> None:
    """With the drop-in as it comes, certificate and key are root's alone, and a device's certificate lets it in."""
    ca = authority(tmp_path)
    server, device = issue(tmp_path, ca), issue(tmp_path, ca, "pump-10", client=True)
    for name, text in {
        "tls/cert.pem": server.cert.read_text(),
        "tls/key.pem": server.key.read_text(),
        "tls/client-ca.pem": ca.cert.read_text(),
        "mqtt-password": "sesame\n",
        "influx-token": "sesame\n",
    }.items():
        host.write(f"/etc/gateway/{name}", text, 0o600)
    example = host.path(f"{DROPINS}/credentials.conf.example").read_text()
    host.drop_in("credentials", f"{example}\nEnvironment=GATEWAY_AUTH__MODE=token\n")
    try:
        host.run("systemctl", "restart", "gateway.service")
        with host.device("pump-10", context=trusting(ca, device)) as ws:
            assert json.loads(ws.recv(timeout=30))["type"] == "welcome"
        host.run("gateway", "check-config")
        host.run("systemctl", "reload", "gateway.service")
        host.wait("ActiveState", "active")
    finally:
        host.path(f"{DROPINS}/credentials.conf").unlink()
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", "gateway.service")


def test_a_token_that_root_makes_is_the_services(host: Host) -> None:
    """Made with the command while it is down, or up, it lets a device in, and the file is the service's own."""
    host.drop_in("auth", "[Service]\nEnvironment=GATEWAY_AUTH__MODE=token\n")
    try:
        host.run("systemctl", "stop", "gateway.service")
        tokens = [json.loads(host.run("gateway", "token", "create", "pump-8", "--json").stdout)["token"]]
        host.run("systemctl", "start", "gateway.service")
        tokens.append(json.loads(host.run("gateway", "token", "create", "pump-8", "--json").stdout)["token"])
        for token in tokens:
            with host.device("pump-8", token) as ws:
                assert json.loads(ws.recv(timeout=30))["type"] == "welcome"
        said = host.run("stat", "--format=%a %U", "/var/lib/private/gateway/tokens.json").stdout
        assert said.split() == ["600", "gateway"]
    finally:
        host.path(f"{DROPINS}/auth.conf").unlink()
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", "gateway.service")


def test_with_the_socket_a_restart_refuses_no_connection(host: Host) -> None:
    """systemd holds the port: devices that connect while the gateway restarts wait, and are served."""
    status, said = host.install("--socket")
    assert status == 0, said
    try:
        refused: list[OSError] = []
        served, stop = 0, threading.Event()

        def connecting() -> None:
            nonlocal served
            while not stop.is_set():
                try:
                    with host.connect(PORT) as sock:
                        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n")
                        served += sock.recv(64).startswith(b"HTTP/1.1 200")
                except ConnectionRefusedError as error:
                    refused.append(error)
                except ConnectionResetError:  # taken by the process that was ending
                    pass
                time.sleep(0.005)

        thread = threading.Thread(target=connecting)
        thread.start()
        for _ in range(2):
            pid = host.show("gateway.service", "MainPID")
            host.run("systemctl", "restart", "gateway.service")
            assert host.show("gateway.service", "MainPID") != pid
        send(host, "pump-9", range(1, 4))
        stop.set()
        thread.join()
        assert refused == []
        assert served > 0
    finally:
        status, said = host.install("--no-socket")
    assert status == 0, said
    assert host.show("gateway.socket", "ActiveState") == "inactive"
    assert stored(host, "pump-9", 3) == [1, 2, 3]


def test_an_upgrade_keeps_the_data_and_one_that_does_not_come_up_is_rolled_back(host: Host) -> None:
    """A newer version takes over with what is stored; one that does not get ready gives way to it again by itself."""
    send(host, "pump-5", range(1, 11))
    first = host.run("readlink", "/opt/gateway/current").stdout
    newer, broken = host.path(f"{CHECKOUT}/gateway/__init__.py"), host.path(f"{CHECKOUT}/gateway/cli/run.py")
    newer.write_text(newer.read_text() + "# newer\n")
    status, said = host.install()
    assert status == 0, said
    second = host.run("readlink", "/opt/gateway/current").stdout
    assert second != first
    assert stored(host, "pump-5", 10) == list(range(1, 11))
    text = broken.read_text()
    broken.write_text(text.replace("    settings = load()\n", '    raise SystemExit("this version is broken")\n'))
    try:
        status, said = host.install()
        assert status == 1
        assert "this version is broken" in said
        assert "runs again" in said
        assert host.run("readlink", "/opt/gateway/current").stdout == second
        assert stored(host, "pump-5", 10) == list(range(1, 11))
    finally:
        broken.write_text(text)
    status, said = host.install("--back")
    assert status == 0, said
    assert stored(host, "pump-5", 10) == list(range(1, 11))


def test_removed_it_leaves_its_data_and_a_debian_package_finds_it(host: Host) -> None:
    """Uninstalled, the gateway leaves settings and data; the package takes them up, keeps them, and purges them."""
    if host.run("which", "dpkg-deb", check=False).returncode != 0:
        pytest.skip("needs dpkg-deb")
    send(host, "pump-7", range(1, 6))
    settings = host.path(SETTINGS)
    settings.write_text("GATEWAY_ID=mine\n")
    host.run("env", f"PYTHON={PYTHON}", "DPKG_DEB_COMPRESSOR_TYPE=none", f"{CHECKOUT}/tools/deb", "/srv/packages")
    install = ["sh", "-c", "dpkg --force-depends --force-confold --install /srv/packages/*.deb"]
    done = host.run(*install, check=False)
    assert done.returncode != 0
    assert "remove that first" in done.stderr
    status, said = host.install("--uninstall")
    assert status == 0, said
    assert host.show("gateway.service", "LoadState") == "not-found"
    assert host.path("/var/lib/private/gateway/journal").exists()
    host.run(*install)
    assert stored(host, "pump-7", 5) == list(range(1, 6))
    host.run("dpkg", "--remove", "telemetry-gateway")
    assert host.show("gateway.service", "LoadState") == "not-found"
    host.run(*install)
    assert stored(host, "pump-7", 5) == list(range(1, 6))
    assert settings.read_text() == "GATEWAY_ID=mine\n"
    assert settings.stat().st_mode & 0o777 == 0o600
    host.run("dpkg", "--purge", "telemetry-gateway")
    for path in ["/opt/gateway", "/etc/gateway", "/var/lib/private/gateway", "/usr/bin/gateway"]:
        assert not host.path(path).exists()

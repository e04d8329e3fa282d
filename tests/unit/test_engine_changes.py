"""What configuring Docker would change on a host that has one already; the host's side is recorded."""

from __future__ import annotations

import json

import pytest

from machine.engine import ServerTls, Settings
from machine.errors import EngineError
from machine.model import EngineOptions, OsRelease
from machine.provisioners.debian import Debian
from machine.runtime.docker import listener
from machine.runtime.docker.engine import DAEMON_JSON, DockerEngine
from tests.replay import Replay

WHICH = "sh -c 'PATH=/usr/local/bin:$PATH:/usr/sbin:/sbin; command -v {}'"
VALIDATE = (
    "sh -c 'cat | exec env PATH=/usr/local/libexec/machine/docker/current:/usr/local/sbin:"
    '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$0" --validate --config-file /dev/stdin\' '
    "/usr/sbin/dockerd"
)
UNIT = "# /lib/systemd/system/docker.service\n[Service]\nExecStart=/usr/sbin/dockerd {}\n"
SHOW = "systemctl show -p LoadState,ActiveState,UnitFileState docker.service"
RUNNING = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"
DROP_IN = "/etc/systemd/system/docker.service.d/10-machine.conf"


def host(arguments: str = "-H fd:// $DOCKER_OPTS", **configured: object) -> Replay:
    """A Debian host with Docker, as its packages leave it."""
    files = {DAEMON_JSON: json.dumps(configured).encode()} if configured else {}
    return Replay(
        {
            WHICH.format("dockerd"): "/usr/sbin/dockerd\n",
            "/usr/sbin/dockerd --version": "Docker version 26.1.5+dfsg1, build a72d7cd\n",
            "systemctl cat docker.service": UNIT.format(arguments),
            "systemctl cat docker.socket": "# /lib/systemd/system/docker.socket\n",
            "systemctl daemon-reload": "",
            SHOW: RUNNING,
            "readlink -f /usr/sbin/dockerd": "/usr/sbin/dockerd\n",
            f"stat -c %a {DAEMON_JSON}": "600\n",
            VALIDATE: "configuration OK\n",
        },
        files,
    )


def engine(guest: Replay) -> DockerEngine:
    return DockerEngine(guest, Debian(guest, OsRelease("debian")))


def settings(*, adopt: bool = False) -> Settings:
    tls = ServerTls(b"ca", b"cert", b"key")
    return Settings(tls, 12376, EngineOptions(), {"provider": "generic"}, adopt=adopt)


def test_looking_changes_nothing_and_configuring_twice_neither() -> None:
    guest = host(dns=["9.9.9.9"])
    before = dict(guest.files)
    changes = {each.path: each for each in engine(guest).changes(settings())}
    assert guest.files == before
    assert set(changes) == {listener.CA, listener.CERT, listener.KEY, DAEMON_JSON, DROP_IN}
    assert changes[DAEMON_JSON].before == before[DAEMON_JSON]
    assert json.loads(changes[DAEMON_JSON].after)["dns"] == ["9.9.9.9"]
    assert changes[DAEMON_JSON].mode == 0o600
    assert [path for path, each in changes.items() if each.is_secret] == [
        listener.KEY,
        DAEMON_JSON,
    ]
    assert engine(guest).configure(settings())
    assert {path: each.after for path, each in changes.items()} == guest.files
    assert not engine(guest).changes(settings())
    assert not engine(guest).configure(settings())


def test_an_adopted_engine_keeps_its_configuration_and_its_arguments() -> None:
    guest = host("-H fd:// --log-level=warn $DOCKER_OPTS", icc=False)
    changes = {each.path: each for each in engine(guest).changes(settings(adopt=True))}
    assert set(changes) == {listener.CA, listener.CERT, listener.KEY, DROP_IN}
    command = (
        "ExecStart=/usr/sbin/dockerd -H fd:// --log-level=warn $DOCKER_OPTS "
        "-H tcp://0.0.0.0:12376 --tlsverify --tlscacert=/etc/docker/ca.pem "
    )
    assert command in changes[DROP_IN].after.decode()
    assert engine(guest).configure(settings(adopt=True))
    assert not engine(guest).configure(settings(adopt=True))


def test_an_adopted_engine_that_names_no_socket_keeps_its_usual_one() -> None:
    guest = host("--log-level=warn")
    (drop_in,) = [
        each for each in engine(guest).changes(settings(adopt=True)) if each.path == DROP_IN
    ]
    assert b"--log-level=warn -H unix:///var/run/docker.sock -H tcp://" in drop_in.after


@pytest.mark.parametrize("adopt", [True, False])
def test_keys_that_are_given_twice_are_named(adopt: bool) -> None:
    guest = host(hosts=["unix:///x"], tlsverify=True)
    with pytest.raises(EngineError, match="sets hosts, tlsverify, and dockerd takes") as caught:
        engine(guest).changes(settings(adopt=adopt))
    assert "--register" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-H fd:// --tlsverify --tlscacert=/x", "has TLS of its own .--tlscacert, --tlsverify."),
        ("-H fd:// -H tcp://0.0.0.0:2375", "listens on tcp://0.0.0.0:2375 without TLS"),
        ("--host=tcp://:2375", "listens on tcp://:2375 without TLS"),
    ],
)
def test_listeners_whose_clients_would_be_locked_out_are_named(arguments: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        engine(host(arguments)).changes(settings(adopt=True))


def test_hosts_in_every_spelling() -> None:
    own = "-H fd:// --host=unix:///a -Htcp://b:1 --host tcp://c -H=unix:///d --label H"
    assert list(listener.hosts(own)) == ["fd://", "unix:///a", "tcp://b:1", "tcp://c", "unix:///d"]
    assert list(listener.hosts("-H 'x")) == ["'x"]


def test_a_dockerd_that_no_service_starts() -> None:
    guest = host()
    guest.answers["systemctl cat docker.service"] = (1, "No files found for docker.service.")
    with pytest.raises(EngineError, match=r"no service docker\.service starts it"):
        engine(guest).changes(settings(adopt=True))


def test_an_engine_that_does_not_run() -> None:
    guest = host()
    guest.answers["/usr/sbin/dockerd --version"] = (127, "libc.so.6: version not found")
    guest.answers["dpkg --audit"] = ""
    with pytest.raises(EngineError, match="an engine on the host, and it does not run") as caught:
        engine(guest).installed_version()
    assert "version not found" in caught.value.details
    guest.answers["dpkg --audit"] = "The following packages are only half configured\n docker.io\n"
    assert engine(guest).installed_version() is None


def test_before_it_is_installed_the_changes_are_those_of_the_bundles_kind() -> None:
    guest = Replay(
        {
            WHICH.format("dockerd"): (1, ""),
            "systemctl cat docker.service": (1, "No files found"),
        }
    )
    with pytest.raises(EngineError, match="no dockerd"):
        engine(guest).changes(settings())
    for kind, dockerd in (("static", "/usr/local/bin/dockerd"), ("packages", "/usr/sbin/dockerd")):
        changes = {each.path: each.after for each in engine(guest).changes(settings(), kind)}
        assert f"ExecStart={dockerd} -H fd:// -H tcp://".encode() in changes[DROP_IN]
        assert DAEMON_JSON in changes


def test_one_that_does_not_come_up_gets_its_old_configuration_back() -> None:
    guest = host(icc=False)
    before = dict(guest.files)
    guest.answers |= {
        "systemctl enable --quiet docker.service": "",
        "systemctl reset-failed docker.service": "",
        "systemctl restart docker.service": [(1, "Job failed"), ""],
        "journalctl -n 20 --no-pager -o cat -u docker.service": "no\n",
    }
    ours = engine(guest)
    ours.configure(settings(adopt=True))
    assert guest.files != before
    with pytest.raises(EngineError, match="does not start with its new") as caught:
        ours.restart()
    assert "from before is back" in caught.value.details
    assert guest.files == before


def test_what_a_restart_would_end() -> None:
    guest = host()
    local = "/usr/bin/docker -H unix:///var/run/docker.sock"
    guest.answers |= {
        WHICH.format("docker"): "/usr/bin/docker\n",
        f"{local} ps --quiet": "a\nb\nc\n",
        f"{local} info --format '{{{{.LiveRestoreEnabled}}}}'": "false\n",
    }
    assert engine(guest).at_stake() == "3 containers run, and live-restore is off"
    guest.answers[f"{local} info --format '{{{{.LiveRestoreEnabled}}}}'"] = "true\n"
    assert engine(guest).at_stake() == ""
    guest.answers[f"{local} ps --quiet"] = ""
    assert engine(guest).at_stake() == ""

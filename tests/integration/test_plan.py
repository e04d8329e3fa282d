"""What a create says beforehand of a host that is there: the host's side is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from machine.errors import EngineError
from machine.host import Host
from machine.model import FileChange, OsRelease, Setup, State
from machine.provisioners.debian import Debian
from machine.runtime.docker.engine import DAEMON_JSON, DockerEngine
from machine.workflows.bootstrap import Session
from machine.workflows.plan import Plan, diff, plan
from tests.machines import made
from tests.replay import Answer, Replay
from tests.unit.test_engine_changes import DROP_IN, WHICH, host

NO_FIREWALL: dict[str, Answer | list[Answer]] = {
    "sh -c 'echo \"${SSH_CONNECTION-}\"'": "",
    "ip -o -4 addr": "",
    "firewall-cmd --state": (127, ""),
    "ufw status verbose": (127, ""),
    "nft -j list ruleset": (127, ""),
    "cat /proc/net/ip_tables_names": (1, ""),
    "iptables -V": (127, ""),
    "iptables-legacy -V": (127, ""),
}
UFW = "Status: active\nDefault: deny (incoming), allow (outgoing), disabled (routed)\n"
LOCAL = "/usr/bin/docker -H unix:///var/run/docker.sock"
Planned = Callable[..., Plan]


@pytest.fixture
def machine(folder_driver: str) -> Host:
    return made("f1", folder_driver, State.RUNNING)


@pytest.fixture
def planned(machine: Host) -> Planned:
    def look(guest: Replay, setup: Setup = Setup.INSTALL) -> Plan:
        guest.answers |= {**NO_FIREWALL, **guest.answers}
        machine.block.setup = setup
        provisioner = Debian(guest, OsRelease("debian", version_id="13"))
        before = dict(guest.files)
        found = plan(Session(machine, guest, provisioner, DockerEngine(guest, provisioner)))  # type: ignore[arg-type]
        assert guest.files == before
        return found

    return look


def test_an_engine_that_runs_would_be_restarted(planned: Planned) -> None:
    guest = host(icc=False)
    guest.answers |= {
        WHICH.format("docker"): "/usr/bin/docker\n",
        f"{LOCAL} ps --quiet": "a\nb\nc\n",
        f"{LOCAL} info --format '{{{{.LiveRestoreEnabled}}}}'": "false\n",
        "ufw status verbose": UFW,
    }
    found = planned(guest)
    assert found.services == [
        "docker.service would be restarted; 3 containers run, and live-restore is off"
    ]
    assert found.packages == []
    assert found.firewall[0].startswith("ufw lets nobody reach TCP port 2376")
    assert "# ufw allow 2376/tcp >/dev/null" in found.firewall
    assert found.notes == [
        "What is there now would be kept on the host, in /var/lib/machine/before"
    ]
    (drop_in,) = [each for each in found.files if each.path == DROP_IN]
    assert diff(drop_in)[:2] == ["--- /dev/null", f"+++ {DROP_IN}"]


def test_an_adopted_one_keeps_its_configuration(planned: Planned) -> None:
    guest = host(icc=False)
    guest.answers[WHICH.format("docker")] = (1, "")
    found = planned(guest, Setup.ADOPT)
    assert DAEMON_JSON not in [each.path for each in found.files]
    assert found.services == ["docker.service would be restarted"]
    assert planned(guest, Setup.REGISTER).is_empty


def test_a_host_without_an_engine(planned: Planned) -> None:
    nothing: dict[str, Answer | list[Answer]] = {
        WHICH.format("dockerd"): (1, ""),
        "systemctl cat docker.service": (1, ""),
        "systemctl show -p LoadState,ActiveState,UnitFileState docker.service": "",
        "uname -m": "x86_64\n",
    }
    found = planned(Replay(nothing))
    assert found.packages == ["docker, from a bundle (packages) that is made first"]
    assert found.services == ["docker.service would be installed, started, and start at every boot"]
    with pytest.raises(EngineError, match="no engine on the host that could be adopted"):
        planned(Replay(nothing), Setup.ADOPT)


def test_differences_are_shown_and_secrets_are_not() -> None:
    old, new = (json.dumps({"icc": each}, indent=1).encode() for each in (True, False))
    assert diff(FileChange("/x", old, new)) == [
        *("--- /x", "+++ /x", "@@ -1,3 +1,3 @@"),
        *(" {", '- "icc": true', '+ "icc": false', " }"),
    ]
    assert diff(FileChange("/key", None, b"secret", 0o600)) == ["/key: new, not shown"]
    assert diff(FileChange("/key", b"old", b"secret", 0o600)) == ["/key: another, not shown"]

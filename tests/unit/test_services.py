"""What the service managers are told and answer.

What hosts answer was recorded from Debian 13 (systemd 257, OpenRC 0.56), and taken from the packages'
own files; of SUSE and Alpine from their packages' files as published: no such host was at hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from machine import systemd
from machine.errors import CommandFailed, GuestError
from machine.model import OsRelease
from machine.provisioner import ServiceState
from machine.provisioners.alpine import Alpine
from machine.provisioners.debian import Debian
from machine.provisioners.openrc import BEGIN, END, without_ours
from machine.provisioners.redhat import RedHat
from machine.provisioners.suse import Suse
from tests.replay import Replay

DEBIAN_13 = """\
# /usr/lib/systemd/system/docker.service
[Unit]
Description=Docker Application Container Engine
ExecStart=/no/such/thing
[Service]
Type=notify
# the default is not to use systemd for cgroups
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID

# /etc/systemd/system/docker.service.d/10-machine.conf
[Service]
ExecStart=
ExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2376 --tlsverify
"""
SUSE = """\
# /usr/lib/systemd/system/docker.service
[Service]
EnvironmentFile=/etc/sysconfig/docker
ExecStart=/usr/bin/dockerd --add-runtime oci=/usr/sbin/docker-oci \\
          $DOCKER_NETWORK_OPTIONS \\
          $DOCKER_OPTS
"""
OVERRIDE = """
# /etc/systemd/system/docker.service.d/override.conf
[Service]
ExecStart=
ExecStart=-/usr/bin/dockerd --log-level=warn
"""
CAT = "systemctl cat docker.service"
DEBIAN = OsRelease("debian", version_id="13", pretty_name="Debian GNU/Linux 13")
ALPINE = OsRelease("alpine", version_id="3.20", pretty_name="Alpine Linux v3.20")
CONF = "/etc/conf.d/docker"
SCRIPT = "/etc/init.d/docker"


def test_a_units_command_is_the_one_of_others() -> None:
    own = "-H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS"
    assert Debian(Replay({CAT: DEBIAN_13}), DEBIAN).service_arguments("docker.service") == own
    arguments = Suse(Replay({CAT: SUSE}), DEBIAN).service_arguments("docker.service")
    assert arguments is not None
    assert arguments.split() == [
        *("--add-runtime", "oci=/usr/sbin/docker-oci"),
        *("$DOCKER_NETWORK_OPTIONS", "$DOCKER_OPTS"),
    ]
    shown = Replay({CAT: SUSE + OVERRIDE})
    assert Suse(shown, DEBIAN).service_arguments("docker.service") == "--log-level=warn"


def test_a_service_that_is_not_there() -> None:
    guest = Replay({CAT: (1, "No files found for docker.service.")})
    assert Debian(guest, DEBIAN).service_arguments("docker.service") is None
    with pytest.raises(GuestError, match=r"no service docker\.service"):
        Debian(guest, DEBIAN).override_service("docker.service", ["-H", "x"])


def test_arguments_come_behind_the_units_own_or_alone() -> None:
    provisioner = Debian(Replay({CAT: DEBIAN_13}), DEBIAN)
    behind = provisioner.override_service("docker.service", ["-H", "tcp://0.0.0.0:1"])
    assert behind.path == "/etc/systemd/system/docker.service.d/10-machine.conf"
    assert behind.content.decode() == (
        "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// "
        "--containerd=/run/containerd/containerd.sock $DOCKER_OPTS -H tcp://0.0.0.0:1\n"
    )
    alone = provisioner.override_service("docker.service", ["a b", "$x"], program="/dockerd")
    assert b'ExecStart=\nExecStart=/dockerd "a b" $$x\n' in alone.content


def test_ours_comes_after_a_drop_in_that_would_undo_it() -> None:
    provisioner = Debian(Replay({CAT: DEBIAN_13 + OVERRIDE}), DEBIAN)
    ours = provisioner.override_service("docker.service", ["-H", "x"])
    assert ours.path == "/etc/systemd/system/docker.service.d/zz-machine.conf"
    assert b"ExecStart=/usr/bin/dockerd --log-level=warn -H x\n" in ours.content
    assert ours.path in provisioner.overrides("docker.service")


def test_the_units_command_with_a_prefix_and_no_unit_at_all() -> None:
    assert systemd.command_of("", without=()) == ""
    assert systemd.command_of("[Service]\nExecStart=@-/x y", without=()) == "/x y"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled", ServiceState(True, True)),
        (
            "LoadState=loaded\nActiveState=failed\nUnitFileState=disabled",
            ServiceState(False, False),
        ),
        ("LoadState=not-found\nActiveState=inactive\nUnitFileState=", None),
        ("", None),
    ],
)
def test_a_units_state(said: str, state: ServiceState | None) -> None:
    ask = "systemctl show -p LoadState,ActiveState,UnitFileState docker.service"
    assert Debian(Replay({ask: said}), DEBIAN).service_state("docker.service") == state


def test_a_service_that_does_not_start_shows_its_log() -> None:
    guest = Replay(
        {
            "systemctl reset-failed docker.service": "",
            "systemctl restart docker.service": (1, "Job for docker.service failed"),
            "journalctl -n 20 --no-pager -o cat -u docker.service": "unknown flag: --x\n",
        }
    )
    with pytest.raises(CommandFailed, match=r"docker\.service did not start") as caught:
        RedHat(guest, DEBIAN).restart_service("docker.service")
    assert caught.value.details == "unknown flag: --x"


def test_families_without_packages_of_ours_say_so() -> None:
    for provisioner in (RedHat, Suse, Alpine):
        with pytest.raises(GuestError, match="Packages cannot be installed on Alpine") as caught:
            provisioner(Replay(), ALPINE).install_packages("/x")
        assert "static" in caught.value.hint
        assert provisioner(Replay(), ALPINE).packages() == {}


def test_openrc_adds_to_the_services_variables_and_takes_it_away_again() -> None:
    own = b'DOCKER_OPTS="--log-level=warn"'
    guest = Replay(files={SCRIPT: b"", CONF: own})
    guest.answers[f"grep -q DOCKER_OPTS {SCRIPT}"] = ""
    provisioner = Alpine(guest, ALPINE)
    file = provisioner.override_service("docker.service", ["-H", "x y"], env=["A=b 'c'"])
    assert file.path == CONF
    assert file.content.decode() == (
        'DOCKER_OPTS="--log-level=warn"\n'
        f"{BEGIN}\nDOCKER_OPTS=\"${{DOCKER_OPTS-}} \"'-H '\"'\"'x y'\"'\"''\n"
        f"export A='b '\"'\"'c'\"'\"''\n{END}\n"
    )
    guest.files[CONF] = file.content
    again = provisioner.override_service("docker.service", ["-H", "x y"], env=["A=b 'c'"])
    assert again == file
    assert without_ours(file.content) == own + b"\n"
    assert without_ours(b"") == b""


def test_openrc_names_a_script_that_would_not_listen() -> None:
    guest = Replay({f"grep -q DOCKER_OPTS {SCRIPT}": (1, "")}, {SCRIPT: b""})
    with pytest.raises(GuestError, match=f"{SCRIPT} on the host does not read DOCKER_OPTS"):
        Alpine(guest, ALPINE).override_service("docker.service", ["-H", "x"])


def test_openrc_knows_a_service_without_its_ending() -> None:
    link = "/etc/runlevels/default/docker"
    guest = Replay(
        {
            "rc-service docker status": (3, " * status: stopped\n"),
            "rc-service docker.socket status": (1, "rc-service: service does not exist\n"),
            "rc-update add docker default": " * service docker added to runlevel default\n",
            "rc-service docker restart": "",
            "tail -n 20 /var/log/docker.log": "failed to start daemon\n",
        },
        {SCRIPT: b""},
    )
    provisioner = Alpine(guest, ALPINE)
    assert provisioner.service_state("docker.service") == ServiceState(False, False)
    assert provisioner.service_state("docker.socket") is None
    provisioner.enable_service("docker.service")
    guest.files[link] = b""
    provisioner.enable_service("docker.service")
    assert guest.asked.count("rc-update add docker default") == 1
    with pytest.raises(CommandFailed, match="docker did not start") as caught:
        provisioner.restart_service("docker.service")
    assert "failed to start daemon" in caught.value.details


def test_definitions_are_those_of_the_service_manager(tmp_path: Path) -> None:
    for name in ("systemd/a.service", "openrc/a"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    guest = Replay({"systemctl daemon-reload": ""})
    Debian(guest, DEBIAN).install_service(tmp_path)
    assert guest.files == {"/usr/local/lib/systemd/system/a.service": b"systemd/a.service"}
    guest = Replay()
    Alpine(guest, ALPINE).install_service(tmp_path)
    assert guest.files == {"/etc/init.d/a": b"openrc/a"}
    assert guest.modes == {"/etc/init.d/a": 0o755}
    with pytest.raises(GuestError, match="OpenRC"):
        Alpine(guest, ALPINE).install_service(tmp_path / "systemd")

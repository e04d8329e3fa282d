"""OpenRC itself, with busybox, in an unpacked system that nothing boots: how services are handled.

Its dockerd is a script; test_openrc_host.py has the real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine.errors import CommandFailed
from machine.model import OsRelease
from machine.provisioner import ServiceState
from machine.provisioners.alpine import Alpine
from machine.runtime.docker import static
from tests import openrc_image
from tests.artefact import CACHE
from tests.firewalled import Firewalled, firewalled

UNIT = "docker.service"
UP = b'#!/bin/sh\necho "told $*, $SEEN"\n: > /var/run/docker.sock\nexec sleep 1000\n'
DOWN = b"#!/bin/sh\necho no such flag\nexit 1\n"
# What OpenRC's own first runlevel leaves behind.
STARTED = """
for name in started starting stopping inactive wasinactive failed exclusive options scheduled daemons \\
    tmp coldplugged hotplugged; do mkdir -p /run/openrc/$name; done
touch /run/openrc/softlevel
ln -sf busybox /usr/bin/sh
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewalled]:
    archive = CACHE / openrc_image.FOLDER / openrc_image.NAME
    with firewalled(tmp_path_factory.mktemp("openrc"), archive) as guest:
        guest.script(STARTED)
        yield guest


@pytest.fixture(scope="module")
def alpine(host: Firewalled) -> Alpine:
    return Alpine(host, OsRelease("alpine"))


def test_a_service_that_is_not_there(alpine: Alpine) -> None:
    assert alpine.service_state(UNIT) is None
    assert alpine.service_arguments(UNIT) is None
    alpine.disable_service(UNIT)
    alpine.stop_service(UNIT)


def test_its_life(host: Firewalled, alpine: Alpine) -> None:
    host.put(UP, "/usr/local/bin/dockerd", mode=0o755)
    for _ in range(2):
        alpine.ensure_group("docker")
        alpine.install_service(static.DEFINITIONS)
    assert alpine.service_state(UNIT) == ServiceState(enabled=False, active=False)
    assert alpine.service_arguments(UNIT) == ""
    file = alpine.override_service(UNIT, ["-H", "a b"], program="/x", env=["SEEN=it's"])
    host.put(file.content, file.path)
    for _ in range(2):
        alpine.enable_service(UNIT)
        alpine.restart_service(UNIT)
    assert alpine.service_state(UNIT) == ServiceState(enabled=True, active=True)
    assert (host.get("/var/log/docker.log") or b"").decode() == "told -H a b, it's\n" * 2
    for _ in range(2):
        alpine.disable_service(UNIT)
        alpine.stop_service(UNIT)
    assert alpine.service_state(UNIT) == ServiceState(enabled=False, active=False)


def test_the_users_own_arguments_come_first(host: Firewalled, alpine: Alpine) -> None:
    own = b"DOCKER_OPTS='--log-level warn'\n"
    host.put(own, "/etc/conf.d/docker")
    assert alpine.service_arguments(UNIT) == "--log-level warn"
    file = alpine.override_service(UNIT, ["-H", "a b"])
    host.put(file.content, file.path)
    assert alpine.service_arguments(UNIT) == "--log-level warn"
    host.script(": > /var/log/docker.log")
    alpine.restart_service(UNIT)
    assert host.get("/var/log/docker.log") == b"told --log-level warn -H a b, \n"


def test_one_that_does_not_come_up_shows_its_log(host: Firewalled, alpine: Alpine) -> None:
    host.put(DOWN, "/usr/local/bin/dockerd", mode=0o755)
    with pytest.raises(CommandFailed, match="docker did not start") as caught:
        alpine.restart_service(UNIT)
    assert "no such flag" in caught.value.details
    state = alpine.service_state(UNIT)
    assert state is not None
    assert not state.active


def test_groups(host: Firewalled, alpine: Alpine) -> None:
    alpine.ensure_group("ours")
    assert alpine.has_group("ours")
    for _ in range(2):
        alpine.remove_group("ours")
    assert not alpine.has_group("ours")

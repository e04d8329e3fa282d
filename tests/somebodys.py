"""Hosts that somebody else has set up: what there is on them, and how they become machines."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.e2e.testbed import Bed
from tests.hosts import NAME, Host, HostBed

USER, PASSWORD = "alice", "two words'n more"  # what a shell would take apart
SUDO: Final = {"MACHINE_GENERIC_SUDO_PASSWORD": PASSWORD}
INVENTORY: Final = r"""
find /etc /usr/local /opt /root /home -xdev \( -type f -o -type l \) ! -name .sudo_as_admin_successful \
    ! -path '/etc/ld.so.cache' -exec stat -c '%n %F %a %U:%G' {} +
find /etc /usr/local -xdev -type f ! -path '/etc/ld.so.cache' -exec sha256sum {} +
find /usr -xdev -path /usr/local -prune -o -printf '%p %y %m %u:%g\n' | grep -v /__pycache__
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'
systemctl list-units --type=service --state=running --no-legend --plain --no-pager | cut -d' ' -f1 |
    grep -v -e ^user@ -e ^systemd-
cut -d: -f1,3 /etc/group /etc/passwd
ls -d /var/lib/machine/* /tmp/.machine* 2>/dev/null || true
find /var/lib/docker -mindepth 1 -maxdepth 1
"""
"""Everything on a host that this tool could change, of which it is to say that it did not."""


class SomebodysBed(HostBed):
    """Hosts without an engine, whose sudo wants a password."""

    def __init__(self, folder: Path, *names: str, tree: str = NAME) -> None:
        super().__init__(folder, *names, tree=tree, user=USER, password=PASSWORD)


def generic(host: Host, *more: str) -> list[str]:
    """The words of a create of this host by its address."""
    return [
        *("create", "-d", "generic", "--generic-ip-address", host.address),
        *("--generic-ssh-user", USER, "--generic-ssh-key", str(host.bed.key), *more),
    ]


def known(host: Host, *more: str) -> list[str]:
    return generic(host, "--generic-host-key", host.host_key, *more)


def inventory(host: Host) -> list[str]:
    return sorted(host.root(INVENTORY).splitlines())


def forget_containers(host: Host) -> None:
    """What an engine has stored is never removed with it: here its owner does that."""
    host.root("rm -rf /var/lib/docker/* /var/lib/containerd")


def run_container(bed: Bed, name: str, docker: str, image_tar: Path) -> None:
    """By the docker program, pointed there as a user does it."""
    env = bed.variables(name)
    assert bed.run(docker, "import", str(image_tar), "box", env=env).returncode == 0
    ran = bed.run(docker, "run", "--rm", "--network", "none", "box", "/bin/echo", "hi", env=env)
    assert ran.stdout == "hi\n", ran.stderr

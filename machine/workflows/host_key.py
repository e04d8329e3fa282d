"""A host key of its own for a host whose first one went through its provider: docs/clouds.md."""

from __future__ import annotations

from typing import Final

from machine import ssh, wait
from machine.errors import GuestUnreachable, HostKeyMismatch
from machine.host import Host
from machine.store import write

_MAKE: Final = """\
cd /etc/ssh
if [ ! -e .machine_host_key.pub ]; then
    rm -f .machine_host_key
    ssh-keygen -q -t ed25519 -N '' -C '' -f .machine_host_key
fi
cat .machine_host_key.pub
"""
_TAKE: Final = """\
cd /etc/ssh
mv -f .machine_host_key.pub ssh_host_ed25519_key.pub
mv -f .machine_host_key ssh_host_ed25519_key
systemctl reload ssh 2>/dev/null || systemctl reload sshd
"""
_RELOADED: Final = 60
"""Seconds for sshd to read its keys anew."""


def replace(host: Host) -> None:
    """Called once cloud-init has ended, which would put the first key back. The new one is made on
    the host, and its private half never leaves it. Twice is fine. Raises TimedOut."""
    with host.guest() as guest:
        public = guest.script(_MAKE, sudo=True).stdout.strip()
        line = ssh.known_hosts_line(public)
        write(host.folder.next_known_hosts, line.encode(), mode=0o644)
        guest.script(_TAKE, sudo=True)
    adopt(host)
    last = ""

    def login() -> bool:
        nonlocal last
        try:
            host.guest(timeout=10).close()
        except (GuestUnreachable, HostKeyMismatch) as exc:
            last = exc.brief
            return False
        return True

    wait.until(
        f'"{host.name}" to have its own host key',
        login,
        timeout=_RELOADED,
        last_answer=lambda: last,
    )


def adopt(host: Host) -> bool:
    """Pin the key that a replacement brought; False if none is at work. A replacement that was
    cut off is seen by the mismatch that it leaves."""
    try:
        host.folder.next_known_hosts.replace(host.folder.known_hosts)
    except FileNotFoundError:
        return False
    return True

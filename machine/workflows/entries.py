"""What other programs know of a machine by name, when the user asked for it: docker, ssh."""

from __future__ import annotations

from machine.host import Host
from machine.store import write


def check(host: Host) -> None:
    """Called before anything is made. Raises BadOption, EngineError."""
    if host.block.context:
        host.engine.check_context(host.name, host.block.id)


def renew(host: Host) -> None:
    """Called whenever the address or a certificate may have changed. Twice is fine."""
    block, folder = host.block, host.folder
    if block.context:
        host.engine.write_context(host.name, host.url(), host.tls, block.id)
    if block.ssh_config:
        from machine import ssh

        entry = ssh.config_entry(host.name, host.address(), host.login)
        write(folder.ssh_config, entry.encode())


def remove(host: Host) -> None:
    """What lies outside the machine's folder. Twice is fine."""
    if host.block.context:
        host.engine.remove_context(host.name, host.block.id)

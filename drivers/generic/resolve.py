"""Where a host is and how it is logged in to: what the user said, then the user's own ssh config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from machine import command
from machine.drivers.generic.config import GenericConfig, GenericFacts
from machine.errors import PreflightError

KNOWN_HOSTS: Final = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
DEFAULT_KEYS: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
"""In ~/.ssh: those of ssh(1)'s defaults that are tried here, too."""


def facts(config: GenericConfig, known: GenericFacts, entry: Mapping[str, str]) -> GenericFacts:
    """``entry`` is what ``ssh_entry`` says of the host. Raises PreflightError for a key that is not
    there and for what cannot be followed."""
    if entry.get("proxycommand", "none") != "none":
        raise PreflightError(
            f"Your ssh config reaches {config.ip_address} by a ProxyCommand, which is not followed",
            hint="Use ProxyJump there, or --generic-ssh-jump HOST",
        )
    jump = entry.get("proxyjump", "")
    keys, agent = _keys(config, entry)
    return replace(
        known,
        host=entry.get("hostname", config.ip_address),
        ssh_port=config.ssh_port or int(entry.get("port", "22")),
        user=config.ssh_user or entry.get("user", "root"),
        keys=keys,
        agent=agent,
        jump=config.ssh_jump or ("" if jump == "none" else jump),
    )


def known_hosts(entry: Mapping[str, str]) -> list[Path]:
    """The files in which the user's ssh looks for the host's key."""
    named = entry.get("userknownhostsfile", "").split()
    return [Path(name).expanduser() for name in named or KNOWN_HOSTS]


def ssh_entry(config: GenericConfig) -> Mapping[str, str]:
    """What the user's ssh config says of the host, and no default of ssh's: what `ssh -G` prints
    (ssh(1)), without what it prints of no configuration. Empty where there is no ssh."""
    host = config.ip_address
    if host.startswith("-") or not command.which("ssh"):
        return {}
    file = ("-F", config.ssh_config) if config.ssh_config else ()
    with_config = command.run("ssh", *file, "-G", host, check=False)
    without = command.run("ssh", "-F", "none", "-G", host, check=False)
    if not (with_config.ok and without.ok):
        return {}
    defaults = set(without.stdout.splitlines())
    entry: dict[str, str] = {}
    for line in with_config.stdout.splitlines():
        key, _, value = line.partition(" ")
        if line not in defaults:
            entry.setdefault(key, value)
    return entry


def _keys(config: GenericConfig, entry: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    """Private keys, and whether the agent's are tried before."""
    if given := config.ssh_key or entry.get("identityfile", ""):
        path = Path(given).expanduser()
        if not path.is_file():
            raise PreflightError(f"There is no key {given}", hint="--generic-ssh-key FILE")
        return (str(path.absolute()),), config.ssh_agent or not config.ssh_key
    found = [Path("~/.ssh", name).expanduser() for name in DEFAULT_KEYS]
    return tuple(str(path) for path in found if path.is_file()), True

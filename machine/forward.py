"""A port of this computer that leads through a host's SSH: held open by the ssh program, which outlives
the process and the terminal that it was started in."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machine import command, ssh
from machine.errors import GuestUnreachable, PortTaken
from machine.model import Address, Login

LOOPBACK: Final = "127.0.0.1"
_DETACHED: Final = 'log=$1; shift; exec "$@" </dev/null >"$log" 2>&1'
"""An ssh that goes into the background keeps its streams, and whoever reads them waits for it."""
_NO_LISTENER: Final = "cannot listen to port"


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a port of this computer leads: ``host`` is an address as the far end sees it."""

    local: int
    remote: int
    host: str = LOOPBACK
    bind: str = LOOPBACK  # the address of this computer that it is open on

    @property
    def option(self) -> str:
        """ssh(1)'s -L, which wants brackets around an IPv6 address."""
        return f"{_bracketed(self.bind)}:{self.local}:{_bracketed(self.host)}:{self.remote}"

    @property
    def here(self) -> str:
        return f"{_bracketed(self.bind)}:{self.local}"


def free_port(bind: str = LOOPBACK) -> int:
    """A port that nothing listens on now."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((bind, 0))
        port: int = probe.getsockname()[1]
        return port


def open_(control: Path, address: Address, login: Login, rule: Rule) -> None:
    """Start one that outlives this process. ``control`` is the socket by which it is spoken to; its
    path has to be short (sun_path has 108 bytes, and ssh adds 17 while it makes it). Raises PortTaken,
    and GuestUnreachable with ssh's own words."""
    control.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    control.unlink(missing_ok=True)
    log = control.with_suffix(".log")
    options = ("-f", "-N", "-M", "-S", str(control), "-L", rule.option)
    quiet = ("-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes")
    alive = ("-o", "ServerAliveInterval=15")
    program, *words = ssh.ssh_command(address, login, ())
    argv = (program, *options, *quiet, *alive, *words)
    if command.run("sh", "-c", _DETACHED, "sh", str(log), *argv, check=False, timeout=60).ok:
        return
    said = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    if "Permission denied" in said and _NO_LISTENER in said:
        raise PortTaken(rule.here, "may not be opened by you (it is below 1024)")
    if _NO_LISTENER in said:
        raise PortTaken(rule.here)
    raise GuestUnreachable(
        f"The way to {address.host} does not open",
        details=said.strip(),
        hint="It is made by the ssh program, which asks nobody: a key with a passphrase has to be in "
        "your agent (ssh-add)",
    )


def is_open(control: Path) -> bool:
    return control.exists() and _tell(control, "check")


def close(control: Path) -> None:
    """Twice is fine."""
    if control.exists():
        _tell(control, "exit")
        control.unlink(missing_ok=True)
    control.with_suffix(".log").unlink(missing_ok=True)


def _tell(control: Path, what: str) -> bool:
    return command.run("ssh", "-S", str(control), "-O", what, "machine", check=False).ok


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

"""The way to an engine behind a jump host: a port of this computer, kept open by the ssh program."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from machine import command, ssh
from machine.errors import DriverError
from machine.model import Address, Login
from machine.paths import cache_root

_DETACHED: Final = 'log=$1; shift; exec "$@" </dev/null >"$log" 2>&1'
"""An ssh that goes into the background keeps its streams, and whoever reads them waits for it."""


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def control(identifier: str) -> Path:
    """The socket by which a running tunnel is spoken to. Its path has to be short (sun_path has 108
    bytes, and ssh adds 17 while it makes it)."""
    return cache_root() / "tunnels" / identifier[:13]


def is_open(identifier: str) -> bool:
    path = control(identifier)
    return path.exists() and _tell(path, "check")


def open_(identifier: str, address: Address, login: Login, port: int, engine_port: int) -> bool:
    """Start one that outlives this process; False where another program has the port. Raises
    DriverError with ssh's own words."""
    path = control(identifier)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    forward = f"127.0.0.1:{port}:127.0.0.1:{engine_port}"
    options = ("-f", "-N", "-M", "-S", str(path), "-L", forward)
    quiet = ("-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes")
    program, *words = ssh.ssh_command(address, login, ())
    log = path.with_suffix(".log")
    argv = (program, *options, *quiet, "-o", "ServerAliveInterval=15", *words)
    if command.run("sh", "-c", _DETACHED, "sh", str(log), *argv, check=False, timeout=60).ok:
        return True
    said = log.read_text()
    if "cannot listen to port" in said or "Address already in use" in said:
        return False
    raise DriverError(
        f"The tunnel to the engine at {address.host} does not open",
        details=said.strip(),
        hint="It is made by the ssh program, which asks nobody: a key with a passphrase has to be in "
        "your agent (ssh-add)",
    )


def close(identifier: str) -> None:
    """Twice is fine."""
    path = control(identifier)
    if path.exists():
        _tell(path, "exit")
        path.unlink(missing_ok=True)
    path.with_suffix(".log").unlink(missing_ok=True)


def _tell(path: Path, what: str) -> bool:
    return command.run("ssh", "-S", str(path), "-O", what, "machine", check=False).ok

"""What dockerd is told of where it listens, and what it may have been told by others."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from machine.errors import EngineError

CA, CERT, KEY = "/etc/docker/ca.pem", "/etc/docker/server.pem", "/etc/docker/server-key.pem"
SOCKET: Final = "unix:///var/run/docker.sock"
"""Where it listens when it is told nothing."""
TLS: Final = ("tls", "tlsverify", "tlscacert", "tlscert", "tlskey")
"""Flags, and keys of daemon.json. dockerd refuses what is said in both places."""


def remote(port: int, containerd: str = "") -> list[str]:
    """Mutual TLS on a port. Without the address of a ``containerd``, dockerd runs its own."""
    words = ["-H", f"tcp://0.0.0.0:{port}", "--tlsverify"]
    words += [f"--tlscacert={CA}", f"--tlscert={CERT}", f"--tlskey={KEY}"]
    return [*words, f"--containerd={containerd}"] if containerd else words


def local(own: str) -> list[str]:
    """The socket that it would not open any more because it is told of another listener."""
    return [] if list(hosts(own)) else ["-H", SOCKET]


def require_room(own: str, configured: Mapping[str, Any], port: int) -> None:
    """Raises EngineError where ``remote`` does not go with dockerd's own arguments, or with its
    daemon.json."""
    clashes = [key for key in ("hosts", *TLS) if key in configured]
    if clashes:
        raise EngineError(
            f"daemon.json on the host sets {', '.join(clashes)}, and dockerd takes that only once",
            hint="Take it out there (a listener of yours can be a -H of its service instead), or "
            "use --register, with your certificates",
        )
    flags = sorted({f"--{key}" for key in TLS for word in _words(own) if _is_flag(word, key)})
    listening = [host for host in hosts(own) if host.startswith("tcp:")]
    if flags:
        raise EngineError(
            f"The host's dockerd has TLS of its own ({', '.join(flags)})",
            details=f"It is started with: {own}",
            hint="Its clients would be locked out. Use --register, with your certificates",
        )
    if listening:
        raise EngineError(
            f"The host's dockerd listens on {', '.join(listening)} without TLS",
            details=f"It is started with: {own}",
            hint="dockerd would ask for certificates there, too. Take that listener out of its "
            "service, or use --register",
        )


def hosts(own: str) -> Iterator[str]:
    """Where it is told to listen, by -H or --host in any spelling that its flags may have."""
    words = iter(_words(own))
    for word in words:
        if word in ("-H", "--host"):
            yield next(words, "")
        elif word.startswith("--host="):
            yield word.removeprefix("--host=")
        elif word.startswith("-H"):
            yield word[2:].removeprefix("=")


def _is_flag(word: str, key: str) -> bool:
    return word == f"--{key}" or word.startswith(f"--{key}=")


def _words(own: str) -> list[str]:
    try:
        return shlex.split(own)
    except ValueError:
        return own.split()

"""Connections to libvirt, one per URI and process, and its errors in our words."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from machine import command
from machine.errors import DriverError, PreflightError

SYSTEM: Final = "qemu:///system"
SESSION: Final = "qemu:///session"


def module() -> Any:
    """The binding, quiet: it prints every error on stderr unless told otherwise. Raises
    PreflightError when it is not installed."""
    try:
        import libvirt
    except ImportError as exc:
        raise PreflightError(
            "The libvirt driver needs the Python package libvirt-python",
            details=str(exc),
            hint="pip install 'machine-vm[libvirt]'   (it is compiled: "
            "sudo apt-get install gcc pkg-config python3-dev libvirt-dev)",
        ) from exc
    _silence()
    return libvirt


@functools.cache
def _silence() -> None:
    import libvirt

    libvirt.registerErrorHandler(lambda context, error: None, None)


def resolve(uri: str) -> str:
    """The URI to use: the given one, LIBVIRT_DEFAULT_URI, or the system's or the user's own daemon,
    whichever answers. Raises PreflightError with the remedy."""
    wanted = uri or os.environ.get("LIBVIRT_DEFAULT_URI", "")
    if wanted:
        connect(wanted)
        return wanted
    try:
        connect(SYSTEM)
    except PreflightError:
        if os.geteuid() == 0:  # libvirt starts a session daemon by itself only for ordinary users
            raise
        connect(SESSION)
        return SESSION
    return SYSTEM


def connect(uri: str) -> Any:
    """An open connection. Raises PreflightError saying what is in the way."""
    found = _open.get(uri)
    if found is not None and found.isAlive():
        return found
    libvirt = module()
    if not _open:
        atexit.register(_open.clear)  # later the binding is half gone, and complains
    try:
        _open[uri] = libvirt.open(uri)
    except libvirt.libvirtError as exc:
        raise PreflightError(
            f"libvirt does not answer at {uri}", details=str(exc), hint=_remedy(uri, str(exc))
        ) from exc
    return _open[uri]


_open: dict[str, Any] = {}


def opened() -> list[Any]:
    """The connections of this process."""
    return list(_open.values())


def is_session(uri: str) -> bool:
    return uri.partition("?")[0].endswith("/session")


def is_remote(uri: str) -> bool:
    parts = urlsplit(uri)
    return bool(parts.hostname) and not parts.scheme.endswith("+unix")


def remote_host(uri: str) -> str:
    """The computer that a URI leads to, as this one reaches it; "" for this one. The name in a
    qemu+ssh URI may be an alias of the user's ssh configuration: ssh says what it stands for."""
    parts = urlsplit(uri)
    if not is_remote(uri) or not parts.hostname:
        return ""
    if parts.scheme.endswith("+ssh") and command.which("ssh"):
        shown = command.run("ssh", "-G", parts.hostname, check=False).stdout
        for line in shown.splitlines():
            if line.startswith("hostname "):
                return line.split()[1]
    return parts.hostname


@contextmanager
def doing(what: str) -> Iterator[None]:
    """libvirt's errors inside the block become DriverErrors that say what was being done."""
    libvirt = module()
    try:
        yield
    except libvirt.libvirtError as exc:
        raise DriverError(
            f"libvirt: {what} failed", details=str(exc), hint="machine doctor"
        ) from exc


def code(exc: BaseException) -> int:
    """The VIR_ERR_... number of an error."""
    number: int = exc.get_error_code()  # type: ignore[attr-defined]
    return number


def _remedy(uri: str, message: str) -> str:
    parts = urlsplit(uri)
    if is_remote(uri):
        if parts.scheme.endswith("+ssh"):
            login = f"{parts.username}@{parts.hostname}" if parts.username else str(parts.hostname)
            return (
                f"ssh {login} virsh -c qemu:///system list   must work without a question:\n"
                "a key, its user in the group libvirt there, and libvirtd running"
            )
        return f"virsh -c {uri} list   shows the same error until it is mended"
    if "Permission denied" in message or "authentication" in message:
        return "sudo usermod -aG libvirt $USER   (then log in again)"
    if "Failed to connect socket" in message:
        if command.which("libvirtd") is None and command.which("virtqemud") is None:
            return "sudo apt-get install libvirt-daemon-system qemu-system-x86"
        if os.path.isdir("/run/systemd/system"):  # noqa: PTH112 - a plain question
            return "sudo systemctl enable --now libvirtd"
        return "machine doctor --fix   (nothing manages services here: it starts libvirtd)"
    return "machine doctor"

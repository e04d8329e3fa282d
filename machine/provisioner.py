"""The contract of one OS family: primitives, never recipes."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from machine.guest import Guest
from machine.model import OsRelease


class Provisioner(ABC):
    """One family of systems, on one guest. Every primitive may be called twice."""

    name: ClassVar[str]
    ids: ClassVar[frozenset[str]]  # os-release IDs (and what ID_LIKE may name)

    def __init__(self, guest: Guest, release: OsRelease) -> None:
        self.guest = guest
        self.release = release

    @abstractmethod
    def install_packages(self, folder: str) -> None:
        """Install the package files in ``folder`` on the guest, without a repository and without
        starting any service. What is there already in the same or a newer version stays."""

    @abstractmethod
    def install_service(self, definitions: Path) -> None:
        """Put the definitions of an engine's services in place, for what came without: the files
        of the sub-folder of ``definitions`` that is named after the family's service manager
        (`systemd/`). Enables and starts nothing. Raises GuestError if there is no such folder."""

    @abstractmethod
    def enable_service(self, unit: str) -> None:
        """Let the service start at every boot; does not start it now."""

    @abstractmethod
    def disable_service(self, unit: str) -> None:
        """Let the service not start at a boot; one that runs goes on."""

    @abstractmethod
    def restart_service(self, unit: str, *, timeout: float = 120) -> None:
        """Start or restart it, and return when it is up. Raises CommandFailed with its log's tail."""

    @abstractmethod
    def reload_services(self) -> None:
        """Make the service manager read changed unit files."""

    @abstractmethod
    def set_hostname(self, hostname: str) -> None: ...

    def ensure_group(self, name: str) -> None:
        """Make a system group if there is none (shadow's groupadd, or else busybox's addgroup)."""
        group = shlex.quote(name)
        self.guest.script(
            f"grep -q ^{group}: /etc/group && exit 0\n"
            f"if command -v groupadd >/dev/null; then groupadd --system {group}\n"
            f"else addgroup -S {group}; fi\n",
            sudo=True,
        )


def candidates(release: OsRelease) -> Sequence[str]:
    """The IDs to look for, in order: its own, then what it is like, as os-release(5) says."""
    return (release.id, *release.id_like)


def parse_os_release(text: str) -> OsRelease:
    """/etc/os-release as os-release(5) describes it: shell-like assignments, values may be quoted."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if sign and not key.startswith("#"):
            try:
                values[key] = "".join(shlex.split(value))
            except ValueError:
                values[key] = value
    return OsRelease(
        id=values.get("ID", "linux"),
        id_like=tuple(values.get("ID_LIKE", "").split()),
        version_id=values.get("VERSION_ID", ""),
        pretty_name=values.get("PRETTY_NAME", ""),
    )

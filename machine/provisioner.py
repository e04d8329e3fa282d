"""The contract of one OS family: primitives, never recipes."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from machine.errors import GuestError
from machine.guest import Guest
from machine.model import GuestFile, OsRelease


@dataclass(frozen=True, slots=True)
class ServiceState:
    """How a service is on a guest at this moment."""

    enabled: bool  # starts at every boot
    active: bool


class Provisioner(ABC):
    """One family of systems, on one guest. Every primitive may be called twice. A service is called
    as systemd calls its unit ("docker.service"); other managers know it without the ending."""

    name: ClassVar[str]
    ids: ClassVar[frozenset[str]]  # os-release IDs (and what ID_LIKE may name)
    services: ClassVar[str]  # its service manager: which definitions of an engine's are for it

    def __init__(self, guest: Guest, release: OsRelease) -> None:
        self.guest = guest
        self.release = release

    def install_packages(self, folder: str, *, exact: bool = False) -> None:
        """Install the package files in ``folder`` on the guest, without a repository and without
        starting any service. What is there already in the same or a newer version stays; to be
        ``exact``, only in the same. Raises GuestError for a family that there are no bundles of
        packages for."""
        raise GuestError(
            f"Packages cannot be installed on {self.release.pretty_name or self.release.id} yet",
            hint='Use upstream\'s own archive: --bundle static, or bundle = "static" in the template',
        )

    def restore_packages(self, folder: str, files: Collection[str], added: Collection[str]) -> None:
        """Go back to packages that were there before: install those ``files`` of ``folder``, and
        take away the packages of the names ``added``. Starts and stops no service."""
        self.install_packages(folder)

    def packages(self) -> Mapping[str, str]:
        """Versions by name of the packages that are installed; none for a family that we install
        none on."""
        return {}

    def newer(self, versions: Mapping[str, str], than: Mapping[str, str]) -> set[str]:
        """The names of ``versions`` that have an older one in ``than``, by the rules of the packages'
        own versions."""
        return {name for name in versions if name in than and versions[name] != than[name]}

    def remove_packages(self, names: Collection[str]) -> None:
        """Take packages away, and leave their configuration. What others need stays."""
        return

    def purge_packages(self, names: Collection[str]) -> None:
        """Take away what ``remove_packages`` left of them."""
        return

    def is_cut_off(self) -> bool:
        """Whether an installation of packages was begun and did not come to its end."""
        return False

    def service_files(self, definitions: Path) -> Mapping[str, Path]:
        """Where on the guest the definitions of an engine's services belong: those in the
        sub-folder of ``definitions`` that is named after the service manager (`systemd/`)."""
        found = sorted((definitions / self.services).glob("*"))
        return {f"{self.service_folder}/{path.name}": path for path in found}

    @property
    @abstractmethod
    def service_folder(self) -> str:
        """Where the service manager looks for what the administrator installed."""

    @abstractmethod
    def install_service(self, definitions: Path) -> None:
        """Put the ``service_files`` in place, for what came without any. Enables and starts
        nothing. Raises GuestError if there are none."""

    @abstractmethod
    def service_arguments(self, unit: str) -> str | None:
        """What a service's own definition starts it with, its program's name left out, as if there
        were no ``override_service``; None where there is no such service."""

    @abstractmethod
    def override_service(
        self, unit: str, arguments: Sequence[str], *, program: str = "", env: Sequence[str] = ()
    ) -> GuestFile:
        """The file, as it should be, that makes a service be started with other arguments, and
        with variables (K=V): ``program`` with these alone, or, where none is given, as its own
        definition has it with these behind. Changes nothing. Raises GuestError where that cannot
        be."""

    @abstractmethod
    def overrides(self, unit: str) -> Sequence[str]:
        """Every path that ``override_service`` may answer with."""

    @abstractmethod
    def service_states(self, units: Sequence[str]) -> Mapping[str, ServiceState | None]:
        """Of many in one round trip; None where there is no such service."""

    def service_state(self, unit: str) -> ServiceState | None:
        return self.service_states([unit])[unit]

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
    def stop_service(self, unit: str) -> None:
        """Stop it now. One that does not run, or is not there, is fine."""

    @abstractmethod
    def reload_services(self) -> None:
        """Make the service manager read changed definitions."""

    def has_socket(self, unit: str) -> bool:
        """Whether the service manager opens a socket ("docker.socket") and hands it over."""
        return False

    def set_hostname(self, hostname: str) -> None:
        name = shlex.quote(hostname)
        self.guest.script(
            f'[ "$(cat /etc/hostname)" = {name} ] || echo {name} > /etc/hostname\n'
            f'[ "$(uname -n)" = {name} ] || echo {name} > /proc/sys/kernel/hostname\n'
            f"grep -qw -e {name} /etc/hosts || echo 127.0.1.1 {name} >> /etc/hosts\n",
            sudo=True,
        )

    def has_group(self, name: str) -> bool:
        return self.guest.run("grep", "-q", f"^{name}:", "/etc/group", check=False).ok

    def ensure_group(self, name: str) -> None:
        """Make a system group if there is none (shadow's groupadd, or else busybox's addgroup)."""
        group = shlex.quote(name)
        self.guest.script(
            f"grep -q ^{group}: /etc/group && exit 0\n"
            f"if command -v groupadd >/dev/null; then groupadd --system {group}\n"
            f"else addgroup -S {group}; fi\n",
            sudo=True,
        )

    def remove_group(self, name: str) -> None:
        """If it is there (shadow's groupdel, or else busybox's delgroup)."""
        group = shlex.quote(name)
        self.guest.script(
            f"grep -q ^{group}: /etc/group || exit 0\n"
            f"if command -v groupdel >/dev/null; then groupdel {group}\n"
            f"else delgroup {group}; fi\n",
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

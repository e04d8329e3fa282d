"""What all families with systemd have in common."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from machine import systemd
from machine.errors import CommandFailed, GuestError
from machine.model import GuestFile
from machine.provisioner import Provisioner, ServiceState

UNITS: Final = "/usr/local/lib/systemd/system"
"""Where systemd.unit(5) looks for units of what the administrator installed: before those of the
distribution's packages, after /etc."""
OURS: Final = (systemd.FIRST, systemd.LAST)


class Systemd(Provisioner):
    """Services by systemctl; packages are the family's own."""

    services: ClassVar[str] = "systemd"

    @property
    def service_folder(self) -> str:
        return UNITS

    def install_service(self, definitions: Path) -> None:
        files = self.service_files(definitions)
        if not files:
            raise GuestError("This engine has no service definitions for systemd")
        for path, unit in files.items():
            self.guest.put(unit, path)
        self.reload_services()

    def service_arguments(self, unit: str) -> str | None:
        shown = self._cat(unit)
        if shown is None:
            return None
        return systemd.command_of(shown, without=OURS).partition(" ")[2].strip()

    def override_service(
        self, unit: str, arguments: Sequence[str], *, program: str = "", env: Sequence[str] = ()
    ) -> GuestFile:
        shown = self._cat(unit) or ""
        command = systemd.joined([program, *arguments])
        if not program:
            own = systemd.command_of(shown, without=OURS)
            if not own:
                raise GuestError(f"There is no service {unit} on the host that starts a program")
            command = f"{own} {systemd.joined(arguments)}"
        late = systemd.is_overruled(shown, name=systemd.FIRST)
        return systemd.drop_in(unit, command, env, systemd.LAST if late else systemd.FIRST)

    def overrides(self, unit: str) -> Sequence[str]:
        return [f"{systemd.FOLDER}/{unit}.d/{name}" for name in OURS]

    def service_states(self, units: Sequence[str]) -> Mapping[str, ServiceState | None]:
        show = ("systemctl", "show", "-p", "LoadState,ActiveState,UnitFileState")
        shown = self.guest.ask(*((*show, unit) for unit in units))
        return {unit: _state(each.stdout) for unit, each in zip(units, shown, strict=True)}

    def enable_service(self, unit: str) -> None:
        self.guest.run("systemctl", "enable", "--quiet", unit, sudo=True)

    def disable_service(self, unit: str) -> None:
        self.guest.run("systemctl", "disable", "--quiet", unit, sudo=True)

    def restart_service(self, unit: str, *, timeout: float = 120) -> None:
        self.guest.run("systemctl", "reset-failed", unit, sudo=True, check=False)
        try:
            self.guest.run("systemctl", "restart", unit, sudo=True, timeout=timeout)
        except CommandFailed as exc:
            words = shlex.split("journalctl -n 20 --no-pager -o cat -u")
            log = self.guest.run(*words, unit, sudo=True, check=False)
            raise CommandFailed(
                f"The service {unit} did not start", code=exc.code, details=log.stdout.strip()
            ) from exc

    def stop_service(self, unit: str) -> None:
        if self.service_state(unit):
            self.guest.run("systemctl", "stop", unit, sudo=True, timeout=120)

    def reload_services(self) -> None:
        self.guest.run("systemctl", "daemon-reload", sudo=True)

    def has_socket(self, unit: str) -> bool:
        return self._cat(unit) is not None

    def _cat(self, unit: str) -> str | None:
        """All of a unit's files; None where there are none."""
        shown = self.guest.run("systemctl", "cat", unit, check=False)
        return shown.stdout if shown.ok else None


def _state(shown: str) -> ServiceState | None:
    said = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if said.get("LoadState", "not-found") == "not-found":
        return None
    return ServiceState(
        enabled=said.get("UnitFileState", "").startswith("enabled"),
        active=said.get("ActiveState") in ("active", "activating", "reloading"),
    )

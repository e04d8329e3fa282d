"""What all families with systemd have in common."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from machine.errors import CommandFailed, GuestError
from machine.provisioner import Provisioner

UNITS: Final = "/usr/local/lib/systemd/system"
"""Where systemd.unit(5) looks for units of what the administrator installed: before those of the
distribution's packages, after /etc."""


class Systemd(Provisioner):
    """Services and host name by systemctl and hostnamectl's files; packages are the family's own."""

    def install_service(self, definitions: Path) -> None:
        units = sorted((definitions / "systemd").glob("*"))
        if not units:
            raise GuestError("This engine has no service definitions for systemd")
        for unit in units:
            self.guest.put(unit, f"{UNITS}/{unit.name}")
        self.reload_services()

    def enable_service(self, unit: str) -> None:
        self.guest.run("systemctl", "enable", "--quiet", unit, sudo=True)

    def disable_service(self, unit: str) -> None:
        self.guest.run("systemctl", "disable", "--quiet", unit, sudo=True)

    def restart_service(self, unit: str, *, timeout: float = 120) -> None:
        self.guest.run("systemctl", "reset-failed", unit, sudo=True, check=False)
        try:
            self.guest.run("systemctl", "restart", unit, sudo=True, timeout=timeout)
        except CommandFailed as exc:
            log = self.guest.run(
                "journalctl",
                "-u",
                unit,
                "-n",
                "20",
                "--no-pager",
                "-o",
                "cat",
                sudo=True,
                check=False,
            )
            raise CommandFailed(
                f"The service {unit} did not start", code=exc.code, details=log.stdout.strip()
            ) from exc

    def reload_services(self) -> None:
        self.guest.run("systemctl", "daemon-reload", sudo=True)

    def set_hostname(self, hostname: str) -> None:
        name = shlex.quote(hostname)
        self.guest.script(
            f'[ "$(cat /etc/hostname)" = {name} ] || echo {name} > /etc/hostname\n'
            f'[ "$(uname -n)" = {name} ] || echo {name} > /proc/sys/kernel/hostname\n'
            f"grep -qw -e {name} /etc/hosts || echo 127.0.1.1 {name} >> /etc/hosts\n",
            sudo=True,
        )

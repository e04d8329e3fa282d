"""What all families with OpenRC have in common."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from machine.errors import CommandFailed, GuestError
from machine.model import GuestFile
from machine.provisioner import Provisioner, ServiceState

SCRIPTS: Final = "/etc/init.d"
VARIABLES: Final = "/etc/conf.d"
"""A service's script reads the file of its name there, before anything of its own."""
RUNLEVEL: Final = "default"
BEGIN, END = "# What machine adds begins here", "# What machine adds ends here"


class OpenRc(Provisioner):
    """Services by rc-service and rc-update; sh and what it calls may be busybox."""

    services: ClassVar[str] = "openrc"

    @property
    def service_folder(self) -> str:
        return SCRIPTS

    def install_service(self, definitions: Path) -> None:
        files = self.service_files(definitions)
        if not files:
            raise GuestError("This engine has no service definitions for OpenRC")
        for path, script in files.items():
            self.guest.put(script, path, mode=0o755)

    def service_arguments(self, unit: str) -> str | None:
        if not self._is_there(unit):
            return None
        own = without_ours(self.guest.get(_conf(unit), sudo=True) or b"").decode()
        shown = self.guest.script(f'set +eu\n{own}\nprintf %s "${_variable(unit)}"\n', sudo=True)
        return shown.stdout.strip()

    def override_service(
        self, unit: str, arguments: Sequence[str], *, program: str = "", env: Sequence[str] = ()
    ) -> GuestFile:
        """Its script decides which program it starts; the arguments are in a variable that it reads,
        called as Alpine and Gentoo call it: DOCKER_OPTS."""
        script, variable = f"{SCRIPTS}/{_service(unit)}", _variable(unit)
        reads = self.guest.run("grep", "-q", variable, script, check=False).ok
        if self._is_there(unit) and not reads:
            raise GuestError(f"{script} on the host does not read {variable}")
        before = "" if program else f'"${{{variable}-}} "'
        lines = [f"{variable}={before}{shlex.quote(shlex.join(arguments))}"]
        for each in env:
            name, _, value = each.partition("=")
            lines.append(f"export {name}={shlex.quote(value)}")
        own = without_ours(self.guest.get(_conf(unit), sudo=True) or b"")
        return GuestFile(_conf(unit), own + "\n".join([BEGIN, *lines, END, ""]).encode())

    def overrides(self, unit: str) -> Sequence[str]:
        return [_conf(unit)]

    def service_states(self, units: Sequence[str]) -> Mapping[str, ServiceState | None]:
        found: dict[str, ServiceState | None] = {}
        for unit in units:
            there, enabled, active = self.guest.ask(
                ("test", "-x", f"{SCRIPTS}/{_service(unit)}"),
                ("test", "-e", _link(unit)),
                ("rc-service", _service(unit), "status"),
                sudo=True,
            )
            found[unit] = ServiceState(enabled.ok, active.ok) if there.ok else None
        return found

    def enable_service(self, unit: str) -> None:
        if not self._is_enabled(unit):
            self.guest.run("rc-update", "add", _service(unit), RUNLEVEL, sudo=True)

    def disable_service(self, unit: str) -> None:
        if self._is_enabled(unit):
            self.guest.run("rc-update", "del", _service(unit), RUNLEVEL, sudo=True)

    def restart_service(self, unit: str, *, timeout: float = 120) -> None:
        """That it is up is for its script to say: ours waits for the socket."""
        name = _service(unit)
        said = self.guest.run(
            "rc-service", name, "restart", sudo=True, timeout=timeout, check=False
        )
        state = self.service_state(unit)
        if said.ok and state and state.active:
            return
        log = self.guest.run("tail", "-n", "20", f"/var/log/{name}.log", sudo=True, check=False)
        raise CommandFailed(
            f"The service {name} did not start",
            code=said.code,
            details="\n".join([said.stdout.strip(), said.stderr.strip(), log.stdout]).strip(),
        )

    def stop_service(self, unit: str) -> None:
        if self._is_there(unit):
            self.guest.run("rc-service", _service(unit), "stop", sudo=True, timeout=120)

    def reload_services(self) -> None:
        """OpenRC reads a script whenever it runs it."""

    def _is_there(self, unit: str) -> bool:
        return self.guest.run("test", "-x", f"{SCRIPTS}/{_service(unit)}", check=False).ok

    def _is_enabled(self, unit: str) -> bool:
        return self.guest.run("test", "-e", _link(unit), check=False).ok


def without_ours(content: bytes) -> bytes:
    """A file of variables as it was before ``override_service``."""
    before, mark, rest = content.partition(BEGIN.encode())
    if not mark:
        return content if not content or content.endswith(b"\n") else content + b"\n"
    return before + rest.partition(END.encode())[2].removeprefix(b"\n")


def _service(unit: str) -> str:
    return unit.removesuffix(".service")


def _link(unit: str) -> str:
    return f"/etc/runlevels/{RUNLEVEL}/{_service(unit)}"


def _conf(unit: str) -> str:
    return f"{VARIABLES}/{_service(unit)}"


def _variable(unit: str) -> str:
    return f"{_service(unit).upper()}_OPTS"

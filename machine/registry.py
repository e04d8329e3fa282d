"""Names of plugins to their classes: ours from a table of strings, others by entry point on a miss."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from machine import __version__
from machine.errors import DriverError, DriverNotFound, EngineError, MachineError, UsageError

if TYPE_CHECKING:  # completion asks for names alone, and loads no contract
    from importlib.metadata import EntryPoint, EntryPoints

    from machine.driver import Driver
    from machine.engine import Engine
    from machine.provisioner import Provisioner
    from machine.shell import Shell

DISTRIBUTION: Final = "machine-vm"
DRIVERS: Final = {
    "amazonec2": "machine.drivers.amazonec2.driver:Amazonec2Driver",
    "azure": "machine.drivers.cloud.azure:Azure",
    "digitalocean": "machine.drivers.cloud.providers:DigitalOcean",
    "generic": "machine.drivers.generic.driver:GenericDriver",
    "google": "machine.drivers.cloud.providers:Google",
    "libvirt": "machine.drivers.libvirt.driver:LibvirtDriver",
    "linode": "machine.drivers.cloud.providers:Linode",
    "none": "machine.drivers.none:NoneDriver",
    "openstack": "machine.drivers.cloud.providers:OpenStack",
    "virtualbox": "machine.drivers.virtualbox.driver:VirtualboxDriver",
    "vultr": "machine.drivers.cloud.providers:Vultr",
}
ENGINES: Final = {
    "docker": "machine.runtime.docker.engine:DockerEngine",
}
PROVISIONERS: Final = {
    "debian": "machine.provisioners.debian:Debian",
    "redhat": "machine.provisioners.redhat:RedHat",
    "suse": "machine.provisioners.suse:Suse",
    "alpine": "machine.provisioners.alpine:Alpine",
    "arch": "machine.provisioners.arch:Arch",
}
SHELLS: Final = {
    "posix": "machine.shells.posix",
    "fish": "machine.shells.fish",
    "tcsh": "machine.shells.tcsh",
    "powershell": "machine.shells.powershell",
    "cmd": "machine.shells.cmd",
    "emacs": "machine.shells.emacs",
}


@functools.cache
def driver(name: str) -> type[Driver[Any, Any]]:
    """Looked for once in a process. Raises DriverNotFound with the names that there are, and
    DriverError for one of another package that cannot be imported."""
    from machine.driver import Driver

    found = _find("machine.drivers", DRIVERS, name)
    if found is None:
        known = ", ".join(names("machine.drivers", DRIVERS))
        raise DriverNotFound(name, hint=f"Installed drivers: {known}")
    if not isinstance(found, type) or not issubclass(found, Driver):
        raise DriverError(
            f'The driver "{name}" is none: {found!r} is not made from machine.driver.Driver',
            hint=f"It comes from {origin('machine.drivers', DRIVERS, name)}",
        )
    return found


@functools.cache
def engine(name: str) -> type[Engine]:
    """Looked for once in a process. Raises EngineError with the names that there are."""
    found = _find("machine.engines", ENGINES, name)
    if found is None:
        known = ", ".join(names("machine.engines", ENGINES))
        raise EngineError(f'Engine "{name}" not found.', hint=f"Installed engines: {known}")
    return found  # type: ignore[no-any-return]


def provisioners() -> list[type[Provisioner]]:
    """All of them: a guest's os-release decides, so each has to be asked for its IDs."""
    ours = [_load(target) for target in PROVISIONERS.values()]
    return [*ours, *(_loaded(entry) for entry in _entry_points("machine.provisioners"))]


def shell(name: str) -> Shell:
    found = _find("machine.shells", SHELLS, name)
    if found is None:
        known = ", ".join(names("machine.shells", SHELLS))
        raise UsageError(f'Shell "{name}" is not known.', hint=f"Known shells: {known}")
    return found  # type: ignore[no-any-return]


def names(group: str, table: Mapping[str, str]) -> list[str]:
    """Every installed plugin of a group, by name alone: nothing is imported."""
    return sorted({*table, *(entry.name for entry in _entry_points(group))})


def origin(group: str, table: Mapping[str, str], name: str) -> str:
    """The distribution that a plugin comes from, and its version."""
    if name not in table:
        for entry in _entry_points(group):
            if entry.name == name and entry.dist:
                return f"{entry.dist.name} {entry.dist.version}"
    return f"{DISTRIBUTION} {__version__}"


def _find(group: str, table: Mapping[str, str], name: str) -> Any | None:
    if name in table:
        return _load(table[name])
    for entry in _entry_points(group):  # about 40 ms, hence only on a miss
        if entry.name == name:
            return _loaded(entry)
    return None


def _loaded(entry: EntryPoint) -> Any:
    """Somebody else's code: whatever goes wrong in it is told as its own."""
    try:
        return entry.load()
    except MachineError:
        raise
    except Exception as exc:
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        raise DriverError(
            f'The plugin "{entry.name}" of {package} cannot be loaded',
            details=f"{type(exc).__name__}: {exc}",
            hint="Install it again, or remove it: python -m pip uninstall "
            f"{entry.dist.name if entry.dist else entry.name}",
        ) from exc


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    loaded = import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def _entry_points(group: str) -> EntryPoints:
    from importlib.metadata import entry_points

    return entry_points(group=group)

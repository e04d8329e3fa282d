"""What an engine was before its upgrade, kept on the host itself, and the way back to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from machine import ledger
from machine.engine import Engine
from machine.errors import GuestError
from machine.provisioner import Provisioner
from machine.runtime.bundle import Bundle

if TYPE_CHECKING:
    from machine.guest import Guest

_ABOUT: Final = "engine.json"


@dataclass(frozen=True, slots=True)
class Before:
    """An engine and the packages of its host."""

    version: str
    kind: str  # BundleKind
    packages: Mapping[str, str]  # versions by name

    def changing(self, provisioner: Provisioner, bundle: Bundle, *, exact: bool) -> dict[str, str]:
        """Of the packages, those that the bundle has others of."""
        wanted = bundle.packages
        others = {name for name in wanted if self.packages.get(name, wanted[name]) != wanted[name]}
        if not exact:
            others &= provisioner.newer(wanted, self.packages)
        return {name: self.packages[name] for name in others}


def look(engine: Engine, provisioner: Provisioner) -> Before | None:
    """How it is now; None where there is no engine."""
    version = engine.installed_version()
    if version is None:
        return None
    return Before(version, engine.installed_kind(), dict(provisioner.packages()))


def keep(guest: Guest, engine: Engine, before: Before) -> None:
    """Called before the first change. Until ``forget``, whoever is cut off can go back to it."""
    ledger.copy_files(guest, ledger.UPGRADE, _files(engine), _ABOUT, asdict(before))


def kept(guest: Guest) -> Before | None:
    """What an upgrade that was cut off began from; None where there was none."""
    content = guest.get(f"{ledger.UPGRADE}/{_ABOUT}", sudo=True)
    if content is None:
        return None
    with suppress(ValueError, TypeError):
        return Before(**json.loads(content))
    raise GuestError(f"{ledger.UPGRADE}/{_ABOUT} on the host is damaged")


def put_files_back(guest: Guest, engine: Engine, provisioner: Provisioner) -> None:
    """Configuration, services, and the static release in use. Restarts nothing; twice is fine."""
    ledger.put_files_back(guest, ledger.UPGRADE, _files(engine))
    provisioner.reload_services()


def put_packages_back(
    provisioner: Provisioner, before: Before, tried: Bundle, older: Bundle, folder: str
) -> None:
    """Those of the bundle that was ``tried``, from the ``older`` one, which is unpacked in
    ``folder`` on the host. Twice is fine."""
    now = provisioner.packages()
    changed = {
        name
        for name, version in before.packages.items()
        if name in tried.packages and now.get(name) != version
    }
    files = [PurePosixPath(path).name for path, _ in older.files]
    provisioner.restore_packages(
        f"{folder}/packages",
        [file for file in files if file.split("_")[0] in changed],
        [name for name in tried.packages if name not in before.packages],
    )


def forget(guest: Guest) -> None:
    """The engine answers as it is: there is no way back any more. Twice is fine."""
    guest.run("rm", "-rf", ledger.UPGRADE, sudo=True)


def _files(engine: Engine) -> tuple[str, ...]:
    footprint = engine.footprint()
    return (*footprint.files, *footprint.in_use)

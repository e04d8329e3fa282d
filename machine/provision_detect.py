"""Which family a host belongs to: its ID, then what it is like, in os-release's own order."""

from __future__ import annotations

from machine import registry
from machine.errors import GuestError
from machine.guest import Guest
from machine.model import OsRelease
from machine.provisioner import Provisioner, candidates, parse_os_release


def detect(guest: Guest) -> Provisioner:
    """Raises GuestError for a system that no provisioner serves."""
    text = guest.run(
        "sh", "-c", "cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release", check=False
    ).stdout
    release = parse_os_release(text)
    return choose(release)(guest, release)


def choose(release: OsRelease) -> type[Provisioner]:
    known = registry.provisioners()
    for candidate in candidates(release):
        for each in known:
            if candidate in each.ids:
                return each
    served = ", ".join(sorted(name for each in known for name in each.ids))
    raise GuestError(
        f"No provisioner serves this system: {release.pretty_name or release.id}",
        details=f"ID={release.id} ID_LIKE={' '.join(release.id_like)}; served: {served}",
        hint="CONTRIBUTING.md shows how to add one; it is one file",
    )

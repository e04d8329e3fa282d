"""What a pool holds for all machines: which of it is needed, and removal of the rest."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final

from machine.drivers.libvirt import storage
from machine.drivers.libvirt.connection import module
from machine.drivers.libvirt.domain import sources

_OLD: Final = 24 * 3600
"""Seconds after which a saved machine's disk without a layer is no build's that is at work, and
no other user's who has not started a machine from it yet."""


def unneeded(conn: Any, pool: Any, keep: frozenset[str], gone: frozenset[str]) -> dict[str, int]:
    """Names and bytes of shared volumes that no machine is backed by, no domain uses and ``keep``
    does not name. Those that ``gone`` names do not have to be old."""
    libvirt = module()
    pool.refresh()
    volumes = {each.name(): each for each in pool.listAllVolumes()}
    paths = {each.path(): name for name, each in volumes.items()}
    backed = {name: paths.get(storage.backing(each), "") for name, each in volumes.items()}
    needed = {name for name in volumes if not storage.is_shared(name)} | keep
    for domain in conn.listAllDomains():
        with suppress(libvirt.libvirtError):
            needed |= {paths[path] for path in sources(domain.XMLDesc()) if path in paths}
    for name in list(needed):
        while (name := backed.get(name, "")) and name not in needed:
            needed.add(name)
    needed |= {name + storage.READY for name in needed}
    return {
        name: int(each.info()[2])
        for name, each in volumes.items()
        if name not in needed
        and (
            not name.startswith(storage.WARM)
            or name in gone
            or time.time() - storage.changed(each) > _OLD
        )
    }

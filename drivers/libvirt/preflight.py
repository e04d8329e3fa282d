"""What has to be there before a machine is made, each missing thing with its remedy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from machine.drivers.libvirt import network, storage
from machine.drivers.libvirt.config import LibvirtConfig
from machine.drivers.libvirt.connection import module
from machine.errors import BadOption, PreflightError
from machine.paths import data_root

ROOM: Final = 1 << 30
"""Bytes that a pool must have free: the shared image, and the first writes of one machine."""


def emulator(conn: Any, arch: str, machine_type: str) -> None:
    """Raises PreflightError without an emulator for ``arch``, BadOption for a machine type that it
    does not know. One call; libvirt answers from what it remembers of the emulator."""
    libvirt = module()
    try:
        conn.getDomainCapabilities(None, arch, machine_type, None, 0)
    except libvirt.libvirtError as exc:
        # "the machine 'x' is not supported by emulator '/usr/bin/qemu-system-x86_64'", as against
        # "unable to find any emulator to serve 'x86_64' architecture" (libvirt 9.0)
        if machine_type in str(exc):
            raise BadOption(
                f"--libvirt-machine-type {machine_type!r} is not known to the emulator",
                details=str(exc),
                hint="qemu-system-x86_64 -machine help   lists the types",
            ) from exc
        raise PreflightError(
            f"There is no emulator for {arch} here",
            details=str(exc),
            hint="sudo apt-get install qemu-system-x86   (on Fedora: qemu-kvm)",
        ) from exc


def pool(conn: Any, name: str, *, local_session: bool) -> None:
    """Raises PreflightError for a pool that is not there, cannot be made, or is full."""
    libvirt = module()
    try:
        found = conn.storagePoolLookupByName(name)
    except libvirt.libvirtError as exc:
        if name != storage.OURS:
            raise PreflightError(
                f'There is no storage pool "{name}"',
                details=str(exc),
                hint="virsh pool-list --all   shows them; leave --libvirt-pool out for our own",
            ) from exc
        if local_session:
            _writable(data_root())
        return
    if found.isActive():
        free = found.info()[3]
        if free < ROOM:
            raise PreflightError(
                f'The storage pool "{name}" has {free >> 20} MiB free, and {ROOM >> 20} are needed',
                hint=f"df -h {storage.path_of(found)}   or choose another: --libvirt-pool NAME",
            )


def addresses(conn: Any, config: LibvirtConfig) -> None:
    """The network of system mode, and a fixed address in it. Raises PreflightError, BadOption."""
    libvirt = module()
    if config.network != network.OURS:
        try:
            conn.networkLookupByName(config.network)
        except libvirt.libvirtError as exc:
            raise PreflightError(
                f'There is no network "{config.network}"',
                details=str(exc),
                hint="virsh net-list --all   shows them; leave --libvirt-network out for our own",
            ) from exc
    if config.ip:
        network.check_address(network.network(conn, config.network), config.ip)


def name(conn: Any, wanted: str, host_id: str) -> None:
    """Raises PreflightError when a domain that is not this machine's has the name."""
    libvirt = module()
    try:
        found = conn.lookupByName(wanted)
    except libvirt.libvirtError:
        return
    if found.UUIDString() != host_id:
        raise PreflightError(
            f'libvirt has another domain called "{wanted}" already',
            hint=f"Choose another name, or look at it: virsh -c {conn.getURI()} dominfo {wanted}",
        )


def memory(conn: Any) -> int | None:
    """MiB that the hypervisor's computer has free, or used by caches that it can give up; None
    where its libvirt does not say."""
    libvirt = module()
    try:
        told = conn.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)  # KiB
    except libvirt.libvirtError:
        return None
    if "free" not in told:
        return None
    return sum(int(told.get(key, 0)) for key in ("free", "buffers", "cached")) >> 10


def _writable(folder: Path) -> None:
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PreflightError(
            f"The disks of session machines belong under {folder}, which cannot be written",
            hint=f"Mend the permissions of {nearest}, or set XDG_DATA_HOME to another folder",
        )

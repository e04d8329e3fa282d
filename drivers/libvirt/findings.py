"""What `machine doctor` says of libvirt, and what it can mend by itself."""

from __future__ import annotations

import grp
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from machine import command, wait
from machine.driver import Finding
from machine.drivers.libvirt import connection, network, storage, warm
from machine.drivers.libvirt import domain as domain_xml
from machine.drivers.libvirt.connection import doing, module
from machine.errors import CommandFailed, MachineError

_SUBJECT: Final = "libvirt"
_KVM: Final = Path("/dev/kvm")
_OLD: Final = 24 * 3600
"""Seconds after which a volume without a machine is no create's that is still at work."""


def findings(store: Path, known_ids: frozenset[str], *, fix: bool) -> Sequence[Finding]:
    found = [*kvm_device(fix=fix), *_daemon(fix=fix)]
    for conn in connection.opened():
        found += orphaned_domains(conn, store, known_ids, fix=fix)
        found += _orphaned_volumes(conn, known_ids, fix=fix)
        found += without_base(conn, known_ids)
    return found


def kvm_device(*, fix: bool) -> Iterator[Finding]:
    """libvirt probes QEMU anew for every question when its QEMU user may not open /dev/kvm while
    root can: defining a domain then takes 88 s (libvirt 9.0). udev gives it to the group kvm."""
    if os.geteuid() != 0 or not _KVM.exists():
        return
    found = _KVM.stat()
    if found.st_gid != 0 or stat.S_IMODE(found.st_mode) & 0o006:
        return
    remedy = "sudo chown root:kvm /dev/kvm && sudo chmod 660 /dev/kvm"
    text = "/dev/kvm belongs to root alone: every definition of a VM would take over a minute"
    if not fix:
        yield Finding("warning", _SUBJECT, text, remedy)
        return
    try:
        os.chown(_KVM, 0, grp.getgrnam("kvm").gr_gid)
        _KVM.chmod(0o660)
    except (OSError, KeyError) as exc:
        yield Finding("warning", _SUBJECT, f"{text} ({exc})", remedy)
    else:
        yield Finding("ok", _SUBJECT, "/dev/kvm was given to the group kvm", fixed=True)


def _daemon(*, fix: bool) -> Iterator[Finding]:
    started = False
    if fix and _may_start():
        started = _start()
    try:
        uri = connection.resolve("")
    except MachineError as exc:
        yield Finding("error", _SUBJECT, exc.line, exc.hint)
        return
    said = "libvirtd was started" if started else "answers"
    yield Finding("ok", _SUBJECT, f"{said} at {uri}", fixed=started)


def _may_start() -> bool:
    """Only root on a computer whose services nothing manages, with no daemon there yet."""
    if os.geteuid() != 0 or Path("/run/systemd/system").is_dir():
        return False
    try:
        connection.connect(connection.SYSTEM)
    except MachineError:
        return command.which("libvirtd") is not None
    return False


def _start() -> bool:
    try:
        for program in ("virtlogd", "libvirtd"):
            command.run(program, "-d", check=False)
        return bool(wait.until("libvirtd", _answers, timeout=30))
    except (CommandFailed, MachineError):
        return False


def _answers() -> bool:
    try:
        connection.connect(connection.SYSTEM)
    except MachineError:
        return False
    return True


def orphaned_domains(
    conn: Any, store: Path, known_ids: frozenset[str], *, fix: bool
) -> Iterator[Finding]:
    """Domains with our mark that no record knows. Those that name this store are removed when
    asked; another store of the same computer may well know the others."""
    for domain in conn.listAllDomains():
        name, (host_id, home) = domain.name(), domain_xml.mark(domain.XMLDesc())
        if not host_id or host_id in known_ids or warm.at_work(name):
            continue
        text = f'the VM "{name}" belongs to a machine of the store {home}, which does not know it'
        if home != str(store):
            text = text.replace("which", "and this store")
        remedy = f"virsh -c {conn.getURI()} undefine {name} --remove-all-storage"
        if fix and home == str(store):
            _remove(conn, domain, host_id)
            text = f'the VM "{name}" was removed: the store {home} does not know it'
            yield Finding("ok", _SUBJECT, text, fixed=True)
        else:
            yield Finding("warning", _SUBJECT, text, remedy)


def _remove(conn: Any, domain: Any, host_id: str) -> None:
    libvirt = module()
    name, cards = domain.name(), domain_xml.macs(domain.XMLDesc())
    with doing(f"removing {name}"):
        if domain.isActive():
            domain.destroy()
        domain_xml.undefine(domain)
    with suppress(libvirt.libvirtError):
        pool = conn.storagePoolLookupByName(storage.OURS)
        storage.delete_all(pool, storage.prefix(name, host_id))
    with suppress(libvirt.libvirtError):
        net = conn.networkLookupByName(network.OURS)
        for mac in cards:
            network.release(net, mac)


def without_base(conn: Any, known_ids: frozenset[str]) -> Iterator[Finding]:
    """Machines whose disk is laid over one that somebody removed from our pool."""
    libvirt = module()
    try:
        pool = conn.storagePoolLookupByName(storage.OURS)
    except libvirt.libvirtError:
        return
    for domain in conn.listAllDomains():
        xml = domain.XMLDesc()
        if domain_xml.mark(xml)[0] not in known_ids:
            continue
        if gone := storage.missing(pool, domain_xml.sources(xml)):
            name = domain.name()
            text = f'the machine "{name}" needs {gone}, which is gone'
            yield Finding("error", _SUBJECT, text, f"put it back, or: machine rm {name}")


def _orphaned_volumes(conn: Any, known_ids: frozenset[str], *, fix: bool) -> Iterator[Finding]:
    """Volumes in our pool that are a machine's by their name, when neither a record nor a domain
    has its id."""
    libvirt = module()
    try:
        pool = conn.storagePoolLookupByName(storage.OURS)
        pool.refresh()
    except libvirt.libvirtError:
        return
    alive = {each.UUIDString()[:8] for each in conn.listAllDomains()}
    alive |= {each[:8] for each in known_ids}
    for volume in pool.listAllVolumes():
        name = volume.name()
        owner = storage.owner(name)
        if owner is None or owner[1] in alive:
            continue
        if fix and time.time() - storage.changed(volume) > _OLD:
            storage.delete(pool, name)
            text = f'the volume {name} was removed: the machine "{owner[0]}" is gone'
            yield Finding("ok", _SUBJECT, text, fixed=True)
        else:
            text = f'the volume {name} is left of a machine "{owner[0]}" of no store known here'
            remedy = f"virsh -c {conn.getURI()} vol-delete --pool {storage.OURS} {name}"
            yield Finding("warning", _SUBJECT, text, remedy)

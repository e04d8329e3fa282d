"""What `machine doctor` says of libvirt, and what it can mend by itself."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from machine import command, wait
from machine.driver import Finding
from machine.drivers.libvirt import connection
from machine.errors import CommandFailed, MachineError

_SUBJECT = "libvirt"
_KVM = Path("/dev/kvm")


def findings(known_ids: frozenset[str], *, fix: bool) -> Sequence[Finding]:
    return [*_kvm_device(fix=fix), *_daemon(fix=fix), *_orphans(known_ids)]


def _kvm_device(*, fix: bool) -> Iterator[Finding]:
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
        yield Finding("error", _SUBJECT, f"{exc.brief}: {exc.details}", exc.hint)
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


def _orphans(known_ids: frozenset[str]) -> Iterator[Finding]:
    """Domains with our mark that no record of this store knows. They are named, not removed:
    another store of the same computer may well know them."""
    for conn in list(connection._open.values()):
        for domain in conn.listAllDomains():
            mark = ElementTree.fromstring(domain.XMLDesc()).find(  # noqa: S314
                "metadata/{urn:machine-vm:1}machine"
            )
            if mark is not None and mark.get("id") not in known_ids:
                name = domain.name()
                yield Finding(
                    "warning",
                    _SUBJECT,
                    f'the VM "{name}" belongs to a machine of the store {mark.get("store")}, '
                    "and this store does not know it",
                    f"virsh -c {conn.getURI()} undefine {name} --remove-all-storage",
                )

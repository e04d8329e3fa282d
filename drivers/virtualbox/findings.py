"""What `machine doctor` says of VirtualBox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from machine.driver import Finding, HostRef
from machine.drivers.virtualbox import driver, preflight
from machine.drivers.virtualbox.config import VirtualboxConfig, VirtualboxFacts
from machine.drivers.virtualbox.vboxmanage import VBoxManage
from machine.errors import MachineError, PreflightError

_SUBJECT: Final = "virtualbox"


def findings(store: Path, known_ids: frozenset[str], *, fix: bool) -> Sequence[Finding]:
    """Without its kernel module VirtualBox starts no machine, and still knows all of them."""
    found: list[Finding] = []
    try:
        vbox = VBoxManage()
        if warning := preflight.version(vbox.version):
            found.append(Finding("warning", _SUBJECT, warning))
        found += _module()
        found += orphans(vbox, store, known_ids, fix=fix)
    except MachineError as exc:
        return [*found, Finding("warning", _SUBJECT, exc.brief, exc.hint)]
    return found or [Finding("ok", _SUBJECT, f"VirtualBox {vbox.version} answers")]


def _module() -> Iterator[Finding]:
    try:
        preflight.kernel_module()
    except PreflightError as exc:
        yield Finding("warning", _SUBJECT, exc.brief, exc.hint)


def orphans(
    vbox: VBoxManage, store: Path, known_ids: frozenset[str], *, fix: bool
) -> Iterator[Finding]:
    """Machines with our mark that no record knows. Those that name this store are removed when
    asked; another store of the same computer may well know the others."""
    names = vbox.vms()
    for vm, mark in vbox.marks(driver.ID).items():
        if vm in known_ids or mark != vm:
            continue
        name = names.get(vm, vm)
        home = vbox.marked(vm, driver.STORE)
        text = f'the VM "{name}" belongs to a machine of the store {home}, which does not know it'
        if home != str(store):
            text = text.replace("which", "and this store")
        if fix and home == str(store):
            host = HostRef(name, vm, store / "machines" / name)
            driver.VirtualboxDriver(host, VirtualboxConfig(), VirtualboxFacts()).clear(vbox)
            with suppress(OSError):  # unless something else is in it
                host.folder.rmdir()
            text = f'the VM "{name}" was removed: the store {home} does not know it'
            yield Finding("ok", _SUBJECT, text, fixed=True)
        else:
            remedy = f"VBoxManage unregistervm {vm} --delete"
            yield Finding("warning", _SUBJECT, text, remedy)

"""The only place that runs VBoxManage: one method for each verb, its errors as exceptions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Final

from machine import command, wait
from machine.drivers.virtualbox import output, spelling, trouble
from machine.drivers.virtualbox.output import Sight, Version
from machine.errors import DriverError, PreflightError, TimedOut

PROGRAM: Final = "VBoxManage"
LOCKED: Final = 15
"""Seconds to wait for another session to let go of a machine: after a power-off it takes a moment."""
LONG: Final = 1800
"""Seconds for what copies a disk: deleting a snapshot."""
NOT_FOUND: Final = "VBOX_E_OBJECT_NOT_FOUND"
UNREADABLE: Final = "E_ACCESSDENIED"
"""Of a machine whose settings file cannot be read: "The object functionality is limited"."""


class VBoxFailed(DriverError):
    """VBoxManage ended with an error; ``code`` is the name that it gave, or ""."""

    def __init__(self, brief: str, *, code: str, details: str, hint: str = "") -> None:
        super().__init__(brief, details=details, hint=hint)
        self.code = code


class NotInstalled(PreflightError):
    def __init__(self) -> None:
        super().__init__(
            "VBoxManage, VirtualBox's command line, is not installed",
            hint="Install VirtualBox (https://www.virtualbox.org/wiki/Downloads; Debian: the package "
            "virtualbox of contrib), or put the folder of VBoxManage into PATH",
        )


def find() -> str:
    """The program's path: in PATH, or where the installers put it. Raises NotInstalled."""
    for place in ("", *_places()):
        if found := command.which(str(Path(place, PROGRAM))):
            return found
    raise NotInstalled


def _places() -> list[str]:
    if sys.platform == "darwin":
        return ["/Applications/VirtualBox.app/Contents/MacOS"]
    if sys.platform == "win32":
        told = (os.environ.get(name) for name in ("VBOX_MSI_INSTALL_PATH", "VBOX_INSTALL_PATH"))
        return [*(each for each in told if each), r"C:\Program Files\Oracle\VirtualBox"]
    return []


class VBoxManage:
    """The program; making one only looks for it. Machines are named by UUID."""

    def __init__(self) -> None:
        self.program = find()

    @cached_property
    def version(self) -> Version:
        """Asked once. Raises PreflightError for an answer that is none."""
        result = command.run(self.program, "--version", check=False)
        found = output.version(output.answer(result.stdout)) if result.ok else None
        if found is None:
            raise PreflightError(
                f"{self.program} is not VirtualBox, or broken: it did not tell its version",
                details=(result.stdout + result.stderr).strip()[:500],
                hint="VBoxManage --version   shows what it says; install VirtualBox again",
            )
        return found

    # What there is

    def vms(self) -> dict[str, str]:
        """Names by UUID."""
        return output.vms(self._ask("list", "vms"))

    def sights(self) -> dict[str, Sight]:
        """The states of all machines, by one call."""
        return output.sights(self._ask("list", "--long", "vms"))

    def list(self, what: str) -> list[dict[str, str]]:
        """``hdds``, ``dvds``, ``hostonlyifs``...: one dictionary each."""
        return list(output.blocks(self._ask("list", what)))

    def host_info(self) -> dict[str, str]:
        return next(output.blocks(self._ask("list", "hostinfo")), {})

    def info(self, vm: str) -> dict[str, str] | None:
        """A machine's settings and state; None for one that VirtualBox does not know. Raises
        VBoxFailed, UNREADABLE for one whose settings file it cannot read."""
        try:
            return output.settings(self._ask("showvminfo", vm, "--machinereadable"))
        except VBoxFailed as exc:
            if exc.code == NOT_FOUND:
                return None
            raise

    def marked(self, vm: str, key: str) -> str:
        """A value of ours; "" where there is none."""
        said = self._ask("getextradata", vm, key)
        return said.strip().removeprefix("Value: ") if said.startswith("Value: ") else ""

    def marks(self, key: str) -> dict[str, str]:
        """A value of ours of every machine that can be read."""
        names = self.vms().items()
        return {vm: self.marked(vm, key) for vm, name in names if name != output.UNREADABLE}

    # Machines

    def create(self, name: str, uuid: str, folder: Path, os_type: str) -> None:
        self._ask(
            *("createvm", "--name", name, "--uuid", uuid, "--ostype", os_type),
            *("--basefolder", folder, "--register"),
        )

    def modify(
        self, vm: str, *settings: tuple[str, str | int] | tuple[str, str | int, str]
    ) -> None:
        """Settings as ``modifyvm`` names them, without dashes in front: ("memory", 1024). A name of
        spelling.py is written as the version wants it; its last digit is the card's."""
        words: list[str] = []
        for name, *values in settings:
            words += [self._spelt(name), *(str(value) for value in values)]
        self._ask("modifyvm", vm, *words)

    def mark(self, vm: str, key: str, value: str) -> None:
        self._ask("setextradata", vm, key, value)

    def share(self, vm: str, name: str, folder: str) -> None:
        self._ask("sharedfolder", "add", vm, "--name", name, "--hostpath", folder, "--automount")

    def unregister(self, vm: str, *, delete: bool) -> None:
        """Twice is fine."""
        self._unless(NOT_FOUND, "unregistervm", vm, *(["--delete"] if delete else []))

    # Disks

    def add_controller(self, vm: str, name: str, ports: int) -> None:
        self._ask(
            *("storagectl", vm, "--name", name, "--add", "sata", "--controller", "IntelAhci"),
            *("--portcount", str(ports), "--bootable", "on"),
        )

    def attach(self, vm: str, controller: str, port: int, kind: str, medium: str | Path) -> None:
        """``kind`` is hdd or dvddrive; ``medium`` a path, "none", or "emptydrive"."""
        force = ["--forceunmount"] if medium == "emptydrive" else []
        self._ask(
            *("storageattach", vm, "--storagectl", controller, "--port", str(port)),
            *("--device", "0", "--type", kind, "--medium", medium, *force),
        )

    def make_child(self, path: Path, parent: Path) -> None:
        """A differencing disk: what is written over ``parent``."""
        self._ask("createmedium", "disk", "--filename", path, "--diffparent", parent)

    def resize_disk(self, path: Path, size_mib: int) -> None:
        """To a larger one; twice is fine."""
        self._ask("modifymedium", "disk", path, "--resize", str(size_mib), timeout=LONG)

    def close_medium(self, kind: str, medium: str | Path, *, delete: bool) -> None:
        """``kind`` is disk or dvd; twice is fine. An id that is not known (any more) is taken for a
        file's name by VBoxManage 7.2, which finds that it is none."""
        try:
            self._unless(NOT_FOUND, "closemedium", kind, medium, *(["--delete"] if delete else []))
        except VBoxFailed as exc:
            if "is not fully qualified" not in exc.brief:
                raise

    # Power

    def start(self, vm: str, ui: str) -> None:
        self._ask("startvm", vm, "--type", ui, timeout=120)

    def control(self, vm: str, verb: str) -> None:
        """``acpipowerbutton``, ``poweroff``, ``pause``, ``resume``..."""
        self._ask("controlvm", vm, verb)

    def discard_state(self, vm: str) -> None:
        """Of a saved machine, which cannot be changed before."""
        self._ask("discardstate", vm)

    # Snapshots

    def snapshots(self, vm: str) -> str:
        """The machine-readable list; "" where there are none, which VBoxManage calls an error."""
        result = self._run("snapshot", vm, "list", "--machinereadable")
        if result.ok:
            return output.answer(result.stdout)
        said = result.stdout + result.stderr
        if "does not have any snapshots" in said:
            return ""
        raise self._failed(result)

    def take_snapshot(self, vm: str, name: str) -> None:
        self._ask("snapshot", vm, "take", name, timeout=LONG)

    def restore_snapshot(self, vm: str, name: str) -> None:
        self._ask("snapshot", vm, "restore", name, timeout=LONG)

    def delete_snapshot(self, vm: str, name: str) -> None:
        self._ask("snapshot", vm, "delete", name, timeout=LONG)

    # Networks

    def make_adapter(self) -> str:
        """A new host-only adapter's name: "Interface 'vboxnet0' was successfully created"."""
        return self._ask("hostonlyif", "create").rpartition("Interface '")[2].partition("'")[0]

    def set_adapter(self, name: str, address: str, netmask: str) -> None:
        self._ask("hostonlyif", "ipconfig", name, "--ip", address, "--netmask", netmask)

    def remove_adapter(self, name: str) -> None:
        self._ask("hostonlyif", "remove", name)

    def make_network(self, name: str, netmask: str, lower: str, upper: str) -> None:
        """A host-only network, where there are such: macOS from 7.0 on."""
        self._ask(
            *("hostonlynet", "add", "--name", name, "--netmask", netmask),
            *("--lower-ip", lower, "--upper-ip", upper, "--enable"),
        )

    # How it is run

    def _spelt(self, name: str) -> str:
        table = spelling.of(self.version)
        bare = name.rstrip("0123456789")
        return table[bare] + name[len(bare) :] if bare in table else f"--{name}"

    def _unless(self, code: str, *words: str | Path) -> None:
        try:
            self._ask(*words)
        except VBoxFailed as exc:
            if exc.code != code:
                raise

    def _ask(self, *words: str | Path, timeout: float = 60) -> str:
        result = self._run(*words, timeout=timeout)
        if not result.ok:
            raise self._failed(result)
        return output.answer(result.stdout)

    def _run(self, *words: str | Path, timeout: float = 60) -> command.Result:
        """Ask again for a while as long as something else holds the machine."""
        last: command.Result

        def attempt() -> command.Result | None:
            nonlocal last
            last = command.run(self.program, *words, check=False, timeout=timeout)
            return None if not last.ok and _busy(last.stderr) else last

        try:
            return wait.until("VirtualBox", attempt, timeout=LOCKED, first=0.1)
        except TimedOut:
            return last

    def _failed(self, result: command.Result) -> VBoxFailed:
        found = output.failure(result.stderr or result.stdout)
        hint = trouble.hint(result.stderr)
        if _busy(result.stderr):
            hint = (
                "Another program holds the machine: close its window in VirtualBox, then try again"
            )
        return VBoxFailed(
            f"VirtualBox: {found.text or f'VBoxManage ended with code {result.code}'}",
            code=found.code,
            details=_details(result),
            hint=hint,
        )


def _details(result: command.Result) -> str:
    """The command and what it said; of wrong usage only the start, it prints its whole manual."""
    said = (result.stderr or result.stdout).strip().splitlines()
    words: Iterable[str] = (PROGRAM, *result.argv[1:])
    return "\n".join([f"$ {' '.join(words)}", *said[:12]])


def _busy(stderr: str) -> bool:
    """Whether it asks to be asked again: "already locked for a session (or being unlocked)", "while
    it is locked", "The object is not ready"."""
    found = output.failure(stderr)
    locked = found.code == "VBOX_E_INVALID_OBJECT_STATE" and "lock" in found.text
    return locked or "object is not ready" in found.text

"""VBoxManage whose hypervisor is QEMU: what needs VirtualBox's kernel driver is done here, and all the
rest by the real program, whose registry, disks, checks and output are what a test sees.

    VBoxManage ...      with TEST_VBOXMANAGE, the real program's command line, and VBOX_USER_HOME

Done here: startvm, controlvm, the states in what showvminfo and list tell, and the errors of a machine
that is locked because it runs. A machine is started as the real program describes it, so that a
missing disk, card or forward shows. QEMU reads a plain VDI, and none that is laid over another: each
of those is stood for by a qcow2, laid over what its parent is. Not served: saving of states, snapshots
of running machines, guest properties and shared folders (no Guest Additions).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

REAL = shlex.split(os.environ["TEST_VBOXMANAGE"])
HOME = Path(os.environ["VBOX_USER_HOME"]) / "qemu"
"""A folder for each machine that ran: state, pid, a socket to QEMU, and what stands for its disks."""
LOCKED = "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)"
LONG_STATES = {"poweroff": "powered off"}  # else the long name is the short one
CARDS = {"virtio": "virtio-net-pci", "82540EM": "e1000", "82543GC": "e1000", "82545EM": "e1000"}
WANT_OFF = ("modifyvm", "unregistervm", "storagectl", "snapshot")
"""Verbs that the real program refuses for a machine that runs."""
SETTING = re.compile(r'^(?:"([^"]+)"|([\w-]+(?:\(\d+\))?))=(.*)$', re.M)


def real(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REAL, *argv], capture_output=True, text=True, check=False)


def hand_on(result: subprocess.CompletedProcess[str]) -> NoReturn:
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    sys.exit(result.returncode)


def fail(text: str, code: str = "") -> NoReturn:
    lines = [text, *([f"Details: code {code}, component MachineWrap"] if code else [])]
    sys.stderr.write("".join(f"VBoxManage: error: {line}\n" for line in lines))
    sys.exit(1)


class Vm:
    """A machine that the real program knows, by name or UUID. Exits with its error for others, or has
    that program do what was asked."""

    def __init__(self, name: str, otherwise: Sequence[str] = ()) -> None:
        shown = real("showvminfo", name, "--machinereadable")
        if shown.returncode:
            hand_on(real(*otherwise) if otherwise else shown)
        self.shown = shown.stdout
        self.info = {
            each[1] or each[2]: each[3].strip('"').replace('\\"', '"')
            for each in SETTING.finditer(shown.stdout)
        }
        self.name, self.folder = self.info["name"], HOME / self.info["UUID"]

    @property
    def state(self) -> str:
        return state(self.info["UUID"]) or self.info["VMState"]

    @property
    def runs(self) -> bool:
        return self.state in ("running", "paused")

    def note(self, state: str) -> None:
        (self.folder / "state").write_text(state)

    def tell(self, command: str, **arguments: str) -> None:
        """One command over QEMU's machine protocol."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.folder / "qmp"))
            with link.makefile("rw") as lines:
                lines.readline()
                for name, values in (("qmp_capabilities", {}), (command, arguments)):
                    lines.write(json.dumps({"execute": name, "arguments": values}) + "\n")
                    lines.flush()
                    while "event" in json.loads(lines.readline() or "{}"):
                        pass

    @cached_property
    def forwards(self) -> dict[str, tuple[str, ...]]:
        """protocol, address, port, guest's address, guest's port, by name."""
        rules = (
            rule.split(",") for key, rule in self.info.items() if key.startswith("Forwarding(")
        )
        return {name: tuple(rest) for name, *rest in rules}

    def start(self) -> None:
        if self.runs:
            fail(
                f"The machine '{self.name}' is already locked by a session "
                "(or being locked or unlocked)",
                LOCKED,
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in ("down", "qmp", "pid"):
            (self.folder / stale).unlink(missing_ok=True)
        print(f'Waiting for VM "{self.name}" to power on...', flush=True)
        started = subprocess.run(self._command(), capture_output=True, text=True, check=False)
        if started.returncode:
            fail(
                f"The virtual machine '{self.name}' has terminated unexpectedly during startup with "
                f"exit code 1 (0x1)\n{started.stderr}",
                "NS_ERROR_FAILURE (0x80004005)",
            )
        self.note("running")
        print(f'VM "{self.name}" has been successfully started.')

    def _command(self) -> list[str]:
        info = self.info
        return [
            *("qemu-system-x86_64", "-name", self.name, "-uuid", info["hardwareuuid"]),
            *("-machine", "q35" if info["chipset"] == "ich9" else "pc", "-accel", "tcg"),
            *("-cpu", "max", "-m", info["memory"], "-smp", info["cpus"], "-display", "none"),
            *("-daemonize", "-pidfile", str(self.folder / "pid")),
            *("-qmp", f"unix:{self.folder / 'qmp'},server,wait=off", "-device", "ahci,id=sata"),
            *self._drives(),
            *self._cards(),
            *self._serial(),
        ]

    def _drives(self) -> Iterator[str]:
        for key, medium in sorted(self.info.items()):
            port = re.fullmatch(r"\w+-(\d+)-0", key)
            if not port or not medium.startswith("/"):
                continue
            node, kind, more = f"disk{port[1]}", "ide-hd", "cache=unsafe"
            if medium.endswith(".iso"):
                path, fmt, kind, more = medium, "raw", "ide-cd", "media=cdrom,readonly=on"
            else:
                path, fmt = stand_in(self.folder, medium)
            yield from ("-drive", f"if=none,id={node},file={path},format={fmt},{more}")
            yield from ("-device", f"{kind},drive={node},bus=sata.{port[1]}")

    def _cards(self) -> Iterator[str]:
        for number in range(1, 9):
            kind, address = self.info[f"nic{number}"], self.info.get(f"macaddress{number}", "")
            if kind == "nat":
                rules = (
                    f",hostfwd={protocol}:{host}:{port}-{guest}:{guest_port}"
                    for protocol, host, port, guest, guest_port in self.forwards.values()
                )
                net = f"user,id=net{number}{''.join(rules)}"
            elif kind == "intnet":
                port = 20000 + sum(self.info[f"intnet{number}"].encode()) % 10000
                net = f"socket,id=net{number},mcast=230.77.0.1:{port},localaddr=127.0.0.1"
            elif kind == "none":
                continue
            else:
                fail(f"vboxmanage_on_qemu serves no card on {kind}")
            card = CARDS[self.info[f"nictype{number}"]]
            mac = ":".join(re.findall("..", address))
            yield from ("-netdev", net, "-device", f"{card},netdev=net{number},mac={mac}")

    def _serial(self) -> Iterator[str]:
        """VirtualBox begins the file anew at each start."""
        mode, _, path = self.info.get("uartmode1", "").partition(",")
        if mode == "file":
            yield from ("-chardev", f"file,id=serial,path={path}", "-serial", "chardev:serial")

    def control(self, verb: str, *arguments: str) -> None:
        if not self.runs:
            fail(f"Machine '{self.name}' is not currently running.")
        if verb == "acpipowerbutton":
            (self.folder / "down").touch()
            self.tell("system_powerdown")
        elif verb == "poweroff":
            self.tell("quit")
            while alive(self.folder):
                time.sleep(0.05)
            self.note("poweroff")
            print("0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%")
        elif verb in ("pause", "resume"):
            self.tell({"pause": "stop", "resume": "cont"}[verb])
            self.note({"pause": "paused", "resume": "running"}[verb])
        elif verb == "reset":
            self.tell("system_reset")
        else:
            fail(f"vboxmanage_on_qemu serves no controlvm {' '.join((verb, *arguments))}")


def state(uuid: str) -> str:
    """Of what was last asked of QEMU, and whether it lives; "" for what the real program knows best."""
    folder = HOME / uuid
    try:
        wanted = (folder / "state").read_text()
    except FileNotFoundError:
        return ""
    if wanted not in ("running", "paused"):
        return ""
    if alive(folder):
        return wanted
    return "poweroff" if (folder / "down").exists() else "aborted"


def alive(folder: Path) -> bool:
    try:
        number = int((folder / "pid").read_text())
        return b"qemu-system" in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0]
    except (OSError, ValueError):
        return False


def stand_in(folder: Path, medium: str) -> tuple[str, str]:
    """What QEMU is given for a disk, by path or UUID: path and format."""
    shown = dict(
        re.findall(r"^([\w ]+):\s+(.+)$", real("showmediuminfo", "disk", medium).stdout, re.M)
    )
    parent = shown["Parent UUID"]
    if parent == "base":
        return shown["Location"], "vdi"
    file = folder / f"{shown['UUID']}.qcow2"
    below, fmt = stand_in(folder, parent)
    if not file.exists():
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", fmt, str(file)]
        subprocess.run(words, check=True)
    return str(file), "qcow2"


def delete_snapshot(vm: Vm, *argv: str) -> NoReturn:
    """The real program merges its disks; what stands for the last one keeps its content."""
    before = Path(stand_in(vm.folder, vm.info["sata-0-0"])[0]) if vm.folder.exists() else None
    result = real("snapshot", vm.info["UUID"], *argv)
    if result.returncode == 0 and before:
        last = Vm(vm.info["UUID"]).info
        shown = real("showmediuminfo", "disk", last["sata-0-0"]).stdout
        parent = re.findall(r"^Parent UUID:\s+(\S+)$", shown, re.M)[0]
        below, fmt = stand_in(vm.folder, parent)
        if below != str(before):
            words = ["qemu-img", "rebase", "-f", "qcow2", "-b", below, "-F", fmt, str(before)]
            subprocess.run(words, check=True)
        before.rename(vm.folder / f"{last['sata-ImageUUID-0-0']}.qcow2")
    hand_on(result)


def long_states(text: str) -> str:
    """The long listing with our states in it."""
    uuid = ""
    lines = []
    for line in text.splitlines(keepends=True):
        if found := re.match(r"UUID:\s+(\S+)$", line):
            uuid = found[1]
        if line.startswith("State:") and (now := state(uuid)):
            line = re.sub(
                r"^(State:\s+).*?(?= \(since)", rf"\g<1>{LONG_STATES.get(now, now)}", line
            )
        lines.append(line)
    return "".join(lines)


def main(*argv: str) -> None:
    match argv:
        case ["startvm", name, *_]:
            Vm(name).start()
        case ["controlvm", name, verb, *arguments]:
            Vm(name).control(verb, *arguments)
        case ["list", "runningvms"]:
            listed = real("list", "vms").stdout
            found = re.findall(r"^(.*\{([0-9a-f-]+)\})$", listed, re.M)
            runs = (line for line, uuid in found if state(uuid) in ("running", "paused"))
            print("".join(f"{line}\n" for line in runs), end="")
        case ["list", "--long" | "-l", "vms"]:
            result = real(*argv)
            result.stdout = long_states(result.stdout)
            hand_on(result)
        case ["showvminfo", name, "--machinereadable"]:
            vm = Vm(name)
            print(
                re.sub(r'^VMState="[\w-]+"', f'VMState="{vm.state}"', vm.shown, flags=re.M), end=""
            )
        case [verb, name, *rest] if verb in WANT_OFF:
            vm = Vm(name, otherwise=argv)
            if vm.runs and rest[:1] != ["list"]:
                text = (
                    f"The machine '{vm.name}' is already locked for a session (or being unlocked)"
                )
                if verb == "snapshot":
                    text = "vboxmanage_on_qemu keeps no state of a machine that runs"
                if verb == "unregistervm":
                    text = f"Cannot unregister the machine '{vm.name}' while it is locked"
                fail(text, LOCKED)
            if verb == "snapshot" and rest[:1] == ["delete"]:
                delete_snapshot(vm, *rest)
            result = real(*argv)
            if verb == "unregistervm" and result.returncode == 0:
                shutil.rmtree(vm.folder, ignore_errors=True)
            hand_on(result)
        case _:
            os.execvp(REAL[0], [*REAL, *argv])


if __name__ == "__main__":
    main(*sys.argv[1:])

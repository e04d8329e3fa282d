"""The smallest useful driver: VMs of qemu-system-x86_64, reached by ports that it forwards."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass, replace

from machine import seed, wait
from machine.command import run, which
from machine.driver import Driver
from machine.errors import PreflightError
from machine.flags import option
from machine.model import Address, Can, Nic, State, VmSpec

CARD = Nic("52:54:00:12:34:56", "10.0.2.15/24", "10.0.2.2", "10.0.2.3")
"""The guest's card, with the addresses that QEMU's user network keeps for it."""


@dataclass(frozen=True, slots=True)
class QemuConfig:
    accel: str = option("kvm", "what runs the guest's code", choices=("kvm", "tcg"))


@dataclass(frozen=True, slots=True)
class QemuFacts:
    ssh_port: int = 0
    engine_port: int = 0
    argv: tuple[str, ...] = ()  # what QEMU is started with
    seed: tuple[str, ...] = ()  # and until the first boot is over


class QemuDriver(Driver[QemuConfig, QemuFacts]):
    name = "qemu"
    can = Can.POWER | Can.KILL | Can.IDENTITY | Can.CLOUD_INIT
    experimental = "an example to write drivers after"

    def preflight(self) -> None:
        if not (which("qemu-system-x86_64") and which("qemu-img")):
            hint = "sudo apt-get install qemu-system-x86 qemu-utils"
            raise PreflightError("QEMU is not installed", hint=hint)

    def reserve(self, engine_port: int) -> Address:
        if not self.facts.ssh_port:
            place = ("127.0.0.1", 0)  # any that is free
            with socket.create_server(place) as one, socket.create_server(place) as two:
                self.save(QemuFacts(one.getsockname()[1], two.getsockname()[1]))
        return self.address()

    def create(self, spec: VmSpec) -> None:
        self.remove()  # what a create made that was killed
        vm, image = self.host.folder / "vm", spec.booted
        vm.mkdir(mode=0o700)
        run("qemu-img", "convert", "-O", "qcow2", image.disk, vm / "disk", timeout=600)
        run("qemu-img", "resize", vm / "disk", f"{spec.disk_gib}G")
        ports = f"hostfwd=tcp:127.0.0.1:{self.facts.ssh_port}-:22"
        ports += f",hostfwd=tcp:127.0.0.1:{self.facts.engine_port}-:{spec.engine_port}"
        argv = [
            *("-machine", f"q35,accel={self.config.accel}", "-cpu", "max", "-nodefaults"),
            *("-m", str(spec.memory_mib), "-smp", str(spec.cpus), "-display", "none"),
            *("-drive", "file=disk,if=none,id=disk,format=qcow2", "-serial", "file:console"),
            *("-device", "virtio-blk-pci,drive=disk"),  # the first disk, whatever comes after it
            *("-nic", f"user,model=virtio-net-pci,mac={CARD.mac},{ports}"),
        ]
        if image.kernel and image.initrd:
            shutil.copy(image.kernel, vm / "kernel")
            shutil.copy(image.initrd, vm / "initrd")
            argv += ["-kernel", "kernel", "-initrd", "initrd", "-append", image.cmdline]
        content, serial = seed.first_boot(image.first_boot, spec.identity, [CARD])
        (vm / "seed").write_bytes(content)
        drive = ("-drive", "file=seed,if=none,id=seed,format=raw,readonly=on")
        device = ("-device", f"virtio-blk-pci,drive=seed,serial={serial}")
        self.save(replace(self.facts, argv=tuple(argv), seed=drive + device))
        self.start()

    def settle(self) -> None:
        self.save(replace(self.facts, seed=()))
        (self.host.folder / "vm" / "seed").unlink(missing_ok=True)

    def state(self) -> State:
        if not (self.host.folder / "vm" / "disk").exists():
            return State.MISSING
        return State.RUNNING if self._says("") else State.STOPPED

    def address(self) -> Address:
        return Address("127.0.0.1", self.facts.ssh_port, self.facts.engine_port)

    def start(self) -> None:
        if self.state() is not State.RUNNING:
            vm = self.host.folder / "vm"
            monitor = ("-daemonize", "-monitor", f"unix:{vm}/monitor,server=on,wait=off")
            run("qemu-system-x86_64", *monitor, *self.facts.argv, *self.facts.seed, cwd=vm)

    def stop(self) -> None:
        self._says("system_powerdown")

    def kill(self) -> None:
        self._says("quit")
        wait.until("QEMU to end", lambda: not self._says(""), timeout=30)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.host.folder / "vm", ignore_errors=True)

    def _says(self, command: str) -> bool:
        """Give QEMU's monitor a command; whether there is one, and so whether the VM runs."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            try:
                monitor.connect(f"{self.host.folder}/vm/monitor")
                monitor.sendall(f"{command}\n".encode())
                monitor.shutdown(socket.SHUT_WR)
                while monitor.recv(4096):
                    pass
            except OSError:
                return False
        return True

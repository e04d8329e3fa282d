"""Our image on a disk that a BIOS boots, as a hypervisor without a door for kernels shows it to its
guests: emulated by QEMU alone, reached by a forward on loopback."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from machine import boot_disk, keys, seed, ssh, wait
from machine.errors import GuestUnreachable
from machine.images import ImageCache
from machine.model import Address, GuestFile, Identity, Login, Nic
from machine.ssh import SshGuest
from tests.artefact import CACHE

pytestmark = pytest.mark.e2e

DISK_GIB = 7
MAC = "08:00:27:00:00:01"
ONCE = "/etc/machine-test"
"""A file of the identity's: it is taken away after the first boot, and must not come back."""
CONTROLLERS = {
    "ahci": ("ahci,id=bus", "ide-hd,bus=bus.0", "ide-cd,bus=bus.1"),
    "ide": ("", "ide-hd,bus=ide.0", "ide-cd,bus=ide.1"),
    "virtio-scsi": ("virtio-scsi-pci,id=bus", "scsi-hd,bus=bus.0", "scsi-cd,bus=bus.0"),
}
"""QEMU's devices: the controller, the disk and the DVD drive."""
FACTS = """
echo "host=$(uname -n) $(cat /etc/hostname)"
echo "id=$(cat /etc/machine-id)"
echo "instance=$(cat /var/lib/machine/instance-id)"
echo "gib=$(df -BG --output=size / | tail -n 1 | tr -d ' G')"
echo "root=$(findmnt -no SOURCE /)"
echo "address=$(ip -4 -br address show dev eth0 | tr -s ' ' | cut -d' ' -f3)"
echo "state=$(systemctl is-system-running --wait)"
"""


@dataclass
class Vm:
    """One disk, and who boots from it."""

    folder: Path
    disk: Path
    identity: Identity

    @contextmanager
    def boot(self, controller: str, dvd: Path | None) -> Iterator[SshGuest]:
        """Switched on and logged in to, by the pinned host key; switched off again by itself."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = subprocess.Popen(list(self._qemu(controller, dvd, port)))
        try:
            with self._login(port) as guest:
                yield guest
                with suppress(GuestUnreachable):
                    guest.run("systemctl", "poweroff", sudo=True)
            process.wait(60)
        finally:
            process.kill()
            process.wait()

    def _qemu(self, controller: str, dvd: Path | None, port: int) -> Iterator[str]:
        yield from ("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "max")
        yield from ("-m", "512", "-display", "none", "-nodefaults", "-no-user-config")
        yield from ("-chardev", f"file,id=console,path={self.folder}/console.log,append=on")
        yield from ("-serial", "chardev:console")
        bus, disk, drive = CONTROLLERS[controller]
        yield from ("-device", bus) if bus else ()
        yield from ("-drive", f"if=none,id=disk,format=vdi,file={self.disk}")
        yield from ("-device", f"{disk},drive=disk,bootindex=1")
        medium = f",file={dvd}" if dvd else ""
        yield from ("-drive", f"if=none,id=dvd,media=cdrom,readonly=on{medium}")
        yield from ("-device", f"{drive},drive=dvd")
        yield from ("-netdev", f"user,id=nat,hostfwd=tcp:127.0.0.1:{port}-:22")
        yield from ("-device", f"virtio-net-pci,netdev=nat,mac={MAC}")

    def _login(self, port: int) -> SshGuest:
        user = self.identity.user
        ours = Login(user, self.folder / "known_hosts", (self.folder / "key",))

        def login() -> SshGuest | None:
            with suppress(GuestUnreachable):
                return ssh.connect(Address("127.0.0.1", port), ours, timeout=5)
            return None

        return wait.until(
            "a login",
            login,
            timeout=180,
            last_answer=lambda: (self.folder / "console.log").read_text()[-2000:],
        )


def learn(guest: SshGuest) -> dict[str, str]:
    found = guest.script(FACTS, timeout=120, check=False)
    return dict(line.split("=", 1) for line in found.stdout.splitlines())


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Vm:
    """A disk that nothing has booted from."""
    folder = tmp_path_factory.mktemp("boot-disk")
    user, host = keys.ed25519(), keys.ed25519()
    (folder / "key").write_text(user.private)
    (folder / "known_hosts").write_text(ssh.known_hosts_line(host.public))
    boot_disk.raw(ImageCache(CACHE / "images").find("debian-13"), DISK_GIB, folder / "disk.raw")
    convert = ("qemu-img", "convert", "-O", "vdi", folder / "disk.raw", folder / "disk.vdi")
    subprocess.run(convert, check=True)
    (folder / "disk.raw").unlink()
    identity = Identity(
        hostname="w1.example",
        machine_id="0123456789abcdef" * 2,
        user="me",
        authorized_keys=(user.public,),
        host_key=host.private,
        host_key_public=host.public,
        files=(GuestFile(ONCE, b"here\n"),),
    )
    (folder / "seed.iso").write_bytes(seed.identity_iso(identity, [Nic(MAC)]))
    return Vm(folder, folder / "disk.vdi", identity)


def test_a_bios_boots_it_from_a_disk_of_any_kind_and_it_is_somebody_from_then_on(vm: Vm) -> None:
    dvd = vm.folder / "seed.iso"
    facts = {
        "host": "w1.example w1.example",
        "id": vm.identity.machine_id,
        "instance": vm.identity.machine_id,
        "root": "/dev/sda2",
        "address": "10.0.2.15/24",
        "state": "running",
    }
    with vm.boot("ahci", dvd) as guest:
        found = learn(guest)
        assert DISK_GIB - 1 <= int(found.pop("gib")) <= DISK_GIB
        assert found == facts
        assert guest.get(ONCE) == b"here\n"
        guest.run("rm", ONCE, sudo=True)
    for controller, still in (("ide", dvd), ("virtio-scsi", None)):
        with vm.boot(controller, still) as guest:
            assert facts.items() <= learn(guest).items()
            assert guest.get(ONCE) is None

"""A cloud image as others publish them, built from packages: what a download would be in the tests.

It has the shape of Debian's official image for clouds: a GPT disk with a BIOS boot partition, GRUB,
the stock initramfs, netplan and cloud-init, and nothing of ours in it.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Final

from machine.image_build import as_root, call, unpacked
from machine.paths import cache_root
from tests import artefact

NAME: Final = "foreign-debian-13.qcow2"
SYSTEM: Final = "foreign-debian-13.tar"
FOLDER: Final = "test-images"
PACKAGES: Final = (
    "apparmor",
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "grub-pc-bin",
    "initramfs-tools",
    "iproute2",
    "iptables",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "netplan.io",
    "openssh-server",
    "polkitd",
    "procps",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "unattended-upgrades",
    "zstd",
)
MIB: Final = 1 << 20
SECTOR: Final = 512
DISK_MIB, ROOT_START_MIB, ROOT_MIB = 3072, 4, 3067  # the last MiB is the table's second copy
BOOT_SECTOR: Final = MIB // SECTOR
"""Where the BIOS boot partition starts, and GRUB's core in it."""
ROOT_UUID: Final = "6d616368-696e-4e00-a000-000000000001"
TABLE: Final = f"""label: gpt
p14 : start={BOOT_SECTOR}, size=3MiB, type=21686148-6449-6E6F-744E-656564454649
p1 : start={ROOT_START_MIB}MiB, size={ROOT_MIB}MiB, type=linux, uuid={ROOT_UUID}
"""

# As Debian's image builder leaves them: no machine-id, no lists. The host keys of the build stay
# (images by others often have some): cloud-init has to replace them.
FINISH: Final = f"""
set -eu
cd "$1"
: > etc/machine-id
rm -rf var/lib/apt/lists/* var/cache/apt/*.bin var/cache/apt/archives/*.deb etc/hostname
echo 'PARTUUID={ROOT_UUID} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1' > etc/fstab
ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
chroot . systemctl -q enable systemd-networkd systemd-resolved
mkdir -p boot/grub
cp -r usr/lib/grub/i386-pc boot/grub/
cat > boot/grub/grub.cfg <<'END'
set timeout=0
menuentry "Debian GNU/Linux" {{
    linux /vmlinuz root=PARTUUID={ROOT_UUID} ro console=tty0 console=ttyS0,115200 consoleblank=0
    initrd /initrd.img
}}
END
chroot . grub-mkimage -O i386-pc -p '(hd0,gpt1)/boot/grub' -o /boot/grub/i386-pc/core.img \\
    biosdisk part_gpt ext2 normal linux
cp boot/grub/i386-pc/boot.img boot/grub/i386-pc/core.img "$2"
truncate -s {DISK_MIB}M tmp/disk.raw
chroot . sfdisk -q /tmp/disk.raw <<'END'
{TABLE}END
mv tmp/disk.raw "$2"
mke2fs -q -F -t ext4 -d . -E offset={ROOT_START_MIB * MIB} "$2/disk.raw" {ROOT_MIB}M
"""


def build(folder: Path) -> None:
    """Make the system, and the image of it, or leave what is there. Raises ImageError."""

    def bootstrapped(work: Path) -> Path:
        artefact.bootstrap(work / SYSTEM, PACKAGES)
        return work / SYSTEM

    def image(work: Path) -> Path:
        disk = work / "disk.raw"
        with unpacked(folder / SYSTEM, work) as root:
            as_root("sh", "-c", FINISH, "sh", root, work)
        install_grub(disk, (work / "boot.img").read_bytes(), (work / "core.img").read_bytes())
        whole = work / NAME
        call("qemu-img", "convert", "-c", "-O", "qcow2", disk, whole)
        return whole

    artefact.build(folder / SYSTEM, bootstrapped)
    artefact.build(folder / NAME, image)


def install_grub(disk: Path, boot: bytes, core: bytes) -> None:
    """What grub-bios-setup writes, without a block device: the boot code before the table, told
    where the core is; the core's first sector, told where the rest of it is (GRUB's boot.S and
    diskboot.S hold both numbers at fixed places)."""
    with disk.open("r+b") as file:
        file.write(boot[:440])
        file.seek(0x5C)
        file.write(struct.pack("<Q", BOOT_SECTOR))
        file.seek(BOOT_SECTOR * SECTOR)
        file.write(core)
        file.seek(BOOT_SECTOR * SECTOR + SECTOR - 12)
        file.write(struct.pack("<Q", BOOT_SECTOR + 1))


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER)

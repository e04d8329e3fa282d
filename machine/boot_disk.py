"""A disk that a BIOS boots by itself, for hypervisors that take no kernel from outside."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from machine import command
from machine.disk_image import SECTOR, Qcow2, need_qemu_img
from machine.errors import ImageError, PreflightError
from machine.model import Image

BOOT_START: Final = (1 << 20) // SECTOR
BOOT_SECTORS: Final = (64 << 20) // SECTOR
ROOT_START: Final = BOOT_START + BOOT_SECTORS
"""In sectors: the boot partition lies before the root file system, which takes all the rest."""
LARGEST_GIB: Final = 2047
"""The partition table counts sectors with 32 bits."""
PROGRAMS: Final = {
    "qemu-img": "qemu-utils",
    "mformat": "mtools",
    "mcopy": "mtools",
    "syslinux": "syslinux",
}
BOOT_CODE: Final = (
    "/usr/lib/SYSLINUX/mbr.bin",  # Debian and Ubuntu, in the package of the program
    "/usr/lib/syslinux/mbr/mbr.bin",  # Debian's syslinux-common
    "/usr/share/syslinux/mbr.bin",  # Fedora, openSUSE, Alpine
    "/usr/lib/syslinux/bios/mbr.bin",  # Arch
)
"""Where syslinux's own code for the first sector may lie: it starts the active partition."""
_CODE_SIZE: Final = 440  # bytes; the disk's signature and the table follow
_FAT16_LBA, _LINUX = 0x0E, 0x83  # partition types
_ACTIVE: Final = 0x80
_NO_CHS: Final = b"\xfe\xff\xff"  # cylinder, head and sector "beyond the range": the LBA counts


def missing() -> list[str]:
    """The packages, by Debian's names, that ``raw`` needs and that are not installed."""
    wanted = command.missing(PROGRAMS)
    if not _boot_code():
        wanted.append("syslinux")
    return sorted(set(wanted))


def check() -> None:
    """Raises PreflightError unless ``raw`` can do its work here."""
    if packages := missing():
        raise PreflightError(
            "Making a disk that boots by itself needs programs that are not installed: "
            f"{', '.join(packages)}",
            hint=f"sudo apt-get install {' '.join(packages)}",
        )


def raw(image: Image, disk_gib: int, target: Path) -> None:
    """Write a sparse raw disk of that size with what the image holds; a file that is there is
    overwritten. An image that boots by itself is copied, and finds more room behind it. One of ours
    gets a boot loader: its file system, in a partition that fills the disk, grows at the first boot.
    No root rights are needed. Raises ImageError; what is in ``target`` then is of no use."""
    start = _start(image, disk_gib)
    need_qemu_img()
    with target.open("wb") as file:
        file.truncate(disk_gib << 30)
    if image.kernel and image.initrd:
        check()
        _add_boot_loader(target, image.kernel, image.initrd, image.cmdline)
    where = str(target).replace(",", ",,")
    # Into the middle of a file that reads as zeros: only what is not zero is written.
    _call(
        *("qemu-img", "convert", "-n", "--target-is-zero", "-f", "qcow2"),
        *(image.disk, "--target-image-opts"),
        f"driver=raw,offset={start},file.driver=file,file.filename={where}",
    )


def _start(image: Image, disk_gib: int) -> int:
    """Where the image's content begins, in bytes. Raises ImageError where that cannot be."""
    head = Qcow2.of(image.disk)
    if head is None:
        raise ImageError(f"The image {image.name} is damaged: its disk is no qcow2")
    start = ROOT_START * SECTOR if image.kernel else 0
    if start and image.arch != "x86_64":
        raise ImageError(
            f"The image {image.name} is for {image.arch}, which has no BIOS to boot it"
        )
    smallest = -(-(head.virtual_size + start) >> 30)
    if not smallest <= disk_gib <= LARGEST_GIB:
        raise ImageError(
            f"The image {image.name} cannot boot from a disk of {disk_gib} GiB",
            hint=f"Give the machine a disk of {smallest} to {LARGEST_GIB} GiB",
        )
    return start


def partition_table(sectors: int) -> bytes:
    """The end of the first sector of a disk of so many sectors, from byte 446 on: four entries of
    which two are used, and the signature."""
    entries = (
        (_ACTIVE, _FAT16_LBA, BOOT_START, BOOT_SECTORS),
        (0, _LINUX, ROOT_START, sectors - ROOT_START),
    )
    table = b"".join(
        struct.pack("<B3sB3sII", status, _NO_CHS, kind, _NO_CHS, start, length)
        for status, kind, start, length in entries
    )
    return table.ljust(64, b"\0") + b"\x55\xaa"


def boot_config(cmdline: str) -> str:
    """syslinux.cfg: our kernel at once, its root found by label, whatever kind of disk it is on."""
    words = [word for word in cmdline.split() if not word.startswith("root=")]
    return (
        "DEFAULT machine\nPROMPT 0\nLABEL machine\n  KERNEL vmlinuz\n  INITRD initrd\n"
        f"  APPEND {' '.join(('root=LABEL=root', *words))}\n"
    )


def _add_boot_loader(disk: Path, kernel: Path, initrd: Path, cmdline: str) -> None:
    """Partition an empty disk, and make the first partition boot the second one's system."""
    code = _boot_code()
    assert code  # check() was called
    with disk.open("r+b") as file:
        file.write(code.read_bytes()[:_CODE_SIZE])
        file.seek(SECTOR - 66)
        file.write(partition_table(disk.stat().st_size // SECTOR))
    partition = f"{disk}@@{BOOT_START * SECTOR}"
    geometry = ("-T", str(BOOT_SECTORS), "-H", str(BOOT_START), "-h", "255", "-s", "63")
    _call("mformat", "-i", partition, *geometry, "-v", "boot", "::")
    config = boot_config(cmdline).encode()
    _call("mcopy", "-i", partition, kernel, "::vmlinuz")
    _call("mcopy", "-i", partition, initrd, "::initrd")
    _call("mcopy", "-i", partition, "-", "::syslinux.cfg", stdin=config)
    _call("syslinux", "--install", "--offset", str(BOOT_START * SECTOR), disk)


def _boot_code() -> Path | None:
    found: Sequence[Path] = [Path(name) for name in BOOT_CODE if Path(name).is_file()]
    return found[0] if found else None


def _call(*argv: str | Path, stdin: bytes | None = None) -> None:
    result = command.run(*argv, check=False, timeout=1800, stdin=stdin)
    if not result.ok:
        raise ImageError(
            f"The disk could not be made: {argv[0]} ended with code {result.code}",
            details=(result.stderr or result.stdout).strip()[-1000:],
        )

"""Disks that boot by themselves, made by the real programs and read back without booting them."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from machine import boot_disk
from machine.errors import ImageError
from machine.model import FirstBoot, Image

CONTENT = random.Random(5).randbytes(3 << 20)
"""Of an image's disk, with 2 MiB of nothing behind it."""
GIB = 1 << 30


@pytest.fixture
def foreign(tmp_path: Path) -> Image:
    """An image that is said to boot by itself."""
    raw, disk = tmp_path / "content", tmp_path / "disk.qcow2"
    raw.write_bytes(CONTENT + bytes(2 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True)
    return Image("foreign", "0" * 64, "x86_64", "debian", "13", FirstBoot.CLOUD_INIT, disk)


@pytest.fixture
def ours(foreign: Image, tmp_path: Path) -> Image:
    """An image with a kernel beside it."""
    (tmp_path / "vmlinuz").write_bytes(b"kernel" * 1000)
    (tmp_path / "initrd").write_bytes(b"initramfs" * 1000)
    return replace(
        foreign,
        first_boot=FirstBoot.IDENTITY,
        kernel=tmp_path / "vmlinuz",
        initrd=tmp_path / "initrd",
        cmdline="root=/dev/vda rw",
    )


def part(disk: Path, start: int, length: int) -> bytes:
    with disk.open("rb") as file:
        file.seek(start)
        return file.read(length)


def in_boot_partition(disk: Path, name: str) -> bytes:
    words = ["mcopy", "-i", f"{disk}@@{boot_disk.BOOT_START * 512}", f"::{name}", "-"]
    return subprocess.run(words, check=True, capture_output=True).stdout


def test_one_of_ours_gets_a_boot_loader_before_its_file_system(ours: Image, tmp_path: Path) -> None:
    disk = tmp_path / "with, a comma.raw"
    disk.write_bytes(b"what was here before" * 100)
    boot_disk.raw(ours, 2, disk)
    assert disk.stat().st_size == 2 * GIB
    assert disk.stat().st_blocks * 512 < 16 << 20  # it is sparse
    first = part(disk, 0, 512)
    assert any(first[:440])
    assert first[446:] == boot_disk.partition_table(2 * GIB // 512)
    boot = part(disk, boot_disk.BOOT_START * 512, 512)
    assert boot[3:11] == b"SYSLINUX"
    assert in_boot_partition(disk, "vmlinuz") == b"kernel" * 1000
    assert in_boot_partition(disk, "initrd") == b"initramfs" * 1000
    assert b"APPEND root=LABEL=root rw\n" in in_boot_partition(disk, "syslinux.cfg")
    assert in_boot_partition(disk, "ldlinux.sys")
    assert part(disk, boot_disk.ROOT_START * 512, 5 << 20) == CONTENT + bytes(2 << 20)


def test_one_that_boots_by_itself_is_copied_and_has_room_behind_it(
    foreign: Image, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"what was here before" * 1_000_000)
    boot_disk.raw(foreign, 3, disk)
    assert disk.stat().st_size == 3 * GIB
    assert disk.stat().st_blocks * 512 < 16 << 20
    assert part(disk, 0, 30 << 20) == CONTENT + bytes(27 << 20)


def test_a_kernel_without_room_is_told_in_the_words_of_the_program(
    ours: Image, tmp_path: Path
) -> None:
    assert ours.kernel
    with ours.kernel.open("r+b") as file:
        file.truncate(65 << 20)
    with pytest.raises(ImageError, match="mcopy ended with code 1") as caught:
        boot_disk.raw(ours, 2, tmp_path / "disk.raw")
    assert "Disk full" in caught.value.details

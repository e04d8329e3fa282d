from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from machine import boot_disk
from machine.errors import ImageError, PreflightError
from machine.model import FirstBoot, Image
from tests.unit.test_disk_image import header


def image(folder: Path, arch: str = "x86_64") -> Image:
    """One of ours, whose file system has 10 GiB."""
    (folder / "disk.qcow2").write_bytes(header())
    return Image(
        name="debian-13",
        digest="0" * 64,
        arch=arch,
        os="debian",
        os_version="13",
        first_boot=FirstBoot.IDENTITY,
        disk=folder / "disk.qcow2",
        kernel=folder / "vmlinuz",
        initrd=folder / "initrd",
    )


def test_a_partition_boots_and_another_one_takes_the_rest() -> None:
    sectors = (8 << 30) // 512
    table = boot_disk.partition_table(sectors)
    assert table[64:] == b"\x55\xaa"
    boot, root, *unused = (
        struct.unpack("<B3xB3xII", table[at : at + 16]) for at in range(0, 64, 16)
    )
    assert boot == (0x80, 0x0E, 2048, 131072)
    assert root == (0, 0x83, 133120, sectors - 133120)
    assert set(unused) == {(0, 0, 0, 0)}


def test_the_table_of_the_largest_disk_can_be_written() -> None:
    assert boot_disk.partition_table((boot_disk.LARGEST_GIB << 30) // 512)


def test_a_kernel_is_told_to_find_its_root_by_label() -> None:
    config = boot_disk.boot_config("root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet")
    assert config.splitlines()[-1] == (
        "  APPEND root=LABEL=root rw console=ttyS0 net.ifnames=0 quiet"
    )


@pytest.mark.parametrize("disk_gib", [10, 2048])
def test_a_disk_of_no_use_is_refused_and_nothing_is_written(tmp_path: Path, disk_gib: int) -> None:
    """10 GiB would do for the file system, and not for what boots it."""
    with pytest.raises(ImageError) as caught:
        boot_disk.raw(image(tmp_path), disk_gib, tmp_path / "raw")
    assert caught.value.hint == "Give the machine a disk of 11 to 2047 GiB"
    assert not (tmp_path / "raw").exists()


def test_what_has_no_bios_cannot_be_booted_by_one(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="for aarch64, which has no BIOS"):
        boot_disk.raw(image(tmp_path, "aarch64"), 20, tmp_path / "raw")


def test_a_damaged_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ImageError, match="is no qcow2"):
        boot_disk.raw(replace(image(tmp_path), disk=tmp_path / "empty"), 20, tmp_path / "raw")


def test_programs_that_are_missing_are_named_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        PreflightError, match="not installed: mtools, qemu-utils, syslinux"
    ) as error:
        boot_disk.check()
    assert error.value.hint == "sudo apt-get install mtools qemu-utils syslinux"

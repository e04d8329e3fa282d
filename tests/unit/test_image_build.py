from __future__ import annotations

import lzma
import re
from pathlib import Path

import pytest

from machine import image_build


def test_modules_load_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "kernel/b/virtio_blk.ko.xz: kernel/a/virtio-ring.ko.xz kernel/a/virtio.ko.xz\n"
        "kernel/a/virtio-ring.ko.xz: kernel/a/virtio.ko.xz\n"
        "kernel/a/virtio.ko.xz:\n"
    )
    found = image_build.module_files(tmp_path, ("virtio_blk", "built_in", "virtio_ring"))
    assert [path.name for path in found] == [
        "virtio.ko.xz",
        "virtio-ring.ko.xz",
        "virtio_blk.ko.xz",
    ]


def test_an_initramfs_loads_no_more_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that both groups need is loaded once."""
    (tmp_path / "modules.dep").write_text(
        "a/virtio_blk.ko: a/virtio.ko\na/virtio.ko:\na/ahci.ko: a/libata.ko\na/libata.ko:\n"
        "a/virtio_scsi.ko.xz: a/virtio.ko\n"
    )
    (tmp_path / "a").mkdir()
    for name in ("virtio_blk", "virtio", "ahci", "libata"):
        (tmp_path / "a" / f"{name}.ko").write_bytes(name.encode())
    (tmp_path / "a" / "virtio_scsi.ko.xz").write_bytes(lzma.compress(b"unpacked"))
    (tmp_path / "busybox").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    made = image_build.initramfs(tmp_path)
    assert b"\0virtio.ko\nvirtio_blk.ko\0" in made
    assert b"\0libata.ko\nahci.ko\nvirtio_scsi.ko" in made
    assert made.count(b"modules/virtio.ko\0") == 1
    assert b"unpacked" in made


def test_an_archive_in_the_kernels_format() -> None:
    made = image_build.cpio([("bin", None), ("bin/a", b"12345")])
    heads = [match.start() for match in re.finditer(b"070701", made)]
    assert len(heads) == 3
    assert all(at % 4 == 0 for at in heads)
    assert b"TRAILER!!!\0" in made
    assert b"bin/a\0" in made


def test_the_boot_sector_of_the_kvm_probe_is_one() -> None:
    from machine.drivers.libvirt.acceleration import BOOT_SECTOR

    assert len(BOOT_SECTOR) == 512
    assert BOOT_SECTOR[-2:] == b"\x55\xaa"

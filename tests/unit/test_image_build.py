from __future__ import annotations

import re
from pathlib import Path

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

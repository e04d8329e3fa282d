from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from machine import disk_image
from machine.disk_image import Qcow2
from machine.errors import ImageError


def header(*, backing: int = 0, crypt: int = 0, features: int = 0, version: int = 3) -> bytes:
    """A qcow2 header as QEMU's docs/interop/qcow2.txt lays it out: 10 GiB in clusters of 64 KiB."""
    start = struct.pack(">4sIQII", b"QFI\xfb", version, backing, 0, 16)
    tables = struct.pack(">QIIQQIIQ", 10 << 30, crypt, 20, 3 << 16, 1 << 16, 1, 0, 0)
    return start + tables + struct.pack(">QQQII", features, 0, 0, 4, 104)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "disk.img"
    path.write_bytes(content)
    return path


def test_a_header_is_read(tmp_path: Path) -> None:
    found = Qcow2.of(written(tmp_path, header()))
    assert found == Qcow2(10 << 30, 1 << 16, False, False, False, False)
    old = Qcow2.of(written(tmp_path, header(version=2, features=0xFF)[:72] + b"\xff" * 32))
    assert old == found  # version 2 has no features: other data stands there


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(backing=512), "rests on a further file"),
        (header(features=1 << 2), "rests on a further file"),
        (header(crypt=2), "encrypted"),
        (header(features=1 << 1), "marked as corrupt"),
        (b"", "no disk image that could boot"),
        (b"not a disk at all\n", "no disk image that could boot"),
        (b"<html>not found</html>".ljust(4096), "no disk image that could boot"),
        (b"QFI\xfb", "no disk image that could boot"),
        (b"\xfd7zXZ\0".ljust(4096), "no disk image that could boot"),
        ((bytes(510) + b"\x55\xaa").ljust(1000, b"\0"), "no disk image that could boot"),
    ],
)
def test_what_is_no_whole_disk_is_refused_before_qemu_opens_it(
    tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        disk_image.check(written(tmp_path, content))


def test_a_raw_disk_has_a_boot_sector(tmp_path: Path) -> None:
    assert (
        disk_image.check(written(tmp_path, (bytes(510) + b"\x55\xaa").ljust(4096, b"\0"))) == "raw"
    )


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path in (tmp_path / "nosuch", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ImageError, match="is no file"):
            disk_image.check(path)

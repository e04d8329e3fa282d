"""Disk images made by others: looked at before a hypervisor opens them, and taken over as qcow2."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from machine import command
from machine.errors import ImageError, PreflightError

SECTOR: Final = 512
CHUNK: Final = 1 << 20
HEADER: Final = 104
"""Bytes of a qcow2 header, version 3; QEMU's docs/interop/qcow2.txt names the fields."""
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2  # bits of incompatible_features

Tell = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Qcow2:
    """What the header of a qcow2 image says."""

    virtual_size: int  # bytes that a guest sees
    cluster_size: int
    backing: bool
    encrypted: bool
    corrupt: bool
    external_data: bool

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """None for what is no qcow2. Raises OSError."""
        with path.open("rb") as file:
            head = file.read(HEADER)
        if head[:4] != b"QFI\xfb" or len(head) < 72:
            return None

        def number(offset: int, size: int) -> int:
            return int.from_bytes(head[offset : offset + size], "big")

        features = number(72, 8) if number(4, 4) >= 3 else 0
        return cls(
            virtual_size=number(24, 8),
            cluster_size=1 << (number(20, 4) & 31),
            backing=number(8, 8) != 0,
            encrypted=number(32, 4) != 0,
            corrupt=bool(features & _CORRUPT),
            external_data=bool(features & _EXTERNAL_DATA),
        )


def need_qemu_img() -> None:
    """Raises PreflightError, before anything is downloaded or copied."""
    if not command.which("qemu-img"):
        raise PreflightError(
            "The program qemu-img is not installed; it checks images",
            hint="sudo apt-get install qemu-utils",
        )


def check(path: Path) -> str:
    """Whether this is one whole disk that stands alone; answers "qcow2" or "raw". An image that
    names a further file is refused, whatever is in it: a hypervisor would open that file, with its
    own rights. Raises ImageError."""
    if not path.is_file():
        raise ImageError(f"{path} is no file", hint=f"ls -l {path.parent}")
    try:
        head = Qcow2.of(path)
        if head is None:
            _check_raw(path)
            return "raw"
    except OSError as exc:
        raise ImageError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if head.backing or head.external_data:
        raise ImageError(
            f"{path.name} is not a whole disk: it rests on a further file",
            hint=f"If you trust it: qemu-img convert -O qcow2 {path} whole.qcow2",
        )
    if head.encrypted:
        raise ImageError(
            f"{path.name} is encrypted; a machine could not boot from it",
            hint="qemu-img convert, with its secret, makes one that is not",
        )
    if head.corrupt:
        raise ImageError(f"{path.name} is marked as corrupt", hint=f"qemu-img check {path}")
    _check_clusters(path, head)
    return "qcow2"


def take(path: Path, fmt: str, target: Path) -> None:
    """Make ``target``, a qcow2, of a checked image. A qcow2 is moved: its bytes stay those that its
    publisher made, compressed where they were. Raises ImageError."""
    if fmt == "qcow2":
        path.replace(target)
        return
    result = command.run(
        "qemu-img", "convert", "-f", "raw", "-O", "qcow2", path, target, check=False, timeout=1800
    )
    if not result.ok:
        raise ImageError(f"{path.name} could not be converted", details=result.stderr.strip())


def copy(path: Path, target: Path, tell: Tell) -> None:
    """Copy a file; ``tell`` is given bytes. Raises OSError."""
    total, done = path.stat().st_size, 0
    with path.open("rb") as source, target.open("wb") as out:
        while chunk := source.read(CHUNK):
            out.write(chunk)
            done += len(chunk)
            tell(done, total)


def _check_raw(path: Path) -> None:
    with path.open("rb") as file:
        first = file.read(SECTOR)
    # A disk that a BIOS boots ends its first sector so, and one with a GPT as well (UEFI 5.2.1).
    if first[510:] != b"\x55\xaa" or path.stat().st_size % SECTOR:
        raise ImageError(
            f"{path.name} is no disk image that could boot: neither qcow2 nor raw with a boot sector",
            hint="A compressed one has to be unpacked first; one of another format is converted by "
            f"qemu-img convert -O qcow2 {path} whole.qcow2",
        )


def _check_clusters(path: Path, head: Qcow2) -> None:
    """QEMU reads what lies behind the end of a file as zeros, so a file that is cut short has to be
    found by its tables: by what they name, and, where they are cut off themselves, by their end."""
    result = command.run(
        "qemu-img", "check", "-f", "qcow2", "--output", "json", path, check=False, timeout=600
    )
    try:
        end = int(json.loads(result.stdout).get("image-end-offset", 0))
    except ValueError:
        end = 0
    size = path.stat().st_size
    # 3: clusters that nothing names, which is harmless. The last cluster may be shorter than others.
    if result.code in (0, 3) and end < size + head.cluster_size:
        return
    damage = "its tables are damaged" if result.code == 2 else "it cannot be checked"
    raise ImageError(
        f"{path.name} is broken: {'it is cut short' if end > size else damage}",
        details=result.stderr.strip()[-1000:] or f"{size} bytes, and its tables reach to {end}",
        hint="Download or copy it again, and compare its checksum",
    )

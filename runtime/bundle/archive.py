"""What a `static` bundle is made of: upstream's archive, read and checked without running any of it."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Final

from machine.engine import GOARCH, Archive
from machine.errors import BundleError

_HEAD: Final = 4096
"""Enough of a program for the ELF header and the program headers that linkers put behind it."""
_MACHINES: Final = {62: "x86_64", 183: "aarch64"}
"""e_machine (elf(5)) to uname -m."""
_PT_INTERP: Final = 3


def check(path: Path, archive: Archive, arch: str) -> list[str]:
    """Raises BundleError unless the file is a whole tar archive in gzip that holds every program
    of ``archive``, each made for ``arch``, and nothing that leads out of it. Answers the programs
    that need libraries of the guest's."""
    heads = _heads(path, archive)
    missing = [name for name in archive.programs if name not in heads]
    if missing:
        raise BundleError(
            f"{path.name} does not hold {', '.join(missing)}",
            details=f"It has to hold {', '.join(archive.programs)}",
            hint=f"Upstream's archive is at {archive.location(arch)}",
        )
    for name, head in heads.items():
        found = _machine(head)
        if found != arch:
            raise BundleError(
                f"{name} in {path.name} is {f'made for {found}' if found else 'no program'}, "
                f"and has to be a program for {arch}",
                hint=f"--arch {found} makes a bundle for such guests" if found in GOARCH else "",
            )
    return [name for name, head in heads.items() if _is_dynamic(head)]


def _heads(path: Path, archive: Archive) -> dict[str, bytes]:
    """The first bytes of each program. Everything is read to its end, so that gzip's own checksum
    is compared as well."""
    heads: dict[str, bytes] = {}
    seen: set[str] = set()
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                problem = "is in it twice" if member.name in seen else _trick(member)
                if problem:
                    raise BundleError(
                        f"{path.name} is not to be trusted: {member.name!r} {problem}"
                    )
                seen.add(member.name)
                if member.name in archive.programs and member.isfile():
                    file = tar.extractfile(member)
                    assert file
                    heads[member.name] = file.read(_HEAD)
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error, tarfile.TarError) as exc:
        raise BundleError(
            f"{path.name} is no tar archive in gzip, or not all of it",
            details=str(exc),
            hint="Download it again",
        ) from exc
    return heads


def _trick(member: tarfile.TarInfo) -> str:
    """What is wrong with a member, or nothing. A link without `..` cannot lead out, whatever
    links it goes through."""
    if _leads_out(member.name):
        return "leads out of it"
    if member.issym() or member.islnk():
        return f"is a link to {member.linkname!r}" if _leads_out(member.linkname) else ""
    return "" if member.isfile() or member.isdir() else "is neither file, folder nor link"


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _machine(head: bytes) -> str:
    """uname -m of the computers that run it; "" for what is no program for a little-endian 64-bit
    Linux."""
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        return ""
    number = int.from_bytes(head[18:20], "little")
    return _MACHINES.get(number, f"machine {number}")


def _is_dynamic(head: bytes) -> bool:
    """Whether it names an interpreter, the dynamic linker (elf(5): PT_INTERP)."""
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    ends = range(offset, min(offset + size * count, len(head) - 3), size or 1)
    return any(struct.unpack_from("<I", head, at)[0] == _PT_INTERP for at in ends)

"""Archives as upstream packs them, made on the spot: programs that are ELF headers and nothing else."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

from machine.runtime.docker.static import ARCHIVE

X86_64, AARCH64, ARM = 62, 183, 40  # elf(5): e_machine


PROGRAMS = {  # of the archive, by where the distribution's packages have them
    "containerd": "usr/bin/containerd",
    "containerd-shim-runc-v2": "usr/bin/containerd-shim-runc-v2",
    "ctr": "usr/bin/ctr",
    "docker": "usr/bin/docker",
    "docker-init": "usr/bin/tini-static",
    "docker-proxy": "usr/sbin/docker-proxy",
    "dockerd": "usr/sbin/dockerd",
    "runc": "usr/sbin/runc",
}


def program(machine: int = X86_64, *, dynamic: bool = False) -> bytes:
    """The header of a 64-bit little-endian program, with one program header behind it."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    kind = 3 if dynamic else 1  # PT_INTERP, PT_LOAD
    return ident + head + struct.pack("<IIQQQQQQ", kind, 5, 0, 0, 0, 0, 0, 0)


def pack(path: Path, entries: Iterable[tuple[tarfile.TarInfo | str, bytes]]) -> Path:
    """A tar archive in gzip; a name stands for an ordinary file."""
    with tarfile.open(path, "w:gz") as tar:
        for entry, content in entries:
            member = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def docker(path: Path, machine: int = X86_64, **changed: bytes) -> Path:
    """Docker's archive; ``changed`` are contents by program, and empty ones are left out."""
    entries = []
    for name in ARCHIVE.programs:
        content = changed.get(name.removeprefix("docker/"), program(machine))
        if content:
            entries.append((name, content))
    return pack(path, entries)

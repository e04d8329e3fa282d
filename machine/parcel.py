"""Files of a folder as tar archives: each as it was at one moment, never half old and half new."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from machine.tree import Entry

FULL: Final = 64 << 20
"""Bytes at which the next file begins another archive."""
IN_MEMORY: Final = 16 << 20
TRIES: Final = 5


@dataclass(slots=True)
class Parcel:
    """An archive to be sent. The caller closes its file."""

    archive: IO[bytes]
    packed: dict[str, Entry] = field(default_factory=dict)
    restless: list[str] = field(default_factory=list)  # changed whenever they were read
    unreadable: list[str] = field(default_factory=list)
    size: int = 0  # of the files in it, in bytes


def packed(root: Path, name: str, paths: Sequence[str]) -> Iterator[Parcel]:
    """Archives in which the root is called ``name``. One that its user is done with is closed."""
    remaining = list(reversed(paths))
    while remaining:
        with tempfile.TemporaryFile() as file:
            parcel = Parcel(file)
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                while remaining and parcel.size < FULL:
                    _add(tar, parcel, root, name, remaining.pop())
            file.seek(0)
            yield parcel


def _add(tar: tarfile.TarFile, parcel: Parcel, root: Path, name: str, path: str) -> None:
    source = root / path if path else root
    try:
        status = source.stat() if not path else source.lstat()
        if not stat.S_ISREG(status.st_mode):
            link = "" if source.is_dir() and not source.is_symlink() else os.readlink(source)  # noqa: PTH115 - as it is
            tar.addfile(_member(name, path, status, link))
            parcel.packed[path] = Entry.of(status, link)
            return
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy:
            steady = _copied(source, copy)
            if steady is None:
                parcel.restless.append(path)
                return
            tar.addfile(_member(name, path, steady, ""), copy)
    except FileNotFoundError:
        return  # gone since it was listed
    except PermissionError:
        parcel.unreadable.append(path)
        return
    parcel.packed[path] = Entry.of(steady)
    parcel.size += steady.st_size


def _copied(source: Path, copy: IO[bytes]) -> os.stat_result | None:
    """What it was while it was copied; None for a file that changes every time."""
    for _ in range(TRIES):
        copy.seek(0)
        copy.truncate()
        with source.open("rb") as file:
            before = os.fstat(file.fileno())
            shutil.copyfileobj(file, copy)
            after = os.fstat(file.fileno())
        there = source.stat()
        same = (before.st_ino, before.st_size, before.st_mtime_ns)
        if (
            same == (after.st_ino, after.st_size, after.st_mtime_ns)
            and same == (there.st_ino, there.st_size, there.st_mtime_ns)
            and copy.tell() == before.st_size
        ):
            copy.seek(0)
            return before
    return None


def _member(name: str, path: str, status: os.stat_result, link: str) -> tarfile.TarInfo:
    """Owner and time in full: a container sees of a file what it would see here."""
    member = tarfile.TarInfo(f"{name}/{path}" if path else name)
    member.mode = status.st_mode & 0o7777
    member.uid, member.gid = status.st_uid, status.st_gid
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    member.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09}"}
    if link:
        member.type, member.linkname = tarfile.SYMTYPE, link
    elif stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
    else:
        member.size = status.st_size
    return member


def unpack(archive: IO[bytes], root: Path, name: str, wanted: Sequence[str]) -> list[str]:
    """Put what came from a machine, where the root is called ``name``, beside its place and move it
    there; what was not asked for, and what would be written through a link, is not. Answers the
    paths that were written. Raises OSError."""
    asked, written = set(wanted), []
    try:
        with tarfile.open(fileobj=archive) as tar:
            for member in tar:
                path = member.name.removeprefix("./").removeprefix(name).removeprefix("/")
                if path in asked and _is_inside(root, path):
                    _place(tar, member, root / path if path else root)
                    written.append(path)
    except tarfile.TarError as exc:
        raise OSError(f"What came is no archive: {exc}") from exc
    return written


def _is_inside(root: Path, path: str) -> bool:
    """Whether it is below the root, and every folder above it is one, and no link to elsewhere."""
    parts = Path(path)
    if parts.is_absolute() or ".." in parts.parts:
        return False
    return not any((root / each).is_symlink() for each in parts.parents if each != Path())


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        target.mkdir(exist_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix=".machine-", dir=target.parent) as folder:
        beside = Path(folder) / "file"
        if member.issym():
            beside.symlink_to(member.linkname)
        elif content := tar.extractfile(member):
            with content, beside.open("wb") as file:
                shutil.copyfileobj(content, file)
            beside.chmod(member.mode & 0o777)
            os.utime(beside, ns=(_time(member), _time(member)))
        beside.replace(target)


def _time(member: tarfile.TarInfo) -> int:
    """In nanoseconds; as a float it would lose some."""
    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))

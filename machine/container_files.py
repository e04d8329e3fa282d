"""What is in a folder or a tar archive of container images, without unpacking it."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, Protocol

from machine.container_image import COMPRESSED, PIECE, Blob, damaged
from machine.errors import ArchiveError

DEEP: Final = 8
"""Links that lead to links."""


class Files(Protocol):
    """What is in a folder or a tar archive."""

    def blob(self, name: str) -> Blob | None:
        """None where there is no such file."""
        ...

    def __contains__(self, name: str) -> bool:
        """Also of folders."""
        ...


class Folder:
    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack
        self._opened: dict[str, Blob] = {}

    def __contains__(self, name: str) -> bool:
        return (self._root / name).exists()

    def blob(self, name: str) -> Blob | None:
        if name.startswith("/") or ".." in name.split("/"):
            raise damaged(name, "it leads out of the folder")
        path = self._root / name
        if name not in self._opened and path.is_file():
            file = self._stack.enter_context(path.open("rb"))
            self._opened[name] = Blob(file, 0, path.stat().st_size, name)
        return self._opened.get(name)


class Tar:
    """Raises tarfile.TarError for a file that is none."""

    def __init__(self, file: IO[bytes]) -> None:
        self._blobs: dict[str, Blob] = {}
        self._links: dict[str, str] = {}
        self._folders: set[str] = set()
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                self._add(file, member)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends too early")  # which tarfile lets pass

    def __contains__(self, name: str) -> bool:
        return name in self._folders or name in self._blobs or name in self._links

    def blob(self, name: str) -> Blob | None:
        name = posixpath.normpath(name)
        for _ in range(DEEP):
            if name not in self._links:
                break
            name = self._links[name]
        return self._blobs.get(name)

    def _add(self, file: IO[bytes], member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name)
        if member.isreg() and not member.issparse():
            self._blobs[name] = Blob(file, member.offset_data, member.size, name)
        elif member.issym():
            beside = posixpath.join(posixpath.dirname(name), member.linkname)
            self._links[name] = posixpath.normpath(beside)
        elif member.islnk():
            self._links[name] = posixpath.normpath(member.linkname)
        elif member.isdir():
            self._folders.add(name)


def plain(path: Path, file: IO[bytes], spool: IO[bytes]) -> IO[bytes]:
    """The file, or the spool with what was compressed in it. Raises ArchiveError, and OSError of the
    spool."""
    head = file.read(8)
    file.seek(0)
    kind = next((name for name, magic in COMPRESSED.items() if head.startswith(magic)), "")
    if not kind:
        return file
    if kind == "zstd":
        raise ArchiveError(f"{path} is compressed with zstd", hint=f"Unpack it: zstd -d {path}")
    for piece in _unpacked(path, file, kind):
        spool.write(piece)
    spool.flush()
    return spool


def _unpacked(path: Path, file: IO[bytes], kind: str) -> Iterator[bytes]:
    import bz2
    import gzip
    import lzma
    import zlib

    openers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    with openers[kind](file) as stream:
        while True:
            try:
                piece = stream.read(PIECE)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as exc:
                raise damaged(str(path), str(exc)) from exc
            if not piece:
                return
            yield piece


def tar(path: Path, file: IO[bytes]) -> Tar:
    """Raises ArchiveError."""
    try:
        return Tar(file)
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as exc:
        raise ArchiveError(
            f"{path} is no image archive, or a damaged one",
            details=str(exc),
            hint="docker save IMAGE -o FILE makes one",
        ) from exc

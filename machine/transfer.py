"""Copying files between this computer and hosts, or between two hosts by way of this computer."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol

from machine.errors import GuestError

if TYPE_CHECKING:
    from machine.ssh import SshGuest

CHUNK = 256 * 1024


class Side(Protocol):
    """One end of a copy. Symbolic links are followed, as scp does."""

    def mode(self, path: str) -> int | None:
        """st_mode; None where there is nothing."""
        ...

    def names(self, path: str) -> list[str]: ...
    def read(self, path: str) -> IO[bytes]: ...
    def write(self, path: str) -> IO[bytes]: ...
    def make_folder(self, path: str) -> None: ...
    def finish(self, temporary: str, path: str, mode: int) -> None:
        """Move a completed file to its name, with its mode."""
        ...

    def remove(self, path: str) -> None: ...


class LocalSide:
    """This computer's files."""

    def mode(self, path: str) -> int | None:
        try:
            return Path(path).stat().st_mode
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        return sorted(each.name for each in Path(path).iterdir())

    def read(self, path: str) -> IO[bytes]:
        return Path(path).open("rb")

    def write(self, path: str) -> IO[bytes]:
        return Path(path).open("xb")

    def make_folder(self, path: str) -> None:
        Path(path).mkdir()

    def finish(self, temporary: str, path: str, mode: int) -> None:
        Path(temporary).chmod(stat.S_IMODE(mode))
        Path(temporary).replace(path)

    def remove(self, path: str) -> None:
        Path(path).unlink()


class GuestSide:
    """A host's files, as its login user may see them. "~" is not expanded: a relative path starts
    at the home folder anyway."""

    def __init__(self, guest: SshGuest) -> None:
        self._sftp: Any = guest.sftp()

    def mode(self, path: str) -> int | None:
        try:
            found: int | None = self._sftp.stat(path or ".").st_mode
        except FileNotFoundError:
            return None
        return found

    def names(self, path: str) -> list[str]:
        return sorted(self._sftp.listdir(path or "."))

    def read(self, path: str) -> IO[bytes]:
        file = self._sftp.open(path, "rb")
        file.prefetch()
        opened: IO[bytes] = file
        return opened

    def write(self, path: str) -> IO[bytes]:
        file = self._sftp.open(path, "wxb")
        file.set_pipelined(True)
        opened: IO[bytes] = file
        return opened

    def make_folder(self, path: str) -> None:
        self._sftp.mkdir(path)

    def finish(self, temporary: str, path: str, mode: int) -> None:
        self._sftp.chmod(temporary, stat.S_IMODE(mode))
        self._sftp.posix_rename(temporary, path)

    def remove(self, path: str) -> None:
        self._sftp.remove(path)


@dataclass(frozen=True, slots=True)
class End:
    """A path on one side, and how to call it in messages."""

    side: Side
    path: str
    label: str


def copy(
    source: End, target: End, *, recursive: bool, tell: Callable[[str], None] = lambda path: None
) -> None:
    """Copy a file, or with ``recursive`` a folder. A target that is a folder receives it under its
    own name, as with scp; a file appears under its name only when it is complete. ``tell`` is
    given each file. Raises GuestError naming the path."""
    with _named(source):
        mode = source.side.mode(source.path)
    if mode is None:
        raise GuestError(f"{source.label}: there is no such file or folder")
    path = target.path or "."
    with _named(target):
        present = target.side.mode(path)
    if present is not None and stat.S_ISDIR(present):
        path = f"{path.rstrip('/')}/{PurePosixPath(os.path.normpath(source.path)).name}"
    if not stat.S_ISDIR(mode):
        _file(source, source.path, target, path, mode, tell)
    elif recursive:
        _folder(source, source.path, target, path, tell)
    else:
        raise GuestError(f"{source.label} is a folder", hint="Add -r to copy it with its content")


def _folder(source: End, path: str, target: End, into: str, tell: Callable[[str], None]) -> None:
    with _named(target):
        if target.side.mode(into) is None:
            target.side.make_folder(into)
    with _named(source):
        names = source.side.names(path)
    for name in names:
        inner, outer = f"{path.rstrip('/')}/{name}", f"{into}/{name}"
        with _named(source):
            mode = source.side.mode(inner)
        if mode is None:
            raise GuestError(f"{source.label}: {inner} is a link to nothing")
        if stat.S_ISDIR(mode):
            _folder(source, inner, target, outer, tell)
        elif stat.S_ISREG(mode):
            _file(source, inner, target, outer, mode, tell)


def _file(
    source: End, path: str, target: End, into: str, mode: int, tell: Callable[[str], None]
) -> None:
    tell(into)
    whole = PurePosixPath(into)
    temporary = str(whole.with_name(f".{whole.name}.{os.getpid()}"))
    with _named(source):
        opened = source.side.read(path)
    with opened, _named(target):
        try:
            with target.side.write(temporary) as out:
                shutil.copyfileobj(opened, out, CHUNK)
            target.side.finish(temporary, into, mode)
        except BaseException:
            if target.side.mode(temporary) is not None:
                target.side.remove(temporary)
            raise


@contextmanager
def _named(end: End) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise GuestError(f"{end.label}: {exc.strerror or exc}") from exc

"""The machines of one store folder: who is there, read without a lock, written atomically."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import files
from machine import record as records
from machine.errors import (
    BadName,
    HostBusy,
    HostExists,
    HostNotFound,
    MachineError,
    RecordDamaged,
    StoreError,
)
from machine.paths import MachineFolder, StoreFolder, store_root
from machine.record import Record

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]*", re.ASCII)
_LONGEST = 63
"""A host name's label ends there (RFC 1035); docker engines break over it too."""


def check_name(name: str) -> None:
    """Raise BadName for what cannot be a host name (docker-machine's rule, and its words)."""
    first = (
        "Error creating machine: Invalid hostname specified. "
        "Allowed hostname chars are: 0-9a-zA-Z . -"
    )
    if not _NAME.fullmatch(name) or ".." in name or name.endswith((".", "-")):
        raise BadName(
            first, details=f"Given: {name[:80]!r}", hint="For example: machine create worker1"
        )
    if len(name) > _LONGEST:
        raise BadName(
            first, details=f"The name has {len(name)} characters; the limit is {_LONGEST}."
        )


class Store:
    """docker-machine's tree, ``~/.docker/machine`` by default. Nothing is made before a write."""

    def __init__(self, root: Path | None = None) -> None:
        self.folders = StoreFolder((root or store_root()).absolute())

    @property
    def root(self) -> Path:
        return self.folders.root

    def folder(self, name: str) -> MachineFolder:
        return self.folders.machine(name)

    def names(self) -> list[str]:
        """Sub-folders of machines/ that do not start with a dot, as docker-machine lists them."""
        try:
            with os.scandir(self.folders.machines) as entries:
                return sorted(e.name for e in entries if e.name[0] != "." and e.is_dir())
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _refused("read", self.folders.machines, exc) from exc

    def exists(self, name: str) -> bool:
        return bool(_NAME.fullmatch(name)) and self.folder(name).root.is_dir()

    def load(self, name: str) -> Record:
        """Raises HostNotFound, RecordDamaged or StoreError. Takes no lock and writes nothing."""
        if not self.exists(name):
            raise HostNotFound(name)
        path = self.folder(name).record
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecordDamaged(
                f'"{name}" has no config.json', hint=f"Forget it with: machine rm -f {name}"
            ) from None
        except UnicodeDecodeError as exc:
            raise RecordDamaged(
                f'The record of "{name}" cannot be read: {exc}',
                hint=f"Mend {path} by hand, or forget it with: machine rm -f {name}",
            ) from None
        except OSError as exc:
            raise _refused("read", path, exc) from exc
        loaded = records.parse(name, text)
        loaded.place(self.folders)
        return loaded

    def ours(self) -> Iterator[Record]:
        """What can be read, of machines that this tool made. What is wrong with others is said by
        who lists them."""
        for name in self.names():
            try:
                record = self.load(name)
            except MachineError:
                continue
            if record.block is not None:
                yield record

    def reserve(self, record: Record) -> None:
        """The first write of a new machine. Raises HostExists if the name is taken."""
        check_name(record.name)
        root = self.folder(record.name).root
        try:
            self.folders.machines.mkdir(parents=True, exist_ok=True, mode=0o700)
            root.mkdir(mode=0o700)
        except FileExistsError:
            raise taken(record.name) from None
        except OSError as exc:
            raise _refused("write", root, exc) from exc
        self.save(record)

    def save(self, record: Record) -> None:
        """Replace config.json as a whole; a reader sees the old one or the new one."""
        record.place(self.folders)
        path = self.folder(record.name).record
        if record.migrated:
            shutil.copy2(path, path.with_suffix(".json.bak"))
            record.migrated = False
        write(path, json.dumps(record.as_json(), indent=4).encode() + b"\n")

    def delete(self, name: str) -> None:
        """Drop the record and every file of the machine; twice is fine. The folder disappears from
        the listing in one step: it is renamed first."""
        root = self.folder(name).root
        try:
            root.rename(self.folders.machines / f".gone-{uuid.uuid4().hex}")
        except FileNotFoundError:
            return
        except OSError as exc:
            raise _refused("write", root, exc) from exc
        finally:
            for leftover in self.folders.machines.glob(".gone-*"):
                shutil.rmtree(leftover, ignore_errors=True)

    @contextmanager
    def lock(self, name: str, *, wait: float = 0) -> Iterator[None]:
        """Hold the machine for a change. ``wait`` is seconds; raises HostBusy after them. The lock
        is the kernel's: it ends with its process, however that ends."""
        if not _NAME.fullmatch(name):
            raise HostNotFound(name)
        with self._held(name, HostBusy(name), wait):
            yield

    @contextmanager
    def fleet_lock(self, fleet: str) -> Iterator[None]:
        """Hold a fleet for a change, beside the locks of its machines. Raises HostBusy at once."""
        with self._held(f"_fleet_{fleet}", HostBusy(f"fleet {fleet}"), 0):
            yield

    @contextmanager
    def _held(self, word: str, busy: HostBusy, wait: float) -> Iterator[None]:
        from filelock import FileLock, Timeout

        path = self.folders.locks / f"{word}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = FileLock(path, mode=0o600)
            lock.acquire(timeout=wait, poll_interval=0.05)
        except Timeout:
            raise busy from None
        except OSError as exc:
            raise _refused("write", path, exc) from exc
        try:
            yield
        finally:
            lock.release()

    def is_held(self, name: str) -> bool:
        """Whether somebody holds the machine for a change at this moment."""
        return _is_held(self.folders.locks / f"{name}.lock")


def _is_held(path: Path) -> bool:
    """Whether another has the lock of filelock's there, which is flock(2)."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def taken(name: str) -> HostExists:
    return HostExists(
        name,
        hint=f"Go on with a create that was cut off: machine create --resume {name}\n"
        f"or remove it: machine rm {name}",
    )


def write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """As ``files.replace``. Raises StoreError."""
    try:
        files.replace(path, content, mode=mode)
    except OSError as exc:
        raise _refused("write", path, exc) from exc


def _refused(verb: str, path: Path, exc: OSError) -> StoreError:
    return StoreError(
        f"Cannot {verb} the store: {exc.strerror or exc}",
        details=str(path),
        hint="Check its permissions and the free space (df), or choose another folder with "
        "--storage-path or MACHINE_STORAGE_PATH.",
    )

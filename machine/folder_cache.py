"""A cache of folders: each complete or not there at all, changed by one process at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from machine import download
from machine.errors import DiskFull, MachineError
from machine.events import Reporter


class FolderCache:
    """Names with a dot before them are ours: locks, downloads, and what is being made."""

    what = "entry"
    error: type[MachineError] = MachineError

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def change(self, name: str, report: Reporter) -> Iterator[Path]:
        """Hold a folder for a change, with one to work in that is gone afterwards. Raises
        DiskFull, and the cache's error for one that cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(name, report):
                for left in self.root.glob(f".{name}~*"):  # by a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                work = Path(tempfile.mkdtemp(prefix=f".{name}~", dir=self.root))
                work.chmod(0o755)  # the root of a user namespace has to look in
                try:
                    yield work
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        except MachineError as exc:
            if "No space left on device" in exc.details:  # a program's words
                raise DiskFull(self.root, details=exc.details) from exc
            raise
        except OSError as exc:
            raise download.cannot_write(self.root / name, exc, self.error) from exc

    def put(self, name: str, new: Path, work: Path) -> None:
        """Move a finished folder into its place; what was there goes to ``work``."""
        target = self.root / name
        if target.exists():
            target.rename(work / "replaced")
        new.rename(target)

    def _lock(self, name: str, report: Reporter) -> AbstractContextManager[Any]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / f".{name}.lock")
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            report.note(f"Waiting for the {self.what} {name}, which is being made or changed")
            return lock.acquire()

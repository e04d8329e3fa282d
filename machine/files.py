"""Files that are replaced as a whole: a reader sees the old one or the new one, also after a crash."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file atomically and durably: temporary file beside it, fsync, rename, fsync of the
    folder. It is never readable by others than ``mode`` says. Raises OSError, and leaves the old
    file then."""
    import tempfile  # most commands write nothing

    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""What files of a folder are: size, time and digest of each, noted when they were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from machine.download import Digest

Entries = Mapping[str, Mapping[str, Any]]


def entries(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of those that are there. Reads each to its end. Raises OSError."""
    return {name: entry(folder / name) for name in names if (folder / name).exists()}


def changed(folder: Path, known: Entries) -> str:
    """The first file whose size or time is not the noted one, or "". Cheap: reads none. Raises
    OSError for one that is gone, KeyError for what is no entry."""
    for name, noted in known.items():
        found = (folder / name).stat()
        if (found.st_size, found.st_mtime_ns) != (noted["size"], noted["mtime_ns"]):
            return name
    return ""


def damaged(folder: Path, known: Entries) -> str:
    """The first file whose content is not the noted one, or "". Raises as ``changed`` does."""
    for name, noted in known.items():
        if entry(folder / name)["sha256"] != noted["sha256"]:
            return name
    return ""


def entry(path: Path) -> dict[str, Any]:
    """Of one file, which is read to its end. Raises OSError."""
    found = path.stat()
    return {
        "sha256": Digest.of(path, "sha256").hex,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
    }

"""A bundle and its lock: what is in it, of which bytes, and for which guests."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from machine.download import Digest
from machine.engine import Engine
from machine.errors import BundleError

LOCK: Final = "lock.json"
ANY: Final = "any"
"""What a static bundle names as its distribution and release."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle of the cache. ``files`` are name and sha256 of each member."""

    name: str  # docker-debian-13, docker-static-28.0.0-x86_64
    path: Path
    sha256: str
    engine: str
    version: str
    kind: str
    os_id: str
    os_version: str
    arch: str
    files: tuple[tuple[str, str], ...]

    @property
    def packages(self) -> dict[str, str]:
        """Versions by name, of the packages in it: a file is called NAME_VERSION_ARCH.deb, and a
        version's colon %3a."""
        parts = [PurePosixPath(name).name.split("_") for name, _ in self.files]
        return {part[0]: part[1].replace("%3a", ":") for part in parts if len(part) == 3}

    def serves(self, os_id: str, os_version: str, arch: str) -> bool:
        system = (self.os_id, self.os_version)
        return self.arch == arch and system in ((os_id, os_version), (ANY, ANY))


def describe(
    engine: type[Engine],
    version: str,
    kind: str,
    os_id: str,
    os_version: str,
    arch: str,
    folder: Path,
) -> dict[str, Any]:
    """The lock of the files in ``folder``, which keep the folder's name in the bundle."""
    return {
        "engine": engine.name,
        "version": version,
        "kind": kind,
        "os_id": os_id,
        "os_version": os_version,
        "arch": arch,
        "files": [
            {
                "name": f"{folder.name}/{each.name}",
                "size": each.stat().st_size,
                "sha256": sha256_of(each),
            }
            for each in sorted(folder.glob("*"))
        ],
    }


def pack(tar_path: Path, lock: dict[str, Any], work: Path) -> None:
    """The same lock gives the same bytes: sorted, no times, no owners."""
    with tarfile.open(tar_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        content = json.dumps(lock, indent=2).encode()
        head = tarfile.TarInfo(LOCK)
        head.size, head.mode = len(content), 0o644
        tar.addfile(head, io.BytesIO(content))
        for entry in lock["files"]:
            member = tarfile.TarInfo(entry["name"])
            member.size, member.mode = entry["size"], 0o644
            with (work / entry["name"]).open("rb") as file:
                tar.addfile(member, file)


def read(path: Path) -> Bundle:
    """From NAME.json of a cache. Raises BundleError when it is no lock, or NAME.tar is gone."""
    tar = path.with_suffix(".tar")
    try:
        lock = json.loads(path.read_text())
        if not tar.is_file():
            raise FileNotFoundError(f"{tar.name} is gone")
        return Bundle(
            name=path.stem,
            path=tar,
            sha256=lock["sha256"],
            engine=lock["engine"],
            version=lock["version"],
            kind=lock["kind"],
            os_id=lock["os_id"],
            os_version=lock["os_version"],
            arch=lock["arch"],
            files=tuple((each["name"], each["sha256"]) for each in lock["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BundleError(
            f"The bundle {path.stem} is damaged",
            details=f"{type(exc).__name__}: {exc}",
            hint=f"machine bundle rm {path.stem}, then machine bundle build",
        ) from exc


def sha256_of(path: Path) -> str:
    return Digest.of(path, "sha256").hex

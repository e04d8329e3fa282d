"""One image on disk: its files, and the manifest that says what they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from machine.disk_image import Qcow2
from machine.download import Digest
from machine.errors import DigestMismatch, ImageError
from machine.model import FirstBoot, Image

MANIFEST: Final = "image.json"
DISK: Final = "disk.qcow2"
_FILES: Final = (DISK, "vmlinuz", "initrd")


def facts(
    os_id: str,
    os_version: str,
    origin: str,
    first_boot: FirstBoot = FirstBoot.CLOUD_INIT,
    cmdline: str = "",
) -> dict[str, Any]:
    """The part of a manifest that the files do not show."""
    return {
        "os": os_id,
        "os_version": os_version,
        "arch": os.uname().machine,
        "first_boot": first_boot,
        "cmdline": cmdline,
        "origin": origin,
    }


def describe(folder: Path, name: str, known: dict[str, Any]) -> None:
    """Write the manifest: from then on the folder is an image. Raises OSError."""
    files = {file: _entry(folder / file) for file in _FILES if (folder / file).exists()}
    write(folder, {"name": name, **known, "files": files})


def write(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))


def read(folder: Path) -> Image:
    """Cheap: sizes and times of the files are compared, not their content. Raises ImageError."""
    manifest = _manifest(folder)
    try:
        for name, entry in manifest["files"].items():
            found = (folder / name).stat()
            if (found.st_size, found.st_mtime_ns) != (entry["size"], entry["mtime_ns"]):
                raise ImageError(
                    f"{name} of the image {folder.name} was changed",
                    hint=f"machine image verify {folder.name} compares its content",
                )
        has_kernel = "vmlinuz" in manifest["files"]
        head = Qcow2.of(folder / DISK)
        return Image(
            name=manifest["name"],
            digest=manifest["files"][DISK]["sha256"],
            arch=manifest["arch"],
            os=manifest["os"],
            os_version=manifest["os_version"],
            first_boot=FirstBoot(manifest["first_boot"]),
            disk=folder / DISK,
            kernel=folder / "vmlinuz" if has_kernel else None,
            initrd=folder / "initrd" if has_kernel else None,
            cmdline=manifest["cmdline"],
            origin=manifest["origin"],
            disk_gib=-(-head.virtual_size >> 30) if head else 0,
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise _damaged(folder, exc) from exc


def verify(folder: Path) -> dict[str, Any] | None:
    """Read every file and compare its digest. Answers a manifest to write, where the content is
    right and times have changed (the cache was copied). Raises DigestMismatch, ImageError."""
    manifest = _manifest(folder)
    found = {}
    try:
        for name, entry in manifest["files"].items():
            found[name] = _entry(folder / name)
            if found[name]["sha256"] != entry["sha256"]:
                raise DigestMismatch(
                    f"{name} of the image {folder.name} is damaged", hint=_remedy(folder)
                )
    except (OSError, KeyError, TypeError) as exc:
        raise _damaged(folder, exc) from exc
    return {**manifest, "files": found} if found != manifest["files"] else None


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        _ = found["files"][DISK]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise _damaged(folder, exc) from exc
    return found


def _damaged(folder: Path, exc: Exception) -> ImageError:
    return ImageError(f"The image {folder.name} is damaged: {exc!r}", hint=_remedy(folder))


def _remedy(folder: Path) -> str:
    return f"machine image rm {folder.name}, then build, pull or import it again"


def _entry(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "sha256": Digest.of(path, "sha256").hex,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
    }

"""One image on disk: its files, and the manifest that says what they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from machine import manifest
from machine.disk_image import Qcow2
from machine.errors import DigestMismatch, ImageError
from machine.model import FirstBoot, Image

MANIFEST: Final = "image.json"
DISK: Final = "disk.qcow2"
TREE: Final = "tree.tar.zst"
"""The file system of an image that we built, which layers are made of."""
_FILES: Final = (DISK, "vmlinuz", "initrd", TREE)


def facts(
    os_id: str,
    os_version: str,
    origin: str,
    first_boot: FirstBoot = FirstBoot.CLOUD_INIT,
    cmdline: str = "",
    recipe: str = "",
) -> dict[str, Any]:
    """The part of a manifest that the files do not show."""
    return {
        "os": os_id,
        "os_version": os_version,
        "arch": os.uname().machine,
        "first_boot": first_boot,
        "cmdline": cmdline,
        "recipe": recipe,
        "origin": origin,
    }


def describe(folder: Path, name: str, known: dict[str, Any]) -> None:
    """Write the manifest: from then on the folder is an image. Raises OSError."""
    write(folder, {"name": name, **known, "files": manifest.entries(folder, _FILES)})


def write(folder: Path, described: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(described, indent=2))


def read(folder: Path) -> Image:
    """Cheap: sizes and times of the files are compared, not their content. Raises ImageError."""
    described = _manifest(folder)
    try:
        if name := manifest.changed(folder, described["files"]):
            raise ImageError(
                f"{name} of the image {folder.name} was changed",
                hint=f"machine image verify {folder.name} compares its content",
            )
        has_kernel = "vmlinuz" in described["files"]
        head = Qcow2.of(folder / DISK)
        return Image(
            name=described["name"],
            digest=described["files"][DISK]["sha256"],
            arch=described["arch"],
            os=described["os"],
            os_version=described["os_version"],
            first_boot=FirstBoot(described["first_boot"]),
            disk=folder / DISK,
            kernel=folder / "vmlinuz" if has_kernel else None,
            initrd=folder / "initrd" if has_kernel else None,
            cmdline=described["cmdline"],
            origin=described["origin"],
            recipe=described.get("recipe", ""),
            tree=folder / TREE if TREE in described["files"] else None,
            disk_gib=-(-head.virtual_size >> 30) if head else 0,
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise _damaged(folder, exc) from exc


def verify(folder: Path) -> dict[str, Any] | None:
    """Read every file and compare its digest. Answers a manifest to write, where the content is
    right and times have changed (the cache was copied). Raises DigestMismatch, ImageError."""
    described = _manifest(folder)
    try:
        found = {name: manifest.entry(folder / name) for name in described["files"]}
        for name, entry in found.items():
            if entry["sha256"] != described["files"][name]["sha256"]:
                raise DigestMismatch(
                    f"{name} of the image {folder.name} is damaged", hint=_remedy(folder)
                )
    except (OSError, KeyError, TypeError) as exc:
        raise _damaged(folder, exc) from exc
    return {**described, "files": found} if found != described["files"] else None


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

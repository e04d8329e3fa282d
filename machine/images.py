"""The guest images of this computer: found by name, made once, verified before they are used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from machine import command, image_build
from machine.errors import DigestMismatch, ImageError, ImageNotFound
from machine.events import Reporter
from machine.model import FirstBoot, Image
from machine.paths import cache_root

MANIFEST: Final = "image.json"
_FILES: Final = ("disk.qcow2", "vmlinuz", "initrd")
_BUILT: Final = re.compile(r"debian-(\d+)")


class ImageCache:
    """``~/.cache/machine/images/NAME``: one folder an image, complete or not there at all."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root() / "images"

    def list(self) -> list[Image]:
        found = []
        for manifest in sorted(self.root.glob(f"*/{MANIFEST}")):
            try:
                found.append(_read(manifest.parent))
            except ImageError:
                continue  # `find` names the damage; a listing shows what can be used
        return found

    def find(self, ref: str) -> Image:
        """By name, or by the first characters (8 or more) of its digest. Raises ImageNotFound,
        and ImageError for one whose files are not those that its manifest describes."""
        folder = self.root / ref
        if (folder / MANIFEST).is_file():
            return _read(folder)
        if re.fullmatch(r"[0-9a-f]{8,64}", ref):
            for image in self.list():
                if image.digest.startswith(ref):
                    return image
        known = ", ".join(image.name for image in self.list()) or "none"
        raise ImageNotFound(
            f'There is no image "{ref}"',
            details=f"Images here: {known}",
            hint=f"machine image build {ref}" if _BUILT.fullmatch(ref) else "machine image ls",
        )

    def ensure(self, name: str, report: Reporter) -> Image:
        """The image of that name, made now if it is not there yet."""
        try:
            return self.find(name)
        except ImageNotFound:
            if not _BUILT.fullmatch(name):
                raise
        return self.build(name, report, only_missing=True)

    def build(self, name: str, report: Reporter, *, only_missing: bool = False) -> Image:
        """Build from packages, and replace an image of that name. Several processes at once build
        it once with ``only_missing``."""
        match = _BUILT.fullmatch(name)
        release = match[1] if match else ""
        if release not in image_build.SUITES:
            raise ImageNotFound(
                f'"{name}" is no image that can be built',
                hint="These can: " + ", ".join(f"debian-{each}" for each in image_build.SUITES),
            )

        def make(work: Path) -> dict[str, Any]:
            cmdline = image_build.build_debian(release, work, report)
            return {
                "os": "debian",
                "os_version": release,
                "arch": os.uname().machine,
                "first_boot": FirstBoot.IDENTITY,
                "cmdline": cmdline,
                "origin": f"built from packages of Debian {release} ({image_build.SUITES[release]})",
            }

        return self._add(name, make, only_missing=only_missing)

    def import_file(self, path: Path, name: str, *, os_id: str, os_version: str) -> Image:
        """Take over a disk image made by others, which boots by itself and runs cloud-init."""
        if not path.is_file():
            raise ImageError(f"{path} is no file", hint="machine image import FILE --name NAME")
        info = disk_info(path)
        if info.get("backing-filename"):
            raise ImageError(
                f"{path} rests on another file ({info['backing-filename']})",
                hint=f"qemu-img convert -O qcow2 {path} whole.qcow2, and import that",
            )

        def make(work: Path) -> dict[str, Any]:
            command.run(
                "qemu-img", "convert", "-O", "qcow2", path, work / "disk.qcow2", timeout=1800
            )
            return {
                "os": os_id,
                "os_version": os_version,
                "arch": os.uname().machine,
                "first_boot": FirstBoot.CLOUD_INIT,
                "cmdline": "",
                "origin": f"imported from {path.name}",
            }

        return self._add(name, make)

    def verify(self, ref: str) -> Image:
        """Read every file and compare its digest. Raises DigestMismatch."""
        image = self.find(ref)
        manifest = json.loads((self.root / image.name / MANIFEST).read_text())
        for name, entry in manifest["files"].items():
            if _sha256(self.root / image.name / name) != entry["sha256"]:
                raise DigestMismatch(
                    f"{name} of the image {image.name} is damaged",
                    hint=f"machine image rm {image.name}, then build or pull it again",
                )
        return image

    def remove(self, ref: str) -> Image:
        """Raises ImageNotFound. Machines keep their own copy in the hypervisor's storage."""
        image = self.find(ref)
        doomed = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.root))
        (self.root / image.name).rename(doomed / "image")
        shutil.rmtree(doomed)
        return image

    def _add(
        self, name: str, make: Callable[[Path], dict[str, Any]], *, only_missing: bool = False
    ) -> Image:
        """Make the files in a folder beside, describe them, and move them into place at once."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
            raise ImageError(f"{name!r} is no name for an image: a-z, 0-9, dots and dashes")
        with self._lock(name):
            if only_missing and (self.root / name / MANIFEST).is_file():
                return self.find(name)
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self.root))
            work.chmod(0o755)  # the root of a user namespace has to look in
            try:
                manifest = {"name": name, **make(work)}
                manifest["files"] = {
                    file: _describe(work / file) for file in _FILES if (work / file).exists()
                }
                (work / MANIFEST).write_text(json.dumps(manifest, indent=2))
                if (self.root / name).exists():
                    (self.root / name).rename(work / "replaced")
                    shutil.rmtree(work / "replaced")
                work.rename(self.root / name)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return self.find(name)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        from filelock import FileLock

        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{name}.lock"):
            yield


def disk_info(path: Path) -> dict[str, Any]:
    """What `qemu-img info` says of a disk. Raises ImageError for what is no disk image."""
    result = command.run("qemu-img", "info", "--output", "json", path, check=False)
    if not result.ok:
        raise ImageError(f"{path} is no disk image", details=result.stderr.strip())
    info: dict[str, Any] = json.loads(result.stdout)
    return info


def disk_gib(image: Image) -> int:
    """The smallest disk that holds the image. QCOW2's header (QEMU's docs/interop/qcow2.txt) has
    the disk's size in bytes 24 to 31."""
    with image.disk.open("rb") as file:
        size = int.from_bytes(file.read(32)[24:])
    return -(-size // (1 << 30))


def _read(folder: Path) -> Image:
    """The image in a folder; cheap: sizes and times of its files are compared, not their content."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, entry in manifest["files"].items():
            found = (folder / name).stat()
            if (found.st_size, found.st_mtime_ns) != (entry["size"], entry["mtime_ns"]):
                raise ImageError(
                    f"{name} of the image {folder.name} was changed",
                    hint=f"machine image verify {folder.name}",
                )
        has_kernel = "vmlinuz" in manifest["files"]
        return Image(
            name=manifest["name"],
            digest=manifest["files"]["disk.qcow2"]["sha256"],
            arch=manifest["arch"],
            os=manifest["os"],
            os_version=manifest["os_version"],
            first_boot=FirstBoot(manifest["first_boot"]),
            disk=folder / "disk.qcow2",
            kernel=folder / "vmlinuz" if has_kernel else None,
            initrd=folder / "initrd" if has_kernel else None,
            cmdline=manifest["cmdline"],
            origin=manifest["origin"],
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ImageError(
            f"The image {folder.name} is damaged: {exc}",
            hint=f"machine image rm {folder.name} --force, then build or pull it again",
        ) from exc


def _describe(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"sha256": _sha256(path), "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

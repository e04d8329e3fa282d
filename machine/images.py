"""The guest images of this computer: found by name, made once, verified before they are used."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from machine import catalogue, disk_image, download, image_build, image_folder
from machine.catalogue import Source
from machine.download import Digest
from machine.errors import DigestMismatch, ImageError, ImageNotFound, PreflightError
from machine.events import Reporter
from machine.folder_cache import FolderCache
from machine.image_folder import DISK, MANIFEST, facts
from machine.model import FirstBoot, Image
from machine.paths import cache_root

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]*")
BUILT: Final = {f"debian-{release}": release for release in image_build.SUITES}


class ImageCache(FolderCache):
    """``~/.cache/machine/images/NAME``: one folder an image."""

    what = "image"
    error = ImageError

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or cache_root() / "images")

    def names(self) -> tuple[str, ...]:
        """Of all that are here, damaged ones too."""
        found = (manifest.parent.name for manifest in self.root.glob(f"*/{MANIFEST}"))
        return tuple(sorted(name for name in found if _NAME.fullmatch(name)))

    def known(self) -> set[str]:
        """Names of images that are here or can be got."""
        return {*self.names(), *BUILT, *catalogue.sources(os.uname().machine)}

    def unfinished(self) -> dict[str, int]:
        """Downloads that broke off and are kept: bytes by the image's name."""
        found: dict[str, int] = {}
        for part in self._downloads.glob("*/*"):
            found[part.parent.name] = found.get(part.parent.name, 0) + part.stat().st_size
        return found

    def list(self) -> list[Image]:
        """Those that can be used; ``find`` says what is wrong with the others."""
        return [image for name in self.names() if (image := self._usable(name))]

    def find(self, ref: str) -> Image:
        """By name, or by the first characters (8 or more) of its digest. Raises ImageNotFound,
        and ImageError for one whose files are not those that its manifest describes."""
        if ref in self.names():
            return image_folder.read(self.root / ref)
        if re.fullmatch(r"[0-9a-f]{8,64}", ref):
            for image in self.list():
                if image.digest.startswith(ref):
                    return image
        raise ImageNotFound(
            f'There is no image "{ref}"',
            details=f"Images here: {', '.join(self.names()) or 'none'}",
            hint=_how_to_get(ref),
        )

    def ensure(self, name: str, report: Reporter) -> Image:
        """The image of that name. One that is not there yet is got now: by the user's own catalogue,
        or built (it boots fastest) where that can be done, or by our catalogue."""
        try:
            return self.find(name)
        except ImageNotFound:
            source = catalogue.sources(os.uname().machine).get(name)
            if name in BUILT and not (source and source.own):
                try:
                    return self.build(name, report, only_missing=True)
                except PreflightError as exc:
                    if source is None:
                        raise
                    report.note(f"{name} is pulled: {exc.brief}")
            if source is None:
                raise
            return self.pull(source, report)

    def build(self, name: str, report: Reporter, *, only_missing: bool = False) -> Image:
        """Build from packages, and replace an image of that name. Several processes at once build
        it once with ``only_missing``."""
        if name not in BUILT:
            raise ImageNotFound(
                f'"{name}" is no image that can be built',
                details=f"These can: {', '.join(BUILT)}",
                hint=_how_to_get(name),
            )
        release = BUILT[name]

        def make(folder: Path) -> dict[str, Any]:
            cmdline = image_build.build_debian(release, folder, report)
            origin = f"built from packages of Debian {release} ({image_build.SUITES[release]})"
            return facts(
                "debian", release, origin, FirstBoot.IDENTITY, cmdline, image_build.recipe()
            )

        return self._add(name, make, report, keep=lambda image: only_missing)

    def pull(self, source: Source, report: Reporter) -> Image:
        """Bring an image from its publisher, and replace one of that name; nothing is downloaded
        when the digest is still that of the image here. Several processes at once download it once,
        and what a broken download left is gone on with. Raises DownloadFailed, DigestMismatch,
        ImageError, DiskFull."""
        disk_image.need_qemu_img()
        digest = source.digest or _published(source, report)
        origin = f"pulled from {source.url} ({digest})"

        def make(folder: Path) -> dict[str, Any]:
            part = self._part(source.name, digest)
            with report.step("download", f"Downloading {download.file_name(source.url)}"):
                download.fetch(
                    source.url,
                    part,
                    digest,
                    lambda done, total: report.progress("download", done, total),
                )
            try:
                form = disk_image.check(part)
            except ImageError:
                part.unlink()
                raise
            disk_image.take(part, form, folder / DISK)
            shutil.rmtree(part.parent)
            return facts(source.os, source.os_version, origin)

        return self._add(source.name, make, report, keep=lambda image: image.origin == origin)

    def import_file(
        self,
        path: Path,
        name: str,
        report: Reporter,
        *,
        os_id: str,
        os_version: str,
        digest: Digest | None = None,
        replace: bool = False,
    ) -> Image:
        """Take over a disk image made by others, which boots by itself and runs cloud-init. Raises
        ImageError (also for a name that is taken, unless ``replace``), DigestMismatch, DiskFull."""
        disk_image.need_qemu_img()
        if name in self.names() and not replace:
            raise ImageError(
                f'There is an image "{name}" already',
                hint="Add --force to replace it, or choose another name",
            )
        form = disk_image.check(path)

        def make(folder: Path) -> dict[str, Any]:
            copy = folder / "copy"
            with report.step("import", f"Copying {path.name}"):
                disk_image.copy(
                    path, copy, lambda done, total: report.progress("import", done, total)
                )
            if digest and (got := Digest.of(copy, digest.algorithm)) != digest:
                raise DigestMismatch(
                    f"{path.name} does not have that digest",
                    details=f"wanted {digest}\ngot    {got}",
                )
            disk_image.take(copy, form, folder / DISK)
            copy.unlink(missing_ok=True)
            return facts(os_id, os_version, f"imported from {path.name}")

        return self._add(name, make, report)

    def verify(self, ref: str) -> str:
        """Read every file and compare its digest; answers the image's name. Raises DigestMismatch.
        Where only times have changed (the cache was copied), the manifest is brought up to date."""
        name = self._name(ref)
        if manifest := image_folder.verify(self.root / name):
            with self.change(name, Reporter()) as work:
                image_folder.write(work, manifest)
                (work / MANIFEST).replace(self.root / name / MANIFEST)
        return name

    def remove(self, ref: str) -> str:
        """Forget an image, damaged or not, and a download of it that broke off; answers its name.
        Raises ImageNotFound. Machines keep their own copy in the hypervisor's storage."""
        name = ref if ref in self.unfinished() else self._name(ref)
        with self.change(name, Reporter()) as work:
            for number, each in enumerate((self.root / name, self._downloads / name)):
                if each.exists():
                    each.rename(work / str(number))
        return name

    @property
    def _downloads(self) -> Path:
        return self.root / ".downloads"

    def _name(self, ref: str) -> str:
        return ref if ref in self.names() else self.find(ref).name

    def _usable(self, name: str) -> Image | None:
        try:
            return image_folder.read(self.root / name)
        except ImageError:
            return None

    def _add(
        self,
        name: str,
        make: Callable[[Path], dict[str, Any]],
        report: Reporter,
        *,
        keep: Callable[[Image], bool] = lambda image: False,
    ) -> Image:
        """Make the files in a folder beside, describe them, and move them into place at once. An
        image that is there already stays if ``keep`` says so."""
        if not _NAME.fullmatch(name):
            raise ImageError(f"{name!r} is no name for an image: a-z, 0-9, dots and dashes")
        with self.change(name, report) as work:
            before = self._usable(name)
            if before and keep(before):
                report.note(f"The image {name} is here already, {before.origin}")
                return before
            new = work / "new"
            new.mkdir(mode=0o755)
            image_folder.describe(new, name, make(new))
            self.put(name, new, work)
            if before:
                report.note(f"It replaces the image {name} that was {before.origin}")
            return self.find(name)

    def _part(self, name: str, digest: Digest) -> Path:
        """Where a download of these bytes is kept until it is complete; earlier ones are dropped."""
        folder = self._downloads / name
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / digest.hex[:32]
        for other in folder.iterdir():
            if other != part:
                other.unlink()
        return part


def _published(source: Source, report: Reporter) -> Digest:
    """The digest that the publisher names now."""
    if source.checksums.startswith("http:"):
        report.warn("The checksum file comes without https: who is in between can change it")
    return download.digest_in(
        download.text(source.checksums), download.file_name(source.url), source=source.checksums
    )


def _how_to_get(name: str) -> str:
    """What to type for an image that is not here."""
    if name in BUILT:
        return f"machine image build {name}"
    known = catalogue.sources(os.uname().machine)
    if name in known:
        return f"machine image pull {name}"
    close = difflib.get_close_matches(name, [*known, *BUILT], 1)
    meant = f"Did you mean {close[0]}? " if close else ""
    return f"{meant}machine image ls --all shows those that can be built or pulled"

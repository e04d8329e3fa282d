"""The bundles of this computer: built, found for a guest, verified, removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from machine import download
from machine.engine import VERSION, Engine
from machine.errors import BundleError, PreflightError
from machine.events import Reporter
from machine.image_build import SUITES
from machine.model import BundleKind
from machine.paths import cache_root
from machine.runtime.bundle import archive, packages
from machine.runtime.bundle.lock import ANY, Bundle, describe, pack, read, sha256_of

_NAME: Final = re.compile(r"\w[\w.+~-]*")


class BundleCache:
    """``~/.cache/machine/bundles``: NAME.tar, and NAME.json that describes it. In ``older/`` are
    packages that were made anew since, as NAME~DIGEST: machines that have them go back to them."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root() / "bundles"

    def list(self) -> list[Bundle]:
        """Those that can be used; ``problems`` names the others."""
        return [each for each in self._all() if isinstance(each, Bundle)]

    def problems(self) -> Sequence[BundleError]:
        """One error for each bundle whose description cannot be understood, or whose file is gone."""
        return [each for each in self._all() if isinstance(each, BundleError)]

    def get(self, name: str) -> Bundle:
        """By name. Raises BundleError."""
        return read(self._description(name))

    def find(self, engine: str, os_id: str, os_version: str, arch: str, kind: str) -> Bundle | None:
        """The bundle for a guest, the newest if there are several; None if there is none."""
        fitting = [
            each
            for each in self.list()
            if (each.engine, each.kind) == (engine, kind)
            and each.serves(os_id, os_version, arch)
            and each.path.parent == self.root
        ]
        return max(fitting, key=lambda each: age(each.version), default=None)

    def with_digest(self, sha256: str) -> Bundle | None:
        """The bundle that has these bytes, whatever it is called; None if it is not here."""
        return next((each for each in self.list() if each.sha256 == sha256), None)

    def with_packages(self, versions: Mapping[str, str]) -> Bundle | None:
        """One that has all these packages, in these versions; None if there is none."""
        wanted = versions.items()
        return next((each for each in self.list() if wanted <= each.packages.items()), None)

    def preflight(self, engine: type[Engine], kind: str) -> None:
        """Called before anything is made. Raises PreflightError when no create can have a bundle
        of ``kind``: it is neither here nor built by itself."""
        here = [each for each in self.list() if (each.engine, each.kind) == (engine.name, kind)]
        if kind == BundleKind.STATIC and not here:
            missing = _no_static(engine, os.uname().machine)
            raise PreflightError(missing.brief, hint=missing.hint)

    def ensure(
        self,
        engine: type[Engine],
        os_id: str,
        os_version: str,
        arch: str,
        kind: str,
        report: Reporter,
    ) -> Bundle:
        """As ``find``, and builds it if there is none. Raises BundleError for a guest that no
        bundle can be built for, and for a static one, which is made from a file that only the
        user can give."""
        if found := self.find(engine.name, os_id, os_version, arch, kind):
            return found
        if kind == BundleKind.STATIC:
            raise _no_static(engine, arch)
        return self.build_packages(engine, os_id, os_version, arch, report, only_missing=True)

    def build_packages(
        self,
        engine: type[Engine],
        os_id: str,
        os_version: str,
        arch: str,
        report: Reporter,
        *,
        only_missing: bool = False,
    ) -> Bundle:
        """Resolve and download the packages now; replaces a bundle of that name. Raises
        BundleError."""
        recipe = engine.recipe(os_id, os_version)
        if recipe is None or not packages.can_build(os_version, arch):
            raise BundleError(
                f"A packages bundle of {engine.name} for {os_id} {os_version} ({arch}) "
                "cannot be built here",
                hint="Bundles of packages can be built for Debian "
                + " and ".join(SUITES)
                + f'; bundle = "{BundleKind.STATIC}" in a template fits any distribution',
            )
        name = f"{engine.name}-{os_id}-{os_version}"
        kind = BundleKind.PACKAGES
        with self._lock(name):
            if only_missing and (found := self.find(engine.name, os_id, os_version, arch, kind)):
                return found
            with self._work() as work, report.step("packages", f"Getting the packages of {name}"):
                folder = work / kind
                folder.mkdir()
                packages.download(os_version, arch, recipe.packages, work, folder)
                version = packages.version_of(folder, recipe.packages[0])
                lock = describe(engine, version, kind, os_id, os_version, arch, folder)
                return self.add(name, lock, work)

    def build_static(
        self,
        engine: type[Engine],
        source: Path,
        arch: str,
        report: Reporter,
        *,
        version: str = "",
        sha256: str = "",
    ) -> Bundle:
        """Take over upstream's archive unchanged, when it is what the engine says it is (and has
        the digest ``sha256``, if given); replaces a bundle of that name. ``version`` is needed
        for a file that is not named as upstream's. Raises BundleError."""
        wanted = engine.archive
        if wanted is None:
            raise BundleError(f"There are no static bundles of {engine.name}")
        version = version or wanted.version_of(source.name, arch)
        if not VERSION.fullmatch(version):
            raise BundleError(
                f"The name {source.name} does not say which version it is",
                details=f"Upstream's own name is {wanted.name(arch)}",
                hint="Add its version: --version X.Y.Z",
            )
        name = f"{engine.name}-{BundleKind.STATIC}-{version}-{arch}"
        with (
            self._lock(name),
            self._work() as work,
            report.step("archive", f"Checking {source.name}"),
        ):
            file = work / "archive" / wanted.name(arch, version)
            file.parent.mkdir()
            _copy(source, file)
            if sha256 and (got := sha256_of(file)) != sha256.lower():
                raise BundleError(
                    f"{source.name} has another digest than the one that is given",
                    details=f"Expected {sha256.lower()}\nGot      {got}",
                    hint="Download it again, and compare where the digest comes from",
                )
            if needy := archive.check(file, wanted, arch):
                report.warn(
                    f"{len(needy)} of its {len(wanted.programs)} programs are not static: they run "
                    "only on guests that have their libraries"
                )
            lock = describe(engine, version, BundleKind.STATIC, ANY, ANY, arch, file.parent)
            return self.add(name, lock, work)

    def fetch(self, url: str, sha256: str, report: Reporter) -> Path:
        """Bring upstream's archive for ``build_static``; what a broken download left is gone on
        with. The digest is the caller's: upstream publishes none. Raises DownloadFailed,
        DigestMismatch, DiskFull."""
        target = self.root / ".downloads" / download.file_name(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        with report.step("download", f"Downloading {target.name}"):
            download.fetch(
                url,
                target,
                download.Digest("sha256", sha256.lower()),
                lambda done, total: report.progress("download", done, total),
            )
        return target

    def verify(self, bundle: Bundle) -> None:
        """Raises BundleError when the file is not the one that its description names."""
        if not bundle.path.is_file() or sha256_of(bundle.path) != bundle.sha256:
            raise BundleError(
                f"The bundle {bundle.name} is damaged",
                hint=f"machine bundle rm {bundle.name}, then machine bundle build",
            )

    def remove(self, name: str) -> None:
        """A damaged one too. Raises BundleError if there is none of that name."""
        path = self._description(name)
        path.unlink()
        path.with_suffix(".tar").unlink(missing_ok=True)

    def _description(self, name: str) -> Path:
        for folder in (self.root, self._older):
            path = folder / f"{name}.json"
            if _NAME.fullmatch(name) and path.is_file():
                return path
        raise BundleError(
            f'There is no bundle "{name}"', hint="machine bundle ls shows what is there"
        )

    @property
    def _older(self) -> Path:
        return self.root / "older"

    def _all(self) -> Iterator[Bundle | BundleError]:
        for path in [*sorted(self.root.glob("*.json")), *sorted(self._older.glob("*.json"))]:
            try:
                yield read(path)
            except BundleError as exc:
                yield exc

    def add(self, name: str, lock: dict[str, Any], work: Path) -> Bundle:
        """Pack the files of ``work`` that the lock names. Packages that had the name are kept."""
        tar = work / f"{name}.tar"
        pack(tar, lock, work)
        described = {**lock, "sha256": sha256_of(tar)}
        (work / "described").write_text(json.dumps(described, indent=2))
        if lock["kind"] == BundleKind.PACKAGES:
            self._keep_older(name, described["sha256"])
        tar.replace(self.root / tar.name)
        (work / "described").replace(self.root / f"{name}.json")
        return self.get(name)

    def _keep_older(self, name: str, sha256: str) -> None:
        """Called when another is about to take the name."""
        try:
            there = self.get(name)
        except BundleError:
            return
        if there.sha256 != sha256 and there.path.parent == self.root:
            kept = self._older / f"{name}~{there.sha256[:12]}"
            kept.parent.mkdir(exist_ok=True)
            for ending in (".tar", ".json"):
                (self.root / f"{name}{ending}").replace(kept.with_name(kept.name + ending))

    @contextmanager
    def _work(self) -> Iterator[Path]:
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=self.root) as work:
            yield Path(work)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        from filelock import FileLock

        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{name}.lock"):
            yield


def obtain(engine: type[Engine], arch: str) -> str:
    """What to do for a static bundle: where upstream's archive is, and what to type then."""
    if engine.archive is None:
        return f'Upstream has no static archive of {engine.name}: bundle = "packages"'
    return (
        f"machine bundle build {engine.name} --kind static "
        f"--from {engine.archive.location(arch)} --sha256 HEX\n"
        "or --from FILE, once you have it here"
    )


def _no_static(engine: type[Engine], arch: str) -> BundleError:
    return BundleError(
        f"There is no static bundle of {engine.name} for {arch}", hint=obtain(engine, arch)
    )


def age(version: str) -> tuple[list[int], bool]:
    """Orders versions as upstream counts them: 28.0.10 after 28.0.9, 28.0.0-rc.1 before 28.0.0."""
    release = re.split(r"[-+~]", version, maxsplit=1)[0]
    return [int(number) for number in re.findall(r"\d+", release)], "-" not in version


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as exc:
        raise BundleError(f"{source} cannot be taken over: {exc.strerror or exc}") from exc

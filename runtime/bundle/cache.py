"""The bundles of this computer: built, found for a guest, verified, removed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from machine.engine import VERSION, Engine
from machine.errors import BundleError, PreflightError
from machine.events import Reporter
from machine.image_build import SUITES
from machine.model import BundleKind
from machine.paths import cache_root
from machine.runtime.bundle import archive, packages

LOCK: Final = "lock.json"
ANY: Final = "any"
"""What a static bundle names as its distribution and release."""
_NAME: Final = re.compile(r"\w[\w.+~-]*")


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

    def serves(self, os_id: str, os_version: str, arch: str) -> bool:
        system = (self.os_id, self.os_version)
        return self.arch == arch and system in ((os_id, os_version), (ANY, ANY))


class BundleCache:
    """``~/.cache/machine/bundles``: NAME.tar, and NAME.json that describes it."""

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
        path = self.root / f"{name}.json"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise BundleError(
                f'There is no bundle "{name}"', hint="machine bundle ls shows what is there"
            )
        return _read(path)

    def find(self, engine: str, os_id: str, os_version: str, arch: str, kind: str) -> Bundle | None:
        """The bundle for a guest, the newest if there are several; None if there is none."""
        fitting = [
            each
            for each in self.list()
            if (each.engine, each.kind) == (engine, kind) and each.serves(os_id, os_version, arch)
        ]
        return max(fitting, key=lambda each: _age(each.version), default=None)

    def with_digest(self, sha256: str) -> Bundle | None:
        """The bundle that has these bytes, whatever it is called; None if it is not here."""
        return next((each for each in self.list() if each.sha256 == sha256), None)

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
                lock = _lock(engine, version, kind, os_id, os_version, arch, folder)
                return self._add(name, lock, work)

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
            if sha256 and (got := _sha256(file)) != sha256.lower():
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
            lock = _lock(engine, version, BundleKind.STATIC, ANY, ANY, arch, file.parent)
            return self._add(name, lock, work)

    def verify(self, bundle: Bundle) -> None:
        """Raises BundleError when the file is not the one that its description names."""
        if not bundle.path.is_file() or _sha256(bundle.path) != bundle.sha256:
            raise BundleError(
                f"The bundle {bundle.name} is damaged",
                hint=f"machine bundle rm {bundle.name}, then machine bundle build",
            )

    def remove(self, name: str) -> None:
        """A damaged one too. Raises BundleError if there is none of that name."""
        if not _NAME.fullmatch(name) or not (self.root / f"{name}.json").is_file():
            self.get(name)  # says so
        (self.root / f"{name}.json").unlink()
        (self.root / f"{name}.tar").unlink(missing_ok=True)

    def _all(self) -> Iterator[Bundle | BundleError]:
        for path in sorted(self.root.glob("*.json")):
            try:
                yield _read(path)
            except BundleError as exc:
                yield exc

    def _add(self, name: str, lock: dict[str, Any], work: Path) -> Bundle:
        tar = work / f"{name}.tar"
        _pack(tar, lock, work)
        described = {**lock, "sha256": _sha256(tar)}
        (work / "described").write_text(json.dumps(described, indent=2))
        tar.replace(self.root / tar.name)
        (work / "described").replace(self.root / f"{name}.json")
        return self.get(name)

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
        f"Download {engine.archive.location(arch)}\n"
        f"and type: machine bundle build {engine.name} --kind static "
        f"--from {engine.archive.name(arch)}"
    )


def _no_static(engine: type[Engine], arch: str) -> BundleError:
    return BundleError(
        f"There is no static bundle of {engine.name} for {arch}", hint=obtain(engine, arch)
    )


def _age(version: str) -> tuple[list[int], bool]:
    """Orders versions as upstream counts them: 28.0.10 after 28.0.9, 28.0.0-rc.1 before 28.0.0."""
    release = re.split(r"[-+~]", version, maxsplit=1)[0]
    return [int(number) for number in re.findall(r"\d+", release)], "-" not in version


def _lock(
    engine: type[Engine],
    version: str,
    kind: str,
    os_id: str,
    os_version: str,
    arch: str,
    folder: Path,
) -> dict[str, Any]:
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
                "sha256": _sha256(each),
            }
            for each in sorted(folder.glob("*"))
        ],
    }


def _pack(tar_path: Path, lock: dict[str, Any], work: Path) -> None:
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


def _read(path: Path) -> Bundle:
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


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as exc:
        raise BundleError(f"{source} cannot be taken over: {exc.strerror or exc}") from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

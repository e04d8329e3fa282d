"""Engine bundles: one tar file with a lock, made once here and unpacked the same on every host."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from machine import command
from machine.engine import Engine
from machine.errors import BundleError, CommandFailed, PreflightError
from machine.events import Reporter
from machine.guest import Guest
from machine.image_build import SUITES, apt_mirror
from machine.paths import cache_root

LABEL: Final = "machine-bundle"
"""The serial of the disk that a driver attaches a bundle as."""
FOLDER: Final = "/var/lib/machine/bundle"
LOCK: Final = "lock.json"
BASE: Final = ("systemd-sysv", "udev", "dbus", "openssh-server", "sudo", "ca-certificates", "kmod")
"""What every host has that boots and takes a login: their closure is not bundled."""
DEB_ARCH: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle of the cache. ``files`` are name and sha256 of each member."""

    name: str  # docker-debian-13
    path: Path
    sha256: str
    engine: str
    version: str
    kind: str
    os_id: str
    os_version: str
    arch: str
    files: tuple[tuple[str, str], ...]


class BundleCache:
    """``~/.cache/machine/bundles``: NAME.tar, and NAME.json that describes it."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root() / "bundles"

    def list(self) -> list[Bundle]:
        return [_read(path) for path in sorted(self.root.glob("*.json"))]

    def get(self, name: str) -> Bundle:
        """By name. Raises BundleError."""
        path = self.root / f"{name}.json"
        if not path.is_file():
            raise BundleError(
                f'There is no bundle "{name}"', hint="machine bundle ls shows what is there"
            )
        return _read(path)

    def find(self, engine: str, os_id: str, os_version: str, arch: str, kind: str) -> Bundle | None:
        """The bundle for a guest, or None."""
        wanted = (engine, os_id, os_version, arch, kind)
        for each in self.list():
            if (each.engine, each.os_id, each.os_version, each.arch, each.kind) == wanted:
                return each
        return None

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
        bundle can be built for."""
        found = self.find(engine.name, os_id, os_version, arch, kind)
        return found or self.build(engine, os_id, os_version, arch, kind, report, only_missing=True)

    def build(
        self,
        engine: type[Engine],
        os_id: str,
        os_version: str,
        arch: str,
        kind: str,
        report: Reporter,
        *,
        only_missing: bool = False,
    ) -> Bundle:
        """Resolve and download the packages now; replaces a bundle of that name."""
        recipe = engine.recipe(os_id, os_version)
        if kind != "packages" or recipe is None or os_version not in SUITES or arch not in DEB_ARCH:
            raise BundleError(
                f"A {kind} bundle of {engine.name} for {os_id} {os_version} ({arch}) "
                "cannot be built here",
                hint="Bundles can be built for Debian " + " and ".join(SUITES),
            )
        name = f"{engine.name}-{os_id}-{os_version}"
        with self._lock(name):
            if only_missing and (found := self.find(engine.name, os_id, os_version, arch, kind)):
                return found
            with self._work() as work, report.step("packages", f"Getting the packages of {name}"):
                folder = work / "packages"
                folder.mkdir()
                _download(SUITES[os_version], DEB_ARCH[arch], recipe.packages, work, folder)
                version = _deb_version(folder, recipe.packages[0])
                lock = _lock(engine.name, version, kind, os_id, os_version, arch, work)
                return self._add(name, lock, work)

    def verify(self, bundle: Bundle) -> None:
        """Raises BundleError when the file is not the one that its description names."""
        if not bundle.path.is_file() or _sha256(bundle.path) != bundle.sha256:
            raise BundleError(
                f"The bundle {bundle.name} is damaged",
                hint=f"machine bundle rm {bundle.name}, then machine bundle build",
            )

    def remove(self, name: str) -> None:
        bundle = self.get(name)
        (self.root / f"{name}.json").unlink()
        bundle.path.unlink(missing_ok=True)

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


def deliver(guest: Guest, bundle: Bundle, report: Reporter) -> str:
    """Unpack the bundle on the guest, from the attached disk if there is one and over SFTP if not,
    and check every file there against the digests known here. Answers the folder. Twice is fine."""
    sums = "".join(f"{digest}  {FOLDER}/{name}\n" for name, digest in bundle.files)
    device = f"/dev/disk/by-id/virtio-{LABEL}"
    if guest.run("test", "-b", device, check=False).ok:
        _unpack(guest, device)
        if guest.run(
            "sha256sum", "-c", "--quiet", sudo=True, stdin=sums.encode(), check=False, timeout=300
        ).ok:
            return FOLDER
        report.warn("The attached bundle does not match its lock; sending it over SSH instead")
    guest.put(
        bundle.path,
        f"{FOLDER}.tar",
        mode=0o600,
        progress=lambda done, total: report.progress("install", done, total),
    )
    _unpack(guest, f"{FOLDER}.tar")
    try:
        guest.run("sha256sum", "-c", "--quiet", sudo=True, stdin=sums.encode(), timeout=300)
    except CommandFailed as exc:
        raise BundleError(
            f"The bundle {bundle.name} arrived damaged on the host",
            details=exc.details,
            hint=f"machine bundle verify {bundle.name}; df on the host shows its free space",
        ) from exc
    return FOLDER


def discard(guest: Guest) -> None:
    """Remove what ``deliver`` left on the guest."""
    guest.run("rm", "-rf", FOLDER, f"{FOLDER}.tar", sudo=True)


def _unpack(guest: Guest, source: str) -> None:
    guest.script(
        f"rm -rf {FOLDER}\nmkdir -p {FOLDER}\ntar -xf {source} -C {FOLDER}\n",
        sudo=True,
        timeout=300,
    )


def _download(suite: str, arch: str, names: Sequence[str], work: Path, target: Path) -> None:
    """The closure of ``names`` without what every host has, verified by apt's own signatures."""
    if not command.which("apt-get"):
        raise PreflightError("A bundle of Debian packages is resolved by apt, which is not here")
    apt = work / "apt"
    for each in ("state/lists/partial", "cache/archives/partial", "etc"):
        (apt / each).mkdir(parents=True)
    (apt / "state" / "status").touch()
    mirror = apt_mirror()
    (apt / "sources.list").write_text(
        "".join(f"deb {mirror} {name} main\n" for name in (suite, f"{suite}-updates"))
    )
    options = {
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "state" / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::trustedparts": "/usr/share/keyrings",
        "Acquire::Languages": "none",
    }
    words = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    try:
        command.run("apt-get", *words, "update", "-q", timeout=600)
        wanted = _closure(words, names) - _closure(words, BASE)
        command.run("apt-get", *words, "-q", "download", *sorted(wanted), cwd=target, timeout=1800)
    except CommandFailed as exc:
        raise BundleError(
            "The engine's packages could not be resolved or downloaded",
            details=exc.details,
            hint="Is the package mirror reachable? apt-get update shows it.",
        ) from exc
    shutil.rmtree(apt)


def _closure(words: Sequence[str], names: Sequence[str]) -> set[str]:
    """Package names that installing ``names`` on an empty system would install (apt-get -s)."""
    shown = command.run("apt-get", *words, "-s", "-y", "install", *names, timeout=120).stdout
    return {line.split()[1] for line in shown.splitlines() if line.startswith("Inst ")}


def _deb_version(folder: Path, package: str) -> str:
    """From the file's name, PACKAGE_VERSION_ARCH.deb; apt escapes the epoch's colon as %3a."""
    (path,) = folder.glob(f"{package}_*.deb")
    return path.name.split("_")[1].replace("%3a", ":")


def _lock(
    engine: str, version: str, kind: str, os_id: str, os_version: str, arch: str, work: Path
) -> dict[str, Any]:
    files = sorted((work / "packages").glob("*"))
    return {
        "engine": engine,
        "version": version,
        "kind": kind,
        "os_id": os_id,
        "os_version": os_version,
        "arch": arch,
        "files": [
            {
                "name": str(each.relative_to(work)),
                "size": each.stat().st_size,
                "sha256": _sha256(each),
            }
            for each in files
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
    try:
        lock = json.loads(path.read_text())
        return Bundle(
            name=path.stem,
            path=path.with_suffix(".tar"),
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
        raise BundleError(f"The bundle {path.stem} is damaged: {exc!r}", hint=f"rm {path}") from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The files of a `packages` bundle: a closure of Debian packages, resolved by apt in a private root."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from machine import command
from machine.engine import GOARCH
from machine.errors import BundleError, CommandFailed, PreflightError
from machine.image_build import SUITES, apt_mirror

BASE: Final = ("systemd-sysv", "udev", "dbus", "openssh-server", "sudo", "ca-certificates", "kmod")
"""What every host has that boots and takes a login: their closure is not bundled."""


def can_build(os_version: str, arch: str) -> bool:
    return os_version in SUITES and arch in GOARCH


def download(os_version: str, arch: str, names: Sequence[str], work: Path, target: Path) -> None:
    """The closure of ``names`` without what every host has, verified by apt's own signatures."""
    if not command.which("apt-get"):
        raise PreflightError("A bundle of Debian packages is resolved by apt, which is not here")
    apt = work / "apt"
    for each in ("state/lists/partial", "cache/archives/partial", "etc"):
        (apt / each).mkdir(parents=True)
    (apt / "state" / "status").touch()
    mirror, suite = apt_mirror(), SUITES[os_version]
    (apt / "sources.list").write_text(
        "".join(f"deb {mirror} {name} main\n" for name in (suite, f"{suite}-updates"))
    )
    options = {
        "APT::Architecture": GOARCH[arch],  # Debian's words for these are the same
        "APT::Architectures": GOARCH[arch],
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


def version_of(folder: Path, package: str) -> str:
    """From the file's name, PACKAGE_VERSION_ARCH.deb; apt escapes the epoch's colon as %3a."""
    (path,) = folder.glob(f"{package}_*.deb")
    return path.name.split("_")[1].replace("%3a", ":")


def _closure(words: Sequence[str], names: Sequence[str]) -> set[str]:
    """Package names that installing ``names`` on an empty system would install (apt-get -s)."""
    shown = command.run("apt-get", *words, "-s", "-y", "install", *names, timeout=120).stdout
    return {line.split()[1] for line in shown.splitlines() if line.startswith("Inst ")}

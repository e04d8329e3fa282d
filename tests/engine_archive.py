"""Docker's archive as upstream packs it, of Debian's programs: not static, but real."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from machine.paths import cache_root
from machine.runtime.bundle import Bundle, BundleCache
from tests import archives, artefact

FOLDER: Final = "test-archives"
NAME: Final = "docker-26.1.5.tgz"


def build(target: Path) -> None:
    """From the packages of the Debian 13 bundle, or leave the one that is there. Raises
    BundleError."""

    def make(work: Path) -> Path:
        bundle = BundleCache().get("docker-debian-13")
        subprocess.run(["tar", "-xf", str(bundle.path), "-C", str(work)], check=True)
        return pack(work / NAME, bundle, work)

    artefact.build(target, make)


def pack(archive: Path, bundle: Bundle, work: Path) -> Path:
    """Of the programs of a bundle of packages that is unpacked in ``work``."""
    for name, _ in bundle.files:
        if re.search(r"/(docker|containerd|runc|tini)", name):
            subprocess.run(["dpkg-deb", "-x", str(work / name), str(work / "root")], check=True)
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for program, place in archives.PROGRAMS.items():
            tar.add(work / "root" / place, f"docker/{program}")
    return archive


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER / NAME)

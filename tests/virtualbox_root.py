"""The real VBoxManage for the tests: Debian's package in a root of its own, which nothing installs here.

Only the newest Debian has the package; its C library would not fit an older computer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from machine.image_build import as_root
from machine.paths import cache_root
from tests import artefact

FOLDER: Final = "test-virtualbox"
SUITE: Final = "sid"
PACKAGE: Final = "virtualbox"


def build(target: Path) -> None:
    """Make the root, or leave the one that is there: it is whole as soon as it has its name.
    Raises ImageError."""

    def make(work: Path) -> Path:
        archive, root = work / "root.tar", work / "root"
        artefact.bootstrap(
            archive,
            (PACKAGE,),
            "--components=main,contrib",
            "--aptopt=Acquire::Check-Valid-Until false",  # a mirror may be behind
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            suite=SUITE,
            variant="apt",
            sources=(f"{SUITE} main contrib",),
        )
        root.mkdir()
        as_root("tar", "-C", root, "--exclude=./dev/*", "-xpf", archive)
        return root

    artefact.build(target, make)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER)

"""Docker Compose as users have it: the program of Debian 13's package, which runs on any system."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Final

from machine import command
from machine.paths import cache_root
from machine.runtime.bundle import packages
from tests import artefact
from tests.artefact import CACHE

NAME: Final = "docker-compose"
FOLDER: Final = "test-programs"
PROGRAM: Final = CACHE / FOLDER / NAME
PLUGINS: Final = "usr/libexec/docker/cli-plugins"


def build(target: Path) -> None:
    """Fetch and unpack it, or leave the one that is there. Raises BundleError."""

    def make(work: Path) -> Path:
        (work / "packages").mkdir()
        packages.download("13", platform.machine(), [NAME], work, work / "packages")
        (package,) = (work / "packages").glob(f"{NAME}_*.deb")
        command.run("dpkg-deb", "-x", package, work / "root")
        return work / "root" / PLUGINS / NAME

    artefact.build(target, make)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER / NAME)

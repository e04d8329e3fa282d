"""The real VBoxManage for the tests: Debian's package in a root of its own, which nothing installs here.

Only the newest Debian has the package; its C library would not fit an older computer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from machine.image_build import apt_mirror, as_root, call
from machine.paths import cache_root

FOLDER: Final = "test-virtualbox"
SUITE: Final = "sid"
PACKAGE: Final = "virtualbox"


def build(target: Path) -> None:
    """Make the root, or leave the one that is there: it is whole as soon as it has its name.
    Raises ImageError."""
    if target.exists():
        return
    print(f"==> Unpacking {PACKAGE} for the tests", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".virtualbox-", dir=target.parent) as name:
        work = Path(name)
        work.chmod(0o755)  # the root of a user namespace has to look in
        archive, root = work / "root.tar", work / "root"
        call(
            "mmdebstrap",
            f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
            "--variant=apt",
            "--components=main,contrib",
            f"--include={PACKAGE}",
            "--aptopt=APT::Install-Recommends false",
            "--aptopt=Acquire::Check-Valid-Until false",  # a mirror may be behind
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            SUITE,
            archive,
            f"deb {apt_mirror()} {SUITE} main contrib",
        )
        root.mkdir()
        as_root("tar", "-C", root, "--exclude=./dev/*", "-xpf", archive)
        root.rename(target)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER)

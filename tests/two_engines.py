"""Two versions of one engine, Debian 12's and Debian 13's, as bundles for Debian 13."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from machine.events import Reporter
from machine.images import ImageCache
from machine.paths import cache_root
from machine.runtime.bundle import Bundle, BundleCache
from machine.runtime.bundle.lock import describe
from machine.runtime.docker.engine import DockerEngine
from tests import artefact, engine_archive
from tests.artefact import CACHE

OLD, NEW = "20.10.24", "26.1.5"
OLD_PACKAGES, NEW_PACKAGES = "docker-debian-13", "docker-newer"
OLD_STATIC, NEW_STATIC = f"docker-static-{OLD}-x86_64", f"docker-static-{NEW}-x86_64"
RELEASES: Final = {OLD: "12", NEW: "13"}
FOLDER: Final = "test-engines"
LIBRARY: Final = "usr/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1"
"""What the older one needs, and only the image of its own release has."""
CONTROL: Final = """\
Package: libdevmapper1.02.1
Version: 2:1.02.185-2
Architecture: amd64
Maintainer: nobody <nobody@localhost>
Description: the library, out of the image
"""


def build(folder: Path) -> None:
    """The four bundles, and ``tree`` with what a host of the older static one has besides; what is
    there is left as it is."""

    def made(work: Path) -> Path:
        whole = work / "whole"
        (whole / "tree").mkdir(parents=True)
        _library(whole / "tree")
        for version, name in ((OLD, OLD_PACKAGES), (NEW, NEW_PACKAGES)):
            (work / version).mkdir()
            theirs = _unpacked(version, work / version)
            _archive(whole, theirs, version, work / version)
            if version == OLD:
                _pack_library(work / version, whole / "tree")
            _packages(whole, theirs, name, work / version)
        return whole

    artefact.build(folder, made)


def offer(bundles: Path, *names: str) -> None:
    """Have these in a cache, too."""
    bundles.mkdir(parents=True, exist_ok=True)
    for name in names:
        for ending in (".tar", ".json"):
            (bundles / f"{name}{ending}").symlink_to(CACHE / FOLDER / f"{name}{ending}")


def _packages(bundles: Path, theirs: Bundle, name: str, work: Path) -> None:
    system = ("debian", "13", theirs.arch)
    lock = describe(DockerEngine, theirs.version, theirs.kind, *system, work / "packages")
    BundleCache(bundles).add(name, lock, work)


def _archive(bundles: Path, theirs: Bundle, version: str, work: Path) -> None:
    """docker-VERSION.tgz as upstream packs it, from packages, and a bundle of that."""
    path = engine_archive.pack(work / f"docker-{version}.tgz", theirs, work)
    BundleCache(bundles).build_static(DockerEngine, path, os.uname().machine, Reporter())


def _library(folder: Path) -> None:
    tree = ImageCache(CACHE / "images").find("debian-12").tree
    assert tree
    subprocess.run(["tar", "-C", str(folder), "-xf", str(tree), f"./{LIBRARY}"], check=True)


def _unpacked(version: str, folder: Path) -> Bundle:
    bundle = BundleCache(CACHE / "bundles").get(f"docker-debian-{RELEASES[version]}")
    subprocess.run(["tar", "-C", str(folder), "-xf", str(bundle.path)], check=True)
    return bundle


def _pack_library(work: Path, tree: Path) -> None:
    root = work / "library"
    subprocess.run(["cp", "-a", str(tree), str(root)], check=True)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(CONTROL)
    package = work / "packages" / "libdevmapper1.02.1_2%3a1.02.185-2_amd64.deb"
    words = ("dpkg-deb", "--root-owner-group", "-z1", "-b", str(root), str(package))
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER)

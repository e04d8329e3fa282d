from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.runtime.bundle import BundleCache
from tests import archives
from tests.e2e.testbed import CACHE, SessionBed, SystemBed, VirtualboxBed, own_cache


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemBed]:
    """One libvirt for all tests of system mode."""
    with SystemBed(tmp_path_factory.mktemp("bed") / "system") as made:
        yield made


@pytest.fixture(scope="session")
def warm_cache(bed: SystemBed) -> Path:
    """Where warm layers come to be: a create in the bed's other cache finds none and starts cold."""
    return own_cache(bed.folder / "warm-cache")


@pytest.fixture(scope="session")
def session_bed() -> Iterator[SessionBed]:
    """In a folder of its own: pytest's are closed to other users."""
    with SessionBed(Path(tempfile.mkdtemp(prefix="machine-session-"))) as made:
        yield made


@pytest.fixture(scope="session")
def virtualbox_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualboxBed]:
    with VirtualboxBed(tmp_path_factory.mktemp("bed") / "virtualbox") as made:
        yield made


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real docker program: this computer's, or else the one in the engine bundle."""
    found = shutil.which("docker")
    if found:
        return found
    work = tmp_path_factory.mktemp("docker")
    bundle = BundleCache(CACHE / "bundles").get("docker-debian-12")
    (member,) = [name for name, _ in bundle.files if "/docker.io_" in name]
    subprocess.run(["tar", "-xf", str(bundle.path), "-C", str(work), member], check=True)
    subprocess.run(["dpkg-deb", "-x", str(work / member), str(work / "root")], check=True)
    return str(work / "root" / "usr" / "bin" / "docker")


@pytest.fixture(scope="session")
def image_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container image's file system made here: busybox, and nothing else."""
    path = tmp_path_factory.mktemp("image") / "root.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "cat", "echo", "hostname"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link, io.BytesIO())
    return path


@pytest.fixture(scope="session")
def static_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docker-26.1.5.tgz as upstream packs it, from the packages of the Debian 13 bundle."""
    work = tmp_path_factory.mktemp("archive")
    bundle = BundleCache(CACHE / "bundles").get("docker-debian-13")
    subprocess.run(["tar", "-xf", str(bundle.path), "-C", str(work)], check=True)
    for name, _ in bundle.files:
        if re.search(r"/(docker|containerd|runc|tini)", name):
            subprocess.run(["dpkg-deb", "-x", str(work / name), str(work / "root")], check=True)
    path = work / "docker-26.1.5.tgz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for program, place in archives.PROGRAMS.items():
            tar.add(work / "root" / place, f"docker/{program}")
    shutil.rmtree(work / "root")
    return path

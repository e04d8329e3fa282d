"""The example driver as its users have it: installed by pip, found by name, to a container."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import packages
from tests.artefact import CACHE

pytestmark = pytest.mark.e2e

EXAMPLE = Path("examples") / "machine-driver-qemu"


class Place:
    """An environment with machine and the driver, and a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        wheels = []
        for name, source in (("machine", "."), ("driver", str(EXAMPLE))):
            clean = folder / name
            clean.mkdir()
            packages.known_to_git(clean, source)
            wheels.append(packages.wheel(clean / source, folder / f"{name}-wheel"))
        self.python = packages.environment(folder / "env", *wheels)

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        own = {
            "PATH": f"{self.python.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "MACHINE_CACHE_PATH": str(CACHE),
            "MACHINE_QEMU_ACCEL": "tcg",
        }
        return subprocess.run(
            argv,
            env={**own, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    @property
    def machines(self) -> Path:
        return self.folder / ".docker" / "machine" / "machines"

    def machine(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("machine", *words)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def worker(place: Place) -> Iterator[str]:
    one = place.folder / "one.toml"
    one.write_text('base = ["debian-13"]\ncpus = 1\n')
    made = place.machine("create", "-d", "qemu", "-t", str(one), "w1")  # one that fails is undone
    assert made.returncode == 0, made.stderr
    yield "w1"
    place.machine("rm", "-f", "w1")


def test_it_is_listed_with_its_package(place: Place) -> None:
    (row,) = [
        line for line in place.machine("drivers").stdout.splitlines() if line.startswith("qemu")
    ]
    assert "machine-driver-qemu 1.0" in row
    assert "experimental" in row
    assert "--qemu-accel kvm|tcg" in place.machine("create", "-d", "qemu", "--help").stdout


def test_a_container_runs(place: Place, worker: str, docker: str, image_tar: Path) -> None:
    shown = place.machine("env", "--shell", "sh", worker)
    words = shlex.split(shown.stdout, comments=True)
    env = dict(word.split("=", 1) for word in words if "=" in word)
    imported = place.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", **env)
    assert imported.returncode == 0, imported.stderr
    ran = place.run(docker, "run", "--rm", "hello", "echo", "from a container", **env)
    assert ran.stdout == "from a container\n", ran.stderr


def test_removal_leaves_nothing(place: Place, worker: str) -> None:
    removed = place.machine("rm", "-y", worker)
    assert removed.returncode == 0, removed.stderr
    assert [each.name for each in place.machines.iterdir() if not each.name.startswith(".")] == []

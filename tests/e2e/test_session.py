"""libvirt's session mode: an ordinary user, no daemon started beforehand, everything on loopback."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.e2e.life import MachineLife
from tests.e2e.testbed import Bed, SessionBed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def before(session_bed: SessionBed) -> set[str]:
    return session_bed.inventory()


@pytest.fixture(scope="module")
def worker(session_bed: SessionBed, before: set[str]) -> str:
    made = session_bed.machine("create", "-d", "libvirt", "worker1")
    assert made.returncode == 0, made.stderr
    return "worker1"


def test_a_container_runs_by_way_of_a_forwarded_port(
    session_bed: SessionBed, worker: str, docker: str, image_tar: Path
) -> None:
    shown = session_bed.machine("env", "--shell", "sh", worker)
    assert shown.returncode == 0, shown.stderr
    words = shlex.split(shown.stdout, comments=True)
    env = dict(word.split("=", 1) for word in words if "=" in word)
    assert env["DOCKER_HOST"].startswith("tcp://127.0.0.1:")
    with image_tar.open("rb") as file:
        content = file.read()
    (session_bed.folder / "image.tar").write_bytes(content)
    (session_bed.folder / "image.tar").chmod(0o644)
    imported = session_bed.run(
        docker,
        "import",
        "-c",
        "ENV PATH=/bin",
        str(session_bed.folder / "image.tar"),
        "hello",
        env=env,
    )
    assert imported.returncode == 0, imported.stderr
    ran = session_bed.run(docker, "run", "--rm", "hello", "echo", "from a container", env=env)
    assert ran.stdout == "from a container\n", ran.stderr


class TestLife(MachineLife):
    @pytest.fixture
    def place(self, session_bed: SessionBed) -> Bed:
        return session_bed


def test_its_files_are_its_users_own(session_bed: SessionBed, worker: str) -> None:
    disks = session_bed.home / ".local" / "share" / "machine" / "disks"
    assert {each.stat().st_uid for each in disks.iterdir()} == {session_bed.user}
    record = session_bed.store / "machines" / worker / "config.json"
    assert record.stat().st_mode & 0o777 == 0o600


def test_removal_leaves_nothing(session_bed: SessionBed, worker: str, before: set[str]) -> None:
    removed = session_bed.machine("rm", "-y", worker)
    assert removed.returncode == 0, removed.stderr
    assert session_bed.inventory() == before

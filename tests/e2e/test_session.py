"""libvirt's session mode: an ordinary user, no daemon started beforehand, everything on loopback."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.life import Stopped
from tests.e2e.testbed import Bed, SessionBed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def bed() -> Iterator[SessionBed]:
    """In a folder of its own: pytest's are closed to other users."""
    with SessionBed(Path(tempfile.mkdtemp(prefix="machine-session-"))) as made:
        yield made


@pytest.fixture(scope="module")
def before(bed: SessionBed) -> set[str]:
    return bed.inventory()


@pytest.fixture(scope="module")
def worker(bed: SessionBed, before: set[str]) -> str:
    made = bed.machine("create", "-d", "libvirt", "worker1")
    assert made.returncode == 0, made.stderr
    return "worker1"


@pytest.fixture(scope="module")
def image(bed: SessionBed, image_tar: Path) -> str:
    """Where the ordinary user may read it."""
    path = bed.folder / "image.tar"
    path.write_bytes(image_tar.read_bytes())
    path.chmod(0o644)
    return str(path)


def run_container(bed: SessionBed, name: str, docker: str, image: str) -> None:
    env = bed.variables(name)
    assert env["DOCKER_HOST"].startswith("tcp://127.0.0.1:")
    imported = bed.run(docker, "import", "-c", "ENV PATH=/bin", image, "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    ran = bed.run(docker, "run", "--rm", "hello", "echo", "from a container", env=env)
    assert ran.stdout == "from a container\n", ran.stderr


def test_a_container_runs_by_way_of_a_forwarded_port(
    bed: SessionBed, worker: str, docker: str, image: str
) -> None:
    run_container(bed, worker, docker, image)


class TestLife(Stopped):
    @pytest.fixture
    def place(self, bed: SessionBed) -> Bed:
        return bed


def test_its_files_are_its_users_own(bed: SessionBed, worker: str) -> None:
    disks = bed.home / ".local" / "share" / "machine" / "disks"
    assert {each.stat().st_uid for each in disks.iterdir()} == {bed.user}
    record = bed.store / "machines" / worker / "config.json"
    assert record.stat().st_mode & 0o777 == 0o600


def test_one_starts_from_memory(bed: SessionBed, worker: str, docker: str, image: str) -> None:
    made = bed.machine("create", "-d", "libvirt", "--warm", "worker2")
    assert made.returncode == 0, made.stderr
    block = json.loads(bed.machine("inspect", "worker2").stdout)["Machine"]
    assert len(block["layers"]) == 2
    script = "hostname; cat /etc/machine-id; systemctl is-system-running --wait"
    lines = ["worker2", block["id"].replace("-", ""), "running"]
    assert bed.machine("ssh", "worker2", script).stdout.split() == lines
    run_container(bed, "worker2", docker, image)


def test_two_of_them_are_a_swarm(bed: SessionBed, worker: str, docker: str) -> None:
    """On the network that the machines of one user share, which is on loopback alone."""
    for words in (("init", worker), ("join", "worker2", "--to", worker)):
        done = bed.machine("swarm", *words)
        assert done.returncode == 0, done.stderr
    seats = bed.swarm_status(worker)["seats"]
    addresses = {seat["machine"]: seat["node"]["address"] for seat in seats}
    assert set(addresses) == {worker, "worker2"}
    assert not any(address.startswith("127.") for address in addresses.values())
    env = bed.variables(worker)
    service = ("service", "create", "--quiet", "--no-resolve-image", "--replicas", "1")
    place = ("--constraint", "node.hostname==worker2", "--publish", "8080:80")
    serve = ("hello", "sh", "-c", "echo mesh >/index.html; exec busybox httpd -f -h /")
    made = bed.run(docker, *service, *place, "--name", "web", *serve, env=env)
    assert made.returncode == 0, made.stderr
    for name, address in addresses.items():
        ask = f"exec 3<>/dev/tcp/{address}/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        answer = bed.machine("ssh", name, "bash", "-c", shlex.quote(ask))
        assert "mesh" in answer.stdout, answer.stderr


def test_removal_leaves_nothing(bed: SessionBed, worker: str, before: set[str]) -> None:
    """The worker leaves the Swarm first; with the last one it ends."""
    for name in ("worker2", worker):
        removed = bed.machine("rm", "-y", name)
        assert removed.returncode == 0, removed.stderr
    assert bed.inventory() == before

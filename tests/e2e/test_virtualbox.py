"""VirtualBox from create to a container, on the real VBoxManage; QEMU runs the VMs
(tests/vboxmanage_on_qemu.py says what that leaves out)."""

from __future__ import annotations

import json
import shlex
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from machine.workflows.create import STEPS
from tests.e2e.life import Stopped
from tests.e2e.testbed import Bed, VirtualboxBed

pytestmark = pytest.mark.e2e

CREATE = ("create", "-d", "virtualbox", "--virtualbox-no-vtx-check")
"""The processor's virtualization is none of QEMU's affairs here, and may be off where tests run."""
WITH_LAYER = [
    name for name, _, _ in STEPS if name not in ("system", "install", "configure", "start")
]
"""The steps that a machine has which begins with a layer."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualboxBed]:
    with VirtualboxBed(tmp_path_factory.mktemp("bed") / "virtualbox") as made:
        yield made


@pytest.fixture(scope="module")
def before(bed: VirtualboxBed) -> set[str]:
    return bed.inventory()


@pytest.fixture(scope="module")
def worker(bed: VirtualboxBed, before: set[str]) -> str:
    """One of two."""
    made = bed.machine(*CREATE, "worker1", "worker2")
    assert made.returncode == 0, made.stderr
    assert "Without a host-only network" in made.stderr  # whose adapter needs a kernel module
    return "worker1"


def test_a_container_runs(bed: VirtualboxBed, worker: str, docker: str, image_tar: Path) -> None:
    env = bed.variables(worker)
    assert env["DOCKER_HOST"].startswith("tcp://127.0.0.1:")
    imported = bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    ran = bed.run(docker, "run", "--rm", "hello", "echo", "from a container", env=env)
    assert ran.stdout == "from a container\n", ran.stderr


def test_machines_reach_each_other(bed: VirtualboxBed, worker: str) -> None:
    facts = json.loads(bed.machine("inspect", "worker2").stdout)["Machine"]["facts"]
    address = facts["lan"].partition("/")[0]
    script = f"exec 3<>/dev/tcp/{address}/22; head -c 8 <&3"
    reached = bed.machine("ssh", worker, f"bash -c {shlex.quote(script)}")
    assert reached.stdout == "SSH-2.0-", reached.stderr


def test_two_of_them_are_a_swarm(bed: VirtualboxBed, worker: str) -> None:
    """On the network of the second cards: what is on the first one, nobody else can reach."""
    for words in (("init", worker), ("join", "worker2", "--to", worker)):
        done = bed.machine("swarm", *words)
        assert done.returncode == 0, done.stderr
    for seat in bed.swarm_status(worker)["seats"]:
        facts = json.loads(bed.machine("inspect", seat["machine"]).stdout)["Machine"]["facts"]
        assert seat["node"]["address"] == facts["lan"].partition("/")[0]
        assert seat["node"]["state"] == "ready"
    for name in ("worker2", worker):
        left = bed.machine("swarm", "leave", "-y", name)
        assert left.returncode == 0, left.stderr


def test_both_are_laid_over_one_base(bed: VirtualboxBed, worker: str) -> None:
    folder = bed.home / ".local" / "share" / "machine" / "virtualbox"
    assert len([each for each in folder.glob("*.vdi") if not each.name.endswith(".keep.vdi")]) == 1
    disk = bed.store / "machines" / worker / worker / "disk.vdi"
    assert disk.stat().st_size < 8 << 20  # of the real one, which VirtualBox would write to


def test_the_other_is_removed_and_this_one_stays(bed: VirtualboxBed, worker: str) -> None:
    removed = bed.machine("rm", "-y", "worker2")
    assert removed.returncode == 0, removed.stderr
    assert bed.left_of("worker2") == ""
    assert bed.machine("config", worker).returncode == 0


class TestLife(Stopped):
    @pytest.fixture
    def place(self, bed: VirtualboxBed) -> Bed:
        return bed


def test_its_console(bed: VirtualboxBed, worker: str) -> None:
    """Our images boot quietly: what their kernel and systemd write is little."""
    shown = bed.machine("console", worker)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip()


NEWER = """
from machine.host import Host
from machine.store import Store
from machine.workflows import bootstrap

bootstrap.issue_server_certificate(Host.load(Store(), "worker1"))
"""


def test_a_snapshot_brings_back_what_was(bed: VirtualboxBed, worker: str) -> None:
    """The guest's disk is what stands for VirtualBox's own, laid over the same chain. What its record
    has, as a newer certificate, its engine has too in the end."""
    assert bed.machine("ssh", worker, "echo kept > letter; sync").returncode == 0
    for words in (("kill", worker), ("snapshot", "take", worker, "one"), ("start", worker)):
        done = bed.machine(*words)
        assert done.returncode == 0, done.stderr
    assert bed.machine("ssh", worker, "cat letter; rm letter; sync").stdout == "kept\n"
    issued = bed.run(*bed.tool()[:1], "-c", NEWER)
    assert issued.returncode == 0, issued.stderr
    returned = bed.machine("snapshot", "restore", "-y", "--restart", worker, "one")
    assert returned.returncode == 0, returned.stderr
    assert bed.machine("ssh", worker, "cat letter").stdout == "kept\n"
    newer = (bed.store / "machines" / worker / "server.pem").read_text()
    assert bed.served(worker) == ssl.PEM_cert_to_DER_cert(newer)
    record = json.loads(bed.machine("inspect", worker).stdout)
    assert record["Machine"]["restored"] is False
    assert bed.machine("config", worker).returncode == 0


def test_removal_leaves_nothing(bed: VirtualboxBed, worker: str, before: set[str]) -> None:
    """Running, and with a snapshot."""
    removed = bed.machine("rm", "-y", worker)
    assert removed.returncode == 0, removed.stderr
    assert bed.inventory() == before
    again = bed.machine("rm", "-y", worker)
    assert "does not exist" in again.stderr


def test_killed_at_every_step_it_is_removed(bed: VirtualboxBed, before: set[str]) -> None:

    def registered(name: str) -> Callable[[], bool]:
        return lambda: f'"{name}"' in bed.vbox("list", "vms")

    def check(step: str, name: str, once: Callable[[], bool] | None = None) -> str:
        bed.killed_at(step, *CREATE, name, once=once)
        removed = bed.machine("rm", "-y", name)
        return removed.stderr if removed.returncode else bed.left_of(name)

    with ThreadPoolExecutor(2) as pool:
        half = pool.submit(check, "vm", "gone-half", registered("gone-half"))
        left = dict(
            zip(
                WITH_LAYER,
                pool.map(check, WITH_LAYER, [f"gone-{step}" for step in WITH_LAYER]),
                strict=True,
            )
        )
    assert left == dict.fromkeys(WITH_LAYER, "")
    assert half.result() == ""
    assert bed.inventory() == before

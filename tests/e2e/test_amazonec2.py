"""EC2 from the API to a container: moto's server answers. Behind one instance is a real VM, which is
made while the other tests have hosts in namespaces behind theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import amazon, foreign_image
from tests.artefact import CACHE
from tests.e2e import region
from tests.e2e.life import Use
from tests.e2e.testbed import Bed
from tests.hosts import HostBed

pytestmark = pytest.mark.e2e

SECRET = amazon.CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
CREATE = ("create", "-d", "amazonec2")
ON_HOST = (*CREATE, "--amazonec2-tags", "is,host")
ON_VM = (*CREATE, "--amazonec2-tags", "is,vm")
BEFORE_LOGIN = ("preflight", "keys", "vm", "boot")
AFTER_LOGIN = ("system", "install", "configure", "start", "verify")  # settle is over at once


class RegionBed(Bed):
    """A network with nothing in it but EC2's API and its instances."""

    script = HostBed.script
    _region: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        image = CACHE / foreign_image.FOLDER / foreign_image.NAME
        network = ["nsenter", "-t", str(self._holder.pid), "-n", "--"]
        words = [str(self.folder), self.namespace, str(image)]
        with (self.folder / "region.log").open("wb") as log:
            self._region = subprocess.Popen(
                [*network, sys.executable, "-m", "tests.e2e.region", *words],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self._children.append(self._region)
        self.wait_for((self.folder / "region").exists, 60)

    def __exit__(self, *exc: object) -> None:
        if self._region:
            self._region.terminate()
            self._region.wait()
        super().__exit__(*exc)

    @property
    def environment(self) -> dict[str, str]:
        given = {"AWS_ENDPOINT_URL_EC2": region.URL, "AWS_EC2_METADATA_DISABLED": "true"}
        clean = {key: value for key, value in super().environment.items() if key[:4] != "AWS_"}
        return {**clean, **given, **amazon.CREDENTIALS}

    def left(self) -> list[str]:
        """Everything in the account that machines could have left."""
        code = (
            f"import json; from tests import amazon; print(json.dumps(amazon.left({region.URL!r})))"
        )
        asked = self.run(sys.executable, "-c", code)
        assert asked.returncode == 0, asked.stderr
        return list(json.loads(asked.stdout))

    def terminate(self, instance: str) -> None:
        """Behind the tool's back."""
        code = (
            "from tests import amazon; "
            f"amazon.client({region.URL!r}).terminate_instances(InstanceIds=[{instance!r}])"
        )
        assert self.run(sys.executable, "-c", code).returncode == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegionBed]:
    with RegionBed(tmp_path_factory.mktemp("region") / "bed") as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def real(place: RegionBed) -> Iterator[subprocess.Popen[str]]:
    """The create of a machine on a VM, from the moment on when its instance is there."""
    with (place.folder / "real.log").open("w") as log:
        process = place.popen(*ON_VM, "real", stderr=log)
    try:
        place.wait_for(lambda: has_instance(set(place.left())), 60)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def worker(place: RegionBed) -> str:
    """Killed at the beginning of every step that has a login, and finished after that."""
    words: tuple[str, ...] = (*ON_HOST, "worker")
    for step in ("boot", *AFTER_LOGIN):
        place.killed_at(step, *words)
        words = ("create", "--resume", "worker")
    made = place.machine(*words)
    assert made.returncode == 0, made.stderr
    return "worker"


class TestUse(Use):
    """What a machine is used for."""


def inspected(place: RegionBed, name: str, path: str) -> str:
    return place.machine("inspect", name, "-f", f"{{{{.Machine.{path}}}}}").stdout.strip()


def run_container(place: RegionBed, name: str, docker: str, image_tar: Path) -> str:
    """What it prints, on a machine that is used by nothing but the files of its folder."""
    folder, url = place.store / "machines" / name, place.machine("url", name).stdout.strip()
    env = {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
    imported = place.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    return place.run(docker, "run", "--rm", "hello", "echo", "from a container", env=env).stdout


def test_a_container_runs(place: RegionBed, worker: str, docker: str, image_tar: Path) -> None:
    assert run_container(place, worker, docker, image_tar) == "from a container\n"


def test_the_host_key_that_went_through_user_data_is_no_longer_the_hosts(
    place: RegionBed, worker: str
) -> None:
    instance = inspected(place, worker, "facts.instance")
    given = (place.folder / instance / "user-data").read_text()
    first = json.loads(given.partition("\n")[2])["ssh_keys"]["ed25519_public"].split()[1]
    address = place.machine("ip", worker).stdout.strip()
    scanned = place.run("ssh-keyscan", "-t", "ed25519", "-T", "90", address).stdout
    pinned = (place.store / "machines" / worker / "known_hosts").read_text().split()[2]
    assert scanned.split()[2] == pinned
    assert first not in scanned
    keys = place.machine("ssh", worker, "ls -A /etc/ssh | grep _key").stdout.split()
    assert keys == ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"]


def test_it_has_another_address_after_a_stop(place: RegionBed, worker: str) -> None:
    before = place.machine("ip", worker).stdout
    stopped = place.machine("stop", worker)
    assert stopped.returncode == 0, stopped.stderr
    assert place.machine("status", worker).stdout == "Stopped\n"
    started = place.machine("start", worker, timeout=900)
    assert started.returncode == 0, started.stderr
    after = place.machine("ip", worker).stdout
    assert after != before
    assert after.strip() in place.machine("url", worker).stdout
    assert place.machine("config", worker).returncode == 0
    assert after.strip() in place.machine("ls").stdout


def test_its_size_is_another_one_after_a_restart(place: RegionBed, worker: str) -> None:
    resized = place.machine(
        "resize", "--restart", "--size", "t3.large", "--disk", "40", worker, timeout=900
    )
    assert resized.returncode == 0, resized.stderr
    assert inspected(place, worker, "config.instance_type") == "t3.large"
    assert place.machine("config", worker).returncode == 0


@pytest.mark.parametrize("step", [*BEFORE_LOGIN, *AFTER_LOGIN[::2]])
def test_a_create_that_is_killed_leaves_nothing_once_it_is_removed(
    place: RegionBed, step: str
) -> None:
    before = set(place.left())
    place.killed_at(step, *(CREATE if step in BEFORE_LOGIN else ON_HOST), "cut")
    removed = place.machine("rm", "-y", "cut")
    assert removed.returncode == 0, removed.stderr
    assert set(place.left()) == before


def test_an_instance_whose_id_never_arrived_is_removed(place: RegionBed) -> None:
    """Killed after RunInstances did its work, and before its answer came."""
    before = set(place.left())
    words = (*CREATE, "--amazonec2-endpoint", region.SILENT_URL, "cut")
    place.killed_at("vm", *words, once=lambda: has_instance(set(place.left()) - before))
    assert inspected(place, "cut", "facts.instance") == ""
    removed = place.machine("rm", "-y", "cut")
    assert removed.returncode == 0, removed.stderr
    assert set(place.left()) == before


def has_instance(found: set[str]) -> bool:
    return any(each.startswith("i-") for each in found)


def test_an_instance_that_was_ended_by_others(place: RegionBed, worker: str) -> None:
    place.terminate(inspected(place, worker, "facts.instance"))
    assert place.machine("status", worker).stdout == "Not Found\n"
    gone = place.machine("start", worker)
    assert gone.returncode == 4
    assert "does not exist any more" in gone.stderr
    removed = place.machine("rm", "-y", worker)
    assert removed.returncode == 0, removed.stderr
    assert place.machine("ls", "-q").stdout == "real\n"


def test_a_container_runs_on_a_real_vm(
    place: RegionBed, real: subprocess.Popen[str], docker: str, image_tar: Path
) -> None:
    real.wait(1500)
    assert real.returncode == 0, (place.folder / "real.log").read_text()
    assert run_container(place, "real", docker, image_tar) == "from a container\n"


def test_nothing_is_left_in_the_account_after_the_last_one(place: RegionBed) -> None:
    removed = place.machine("rm", "-y", "real")
    assert removed.returncode == 0, removed.stderr
    assert place.left() == []
    assert place.machine("ls", "-q").stdout == ""


def test_the_secret_key_is_nowhere(place: RegionBed) -> None:
    """Whatever was written: records, logs, keys, what the tests kept of standard error."""
    found = place.run("grep", "-rl", SECRET, str(place.store), str(place.home), str(place.folder))
    assert found.stdout == ""

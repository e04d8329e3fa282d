"""EC2 from the API to a container: moto's server answers, and a real VM is the instance."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import amazon, foreign_image
from tests.e2e import region
from tests.e2e.life import Use
from tests.e2e.testbed import CACHE, Bed

pytestmark = pytest.mark.e2e

SECRET = amazon.CREDENTIALS["AWS_SECRET_ACCESS_KEY"]


class RegionBed(Bed):
    """A namespace with nothing in it but loopback, and EC2 on that."""

    script = """
set -eu
ip link set lo up
touch "$1/ready"
exec sleep infinity
"""

    def start(self) -> None:
        image = CACHE / foreign_image.FOLDER / foreign_image.NAME
        argv = [*self.inside(), sys.executable, "-m", "tests.e2e.region"]
        self._children.append(
            subprocess.Popen([*argv, str(self.folder), str(image)], env=self.environment)
        )
        self.wait_for((self.folder / "region").exists, 60)

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


CREATE = ("create", "-d", "amazonec2")


@pytest.fixture(scope="module")
def worker(place: RegionBed) -> str:
    """Killed when its instance ran and nothing else was known, and finished after that."""
    place.killed_at("boot", *CREATE, "--amazonec2-tags", "vm,yes", "worker")
    made = place.machine("create", "--resume", "worker", timeout=1500)
    assert made.returncode == 0, made.stderr
    return "worker"


class TestUse(Use):
    """What a machine is used for."""


def inspected(place: RegionBed, name: str, path: str) -> str:
    return place.machine("inspect", name, "-f", f"{{{{.Machine.{path}}}}}").stdout.strip()


def test_a_container_runs(place: RegionBed, worker: str, docker: str, image_tar: Path) -> None:
    folder, url = place.store / "machines" / worker, place.machine("url", worker).stdout.strip()
    env = {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
    imported = place.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    ran = place.run(docker, "run", "--rm", "hello", "echo", "from a container", env=env)
    assert ran.stdout == "from a container\n"


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


@pytest.mark.parametrize("step", ["preflight", "keys", "vm", "boot"])
def test_a_create_that_is_killed_leaves_nothing_once_it_is_removed(
    place: RegionBed, step: str
) -> None:
    before = set(place.left())
    place.killed_at(step, *CREATE, "cut")
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
    """The last one: nothing is left of the machine, and nothing in the account."""
    place.terminate(inspected(place, worker, "facts.instance"))
    assert place.machine("status", worker).stdout == "Not Found\n"
    gone = place.machine("start", worker)
    assert gone.returncode == 4
    assert "does not exist any more" in gone.stderr
    removed = place.machine("rm", "-y", worker)
    assert removed.returncode == 0, removed.stderr
    assert place.left() == []
    assert place.machine("ls", "-q").stdout == ""


def test_the_secret_key_is_nowhere(place: RegionBed) -> None:
    """Whatever was written: records, logs, keys, what the tests kept of standard error."""
    found = place.run("grep", "-rl", SECRET, str(place.store), str(place.home), str(place.folder))
    assert found.stdout == ""

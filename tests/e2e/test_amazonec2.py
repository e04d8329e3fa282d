"""EC2 from the API to a container: moto's server answers, and a real VM is the instance."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import amazon, foreign_image
from tests.e2e import region
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

    def has_instance(self) -> bool:
        return any(each.startswith("i-") for each in self.left())

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


@pytest.fixture(scope="module")
def worker(place: RegionBed) -> Iterator[str]:
    made = place.machine(
        "create", "-d", "amazonec2", "--amazonec2-tags", "vm,yes", "worker", timeout=1500
    )
    assert made.returncode == 0, made.stderr
    yield "worker"
    assert place.machine("rm", "-y", "worker").returncode == 0


def test_walk(place: RegionBed, worker: str) -> None:
    assert place.machine("config", worker).returncode == 0

"""The engines of a Swarm, one after the other, while a service goes on: these tests build on each
other in order."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.testbed import of_process
from tests.hosts import HostBed
from tests.integration.test_swarm import docker, has_image, run, seats

NAMES = ("m1", "w1", "w2")
SERVE = "while :; do busybox sleep 1; done; : rolling-"
BREAK = "/etc/systemd/system/docker.service.d/50-broken.conf"


class Counter:
    """How many tasks ran at a time, at the least."""

    def __init__(self, bed: HostBed) -> None:
        self._mark = f"{SERVE}{bed.namespace}"
        self._end = threading.Event()
        self.least = self.now()
        self._thread = threading.Thread(target=self._count)

    def now(self) -> int:
        """By this computer's own list: no engine has to answer for it."""
        numbers = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
        shown = [of_process(number, "cmdline").split("\0") for number in numbers]
        return sum(words[:3] == ["sh", "-c", self._mark] for words in shown)

    def _count(self) -> None:
        while not self._end.wait(0.1):
            self.least = min(self.least, self.now())

    def __enter__(self) -> Counter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, image_tar: Path) -> Iterator[HostBed]:
    with HostBed(tmp_path_factory.mktemp("rolling") / "roll", *NAMES) as made:
        first = made.create("m1", "--swarm-manager")
        assert "m1 is the manager of a new Swarm" in first.stderr
        with ThreadPoolExecutor() as pool:
            joining = [pool.submit(made.create, name, "--swarm-join", "m1") for name in NAMES[1:]]
        for each in joining:
            assert "is a worker of the Swarm of m1" in each.result().stderr
        for name in NAMES:
            has_image(made, name, image_tar)
        create = ("service", "create", "--quiet", "--no-resolve-image", "--replicas", "3")
        task = ("tiny", "sh", "-c", f"{SERVE}{made.namespace}")
        docker(made, "m1", *create, "--stop-grace-period", "1s", "--name", "web", *task)
        made.eventually(lambda: Counter(made).now() == 3)
        yield made


def upgrade(bed: HostBed, *words: str) -> subprocess.CompletedProcess[str]:
    return bed.machine("swarm", "upgrade", "w1", *words)


def tier(bed: HostBed, name: str) -> str:
    """The label that its engine has, beside its provider."""
    shown = bed.machine("ssh", name, "sudo docker info -f '{{json .Labels}}'")
    assert shown.returncode == 0, shown.stderr
    (label,) = set(json.loads(shown.stdout)) - {"provider=generic"}
    return str(label)


def availabilities(bed: HostBed) -> set[str]:
    return {seat["availability"] for seat in seats(bed, "m1").values()}


def test_every_engine_is_changed_while_the_service_goes_on(bed: HostBed) -> None:
    with Counter(bed) as tasks:
        done = upgrade(bed, "--engine-label", "tier=gold")
    assert done.returncode == 0, done.stderr
    assert tasks.least >= 1
    assert [tier(bed, name) for name in NAMES] == ["tier=gold"] * 3
    told = [line for line in done.stderr.splitlines() if "changed, and still" in line]
    assert [line.split(")")[0] for line in told] == ["(w1", "(w2", "(m1"]
    assert "While a manager restarts there is no quorum" in done.stderr
    assert availabilities(bed) == {"active"}
    bed.eventually(lambda: Counter(bed).now() == 3)


def test_what_is_so_is_passed_over(bed: HostBed) -> None:
    again = upgrade(bed, "--engine-label", "tier=gold")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already at") == 3
    assert "Moving its tasks" not in again.stderr


def test_one_alone_hands_its_tasks_over_as_well(bed: HostBed) -> None:
    done = bed.machine("upgrade", "w1", "--engine-label", "tier=own")
    assert done.returncode == 0, done.stderr
    assert "Moving its tasks" in done.stderr
    assert "w1: changed, and still" in done.stderr
    assert [tier(bed, name) for name in NAMES] == ["tier=gold", "tier=own", "tier=gold"]
    assert availabilities(bed) == {"active"}


def test_one_that_is_refused_takes_tasks_as_before(bed: HostBed) -> None:
    refused = upgrade(bed, "--engine-opt", "nosuch=1")
    assert refused.returncode == 1
    assert "dockerd refuses the engine options" in refused.stderr
    assert "It stopped at w1, and m1, w2 had not begun" in refused.stderr
    assert availabilities(bed) == {"active"}


def test_one_that_does_not_come_back_stops_it_and_the_next_run_goes_on(bed: HostBed) -> None:
    broken = f"printf '[Service]\\nExecStartPre=/bin/false\\n' | sudo tee {BREAK}"
    assert bed.machine("ssh", "w2", broken).returncode == 0
    with Counter(bed) as tasks:
        failed = upgrade(bed, "--engine-label", "tier=lead")
    assert failed.returncode == 1
    assert 'The engine of "w2" could not be brought to its new options, and going back failed' in (
        failed.stderr
    )
    assert "It stopped at w2, and m1 had not begun" in failed.stderr
    assert (tier(bed, "w1"), tier(bed, "m1")) == ("tier=lead", "tier=gold")
    assert seats(bed, "m1")["w2"]["availability"] == "drain"
    assert tasks.least >= 1
    bed.eventually(lambda: Counter(bed).now() == 3)

    assert bed.machine("ssh", "w2", f"sudo rm {BREAK}").returncode == 0
    with Counter(bed) as tasks:
        done = upgrade(bed, "--engine-label", "tier=lead")
    assert done.returncode == 0, done.stderr
    assert tasks.least >= 1
    assert [tier(bed, name) for name in NAMES] == ["tier=lead"] * 3
    assert availabilities(bed) == {"active"}


def test_killed_with_a_node_aside_it_is_given_back(bed: HostBed) -> None:
    bed.killed_at("start", "swarm", "upgrade", "m1", "--engine-label", "tier=tin")
    assert seats(bed, "m1")["w1"]["availability"] == "drain"
    done = upgrade(bed, "--engine-label", "tier=tin")
    assert done.returncode == 0, done.stderr
    assert "(w1) An upgrade was cut off here" in done.stderr
    assert [tier(bed, name) for name in NAMES] == ["tier=tin"] * 3
    assert availabilities(bed) == {"active"}


def test_three_managers_go_one_after_the_other_and_their_leader_last(bed: HostBed) -> None:
    run(bed, "swarm", "promote", "w1", "w2")
    leader = bed.swarm_status("m1")["leader"]
    docker(bed, leader, "service", "update", "--quiet", "--force", "web")  # spread over all
    with Counter(bed) as tasks:
        done = upgrade(bed, "--engine-label", "tier=three")
    assert done.returncode == 0, done.stderr
    assert tasks.least >= 1
    told = re.findall(r"\((\w+)\) changed, and still", done.stderr)
    assert (sorted(told), told[-1]) == (sorted(NAMES), leader)
    assert "there is no quorum" not in done.stderr
    run(bed, "swarm", "demote", "w1", "w2")


def test_it_does_not_begin_where_one_is_missing(bed: HostBed) -> None:
    bed.hosts["w2"].cut_off()
    bed.eventually(lambda: seats(bed, "m1")["w2"]["state"] == "down")
    refused = upgrade(bed, "--engine-label", "tier=last")
    assert refused.returncode == 1
    assert "Not all of the Swarm is there: w2" in refused.stderr
    assert "machine start w2" in refused.stderr
    assert tier(bed, "w1") == "tier=three"

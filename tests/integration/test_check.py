"""`machine check` on a real engine. The hosts' control groups limit nothing (their computer's are of
version 1), and their kernel has no ip_vs: a check has to find both, and to say how it sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts import HostBed

HOLDS = {
    *("pid namespace", "net namespace", "mount namespace", "uts namespace", "ipc namespace"),
    *("cgroup namespace", "union file system", "copy on write", "veth pair", "bridge"),
    *("address from the pool", "default route", "DNS between containers"),
}
LEFT = """
sudo docker ps --all --format '{{.Names}}'
sudo docker images --quiet --filter label=machine.check
sudo docker network ls --quiet --filter label=machine.check
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    with HostBed(tmp_path_factory.mktemp("bed") / "check", "m1") as made:
        created = made.create("m1")
        assert created.returncode == 0, created.stderr
        yield made


def left(bed: HostBed) -> list[str]:
    return bed.machine("ssh", "m1", LEFT).stdout.split()


def interrupted(bed: HostBed, number: signal.Signals) -> int:
    """The exit code of a check that got a signal while its containers ran."""
    process = subprocess.Popen(
        [*bed.inside(), *bed.tool(), "check", "m1"],
        env=bed.environment,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    bed.wait_for(lambda: "machine-check-peer" in left(bed), 60)
    os.kill(process.pid, number)
    return process.wait()


def test_what_holds_is_shown_and_what_does_not_is_found(bed: HostBed) -> None:
    shown = bed.machine("check", "--output", "json", "m1")
    assert shown.returncode == 1, shown.stderr
    envelope = json.loads(shown.stdout)
    assert envelope["kind"] == "check"
    found: dict[str, dict[str, Any]] = {each["name"]: each for each in envelope["data"]}
    assert {name for name, each in found.items() if each["outcome"] == "ok"} == HOLDS
    assert all(each["evidence"] for each in found.values() if each["outcome"] != "not applicable")
    assert all(each["look"] and each["explanation"] for each in found.values())
    assert found["user namespace"]["text"] == "off on this engine"
    assert found["routing mesh"]["text"] == "the host is in no Swarm"

    memory, cpu = found["memory limit"], found["CPU limit"]
    assert (memory["outcome"], cpu["outcome"]) == ("failed", "failed")
    assert memory["text"] == "96 MiB were given to a container that may have 32"
    assert "the group has no limit" in memory["evidence"]
    assert any("Limitation discarded" in line for line in memory["evidence"])
    assert "the group has no quota" in cpu["evidence"]
    assert any("quota discarded" in line for line in cpu["evidence"])
    assert shown.stderr.splitlines()[-1] == "Does not hold on m1: memory limit, CPU limit"
    assert left(bed) == []


def test_ctrl_c_leaves_nothing(bed: HostBed) -> None:
    assert interrupted(bed, signal.SIGINT) == 130
    assert left(bed) == []


def test_what_a_killed_check_left_is_removed_by_the_next_which_looks_at_the_swarm(
    bed: HostBed,
) -> None:
    interrupted(bed, signal.SIGKILL)
    assert len(left(bed)) == 4
    address = bed.hosts["m1"].address
    started = bed.machine("ssh", "m1", f"sudo docker swarm init --advertise-addr {address}")
    assert started.returncode == 0, started.stderr

    shown = bed.machine("check", "--explain", "m1")

    assert shown.returncode == 1
    lines = shown.stdout.splitlines()
    assert "ok              overlay network: one container reaches another over it" in lines
    assert any(line.startswith("failed          service address: ") for line in lines)
    assert any(line.startswith("failed          routing mesh: ") for line in lines)
    assert "                $ sudo readlink /proc/$pid/ns/net /proc/1/ns/net" in lines
    assert "Two interfaces that are the ends of one cable" in shown.stdout
    assert left(bed) == []
    services = bed.machine("ssh", "m1", "sudo docker service ls --quiet")
    assert (services.returncode, services.stdout) == (0, "")


def test_a_machine_without_a_login_or_engine_is_told(bed: HostBed) -> None:
    unknown = bed.machine("check", "nosuch")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    bed.machine("create", "-d", "none", "--url", "tcp://127.0.0.1:1", "engine")
    refused = bed.machine("check", "engine")
    assert refused.returncode == 1
    assert "bug" not in refused.stderr

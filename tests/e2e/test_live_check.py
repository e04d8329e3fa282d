"""All that `machine check` shows, on a kernel of its own: limits and a Swarm's networks need it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.testbed import SystemBed

pytestmark = pytest.mark.e2e

HOLDS = {
    *("pid namespace", "net namespace", "mount namespace", "uts namespace", "ipc namespace"),
    *("cgroup namespace", "memory limit", "CPU limit", "union file system", "copy on write"),
    *("veth pair", "bridge", "address from the pool", "default route", "DNS between containers"),
    *("overlay network", "service address", "routing mesh"),
}
LEFT = """
sudo docker ps --all --quiet
sudo docker images --quiet
sudo docker service ls --quiet
sudo docker network ls --quiet --filter label=machine.check
"""


def test_all_of_it_holds_on_a_manager(bed: SystemBed) -> None:
    made = bed.machine("create", "-d", "libvirt", "checked")
    assert made.returncode == 0, made.stderr
    address = bed.machine("ip", "checked").stdout.strip()
    started = bed.machine("ssh", "checked", f"sudo docker swarm init --advertise-addr {address}")
    assert started.returncode == 0, started.stderr

    shown = bed.machine("check", "--output", "json", "checked")

    assert shown.returncode == 0, shown.stdout + shown.stderr
    verdicts: list[dict[str, Any]] = json.loads(shown.stdout)["data"]
    found = {each["name"]: each for each in verdicts}
    assert {name for name, each in found.items() if each["outcome"] == "ok"} == HOLDS, shown.stdout
    assert found["user namespace"]["outcome"] == "not applicable"
    assert any("oom_kill grew by 1" in line for line in found["memory limit"]["evidence"])
    here = [
        line for line in found["routing mesh"]["evidence"] if line.startswith("asked from here")
    ]
    assert "this is" in here[0]
    left = bed.machine("ssh", "checked", LEFT)
    assert (left.returncode, left.stdout) == (0, ""), left.stderr
    assert bed.machine("rm", "-y", "checked").returncode == 0

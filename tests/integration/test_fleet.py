"""`machine plan`, `apply`, `drift` and `destroy` on real hosts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.store import Store
from tests.container_images import docker_archive, tree
from tests.hosts import HostBed

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "hosts.toml"
REGISTERED = """
name = "lab"
[variables]
more = 1
[defaults]
driver = "generic"
setup = "register"
[defaults.generic]
ssh_user = "machine"
ssh_key = "{key}"
"""
"""Of hosts on which nothing is changed: they are there at once."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    with HostBed(tmp_path_factory.mktemp("fleet") / "bed", "m1", "w1") as made:
        yield made


def key_of(bed: HostBed, name: str) -> str:
    return (bed.hosts[name].folder / "host_key.pub").read_text().strip()


def registered(bed: HostBed, *names: str, needs: str = "") -> Path:
    """A file with hosts of these names."""
    text = REGISTERED.format(key=bed.key)
    for name in names:
        text += f"\n[machines.{name}]\n"
        text += f'needs = ["{needs}"]\n' if needs and name != needs else ""
        text += f'[machines.{name}.generic]\nip_address = "{bed.hosts[name].address}"\n'
        text += f'host_key = "{key_of(bed, name)}"\n'
    path = bed.folder / "lab.toml"
    path.write_text(text)
    return path


def steps_of(ran: subprocess.CompletedProcess[str]) -> list[str]:
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["data"]["steps"]
    return [f"{step['machine']}:{step['action']}" for step in found]


def test_a_fleet_from_its_file_to_its_end(bed: HostBed) -> None:
    file = bed.folder / "hosts.toml"
    file.write_text(EXAMPLE.read_text())
    words = ["-f", str(file), "--set", "user=machine", "--set", f"key={bed.key}"]
    for variable, name in (("manager", "m1"), ("worker", "w1")):
        words += ["--set", f"{variable}={bed.hosts[name].address}"]
        words += ["--set", f"{variable}_key={key_of(bed, name)}"]

    planned = bed.machine("plan", *words, "--exit-code")
    assert planned.returncode == 2
    assert "+ create   m1" in planned.stdout
    assert "hosts: 2 to create" in planned.stdout
    applied = bed.machine("apply", *words, "--parallel", "4")
    assert applied.returncode == 0, applied.stderr
    listed = json.loads(bed.machine("ls", "--output", "json").stdout)["data"]
    assert [(each["name"], each["swarm"]) for each in listed] == [
        ("m1", "manager"),
        ("w1", "worker"),
    ]
    seen = bed.machine("swarm", "status", "m1", "--output", "json").stdout
    assert '"tier": "back"' in seen

    assert bed.machine("plan", *words, "--exit-code").stdout == "hosts: nothing to do\n"
    again = bed.machine("apply", *words)
    assert again.returncode == 0
    assert "..." not in again.stderr, "a step was done"

    docker_archive(bed.folder / "app.tar", {"app:1": [tree({"app": b"its program"})]})
    text = EXAMPLE.read_text().replace('tier = "front"', 'tier = "edge"')
    file.write_text(text.replace("[machines.w1]\n", '[machines.w1]\npush = ["app.tar"]\n'))
    before = Store(bed.store).load("m1").ours.id
    changed = bed.machine("apply", *words)
    assert changed.returncode == 0, changed.stderr
    assert "labels: tier=front -> tier=edge" in changed.stderr
    assert f"push: (none) -> {bed.folder}/app.tar" in changed.stderr
    assert "app" in bed.machine("ssh", "w1", "docker image ls").stdout
    assert Store(bed.store).load("m1").ours.id == before, "it was made anew"
    configured = bed.machine("ssh", "m1", "cat /etc/docker/daemon.json").stdout
    assert json.loads(configured)["labels"] == ["provider=generic", "tier=edge"]

    assert bed.machine("drift", *words, "--exit-code").returncode == 0
    bed.machine("ssh", "m1", "sudo sed -i s/tier=edge/tier=lost/ /etc/docker/daemon.json")
    drifted = bed.machine("drift", *words, "--exit-code")
    assert drifted.returncode == 2
    assert "m1: differs" in drifted.stdout
    assert '-        "tier=lost"' in drifted.stdout
    assert '+        "tier=edge"' in drifted.stdout
    assert "w1: as the file says" in drifted.stdout

    text = file.read_text()
    file.write_text(text[: text.index("[machines.w1]")])
    asked = bed.machine("apply", *words)
    assert asked.returncode == 2
    assert "- remove   w1" in asked.stderr
    assert "Add --yes" in asked.stderr
    assert Store(bed.store).exists("w1")
    assert steps_of(bed.machine("plan", *words, "--output", "json")) == ["w1:leave", "w1:remove"]
    assert bed.machine("apply", *words, "--yes").returncode == 0
    assert Store(bed.store).names() == ["m1"]

    asked = bed.machine("destroy", *words)
    assert asked.returncode == 2
    assert "The Swarm ends" in asked.stderr
    destroyed = bed.machine("destroy", *words, "--yes", "--undo")
    assert destroyed.returncode == 0, destroyed.stderr
    assert Store(bed.store).names() == []
    assert not bed.run(*_login(bed, "m1"), "ls /etc/docker/daemon.json").stdout
    state = "sudo docker info --format '{{.Swarm.LocalNodeState}}'"
    assert bed.run(*_login(bed, "w1"), state).stdout.strip() == "inactive"


def _login(bed: HostBed, name: str) -> list[str]:
    """The host's own, once it is no machine any more."""
    unknown = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    return ["ssh", "-i", str(bed.key), *unknown, f"machine@{bed.hosts[name].address}"]


def test_an_apply_that_is_killed_goes_on(bed: HostBed) -> None:
    file = registered(bed, "m1", "w1", needs="m1")
    bed.killed_at("boot", "apply", "-f", str(file))
    assert Store(bed.store).names() == ["m1"]
    planned = bed.machine("plan", "-f", str(file), "--output", "json")
    assert steps_of(planned) == ["m1:resume", "w1:create"]
    alone = bed.machine("plan", "-f", str(file), "--only", "w1")
    assert alone.returncode == 2
    assert '"w1" (create) rests on "m1" (resume), which is left out' in alone.stderr
    assert "Add --only m1" in alone.stderr
    unknown = bed.machine("plan", "-f", str(file), "--only", "w2")
    assert unknown.returncode == 2
    assert 'has no machine and no table "w2"' in unknown.stderr
    applied = bed.machine("apply", "-f", str(file))
    assert applied.returncode == 0, applied.stderr
    assert "nothing to do" in bed.machine("plan", "-f", str(file)).stdout
    assert bed.machine("destroy", "-f", str(file), "--yes").returncode == 0


def test_a_host_that_fails_holds_up_what_needs_it_alone(bed: HostBed) -> None:
    file = registered(bed, "m1", "w1")
    text = file.read_text().replace(bed.hosts["m1"].address, "10.79.0.77")
    file.write_text(text.replace("[machines.w1]", '[machines.w1]\nneeds = ["m1"]'))
    failed = bed.machine("apply", "-f", str(file))
    assert failed.returncode == 3
    assert "Not done, because of what failed before it: create of w1" in failed.stderr
    assert Store(bed.store).names() == []
    file.write_text(text)
    assert bed.machine("apply", "-f", str(file)).returncode == 3
    assert Store(bed.store).names() == ["w1"]
    left_out = bed.machine("plan", "-f", str(file), "--only", "w1")
    assert left_out.stdout == "lab: nothing to do\n"
    assert bed.machine("destroy", "-f", str(file), "--yes").returncode == 0


def test_only_one_works_on_a_fleet(bed: HostBed) -> None:
    file = registered(bed, "m1")
    with Store(bed.store).fleet_lock("lab"):
        for command in ("apply", "destroy"):
            refused = bed.machine(command, "-f", str(file), "--yes")
            assert refused.returncode == 1
            assert 'Another process is working on "fleet lab"' in refused.stderr
        assert bed.machine("plan", "-f", str(file)).returncode == 0
    assert Store(bed.store).names() == []


def test_a_machine_made_by_hand_is_taken_in_only_when_asked(bed: HostBed) -> None:
    file = registered(bed, "m1")
    assert bed.create("m1", "--register").returncode == 0
    refused = bed.machine("plan", "-f", str(file))
    assert refused.returncode == 2
    assert "m1: there already, and not made by a fleet's file" in refused.stderr
    adopted = bed.machine("apply", "-f", str(file), "--adopt")
    assert adopted.returncode == 0, adopted.stderr
    assert Store(bed.store).load("m1").ours.fleet == "lab"
    assert "nothing to do" in bed.machine("plan", "-f", str(file)).stdout
    other = bed.folder / "other.toml"
    other.write_text(file.read_text().replace('"lab"', '"other"'))
    taken = bed.machine("plan", "-f", str(other))
    assert taken.returncode == 2
    assert 'The machine "m1" belongs to the fleet lab' in taken.stderr
    assert bed.machine("destroy", "-f", str(file), "--yes").returncode == 0


def test_a_schema_for_editors(bed: HostBed) -> None:
    ran = bed.machine("plan", "--schema")
    assert ran.returncode == 0
    machine = json.loads(ran.stdout)["properties"]["machines"]["additionalProperties"]
    assert "ip_address" in machine["properties"]["generic"]["properties"]


def test_files_that_are_not_there_or_wrong(bed: HostBed) -> None:
    missing = bed.machine("plan")
    assert missing.returncode == 2
    assert "There is no machines.toml" in missing.stderr
    file = bed.folder / "wrong.toml"
    file.write_text('name = "lab"\n[machines.m1]\ndriver = "generic"\n')
    wrong = bed.machine("plan", "-f", str(file), "--output", "json")
    assert wrong.returncode == 2
    assert json.loads(wrong.stdout)["data"]["kind"] == "FleetError"
    assert "m1: The generic driver needs to know which host" in wrong.stdout
    for given in ("more", "mor=1"):
        assert bed.machine("plan", "-f", str(file), "--set", given).returncode == 2

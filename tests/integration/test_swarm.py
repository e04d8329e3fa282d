"""A Swarm of real engines on hosts without VMs: these tests build on each other in order.

Routing mesh and overlay networks are the kernel's, and are shown on VMs.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from machine import tls
from tests.hosts import HostBed

NAMES = ("m1", "w1", "w2")
OPTIONS = {"m1": ("--engine-opt", "data-root=/var/lib/docker/elsewhere")}
SERVE = "while :; do busybox sleep 1; done"
TIED = ("--stop-grace-period", "1s", "--constraint", "node.hostname==w2", "--name", "tied")


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, image_tar: Path) -> Iterator[HostBed]:
    with HostBed(tmp_path_factory.mktemp("swarm") / "bed", *NAMES) as made:
        with ThreadPoolExecutor() as pool:
            for done in pool.map(lambda name: made.create(name, *OPTIONS.get(name, ())), NAMES):
                assert done.returncode == 0, done.stderr
        for name in NAMES:
            has_image(made, name, image_tar)
        yield made


def has_image(bed: HostBed, name: str, archive: Path) -> None:
    """A container image of busybox alone."""
    words = "docker import -c 'ENV PATH=/bin' - tiny"
    bed.hosts[name].root(words, stdin=archive.read_bytes())


def run(bed: HostBed, *words: str, code: int = 0) -> str:
    done = bed.machine(*words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def docker(bed: HostBed, name: str, *words: str) -> str:
    """The engine's own client, on a host."""
    done = bed.machine("ssh", name, "sudo", "docker", *(f"'{word}'" for word in words))
    assert done.returncode == 0, done.stderr
    return done.stdout


def seats(bed: HostBed, name: str) -> dict[str, dict[str, Any]]:
    return {seat["machine"]: {**seat["node"], **seat} for seat in bed.swarm_status(name)["seats"]}


def test_outside(bed: HostBed) -> None:
    assert '"m1" is in no Swarm' in run(bed, "swarm", "status", "m1", code=1)
    assert '"m1" is in no Swarm' in run(bed, "swarm", "join", "w1", "--to", "m1", code=1)
    assert '"w1" is in no Swarm' in run(bed, "swarm", "leave", "-y", "w1", code=1)
    assert json.loads(run(bed, "swarm", "ls", "--output", "json"))["data"] == []


def test_begun_and_joined(bed: HostBed) -> None:
    assert "stands the loss of none" in run(bed, "swarm", "init", "m1", "--label", "rack=7")
    run(bed, "swarm", "join", "w1", "w2", "--to", "m1")
    found = seats(bed, "w2")
    assert {name: seat["role"] for name, seat in found.items()} == {
        "m1": "manager",
        "w1": "worker",
        "w2": "worker",
    }
    assert found["m1"]["labels"] == {"driver": "generic", "template": "default", "rack": "7"}
    assert found["w1"]["address"] == bed.hosts["w1"].address
    assert bed.swarm_status("m1")["certificate_days"] == 90
    file = "/var/lib/docker/swarm/certificates/swarm-node.crt"
    own = tls.ends(bed.hosts["w1"].root(f"cat {file}").encode()).date()
    assert re.search(rf"(?m)^w1 .* {own} ", run(bed, "swarm", "status", "--certificates", "m1"))
    roles = {row["name"]: row["swarm"] for row in listed(bed)}
    assert roles == {"m1": "manager", "w1": "worker", "w2": "worker"}
    only = bed.machine("ls", "--filter", "swarm=manager", "-q").stdout
    assert only == "m1\n"


def listed(bed: HostBed) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(bed.machine("ls", "--output", "json").stdout)["data"]
    return rows


def test_joining_twice_changes_nothing(bed: HostBed) -> None:
    said = run(bed, "swarm", "join", "w1", "--to", "m1", code=1)
    assert '"w1" is in a Swarm already, as a worker' in said
    assert '"m1" is in a Swarm already, as a manager' in run(bed, "swarm", "init", "m1", code=1)
    assert len(seats(bed, "m1")) == 3


def test_an_engine_of_another_authority_is_not_spoken_to(bed: HostBed, tmp_path: Path) -> None:
    """As where another store of machines took the host over."""
    other = tls.Authority(tmp_path / "certs", tmp_path / "lock")
    other.ensure()
    cert, key = other.issue_server([bed.hosts["w1"].address])
    theirs = {"ca.pem": (other.certs / "ca.pem").read_bytes(), "server.pem": cert}
    for name, pem in {**theirs, "server-key.pem": key}.items():
        bed.hosts["w1"].root(f"cat >/etc/docker/{name}", stdin=pem)
    bed.hosts["w1"].root("systemctl restart docker")
    said = run(bed, "swarm", "join", "w1", "--to", "m1", code=1)
    assert "has a certificate that does not fit" in said
    assert "machine regenerate-certs NAME" in said
    run(bed, "regenerate-certs", "-f", "w1")
    bed.eventually(lambda: {seat["state"] for seat in seats(bed, "m1").values()} == {"ready"})


def test_tokens_are_told_and_kept_nowhere(bed: HostBed) -> None:
    told = bed.machine("swarm", "token", "m1").stdout
    assert re.fullmatch(r"SWMTKN-1-\S+\n", told)
    for_managers = bed.machine("swarm", "token", "--manager", "w1").stdout
    rotated = bed.machine("swarm", "token", "--rotate", "m1").stdout
    assert len({told, for_managers, rotated}) == 3
    assert bed.machine("swarm", "token", "--manager", "m1").stdout == for_managers
    found = subprocess.run(
        ["grep", "-rl", "SWMTKN", str(bed.store)], capture_output=True, text=True
    )
    assert found.stdout == ""


def test_what_one_knows_of_by_others_is_learned(bed: HostBed) -> None:
    """As if others had brought it in: its record knows nothing."""
    record = bed.store / "machines" / "w1" / "config.json"
    raw = json.loads(record.read_text())
    raw["Machine"]["swarm"] = raw["Machine"]["node"] = ""
    record.write_text(json.dumps(raw))
    assert set(seats(bed, "m1")) == set(NAMES)
    assert json.loads(record.read_text())["Machine"]["swarm"] == bed.swarm_status("m1")["cluster"]


def test_a_drained_node_hands_its_tasks_over(bed: HostBed) -> None:
    create = ("service", "create", "--quiet", "--no-resolve-image", "--replicas", "3")
    docker(
        bed, "m1", *create, "--stop-grace-period", "1s", "--name", "web", "tiny", "sh", "-c", SERVE
    )
    assert [seat["tasks"] for seat in seats(bed, "m1").values()] == [1, 1, 1]
    docker(bed, "m1", *create[:-1], "1", *TIED, "tiny", "sh", "-c", SERVE)
    said = run(bed, "swarm", "drain", "w2")
    assert "have not found another place to run: no suitable node (scheduling constraints" in said
    assert "no suitable node" in run(bed, "swarm", "status", "m1")
    docker(bed, "m1", "service", "rm", "tied")
    found = seats(bed, "m1")
    assert found["w2"]["availability"] == "drain"
    assert found["w2"]["tasks"] == 0
    assert sum(seat["tasks"] for seat in found.values()) == 3
    run(bed, "swarm", "activate", "w2")
    assert seats(bed, "m1")["w2"]["availability"] == "active"


def test_the_only_manager_does_not_go(bed: HostBed) -> None:
    for verb in (("stop",), ("kill",), ("rm", "-y"), ("swarm", "leave"), ("swarm", "demote")):
        said = run(bed, *verb, "m1", code=1)
        assert "Without m1 the Swarm would be left with 0 of" in said
        assert "machine swarm promote w1" in said
        assert "--force" in said
    assert len(seats(bed, "w1")) == 3


def test_promoted_managers_stand_the_loss_of_one(bed: HostBed) -> None:
    assert "stands the loss of none" in run(bed, "swarm", "promote", "w1")
    run(bed, "swarm", "promote", "w2")
    assert '"w2" is a manager already' in run(bed, "swarm", "promote", "w2")
    leader = bed.swarm_status("m1")["leader"]
    assert leader == "m1"
    bed.hosts["m1"].cut_off()
    bed.eventually(lambda: not seats(bed, "w1")["m1"]["reachable"])
    bed.eventually(lambda: bed.swarm_status("w1")["leader"] in ("w1", "w2"))
    said = run(bed, "stop", "w1", code=1)
    assert "left with 1 of 3 managers, and needs 2" in said
    assert "machine start m1" in said
    bed.hosts["m1"].start()
    bed.eventually(lambda: seats(bed, "w1")["m1"]["reachable"])


def test_a_backup_is_kept_and_sealed(bed: HostBed, tmp_path: Path) -> None:
    (bed.folder / "passphrase").write_text("six words and more\n")
    secret = ("--passphrase", f"file:{bed.folder}/passphrase")
    said = run(bed, "swarm", "backup", "m1", f"{bed.folder}/sealed", *secret)
    assert "keep it as you keep keys" in said
    kept = bed.folder / "sealed"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert b"tar" not in kept.read_bytes()[:60]
    run(bed, "swarm", "backup", "m1", f"{bed.folder}/plain")
    assert (bed.folder / "plain").read_bytes().startswith(b"machine-swarm-backup-1\n")
    bed.eventually(lambda: seats(bed, "w1")["m1"]["reachable"])


def test_one_manager_goes_on_when_the_others_are_lost(bed: HostBed) -> None:
    assert "has its quorum" in run(bed, "swarm", "recover", "-y", "m1", code=1)
    for name in ("w1", "w2"):
        bed.hosts[name].cut_off()
    bed.eventually(lambda: "swarm recover" in bed.machine("swarm", "status", "m1").stderr)
    said = run(bed, "swarm", "recover", "-y", "m1")
    assert "When w1 is back: machine swarm leave --force w1" in said
    found = bed.swarm_status("m1")
    assert (found["managers"], found["leader"]) == ({"total": 1, "reachable": 1}, "m1")
    assert "web" in docker(bed, "m1", "service", "ls", "--format", "{{.Name}}")
    for name in ("w1", "w2"):
        bed.hosts[name].start()
        bed.eventually(lambda name=name: bed.machine("version", name).returncode == 0)  # type: ignore[misc]
        run(bed, "swarm", "leave", "--force", name)
        run(bed, "swarm", "join", name, "--to", "m1")
    assert set(seats(bed, "m1")) == set(NAMES)


def test_one_that_is_cut_off_while_it_is_promoted_is_a_manager_when_it_is_back(
    bed: HostBed,
) -> None:
    bed.hosts["w1"].cut_off()
    promotion = bed.popen("swarm", "promote", "w1")
    bed.eventually(lambda: seats(bed, "m1")["w1"]["role"] == "manager")
    assert not seats(bed, "m1")["w1"]["reachable"]
    bed.hosts["w1"].start()
    assert promotion.wait(timeout=180) == 0
    assert promotion.stdout
    promotion.stdout.close()
    assert seats(bed, "m1")["w1"]["reachable"]
    run(bed, "swarm", "demote", "w1")


def test_a_network_that_ends_leaves_nobody_half_in(bed: HostBed) -> None:
    run(bed, "swarm", "leave", "w2")
    assert set(seats(bed, "m1")) == {"m1", "w1"}
    block = ["iptables", "-I", "INPUT", "-p", "tcp", "--dport", "2377", "-j", "DROP"]
    bed.machine("ssh", "m1", "sudo", *block)
    said = run(bed, "swarm", "join", "w2", "--to", "m1", code=1)
    assert "TCP 2377 and 7946, UDP 7946 and 4789" in said
    block[1] = "-D"
    bed.machine("ssh", "m1", "sudo", *block)
    assert '"w2" is in no Swarm' in run(bed, "swarm", "status", "w2", code=1)
    assert set(seats(bed, "m1")) == {"m1", "w1"}
    run(bed, "swarm", "join", "w2", "--to", "m1")


def test_a_removed_machine_leaves_first(bed: HostBed) -> None:
    said = run(bed, "rm", "-y", "w1")
    for step in ("Moving its tasks", "Leaving the Swarm", "Removing the machine"):
        assert f"{step}: done" in said
    assert set(seats(bed, "m1")) == {"m1", "w2"}
    run(bed, "swarm", "leave", "w2")
    assert "Add -y" in run(bed, "swarm", "leave", "m1", code=2)
    run(bed, "swarm", "leave", "-y", "m1")
    assert {row["name"]: row["swarm"] for row in listed(bed)} == {"m1": "", "w2": ""}


def test_a_backup_begins_again_elsewhere(bed: HostBed) -> None:
    """On another host than the one that it is of."""
    secret = ("--passphrase", f"file:{bed.folder}/passphrase")
    said = run(bed, "swarm", "restore", "w2", f"{bed.folder}/sealed", code=1)
    assert "is encrypted" in said
    (bed.folder / "other").write_text("another\n")
    wrong = ("--passphrase", f"file:{bed.folder}/other")
    said = run(bed, "swarm", "restore", "w2", f"{bed.folder}/sealed", *wrong, code=1)
    assert "The passphrase does not open it" in said
    said = run(bed, "swarm", "restore", "w2", str(bed.key), code=1)
    assert "is no backup of a Swarm" in said
    run(bed, "swarm", "restore", "w2", f"{bed.folder}/sealed", *secret)
    found = bed.swarm_status("w2")
    assert found["managers"] == {"total": 1, "reachable": 1}
    assert "web" in docker(bed, "w2", "service", "ls", "--format", "{{.Name}}")

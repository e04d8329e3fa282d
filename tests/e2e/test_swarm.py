"""A Swarm of three VMs: the lesson of docs/swarm.md, typed as it stands, then what its managers stand;
and a fleet from one file, in the same libvirt. These tests build on each other in order."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import compose, nginx_image
from tests.artefact import CACHE
from tests.e2e.testbed import SystemBed

pytestmark = pytest.mark.e2e

HEADING = re.compile(r"(?m)^## ")
LESSON = nginx_image.LESSON.partition("# What keeps a Swarm whole")[0]
STEPS = {part.partition("\n")[0]: nginx_image.commands(part) for part in HEADING.split(LESSON)[1:]}

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
"""What a check could leave behind."""


LOOSE = """#!/bin/sh
for word; do
    [ "$last" != --bundle ] || sed -i 's/"memory":{[^}]*}/"memory":{}/' "$word/config.json"
    last=$word
done
exec runc "$@"
"""
"""A container runtime that forgets the limit of memory it was given."""
DEFAULT = '"default-runtime": "loose", "runtimes": {"loose": {"path": "/usr/local/bin/loose"}},'
SITE = """
services:
  web:
    image: nginx:local
    ports: ["8090:80"]
    volumes: ["./www:/usr/share/nginx/html"]
"""
FLEET = """
name = "pair"
[defaults]
driver = "libvirt"
labels = { tier = "front" }
[machines.m1]
swarm = "manager"
[machines.w1]
swarm = "worker"
"""


class Shell:
    """What a reader has in front of him: one folder, and the variables of the commands before."""

    def __init__(self, bed: SystemBed, folder: Path, docker: str) -> None:
        self.bed, self.folder, self.before = bed, folder, bed.inventory()
        programs = folder / "bin"
        programs.mkdir(parents=True)
        made = CACHE / nginx_image.FOLDER / nginx_image.NAME
        scripts = {
            "machine": f'exec {shlex.join(bed.tool())} "$@"',
            # There is no package mirror where the VMs are: `make setup` has run this command.
            "mmdebstrap": f"cp {made} nginx.tar",
        }
        for name, line in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        (programs / "docker").symlink_to(docker)
        (programs / compose.NAME).symlink_to(compose.PROGRAM)
        (folder / "variables").write_text("")

    def words(self, folder: Path, *words: str) -> list[str]:
        """A command in a folder."""
        path = f"PATH={self.folder}/bin:{os.environ['PATH']}"
        return ["env", path, "sh", "-c", 'cd "$0" && exec "$@"', str(folder), *words]

    def type(self, lines: str) -> str:
        """Commands, as one types them; answers what they print."""
        script = f". ./variables\nset -e\n{lines}\nexport -p >variables\n"
        done = self.bed.run(*self.words(self.folder, "bash", "-c", script), timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def machine(self, *words: str, code: int = 0) -> str:
        """The tool alone; answers all that it says."""
        done = self.bed.machine(*words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


class WarmBed(SystemBed):
    """Machines start from saved memory, which costs the emulator a fourth of their boot; engines that
    were one and the same could not be several nodes."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "MACHINE_WARM": "1"}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, docker: str) -> Iterator[Shell]:
    with WarmBed(tmp_path_factory.mktemp("bed") / "swarm") as bed:
        yield Shell(bed, bed.folder / "lesson", docker)


@pytest.mark.parametrize("heading", [heading for heading in STEPS if heading != "The end"])
def test_the_lesson(shell: Shell, heading: str) -> None:
    printed = shell.type("\n".join(STEPS[heading]))
    for text in PRINTED[heading]:
        assert re.search(text, printed), printed


def test_a_second_push_sends_nothing(shell: Shell) -> None:
    again = shell.machine("push", "--from", "m1", "nginx:local", "w1", "w2")
    assert again.count("was there: nothing was sent") == 2


def test_a_stack_that_is_wrong_is_refused(shell: Shell) -> None:
    """By docker's own words."""
    wrong = "services: {front: {image: nginx:local, deploy: {replicas: many}}}"
    said = shell.type(f"docker stack deploy -c - wrong <<<'{wrong}' 2>&1 || echo refused")
    assert "services.front.deploy.replicas must be a integer" in said
    assert said.endswith("refused\n")
    assert shell.type("docker stack ls --format '{{.Name}}'") == ""


def test_what_lies_under_a_container_holds_on_a_manager(shell: Shell) -> None:
    """Limits and a Swarm's networks need a kernel of their own."""
    before = shell.bed.machine("ssh", "m1", LEFT)
    assert before.returncode == 0, before.stderr
    shown = shell.bed.machine("check", "--output", "json", "m1")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    found = {each["name"]: each for each in json.loads(shown.stdout)["data"]}
    assert {name for name, each in found.items() if each["outcome"] == "ok"} == HOLDS, shown.stdout
    assert found["user namespace"]["outcome"] == "not applicable"
    assert any("oom_kill grew by 1" in line for line in found["memory limit"]["evidence"])
    mesh = found["routing mesh"]["evidence"]
    assert any(line.startswith("asked from here") and "this is" in line for line in mesh)
    left = shell.bed.machine("ssh", "m1", LEFT)
    assert set(left.stdout.split()) <= set(before.stdout.split())


def test_a_limit_that_is_not_enforced_is_found(shell: Shell) -> None:
    def sudo(script: str, stdin: str = "") -> None:
        done = shell.bed.machine("ssh", "w1", f"sudo sh -euc {shlex.quote(script)}", stdin=stdin)
        assert done.returncode == 0, done.stderr

    sudo("cat >/usr/local/bin/loose; chmod 755 /usr/local/bin/loose", LOOSE)
    sudo(f"sed -i '1a {DEFAULT}' /etc/docker/daemon.json; systemctl reload docker")
    shown = shell.bed.machine("check", "--output", "json", "w1")
    assert shown.returncode == 1, shown.stdout + shown.stderr
    found = {each["name"]: each["outcome"] for each in json.loads(shown.stdout)["data"]}
    assert {name for name, outcome in found.items() if outcome == "failed"} == {"memory limit"}
    assert "Does not hold on w1: memory limit" in shown.stderr
    sudo(
        'sed -i \'2s/.*/"default-runtime": "runc",/\' /etc/docker/daemon.json; systemctl reload docker'
    )
    sudo("sed -i 2d /etc/docker/daemon.json; rm /usr/local/bin/loose")


def test_compose_serves_a_folder_of_this_computer(shell: Shell) -> None:
    site = shell.folder / "site"
    (site / "www").mkdir(parents=True)
    (site / "compose.yaml").write_text(SITE)
    (site / "www" / "index.html").write_text("first\n")

    def served() -> str:
        return shell.bed.run("curl", "-sS", "http://127.0.0.1:8090/").stdout

    words = [*shell.bed.inside(), *shell.words(site, "machine", "compose", "w1", "--", "up")]
    with (
        (shell.folder / "up.log").open("w") as log,
        subprocess.Popen(words, stdout=log, stderr=log, env=shell.bed.environment) as process,
    ):
        try:
            shell.bed.wait_for(lambda: served() == "first\n", 120)
            (site / "www" / "index.html").write_text("second\n")
            shell.bed.wait_for(lambda: served() == "second\n", 60)
        finally:
            process.terminate()
    assert served() == ""
    shell.type("cd site && machine compose w1 -- down && cd ..")


def test_managers_stand_the_loss_of_their_leader(shell: Shell) -> None:
    create = "docker service create --quiet --no-resolve-image --replicas 3"
    shell.type(f"{create} --name web -p 80:80 nginx:local")
    shell.machine("swarm", "promote", "w1", "w2")
    assert shell.bed.swarm_status("m1")["leader"] == "m1"
    shell.machine("stop", "m1")
    shell.bed.eventually(lambda: shell.bed.swarm_status("w1")["leader"] in ("w1", "w2"), 120)
    refused = shell.machine("stop", "w1", code=1)
    assert "left with 1 of 3 managers, and needs 2" in refused
    assert "machine start m1" in refused
    shell.machine("start", "m1")
    shell.bed.eventually(lambda: shell.bed.swarm_status("w1")["managers"]["reachable"] == 3, 120)


def test_a_backup_is_kept(shell: Shell) -> None:
    """What comes of it is seen when all of this Swarm is gone."""
    shell.machine("swarm", "backup", "m1", f"{shell.folder}/swarm.backup")
    shell.bed.eventually(lambda: shell.bed.swarm_status("m1")["managers"]["reachable"] == 3, 120)
    shell.type("docker service rm web")
    shell.machine("swarm", "demote", "w1", "w2")
    shell.machine("swarm", "leave", "w2")


def test_every_engine_is_changed(shell: Shell) -> None:
    """And that a service goes on meanwhile: tests/integration/test_rolling.py."""
    said = shell.machine("swarm", "upgrade", "w1", "--engine-label", "tier=gold")
    assert re.findall(r"\((\w+)\) .*changed, and still", said) == ["w1", "m1"]
    for name in ("w1", "m1"):
        assert "tier=gold" in shell.machine("ssh", name, "sudo docker info -f '{{json .Labels}}'")


def test_one_whose_clock_differs_is_left_outside(shell: Shell) -> None:
    """A member's certificate is valid for 90 days; ours are for longer."""
    shell.machine("ssh", "w2", "sudo date -s '+100 days'")
    assert "do their clocks agree?" in shell.machine("swarm", "join", "w2", "--to", "m1", code=1)
    assert '"w2" is in no Swarm' in shell.machine("swarm", "status", "w2", code=1)
    shell.machine("ssh", "w2", "sudo date -s '-100 days'")
    shell.machine("swarm", "join", "w2", "--to", "m1")


def test_the_end_of_the_lesson(shell: Shell) -> None:
    test_the_lesson(shell, "The end")
    assert shell.bed.inventory() == shell.before


@pytest.fixture(scope="module")
def file(shell: Shell) -> Path:
    path = shell.folder / "machines.toml"
    path.write_text(FLEET)
    return path


def roles(shell: Shell) -> dict[str, str]:
    return {seat["machine"]: seat["node"]["role"] for seat in shell.bed.swarm_status("w1")["seats"]}


def test_a_fleet_from_its_file(shell: Shell, file: Path) -> None:
    shell.machine("apply", "-f", str(file))
    assert roles(shell) == {"m1": "manager", "w1": "worker"}
    assert shell.machine("plan", "-f", str(file), "--exit-code") == "pair: nothing to do\n"
    assert "..." not in shell.machine("apply", "-f", str(file)), "a step was done"


def test_a_backup_begins_again_on_another_machine(shell: Shell, file: Path) -> None:
    shell.machine("swarm", "leave", "w1")
    shell.machine("swarm", "leave", "-y", "m1")
    shell.machine("swarm", "restore", "w1", f"{shell.folder}/swarm.backup")
    assert shell.bed.swarm_status("w1")["managers"] == {"total": 1, "reachable": 1}
    assert "web" in shell.machine("ssh", "w1", "sudo docker service ls")
    shell.machine("swarm", "leave", "-y", "w1")

    shell.machine("apply", "-f", str(file))
    assert roles(shell) == {"m1": "manager", "w1": "worker"}


def test_a_fleet_is_changed_drifts_and_is_destroyed(shell: Shell, file: Path) -> None:
    words = ("-f", str(file))
    file.write_text(FLEET + 'labels = { tier = "edge" }\n')
    identity = shell.machine("ssh", "w1", "cat /etc/machine-id")
    assert "labels: tier=front -> tier=edge" in shell.machine("apply", *words)
    assert shell.machine("ssh", "w1", "cat /etc/machine-id") == identity
    assert "tier=edge" in shell.machine("ssh", "w1", "sudo docker info -f '{{json .Labels}}'")

    shell.machine("drift", *words, "--exit-code")
    shell.machine("ssh", "w1", "sudo sed -i s/tier=edge/tier=lost/ /etc/docker/daemon.json")
    drifted = shell.machine("drift", *words, "--exit-code", code=2)
    assert "w1: differs" in drifted
    assert "m1: as the file says" in drifted

    shell.machine("destroy", *words, "--yes")
    assert shell.bed.inventory() == shell.before


PRINTED = {
    "Three machines": [r"(?m)^m1 .*Running", r"(?m)^w1 .*Running", r"(?m)^w2 .*Running"],
    "One of them begins, the others join": [
        r"Managers +1 of 1 reachable, 1 needed",
        r"(?m)^w2 .*worker +ready",
        r"(?s)w1.*Ready.*Active.*w2.*Ready",  # docker node ls
    ],
    "An image, without a registry": [r"sha256:"],
    "A service of three replicas": [
        r"web .*3/3",
        r"(?s)(<title>Welcome to nginx!</title>\s+){3}",
        r"web\.[123].*GET / HTTP",
    ],
    "A node is lost": [
        r"(?m)^w2 .*down",
        r"(?s)(<title>Welcome to nginx!</title>\s+){2}",
        r"(?m)^w2 .*ready",
    ],
    "A stack": [r"shop +2", r"shop_front .*2/2", r"shop_back .*1/1", r"<title>Welcome"],
    "The end": [r"(?m)^w1 .*worker"],
}
"""What a reader is to see; every command also has to end well."""

"""The lesson of docs/swarm.md, typed as it stands, on three VMs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests import nginx_image
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
        (folder / "variables").write_text("")

    def type(self, heading: str) -> str:
        """The commands of a part of the lesson; answers what they print."""
        lines = "\n".join(STEPS[heading])
        script = f". ./variables\nset -e\n{lines}\nexport -p >variables\n"
        done = self.bed.run(
            *("env", f"PATH={self.folder}/bin:{os.environ['PATH']}"),
            *("bash", "-c", f'cd "$0"; {script}', str(self.folder)),
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def shell(bed: SystemBed, docker: str) -> Shell:
    return Shell(bed, bed.folder / "lesson", docker)


@pytest.mark.parametrize("heading", [heading for heading in STEPS if heading != "The end"])
def test_the_lesson(shell: Shell, heading: str) -> None:
    printed = shell.type(heading)
    for text in PRINTED[heading]:
        assert re.search(text, printed), printed


def test_one_whose_clock_differs_is_left_outside(shell: Shell) -> None:
    """A member's certificate is valid for 90 days; ours are for longer."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return shell.bed.machine(*words)

    assert run("swarm", "leave", "w2").returncode == 0
    assert run("ssh", "w2", "sudo date -s '+100 days'").returncode == 0
    refused = run("swarm", "join", "w2", "--to", "m1")
    assert refused.returncode == 1
    assert "do their clocks agree?" in refused.stderr
    assert '"w2" is in no Swarm' in run("swarm", "status", "w2").stderr
    assert run("ssh", "w2", "sudo date -s '-100 days'").returncode == 0
    joined = run("swarm", "join", "w2", "--to", "m1")
    assert joined.returncode == 0, joined.stderr


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


def test_the_end_of_the_lesson(shell: Shell) -> None:
    test_the_lesson(shell, "The end")
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

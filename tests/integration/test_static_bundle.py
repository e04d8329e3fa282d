"""An engine from a static archive, on a real host without a VM: these tests build on each other in
order. How it comes onto a VM by an attached disk is in tests/e2e/system/test_faults.py.

The archive has upstream's layout, and the programs in it are the distribution's own: they are not
static, and the libraries that they need (libc, libsystemd, libseccomp) are in the host's image."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import archives, hosts
from tests.hosts import HostBed

STATIC, PACKAGES = "static1", "packages1"
BUNDLE = "docker-static-26.1.5-x86_64"
LEFT = "ls -d /var/lib/machine/bundle* 2>/dev/null || true"
HOME = "/usr/local/libexec/machine/docker"
FACTS = f"""
echo "current=$(readlink {HOME}/current)"
echo "releases="$(ls -A {HOME})
echo "programs="$(ls {HOME}/current)
for p in dockerd containerd; do echo "$p=$(sudo readlink /proc/$(pgrep -x $p)/exe)"; done
echo "mode=$(stat -c '%a %U' {HOME}/current/dockerd)"
echo "others="$(ls /usr/bin/containerd /usr/sbin/dockerd 2>/dev/null)
echo "left="$({LEFT})
echo "server=$(docker version -f '{{{{.Server.Version}}}}')"
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    folder = tmp_path_factory.mktemp("static") / "bed"
    with HostBed(folder, STATIC, PACKAGES, tree=hosts.NAME) as made:
        yield made


@pytest.fixture(scope="module")
def cache(bed: HostBed) -> Iterator[Path]:
    """A cache of this module's own, with no bundles yet."""
    own = bed.folder / "static-cache"
    own.mkdir()
    with bed.using(own):
        yield own


@pytest.fixture(scope="module")
def template(bed: HostBed, cache: Path) -> str:
    path = bed.folder / "static.toml"
    path.write_text('base = ["debian-13"]\nbundle = "static"\n')
    return str(path)


@pytest.fixture(scope="module")
def worker(bed: HostBed, static_archive: Path, template: str) -> str:
    """A machine whose create was killed when it had begun to install the engine."""
    built = bed.machine(
        "bundle", "build", "docker", "--kind", "static", "--from", str(static_archive)
    )
    assert built.returncode == 0, built.stderr
    bed.killed_at("install", "create", *bed.hosts[STATIC].options, "-t", template, STATIC)
    made = bed.machine("create", "--resume", STATIC)
    assert made.returncode == 0, made.stderr
    return STATIC


def on(bed: HostBed, name: str, script: str) -> str:
    """What a command on the machine prints."""
    ran = bed.machine("ssh", name, script)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def remove_engine(bed: HostBed, name: str) -> None:
    """As if it had never been installed; its data and its configuration stay."""
    on(
        bed,
        name,
        "sudo systemctl stop docker.socket docker && sudo rm -r /usr/local/libexec/machine "
        "/usr/local/bin/docker /usr/local/bin/dockerd /usr/local/lib/systemd/system/docker.*",
    )


def test_packages_killed_at_the_steps_on_the_host_are_resumed(bed: HostBed) -> None:
    """A static archive killed at every step is a VM's (tests/e2e/system/test_faults.py)."""
    words: tuple[str, ...] = ("create", *bed.hosts[PACKAGES].options, PACKAGES)
    for step in ("install", "configure", "start"):
        bed.killed_at(step, *words)
        words = ("create", "--resume", PACKAGES)
    ended = bed.machine(*words)
    assert ended.returncode == 0, ended.stderr
    assert on(bed, PACKAGES, "docker version -f '{{.Server.Version}}'").startswith("26.1.5")
    assert on(bed, PACKAGES, LEFT) == ""
    assert bed.machine("rm", "-y", PACKAGES).returncode == 0


def test_without_a_bundle_the_create_says_what_to_type(bed: HostBed, template: str) -> None:
    refused = bed.create(STATIC, "-t", template)
    assert refused.returncode == 1
    assert "There is no static bundle of docker" in refused.stderr
    assert "machine bundle build docker --kind static --from https://" in refused.stderr
    assert bed.machine("ls", "-q").stdout == ""


def test_a_container_runs(bed: HostBed, worker: str, docker: str, image_tar: Path) -> None:
    env = bed.variables(worker)
    imported = bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    words = ("run", "-i", "--rm", "--init", "-p", "8080:80", "hello", "cat")
    ran = bed.run(docker, *words, stdin="from here\n", env=env)
    assert (ran.returncode, ran.stdout) == (0, "from here\n"), ran.stderr


def test_every_program_of_it_is_the_bundles(bed: HostBed, worker: str) -> None:
    shown = on(bed, worker, FACTS)
    facts = {key: value.split() for key, _, value in (x.partition("=") for x in shown.splitlines())}
    assert set(facts.pop("programs")) == set(archives.PROGRAMS)
    assert facts.pop("server")[0].startswith("26.1.5")
    assert facts == {
        "current": ["26.1.5"],
        "releases": ["26.1.5", "current"],
        "dockerd": [f"{HOME}/26.1.5/dockerd"],
        "containerd": [f"{HOME}/26.1.5/containerd"],
        "mode": ["755", "root"],
        "others": [],
        "left": [],
    }


def test_provisioning_again_changes_nothing(bed: HostBed, worker: str) -> None:
    show = "systemctl show -P ActiveEnterTimestamp docker"
    started = on(bed, worker, show)
    for _ in range(2):
        again = bed.machine("provision", worker)
        assert again.returncode == 0, again.stderr
        assert "nothing had to change" in again.stderr
    assert on(bed, worker, show) == started


_INSTALL = """
import sys
from pathlib import Path
from machine.errors import EngineError
from machine.host import Host
from machine.store import Store
from machine.workflows.bootstrap import Session

session = Session.open(Host.load(Store(), sys.argv[1]))
session.guest.put(Path(sys.argv[2]), "/var/tmp/other/archive/docker-99.0.0.tgz")
try:
    session.engine.install("/var/tmp/other", "static")
except EngineError as exc:
    print(exc.brief)
session.close()
"""


def test_a_release_that_does_not_run_there_is_not_put_in_use(
    bed: HostBed, worker: str, tmp_path: Path
) -> None:
    other = archives.docker(tmp_path / "docker-99.0.0.tgz")
    tried = bed.run(sys.executable, "-c", _INSTALL, worker, str(other))
    assert tried.stdout == "The programs of the bundle do not run on this system\n", tried.stderr
    assert on(bed, worker, f"ls -A {HOME}").split() == ["26.1.5", "current"]
    assert on(bed, worker, "docker version -f '{{.Server.Version}}'").startswith("26.1.5")


def test_it_is_there_after_a_restart(bed: HostBed, worker: str, docker: str) -> None:
    restarted = bed.machine("restart", worker)
    assert restarted.returncode == 0, restarted.stderr
    assert on(bed, worker, "systemctl is-system-running --wait") == "running"
    ran = bed.run(docker, "run", "--rm", "hello", "echo", "again", env=bed.variables(worker))
    assert (ran.returncode, ran.stdout) == (0, "again\n"), ran.stderr


def test_damaged_bytes_are_refused_on_the_host(bed: HostBed, worker: str, cache: Path) -> None:
    """The bytes are damaged before they are sent; it is the host that compares them."""
    remove_engine(bed, worker)
    path = cache / "bundles" / f"{BUNDLE}.tar"
    with path.open("r+b") as file:
        file.seek(-(1 << 20), os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    refused = bed.machine("provision", worker)
    assert refused.returncode == 1
    assert f"The bundle {BUNDLE} arrived damaged on the host" in refused.stderr
    assert "archive/docker-26.1.5.tgz: FAILED" in refused.stderr
    assert on(bed, worker, "command -v dockerd || true") == ""
    verified = bed.machine("bundle", "verify", BUNDLE)
    assert verified.returncode == 1
    assert f"The bundle {BUNDLE} is damaged" in verified.stderr
    with path.open("r+b") as file:
        file.seek(-(1 << 20), os.SEEK_END)
        file.write(byte)
    assert bed.machine("bundle", "verify", BUNDLE).returncode == 0


def test_it_is_installed_with_its_progress_told(
    bed: HostBed, worker: str, cache: Path, docker: str
) -> None:
    mended = bed.machine("provision", worker, "--output", "json")
    assert mended.returncode == 0, mended.stdout
    events = [json.loads(line) for line in mended.stdout.splitlines()]
    told = [each["data"] for each in events if each["kind"] == "Progress"]
    size = (cache / "bundles" / f"{BUNDLE}.tar").stat().st_size
    assert {(each["step"], each["total"]) for each in told} == {("install", size)}
    done = [each["done"] for each in told]
    assert len(done) > 2
    assert done == sorted(done)
    assert done[-1] == size
    ran = bed.run(docker, "run", "--rm", "hello", "echo", "back", env=bed.variables(worker))
    assert (ran.returncode, ran.stdout) == (0, "back\n"), ran.stderr
    assert on(bed, worker, LEFT) == ""


def test_a_host_without_iptables_is_told(bed: HostBed, worker: str) -> None:
    on(bed, worker, "sudo mv /usr/sbin/iptables /usr/sbin/iptables.gone")
    refused = bed.machine("provision", worker)
    assert refused.returncode == 1
    assert "This guest has no iptables" in refused.stderr
    on(bed, worker, "sudo mv /usr/sbin/iptables.gone /usr/sbin/iptables")


def test_removal(bed: HostBed, worker: str) -> None:
    removed = bed.machine("rm", "-y", worker)
    assert removed.returncode == 0, removed.stderr
    assert bed.machine("ls", "-q").stdout == ""

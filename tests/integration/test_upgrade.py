"""Engines of two real versions, on hosts in namespaces: forward, back, and cut off in between.

The tests build on each other in their order: one host has its engine from packages, the other one
from a static archive."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests import two_engines
from tests.artefact import CACHE
from tests.hosts import NAME, HostBed
from tests.two_engines import (
    NEW,
    NEW_PACKAGES,
    NEW_STATIC,
    OLD,
    OLD_PACKAGES,
    OLD_STATIC,
    offer,
)

RELEASES = "/usr/local/libexec/machine/docker"
RUN = (
    "tar -C / -cf - usr/bin/busybox | docker import - busy >/dev/null; "
    "docker run -d --network none busy /usr/bin/busybox sleep 600"
)
LEFT = "sudo ls -A /var/lib/machine"


class Upgrades:
    """The bed, and what is there to be installed."""

    def __init__(self, bed: HostBed) -> None:
        self.bed = bed
        self.bundles = bed.cache / "bundles"

    def upgrade(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.bed.machine("upgrade", *words)

    def on(self, name: str, script: str) -> str:
        ran = self.bed.machine("ssh", name, script)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def version(self, name: str) -> str:
        """Of the engine that answers here."""
        ran = self.bed.machine("version", name)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def labels(self, name: str) -> set[str]:
        return set(json.loads(self.on(name, "docker info -f '{{json .Labels}}'")))

    def power_fails(self, name: str) -> None:
        self.bed.hosts[name].cut_off()
        self.bed.hosts[name].start()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrades]:
    folder = tmp_path_factory.mktemp("upgrade")
    over = folder / "over"
    shutil.copytree(CACHE / two_engines.FOLDER / "tree", over)
    (over / "usr" / "bin").mkdir()
    shutil.copy("/bin/busybox", over / "usr" / "bin")
    template = folder / "static.toml"
    template.write_text('base = ["debian-13"]\nbundle = "static"\n')
    offer(folder / "cache" / "bundles", OLD_PACKAGES, OLD_STATIC)
    with HostBed(folder / "up", "pack", "stat", tree=NAME, laid_over=over) as bed:
        bed.cache = folder / "cache"
        static = ("--engine-storage-driver", "overlay", "-t", str(template))
        creates = [
            bed.popen("create", *bed.hosts["pack"].options, "pack"),
            bed.popen("create", *bed.hosts["stat"].options, *static, "stat"),
        ]
        for create in creates:
            create.communicate(timeout=300)
            assert create.returncode == 0
        yield Upgrades(bed)


def test_there_is_nothing_newer(up: Upgrades) -> None:
    started = up.on("pack", "systemctl show -P ActiveEnterTimestamp docker")
    same = up.upgrade("pack", "stat")
    assert same.returncode == 0, same.stderr
    for name in ("pack", "stat"):
        assert f"{name}: already at {OLD}" in same.stderr
    assert up.on("pack", "systemctl show -P ActiveEnterTimestamp docker") == started


def test_what_a_restart_ends_is_asked_first(up: Upgrades) -> None:
    up.on("pack", RUN)
    offer(up.bundles, NEW_PACKAGES)
    refused = up.upgrade("pack")
    assert refused.returncode == 1
    assert '"pack" is left as it is: there is nobody to ask' in refused.stderr
    assert "1 container runs, and live-restore is off" in refused.stderr
    assert up.version("pack").startswith(OLD)
    assert up.on("pack", LEFT) == "before"


def test_packages_cut_off_by_a_power_failure_become_whole(up: Upgrades) -> None:
    """While dpkg is at work: the second upgrade brings it to its end."""
    changed = up.bed.hosts["pack"].folder / "changed"
    unpacked = changed / "var" / "lib" / "dpkg" / "info" / "docker-cli.list"
    up.bed.killed_at("install", "upgrade", "--yes", "pack", once=unpacked.exists)
    up.power_fails("pack")
    assert up.on("pack", "sudo dpkg --audit") != ""
    done = up.upgrade("pack", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"An upgrade was cut off here: it begins again, from {OLD}" in done.stderr
    assert f"pack: {OLD}+dfsg1 -> {NEW}+dfsg1" in done.stderr
    assert up.on("pack", "dpkg --audit") == ""
    assert up.version("pack").startswith(NEW)
    assert up.on("pack", LEFT) == "before"


def test_data_is_kept_and_the_record_knows(up: Upgrades) -> None:
    assert up.on("pack", "docker images -q busy") != ""
    assert up.on("pack", "docker ps -aq") != ""
    bundle = up.bed.machine("bundle", "show", NEW_PACKAGES)
    digest = json.loads(bundle.stdout)["data"]["sha256"]
    record = json.loads(up.bed.machine("inspect", "pack").stdout)
    assert record["Machine"]["bundle"] == digest
    provisioned = up.bed.machine("provision", "pack")
    assert "pack: nothing had to change" in provisioned.stderr


def test_packages_that_cannot_be_installed_go_back(up: Upgrades) -> None:
    """Those of Debian 12 do not go beside what is there of Debian 13 by now; dpkg has unpacked half
    of them when it says so."""
    failed = up.upgrade("pack", "--bundle", OLD_PACKAGES, "--yes")
    assert failed.returncode == 1
    assert f"it is {NEW}+dfsg1 again, and answers" in failed.stderr
    assert "dependency problems" in failed.stderr
    assert up.version("pack").startswith(NEW)
    assert up.on("pack", "dpkg --audit") == ""
    kept = up.on("pack", "dpkg-query -Wf '${Version}\n' docker.io docker-cli iptables libip4tc2")
    assert [line.split("-")[0] for line in kept.splitlines()] == ["26.1.5+dfsg1"] * 2 + [
        "1.8.11"
    ] * 2


def test_an_engine_that_does_not_start_is_the_old_one_again(up: Upgrades) -> None:
    """The newer release has the machine's storage driver no more."""
    offer(up.bundles, NEW_STATIC)
    before = up.on("stat", "cat /etc/docker/daemon.json /etc/systemd/system/docker.service.d/*")
    failed = up.upgrade("stat", "--engine-label", "tier=gold")
    assert failed.returncode == 1
    assert f"could not be brought to {NEW}; it is {OLD}+dfsg1 again, and answers" in failed.stderr
    assert "the overlay storage-driver has been deprecated and removed" in failed.stderr
    assert up.version("stat").startswith(OLD)
    now = up.on("stat", "cat /etc/docker/daemon.json /etc/systemd/system/docker.service.d/*")
    assert now == before
    assert up.on("stat", f"ls -A {RELEASES}").split() == [OLD, "current"]
    assert "tier=gold" not in up.bed.machine("inspect", "stat").stdout


def test_killed_on_the_way_back_it_begins_again(up: Upgrades) -> None:
    up.bed.killed_at("back", "upgrade", "stat")
    again = up.upgrade("stat")
    assert again.returncode == 1
    assert f"it begins again, from {OLD}" in again.stderr
    assert f"it is {OLD}+dfsg1 again, and answers" in again.stderr
    assert up.version("stat").startswith(OLD)


def test_provisioning_ends_what_was_cut_off(up: Upgrades) -> None:
    up.bed.killed_at("start", "upgrade", "stat")
    assert up.on("stat", f"readlink {RELEASES}/current") == NEW
    done = up.bed.machine("provision", "stat")
    assert done.returncode == 0, done.stderr
    assert up.version("stat").startswith(OLD)
    assert up.on("stat", LEFT) == "before"


def test_an_option_makes_it_go(up: Upgrades) -> None:
    words = ("--engine-opt", "storage-driver=overlay2", "--engine-label", "tier=gold")
    done = up.upgrade("stat", *words)
    assert done.returncode == 0, done.stderr
    assert f"stat: {OLD}+dfsg1 -> {NEW}+dfsg1" in done.stderr
    assert up.on("stat", "docker info -f '{{.Driver}}'") == "overlay2"
    assert up.labels("stat") == {"provider=generic", "tier=gold"}
    assert up.on("stat", f"ls -A {RELEASES}").split() == [NEW, "current"]
    changed = up.upgrade("stat", "--engine-label", "tier=lead")
    assert f"stat: changed, and still {NEW}+dfsg1" in changed.stderr
    assert up.labels("stat") == {"provider=generic", "tier=lead"}
    assert up.bed.machine("provision", "stat").stderr.endswith("nothing had to change\n")


def test_an_older_one_only_by_its_name(up: Upgrades) -> None:
    assert f"already at {NEW}" in up.upgrade("stat").stderr
    named = up.upgrade("stat", "--bundle", OLD_STATIC)
    assert named.returncode == 0, named.stderr
    assert up.version("stat").startswith(OLD)


def test_one_kind_gives_way_to_the_other_and_back(up: Upgrades) -> None:
    there = up.upgrade("pack", "--bundle", NEW_STATIC, "--yes")
    assert there.returncode == 0, there.stderr
    programs = "sudo readlink /proc/$(pgrep -x dockerd)/exe"
    assert up.on("pack", programs) == f"{RELEASES}/{NEW}/dockerd"
    back = up.upgrade("pack", "--bundle", NEW_PACKAGES, "--yes")
    assert back.returncode == 0, back.stderr
    assert up.on("pack", programs) == "/usr/sbin/dockerd"
    assert up.on("pack", f"ls {RELEASES} /usr/local/bin 2>/dev/null || true").split() == [
        "/usr/local/bin:"
    ]


def test_a_swarm_has_all_of_its_engines_changed(up: Upgrades) -> None:
    older = up.upgrade("pack", "--bundle", OLD_STATIC, "--yes")
    assert older.returncode == 0, older.stderr
    for words in (("init", "pack"), ("join", "stat", "--to", "pack")):
        done = up.bed.machine("swarm", *words)
        assert done.returncode == 0, done.stderr
    rolled = up.bed.machine("swarm", "upgrade", "stat", "--yes")
    assert rolled.returncode == 0, rolled.stderr
    assert re.findall(rf"\((\w+)\) {OLD}\S* -> {NEW}", rolled.stderr) == ["stat", "pack"]
    nodes = [seat["node"] for seat in up.bed.swarm_status("stat")["seats"]]
    assert [node["version"].startswith(NEW) for node in nodes] == [True, True]
    assert {node["availability"] for node in nodes} == {"active"}
    for name in ("stat", "pack"):
        assert up.bed.machine("swarm", "leave", "-y", name).returncode == 0
    assert up.upgrade("pack", "--bundle", NEW_PACKAGES, "--yes").returncode == 0


def test_with_nothing_to_go_back_to_it_asks(up: Upgrades) -> None:
    removed = up.bed.machine("bundle", "rm", NEW_PACKAGES)
    assert removed.returncode == 0, removed.stderr
    refused = up.upgrade("pack", "--bundle", OLD_PACKAGES)
    assert refused.returncode == 1
    assert "no bundle here has the packages that are installed" in refused.stderr


def test_what_is_not_there_is_told(up: Upgrades) -> None:
    assert 'There is no bundle "nosuch"' in up.upgrade("pack", "--bundle", "nosuch").stderr
    wrong = next((CACHE / "bundles").glob("docker-debian-12.json"))
    for file in wrong.parent.glob("docker-debian-12.*"):
        (up.bundles / file.name).symlink_to(file)
    other = up.upgrade("pack", "--bundle", "docker-debian-12")
    assert other.returncode == 1
    assert "The bundle docker-debian-12 is for debian 12, x86_64" in other.stderr

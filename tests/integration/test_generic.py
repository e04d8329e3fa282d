"""A host that is there already and has no engine, from its first refusal to the way back: these tests
build on each other in order. test_adopted.py has one with an engine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.hosts import Host
from tests.somebodys import (
    PASSWORD,
    SUDO,
    USER,
    SomebodysBed,
    forget_containers,
    generic,
    inventory,
    known,
    run_container,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SomebodysBed]:
    with SomebodysBed(tmp_path_factory.mktemp("generic") / "bed", "somebodys", "other") as made:
        yield made


@pytest.fixture(scope="module")
def host(bed: SomebodysBed) -> Host:
    return bed.hosts["somebodys"]


@pytest.fixture(scope="module")
def untouched(host: Host) -> list[str]:
    """The host before anything was done to it."""
    return inventory(host)


def test_a_key_that_nobody_vouches_for_is_not_taken(host: Host) -> None:
    refused = host.bed.machine(*generic(host), "g1")
    assert refused.returncode == 3
    assert "is not known, and its key was not confirmed" in refused.stderr
    assert "SHA256:" in refused.stderr
    other = host.bed.machine(*generic(host, "--generic-host-key", "SHA256:AAAA"), "g1")
    assert other.returncode == 3
    assert "has another key than it should have" in other.stderr
    assert host.bed.machine("ls", "-q").stdout == ""


def test_what_cannot_be_reached_is_said_at_once(host: Host) -> None:
    nobody = host.bed.machine(*known(host, "--generic-ip-address", "10.79.0.99"), "g1")
    assert nobody.returncode == 3
    assert "No connection to 10.79.0.99 port 22" in nobody.stderr
    closed = host.bed.machine(*known(host, "--generic-ssh-port", "2378"), "g1")
    assert closed.returncode == 3
    assert f"No connection to {host.address} port 2378" in closed.stderr
    missing = host.bed.machine(*known(host, "--generic-ssh-key", "/nosuch"), "g1")
    assert (missing.returncode, "There is no key /nosuch" in missing.stderr) == (3, True)
    stranger = host.bed.machine(*known(host, "--generic-ssh-user", "bob"), "g1")
    assert stranger.returncode == 1
    assert "refuses the key of bob" in stranger.stderr
    assert host.bed.machine("ls", "-q").stdout == ""


def test_what_does_not_speak_ssh_is_told(bed: SomebodysBed) -> None:
    other = bed.hosts["other"]
    listen = ("--socket-property=ListenStream=2377", "--socket-property=Accept=yes")
    other.root(f"systemd-run --quiet {' '.join(listen)} true")
    mute = bed.machine(*known(other, "--generic-ssh-port", "2377"), "g1")
    assert mute.returncode == 3
    assert f"{other.address} port 2377 does not speak SSH" in mute.stderr
    assert bed.machine("ls", "-q").stdout == ""


def test_a_password_that_sudo_does_not_want_changes_nothing(
    host: Host, untouched: list[str]
) -> None:
    nobody = host.bed.machine(*known(host), "g1")
    assert nobody.returncode == 1
    assert "there is nobody to ask" in nobody.stderr
    wrong = host.bed.machine(*known(host), "g1", env={"MACHINE_GENERIC_SUDO_PASSWORD": "wrong"})
    assert wrong.returncode == 1
    assert f"sudo on the host refuses {USER}" in wrong.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    assert inventory(host) == untouched


def test_a_system_that_nobody_serves_is_named(host: Host, untouched: list[str]) -> None:
    host.root("mv /etc/os-release /etc/os-release.kept; echo ID=plan9 > /etc/os-release")
    refused = host.bed.machine(*known(host), "g1", env=SUDO)
    host.root("mv /etc/os-release.kept /etc/os-release")
    assert refused.returncode == 1
    assert "No provisioner serves this system: plan9" in refused.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    assert inventory(host) == untouched


def test_a_dry_run_says_what_would_be_changed(host: Host, untouched: list[str]) -> None:
    dry = host.bed.machine(*known(host), "--dry-run", "g1", env=SUDO)
    assert dry.returncode == 0, dry.stderr
    for part in ("docker.io", "+++ /etc/docker/daemon.json", "docker.service", "--tlsverify"):
        assert part in dry.stdout, dry.stdout
    assert "PRIVATE KEY" not in dry.stdout
    assert PASSWORD not in dry.stdout + dry.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    assert inventory(host) == untouched


def test_a_create_that_fails_puts_the_host_back(host: Host, untouched: list[str]) -> None:
    """When everything is installed already; only the daemon itself finds out at its start."""
    failed = host.bed.machine(
        *known(host), "--engine-opt", "data-root=/proc/nowhere", "g1", env=SUDO
    )
    assert failed.returncode == 1
    assert "dockerd does not start with its new configuration" in failed.stderr
    assert "Packages removed: " in failed.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    forget_containers(host)
    assert inventory(host) == untouched


def test_its_user_is_asked_for_the_key_and_the_password(host: Host) -> None:
    """On a terminal, and only once for each."""
    bed = host.bed
    words = [*bed.inside(), *bed.tool(), *generic(host), "g1"]
    env = {**bed.environment, "TERM": "xterm"}
    child = pexpect.spawn(
        words[0], words[1:], env=env, timeout=300, encoding="utf-8", dimensions=(50, 150)
    )
    child.expect(r"The host at .* is not known yet. Its key is SHA256:\S+ .*\(y/n\): ")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(host.folder / "host_key.pub")], capture_output=True, text=True
    ).stdout
    assert child.after
    assert shown.split()[1] in str(child.after)
    child.sendline("y")
    child.expect(f"Password of {USER} for sudo on {host.address}: ")
    child.sendline(PASSWORD)
    child.expect("g1 is ready")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    for word in (PASSWORD, "Password"):
        assert word not in str(child.before)


def test_it_runs_containers(host: Host, docker: str, image_tar: Path) -> None:
    run_container(host.bed, "g1", docker, image_tar)
    listed = host.bed.machine("ls").stdout
    assert re.search(rf"g1 .* generic .* Running .* tcp://{host.address}:2376 .* v\d", listed), (
        listed
    )


def test_no_secret_is_kept(host: Host) -> None:
    for path in host.bed.store.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_provisioning_again_changes_nothing(host: Host) -> None:
    started = host.root("systemctl show -P ActiveEnterTimestamp docker")
    before = inventory(host)
    again = host.bed.machine("provision", "g1", env=SUDO)
    assert again.returncode == 0, again.stderr
    assert "nothing had to change" in again.stderr
    assert inventory(host) == before
    assert host.root("systemctl show -P ActiveEnterTimestamp docker") == started


def test_its_own_verbs_alone_are_refused(host: Host) -> None:
    for verb in ("stop", "kill", "start"):
        refused = host.bed.machine(verb, "g1")
        assert refused.returncode == 1
        assert "generic driver cannot" in refused.stderr or "already running" in refused.stderr


def test_it_reboots(host: Host) -> None:
    before = host.root(BOOT_ID)
    rebooted = host.bed.machine("restart", "g1", env=SUDO)
    assert rebooted.returncode == 0, rebooted.stderr
    assert host.root(BOOT_ID) != before
    assert host.bed.machine("config", "g1").returncode == 0


def test_a_second_machine_of_it_that_fails_undoes_nothing_of_the_first(host: Host) -> None:
    before = inventory(host)
    failed = host.bed.machine(*known(host), "--engine-opt", "bip=nonsense", "g2", env=SUDO)
    assert failed.returncode == 1
    assert host.bed.machine("ls", "-q").stdout == "g1\n"
    assert inventory(host) == before
    assert host.bed.machine("version", "g1").returncode == 0


def test_undo_leaves_it_as_it_was(host: Host, untouched: list[str]) -> None:
    """The data of its containers are the user's: they stay."""
    gone = host.bed.machine("rm", "-y", "--undo", "g1", env=SUDO)
    assert gone.returncode == 0, gone.stderr
    assert "/var/lib/docker" in gone.stderr
    assert host.root("ls /var/lib/docker") != ""
    forget_containers(host)
    assert inventory(host) == untouched
    assert host.bed.machine("ls", "-q").stdout == ""

"""A hypervisor on another computer, by qemu+ssh: disks go there in a stream, and the machine is
reached by ports of that computer. The other computer is the test bed itself, by way of SSH."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from machine import keys
from machine.drivers.libvirt import forward
from tests.e2e.testbed import SystemBed

pytestmark = pytest.mark.e2e

PORT = 2022


@dataclass(frozen=True)
class Hypervisor:
    bed: SystemBed
    uri: str
    name: str = "far"


@pytest.fixture(scope="module")
def hypervisor(bed: SystemBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
    folder = tmp_path_factory.mktemp("sshd")
    host, user = keys.ed25519(), keys.ed25519()
    (folder / "host_key").write_text(host.private)
    (folder / "authorized_keys").write_text(user.public)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{PORT} {host.public}\n")
    (folder / "user_key").write_text(user.private)
    (folder / "user_key").chmod(0o600)
    # The ssh program reads known_hosts in its user's real home, whatever HOME says.
    (folder / "ssh").write_text(
        f'#!/bin/sh\nexec ssh -o UserKnownHostsFile={folder}/known_hosts -i {folder}/user_key "$@"\n'
    )
    (folder / "ssh").chmod(0o755)
    server = subprocess.Popen(
        [
            *bed.inside(),
            sys.executable,
            "-m",
            "tests.e2e.sshd",
            "127.0.0.1",
            str(PORT),
            str(folder),
        ],
        env=bed.environment,
    )
    try:
        bed.wait_for((folder / "listening").exists)
        yield Hypervisor(bed, f"qemu+ssh://root@127.0.0.1:{PORT}/system?command={folder}/ssh")
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def far(hypervisor: Hypervisor) -> str:
    made = hypervisor.bed.machine(
        *("create", "-d", "libvirt", "--libvirt-uri", hypervisor.uri),
        *("--libvirt-extra-disk", "1", "--libvirt-extra-disk", "2", hypervisor.name),
        timeout=900,
    )
    assert made.returncode == 0, made.stderr
    return hypervisor.name


def test_it_is_reached_by_ports_of_its_hypervisor(hypervisor: Hypervisor, far: str) -> None:
    bed = hypervisor.bed
    url = urlsplit(bed.machine("url", far).stdout.strip())
    assert (url.scheme, url.hostname) == ("tcp", "127.0.0.1")
    assert url.port in range(forward.FIRST, forward.FIRST + 2 * forward.PAIRS)
    assert bed.machine("config", far).returncode == 0
    assert bed.machine("ssh", far, "hostname").stdout == f"{far}\n"


def test_it_is_on_the_hypervisors_network_too(hypervisor: Hypervisor, far: str) -> None:
    bed = hypervisor.bed
    lan = bed.machine("inspect", far, "-f", "{{.Machine.facts.lan}}").stdout.strip()
    shown = bed.machine("ssh", far, "ip -o -4 address; ip route show default").stdout
    assert f" {lan}/24 " in shown
    assert shown.count("default via") == 1
    assert "default via 10.0.2.2" in shown  # QEMU's own network is the way out


def test_its_further_disks_are_there(hypervisor: Hypervisor, far: str) -> None:
    sizes = hypervisor.bed.machine(
        "ssh", far, "for n in 1 2; do lsblk -bdno SIZE /dev/disk/by-id/virtio-data$n; done"
    )
    assert sizes.stdout.split() == [str(1 << 30), str(2 << 30)], sizes.stderr


def test_ports_that_were_taken_meanwhile_are_exchanged(hypervisor: Hypervisor, far: str) -> None:
    bed = hypervisor.bed
    assert bed.machine("stop", far).returncode == 0
    before = bed.machine("inspect", far, "-f", "{{.Machine.facts.ssh_port}}").stdout.strip()
    program = f"import socket; s = socket.create_server(('', {before})); print(1); s.accept()"
    argv = [*bed.inside(), sys.executable, "-uc", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout and squatter.stdout.readline() == b"1\n"
        started = bed.machine("start", far)
        squatter.kill()
    assert started.returncode == 0, started.stderr
    after = bed.machine("inspect", far, "-f", "{{.Machine.facts.ssh_port}}").stdout.strip()
    assert after != before
    assert bed.machine("config", far).returncode == 0


def test_removal_leaves_nothing_there(hypervisor: Hypervisor, far: str) -> None:
    bed = hypervisor.bed
    removed = bed.machine("rm", "-y", far)
    assert removed.returncode == 0, removed.stderr
    asked = (
        ("list", "--all", "--name"),
        ("vol-list", "machine"),
        ("net-dumpxml", "--inactive", "machine"),
    )
    for words in asked:
        assert far not in bed.run("virsh", *words).stdout


def test_a_login_that_fails_is_told_with_its_remedy(hypervisor: Hypervisor) -> None:
    uri = hypervisor.uri.partition("?")[0]  # without the key
    refused = hypervisor.bed.machine("create", "-d", "libvirt", "--libvirt-uri", uri, "no")
    assert refused.returncode == 3
    assert "ssh root@127.0.0.1 virsh" in refused.stderr
    assert hypervisor.bed.machine("ls", "-q").stdout == ""

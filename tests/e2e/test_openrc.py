"""A host with OpenRC and busybox, on one real VM: these tests build on each other in order.

It is Alpine's stand-in, made of Debian's packages (tests/openrc_image.py says what it does not show).
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import keys, seed
from machine.model import FirstBoot, Identity, Nic
from tests import openrc_image
from tests.e2e.existing import ClientBed
from tests.e2e.test_system import variables
from tests.e2e.testbed import CACHE

pytestmark = pytest.mark.e2e

SSH_PORT, ENGINE_PORT = 2222, 12376
NAME = "openrc1"
INVENTORY = r"""
find /etc /usr /opt /root /home -xdev ! -path '/etc/g*-' ! -path '*/.sudo_as*' ! -name ld.so.cache \
    ! -type d -exec stat -c '%n %a %u %g %s' {} +
find /etc /usr /opt /home -xdev -type d
find /etc /usr/local -xdev -type f ! -path '/etc/g*-' -exec sha256sum {} +
ls /etc/runlevels/*
ls -d /var/lib/machine /var/lib/docker 2>/dev/null || true
"""


class Guest:
    """The VM as its owner sees it."""

    def __init__(self, bed: ClientBed, folder: Path) -> None:
        self.bed, self.folder = bed, folder

    def root(self, script: str, *, check: bool = True) -> str:
        done = self.bed.run(
            *("ssh", "-i", str(self.folder / "user_key"), "-o", "BatchMode=yes"),
            *("-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "HostKeyAlias=machine"),
            *("-o", "ConnectTimeout=5", "-p", str(SSH_PORT), f"{openrc_image.USER}@127.0.0.1"),
            "sudo sh -eu",
            stdin=script,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def create(self, *more: str) -> subprocess.CompletedProcess[str]:
        key = (self.folder / "host_key.pub").read_text().strip()
        where = ("--generic-ip-address", "127.0.0.1", "--generic-ssh-port", str(SSH_PORT))
        who = ("--generic-ssh-user", openrc_image.USER, "--generic-host-key", key)
        port = ("--generic-engine-port", str(ENGINE_PORT))
        login = ("--generic-ssh-key", str(self.folder / "user_key"))
        words = ("create", "-d", "generic", *where, *who, *login, *port)
        return self.bed.machine(*words, *more, NAME)

    def inventory(self) -> list[str]:
        return sorted(self.root(INVENTORY).splitlines())


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("openrc")
    with ClientBed(folder / "client") as bed:
        bed.cache = folder / "cache"
        found = Guest(bed, folder)
        qemu = _boot(found)
        try:
            bed.wait_for(lambda: found.root("echo up", check=False) == "up\n", 180)
            yield found
        finally:
            qemu.kill()
            qemu.wait()


def _boot(guest: Guest) -> subprocess.Popen[bytes]:
    folder, image = guest.folder, CACHE / openrc_image.FOLDER / openrc_image.NAME
    for name in ("user_key", "host_key"):
        pair = keys.ed25519(comment=name)
        (folder / name).write_text(pair.private)
        (folder / name).chmod(0o600)
        (folder / f"{name}.pub").write_text(f"{pair.public}\n")
    (folder / "known_hosts").write_text(f"machine {(folder / 'host_key.pub').read_text()}")
    identity = Identity(
        hostname="somebodys",
        machine_id=uuid.uuid4().hex,
        user=openrc_image.USER,
        authorized_keys=((folder / "user_key.pub").read_text().strip(),),
        host_key=(folder / "host_key").read_text(),
        host_key_public=(folder / "host_key.pub").read_text().strip(),
    )
    mac = "52:54:00:00:00:02"
    content, serial = seed.first_boot(FirstBoot.IDENTITY, identity, [Nic(mac)])
    (folder / "seed").write_bytes(content)
    disk = folder / "disk.qcow2"
    backing = ("-b", str(image / "disk.qcow2"), "-F", "qcow2")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk), "6G"], check=True
    )
    forwards = ",".join(
        f"hostfwd=tcp:127.0.0.1:{here}-:{there}"
        for here, there in ((SSH_PORT, 22), (ENGINE_PORT, ENGINE_PORT))
    )
    argv = [
        *("ip", "netns", "exec", guest.bed.namespace, "qemu-system-x86_64", "-M", "q35"),
        *("-accel", "tcg,tb-size=256", "-cpu", "max", "-smp", "2", "-m", "1024"),
        *("-display", "none", "-nodefaults", "-serial", f"file:{folder}/console"),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd")),
        *("-append", openrc_image.CMDLINE),
        *("-netdev", f"user,id=n,{forwards}", "-device", f"virtio-net-pci,netdev=n,mac={mac}"),
        *("-object", "rng-random,id=r,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r"),
        *("-drive", f"if=none,id=root,file={disk},format=qcow2,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"if=none,id=seed,file={folder}/seed,format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=seed,serial={serial}"),
    ]
    return subprocess.Popen(argv)


@pytest.fixture(scope="module")
def untouched(guest: Guest) -> list[str]:
    return guest.inventory()


def test_it_is_what_it_stands_for(guest: Guest, untouched: list[str]) -> None:
    programs = guest.root("readlink -f /proc/$$/exe; readlink -f $(which mv)").split()
    assert programs == ["/usr/bin/busybox", "/usr/bin/busybox"]
    assert "ID=alpine" in guest.root("cat /etc/os-release")
    assert guest.root("rc-status --runlevel") == "default\n"
    assert guest.root("ls -d /run/systemd/system 2>/dev/null || true") == ""


def test_an_engine_is_installed_and_runs_a_container(
    guest: Guest, untouched: list[str], static_archive: Path, docker: str, image_tar: Path
) -> None:
    words = ("bundle", "build", "docker", "--kind", "static", "--from", str(static_archive))
    built = guest.bed.machine(*words)
    assert built.returncode == 0, built.stderr
    made = guest.create("--engine-env", "SEEN=by the daemon")
    assert made.returncode == 0, made.stderr
    env = variables(guest.bed, NAME)
    imported = guest.bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hi", env=env)
    assert imported.returncode == 0, imported.stderr
    ran = guest.bed.run(docker, "run", "-i", "--rm", "hi", "cat", stdin="from here\n", env=env)
    assert (ran.returncode, ran.stdout) == (0, "from here\n"), ran.stderr
    assert guest.root("ls /etc/runlevels/default/docker")
    environment = guest.root("tr '\\0' '\\n' < /proc/$(pgrep -x dockerd)/environ")
    assert "SEEN=by the daemon\n" in environment
    programs = guest.root("for p in dockerd containerd; do readlink /proc/$(pgrep -x $p)/exe; done")
    home = "/usr/local/libexec/machine/docker/26.1.5"
    assert programs.split() == [f"{home}/dockerd", f"{home}/containerd"]


def test_provisioning_again_changes_nothing(guest: Guest) -> None:
    before = guest.root("pgrep -x dockerd")
    again = guest.bed.machine("provision", NAME)
    assert again.returncode == 0, again.stderr
    assert "nothing had to change" in again.stderr
    assert guest.root("pgrep -x dockerd") == before


def test_a_dockerd_that_ends_comes_back(guest: Guest) -> None:
    before = guest.root("pgrep -x dockerd")
    guest.root("kill -9 $(pgrep -x dockerd)")
    guest.bed.wait_for(
        lambda: guest.root("docker version", check=False) != "" and before != pid(guest), 90
    )


def pid(guest: Guest) -> str:
    return guest.root("pgrep -x dockerd || true")


def test_variables_of_the_users_stay_beside_ours(guest: Guest) -> None:
    guest.root("sed -i '1i # the owner wrote this' /etc/conf.d/docker")
    guest.root("sed -i 's/--tlsverify/--nosuchflag/' /etc/conf.d/docker")
    mended = guest.bed.machine("provision", NAME)
    assert mended.returncode == 0, mended.stderr
    assert guest.root("head -1 /etc/conf.d/docker") == "# the owner wrote this\n"
    assert "nosuchflag" not in guest.root("cat /etc/conf.d/docker")


def test_it_is_as_it_was_before(guest: Guest, untouched: list[str]) -> None:
    removed = guest.bed.machine("rm", "-y", "--undo", NAME)
    assert removed.returncode == 0, removed.stderr
    assert "/var/lib/docker is left as it is" in removed.stderr + removed.stdout
    guest.root("umount /var/lib/docker || true; rm -r /var/lib/docker")  # of the killed dockerd's
    assert guest.inventory() == untouched
    assert pid(guest) == ""

"""What a machine costs, against the same image and engine brought up by hand with QEMU and ssh."""

from __future__ import annotations

import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from benchmarks.clock import median, row, seconds
from machine import keys, seed
from machine.images import ImageCache
from machine.model import FirstBoot, Identity, Nic
from machine.runtime.bundle import BundleCache
from machine.ssh import known_hosts_line
from tests.e2e.testbed import CACHE, SystemBed

IMAGE, BUNDLE = "debian-13", "docker-debian-13"
PORT = 2200
CPUS, MEMORY_MIB = 2, 1024  # those of the template
LOGINS = 7

# What a careful person would type: the files are unpacked from the attached disk, no service
# starts before all is there, and the engine is asked until it answers.
BY_HAND = """
set -e
mkdir -p /tmp/bundle
tar -xf /dev/disk/by-id/virtio-bundle -C /tmp/bundle
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
DEBIAN_FRONTEND=noninteractive dpkg --force-unsafe-io --install /tmp/bundle/packages/*.deb
rm /usr/sbin/policy-rc.d
systemctl start docker
until docker version; do sleep 0.1; done
"""


def measure() -> None:
    with tempfile.TemporaryDirectory() as folder, SystemBed(Path(folder) / "bench") as bed:
        print("\nOne machine; the last column is against the same by hand")
        first = seconds(lambda: _machine(bed, "create", "-d", "libvirt", "first"))
        kind = _machine(bed, "inspect", "first", "-f", "{{.Machine.facts.kind}}").strip()
        _machine(bed, "rm", "-y", "first")
        with ByHand(bed, kvm=kind == "kvm") as by_hand:
            to_login, to_engine = by_hand.up()
        row("by hand: qemu to a login", to_login)
        row("by hand: and the engine installed and up", to_engine, to_engine)
        row("machine create, the image uploaded first", first, to_engine)
        options = ("--ssh-config", "bench")
        row(
            "machine create",
            seconds(lambda: _machine(bed, "create", "-d", "libvirt", *options)),
            to_engine,
        )
        _logins(bed)
        _sizes(bed)


class ByHand:
    """The image under QEMU alone, with the same processors, memory and disks."""

    def __init__(self, bed: SystemBed, *, kvm: bool) -> None:
        self.bed = bed
        self.accel = ("-accel", "kvm", "-cpu", "host") if kvm else ("-accel", "tcg", "-cpu", "max")
        self.folder = bed.folder / "by-hand"
        self.folder.mkdir()

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *exc: object) -> None:
        self.qemu.kill()
        self.qemu.wait()

    def up(self) -> tuple[float, float]:
        """Seconds to a login, and to an engine that answers."""
        started = time.perf_counter()
        self._start()
        while self._ssh("true").returncode:
            time.sleep(0.1)
        to_login = time.perf_counter() - started
        done = self._ssh("sudo sh", BY_HAND)
        assert done.returncode == 0, done.stderr
        return to_login, time.perf_counter() - started

    def _start(self) -> None:
        image = ImageCache(CACHE / "images").find(IMAGE)
        host, user = keys.ed25519(), keys.ed25519()
        (self.folder / "key").write_text(user.private)
        (self.folder / "key").chmod(0o600)
        (self.folder / "known_hosts").write_text(known_hosts_line(host.public))
        mac = "52:54:00:00:00:01"
        identity = Identity(
            "byhand", uuid.uuid4().hex, "me", (user.public,), host.private, host.public
        )
        content, serial = seed.first_boot(FirstBoot.IDENTITY, identity, [Nic(mac)])
        (self.folder / "seed").write_bytes(content)
        disk = str(self.folder / "disk.qcow2")
        backing = ("-b", str(image.disk), "-F", "qcow2")
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *backing, disk, "20G"], check=True
        )
        bundle = BundleCache(CACHE / "bundles").get(BUNDLE).path
        self.qemu = subprocess.Popen(
            [
                *self.bed.inside(),
                "qemu-system-x86_64",
                *("-M", "q35", *self.accel, "-smp", str(CPUS), "-m", str(MEMORY_MIB)),
                *("-display", "none", "-nodefaults", "-serial", f"file:{self.folder}/console"),
                *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
                *("-append", image.cmdline),
                *_drive("root", disk, "qcow2"),
                *_drive("seed", str(self.folder / "seed"), "raw", serial),
                *_drive("bundle", str(bundle), "raw", "bundle"),
                *("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{PORT}-:22"),
                *("-device", f"virtio-net-pci,netdev=n,mac={mac}"),
                *("-object", "rng-random,id=r,filename=/dev/urandom"),
                *("-device", "virtio-rng-pci,rng=r"),
            ]
        )

    def _ssh(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        options = {
            "UserKnownHostsFile": self.folder / "known_hosts",
            "HostKeyAlias": "machine",
            "ConnectTimeout": 5,
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return self.bed.run(
            "ssh",
            *words,
            *("-i", str(self.folder / "key"), "-p", str(PORT), "me@127.0.0.1", command),
            stdin=stdin,
        )


def _drive(name: str, path: str, kind: str, serial: str = "") -> tuple[str, ...]:
    readonly = "on" if serial else "off"
    return (
        *("-drive", f"if=none,id={name},file={path},format={kind},readonly={readonly}"),
        *("-device", f"virtio-blk-pci,drive={name}" + (f",serial={serial}" if serial else "")),
    )


def _machine(bed: SystemBed, *words: str) -> str:
    done = bed.machine(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _logins(bed: SystemBed) -> None:
    print(f"\nA command on the machine, median of {LOGINS}; against the ssh program")
    config = str(bed.store / "machines" / "bench" / "ssh_config")
    program = median(lambda: bed.run("ssh", "-F", config, "bench", "true"), LOGINS)
    row("ssh bench true", program, program)
    row(
        "machine ssh bench true",
        median(lambda: _machine(bed, "ssh", "bench", "true"), LOGINS),
        program,
    )


def _sizes(bed: SystemBed) -> None:
    print("\nWhat one machine takes")
    own = bed.run("sh", "-c", "du -m /var/lib/libvirt/images/machine/machine-bench-*").stdout
    shared = bed.run("sh", "-c", "du -cm /var/lib/libvirt/images/machine/machine-base-*").stdout
    print(f"disk, its own                     {sum(int(n) for n in own.split()[::2]):8} MiB")
    print(f"disk, shared by all machines      {shared.split()[-2]:>8} MiB")
    for number in bed.processes():
        status = Path(f"/proc/{number}/status").read_text()
        if "qemu-system" in status.splitlines()[0]:
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            print(
                f"memory of its QEMU ({MEMORY_MIB} MiB guest) {int(resident.split()[1]) >> 10:8} MiB"
            )

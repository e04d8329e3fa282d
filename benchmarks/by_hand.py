"""An image under QEMU alone, without this tool: what machines are compared with.

It has what the domain of a machine has (templates/libvirt/domain.xml.j2): the same processors,
memory, disks and their caches, kernel handed over, translated code kept, a card on the same bridge,
and the same first-boot disk with the engine's certificate and configuration.
"""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from machine import keys, seed
from machine.engine import ServerTls, Settings
from machine.model import BundleKind, FirstBoot, Identity, Image, Nic
from machine.runtime.bundle import Bundle
from machine.runtime.docker.engine import DockerEngine
from machine.ssh import known_hosts_line
from machine.tls import Authority
from tests.e2e.testbed import SystemBed

MAC = "52:54:00:00:00:01"
INSTALL = """
set -e
mkdir -p /tmp/bundle
tar -xf /dev/disk/by-id/virtio-bundle -C /tmp/bundle
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
DEBIAN_FRONTEND=noninteractive dpkg --force-unsafe-io --install /tmp/bundle/packages/*.deb
rm /usr/sbin/policy-rc.d
systemctl start docker
"""
"""What a careful person would type: the files are unpacked from the attached disk, and no service
starts before all is there."""
ASK = """
import http.client, ssl, sys, time
host, port, folder = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
while True:
    try:
        engine = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
        engine.request("GET", "/version")
        if engine.getresponse().status == 200:
            break
    except OSError:
        time.sleep(0.05)
"""
"""Until the engine answers, and its certificate is the right one."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of the machines that it is compared with, as their record has it."""

    kind: str  # "kvm", or "qemu" for emulation
    cpus: int
    memory_mib: int
    disk_gib: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Seconds since QEMU's start."""

    login: float
    engine: float


def boot(bed: SystemBed, size: Size, image: Image, bundle: Bundle | None = None) -> Reached:
    """Start it, wait until its engine answers, and put it out. ``bundle`` is an engine that has to
    be installed first."""
    folder = bed.folder / f"by-hand-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    bridge, address, gateway = _network(bed)
    content, serial = _first_boot(folder, Nic(MAC, str(address), gateway))
    (folder / "seed").write_bytes(content)
    _overlay(folder / "disk.qcow2", image, size)
    tap = folder / "tap"
    tap.write_text(f'#!/bin/sh\nip link set "$1" master {bridge} up\n')
    tap.chmod(0o755)
    drives = [*_drive("root", folder / "disk.qcow2", "qcow2")]
    drives += _drive("seed", folder / "seed", "raw", serial)
    if bundle:
        drives += _drive("bundle", bundle.path, "raw", "bundle")

    def ssh(command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return _ssh(bed, folder, f"me@{address.ip}", command, stdin)

    started = time.perf_counter()
    with subprocess.Popen([*bed.inside(), *_qemu(size, image, folder), *drives]) as qemu:
        try:
            while ssh("true").returncode:
                assert qemu.poll() is None, "QEMU ended"
                time.sleep(0.1)
            to_login = time.perf_counter() - started
            if bundle:
                done = ssh("sudo sh", INSTALL)
                assert done.returncode == 0, done.stderr
            asked = bed.run(sys.executable, "-c", ASK, str(address.ip), "2376", str(folder))
            assert asked.returncode == 0, asked.stderr
            return Reached(to_login, time.perf_counter() - started)
        finally:
            qemu.kill()


def _network(bed: SystemBed) -> tuple[str, ipaddress.IPv4Interface, str]:
    """The bridge of the machines' network, an address that none of them gets, and its gateway."""
    net = ElementTree.fromstring(bed.run("virsh", "net-dumpxml", "machine").stdout)
    bridge, ip = net.find("bridge"), net.find("ip")
    assert bridge is not None
    assert ip is not None
    gateway = ipaddress.IPv4Interface(f"{ip.get('address')}/{ip.get('netmask')}")
    last = gateway.network.broadcast_address - 1
    own = ipaddress.IPv4Interface(f"{last}/{gateway.network.prefixlen}")
    return str(bridge.get("name")), own, str(gateway.ip)


def _first_boot(folder: Path, nic: Nic) -> tuple[bytes, str]:
    """Keys and certificates, ours in the folder and the guest's on its first-boot disk."""
    host, user = keys.ed25519(), keys.ed25519()
    (folder / "key").write_text(user.private)
    (folder / "key").chmod(0o600)
    (folder / "known_hosts").write_text(known_hosts_line(host.public))
    authority = Authority(folder, folder / "lock")
    authority.ensure()
    cert, key = authority.issue_server(["byhand", str(nic.address).partition("/")[0]])
    tls = ServerTls((folder / "ca.pem").read_bytes(), cert, key)
    identity = Identity(
        hostname="byhand",
        machine_id=uuid.uuid4().hex,
        user="me",
        authorized_keys=(user.public,),
        host_key=host.private,
        host_key_public=host.public,
        files=DockerEngine.first_boot(BundleKind.PACKAGES, Settings(tls, DockerEngine.port)),
    )
    return seed.first_boot(FirstBoot.IDENTITY, identity, [nic])


def _overlay(disk: Path, image: Image, size: Size) -> None:
    backing = ("-b", str(image.disk), "-F", "qcow2")
    words = ("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk), f"{size.disk_gib}G")
    subprocess.run(words, check=True)


def _qemu(size: Size, image: Image, folder: Path) -> list[str]:
    accel = ("kvm", "-cpu", "host") if size.kind == "kvm" else ("tcg,tb-size=256", "-cpu", "max")
    return [
        "qemu-system-x86_64",
        *("-M", "q35", "-accel", *accel, "-smp", str(size.cpus), "-m", str(size.memory_mib)),
        *("-display", "none", "-nodefaults", "-serial", f"file:{folder}/console"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", image.cmdline),
        *("-netdev", f"tap,id=n,script={folder}/tap,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=n,mac={MAC}"),
        *("-object", "rng-random,id=r,filename=/dev/urandom"),
        *("-device", "virtio-rng-pci,rng=r"),
    ]


def _drive(name: str, path: Path, form: str, serial: str = "") -> tuple[str, ...]:
    readonly = "on" if serial else "off"
    return (
        "-drive",
        f"if=none,id={name},file={path},format={form},readonly={readonly},cache=none",
        "-device",
        f"virtio-blk-pci,drive={name}" + (f",serial={serial}" if serial else ""),
    )


def _ssh(
    bed: SystemBed, folder: Path, login: str, command: str, stdin: str
) -> subprocess.CompletedProcess[str]:
    options = {
        "UserKnownHostsFile": folder / "known_hosts",
        "HostKeyAlias": "machine",
        "ConnectTimeout": 5,
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return bed.run("ssh", *words, "-i", str(folder / "key"), login, command, stdin=stdin)

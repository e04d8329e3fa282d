"""A host that somebody else has set up: a VM without an engine behind a gate, by QEMU alone."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import keys, seed
from machine.images import ImageCache
from machine.model import FirstBoot, GuestFile, Identity, Nic
from tests.artefact import CACHE
from tests.e2e.testbed import ROOT, Bed
from tests.somebodys import PASSWORD, USER

MAC = "52:54:00:00:00:02"
GATE, CLIENT = "10.78.0.1", "10.78.0.2"
INSIDE = "127.0.0.5"
"""The host's address as only the gate knows it."""
GATE_PORT = 2222
SUDOERS = f"{USER} ALL=(ALL:ALL) ALL\n"


class ClientBed(Bed):
    """Where the tool runs: it reaches the gate, and behind that nothing."""

    script = """
set -eu
ip link set lo up
touch "$1/ready"
exec sleep infinity
"""


@dataclass
class ExistingHost:
    """Reached at GATE port 22, or through the gate's sshd at INSIDE."""

    bed: ClientBed
    folder: Path
    gate: str  # namespace

    @property
    def user_key(self) -> Path:
        return self.folder / "user_key"

    @property
    def host_key(self) -> str:
        return (self.folder / "host_key.pub").read_text().strip()

    def as_root(self, command: str) -> list[str]:
        """The words of a login as its owner, and not by the tool."""
        options = {
            "BatchMode": "yes",
            "UserKnownHostsFile": f"{self.folder}/known_hosts",
            "HostKeyAlias": "machine",
            "ConnectTimeout": "5",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", "-i", str(self.folder / "root_key"), *words, f"root@{GATE}", command]

    def root(self, command: str, *, check: bool = True) -> str:
        """Run something on it as its owner would."""
        done = self.bed.run(*self.as_root("sh -eu"), stdin=command)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def answers(self) -> bool:
        return self.root("echo up", check=False) == "up\n"


@contextmanager
def existing(folder: Path, release: str = "debian-13") -> Iterator[ExistingHost]:
    """Boot it, beside a namespace for the tool; both are gone afterwards."""
    with ClientBed(folder / "client") as bed:
        gate = f"{bed.namespace}-gate"[-60:]
        _network(bed, gate)
        host = ExistingHost(bed, folder, gate)
        _keys(folder)
        processes = [_sshd(host), _qemu(host, release)]
        try:
            bed.wait_for(host.answers, 180)
            # sudo looks at the password each time: a cheap hash, for an emulated processor.
            cheap = "chpasswd --crypt-method SHA512 --sha-rounds 1000"
            host.root(f"{cheap} <<'EOF'\n{USER}:{PASSWORD}\nEOF\n")
            yield host
        finally:
            for process in processes:
                process.kill()
                process.wait()
            subprocess.run(["ip", "netns", "del", gate], check=True)


def _network(bed: ClientBed, gate: str) -> None:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", gate)
    ip(
        "link",
        "add",
        "gate0",
        "netns",
        gate,
        "type",
        "veth",
        "peer",
        "client0",
        "netns",
        bed.namespace,
    )
    for namespace, card, address in ((gate, "gate0", GATE), (bed.namespace, "client0", CLIENT)):
        ip("-n", namespace, "address", "add", f"{address}/24", "dev", card)
        ip("-n", namespace, "link", "set", card, "up")
    ip("-n", gate, "link", "set", "lo", "up")


def _keys(folder: Path) -> None:
    for name in ("user_key", "root_key", "host_key", "gate_key"):
        pair = keys.ed25519(comment=name)
        (folder / name).write_text(pair.private)
        (folder / name).chmod(0o600)
        (folder / f"{name}.pub").write_text(f"{pair.public}\n")
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"machine {public}")


def _sshd(host: ExistingHost) -> subprocess.Popen[bytes]:
    """The gate's own: whoever has the user's key gets through."""
    folder = host.folder / "gate"
    folder.mkdir()
    (folder / "host_key").write_text((host.folder / "gate_key").read_text())
    (folder / "authorized_keys").write_text((host.folder / "user_key.pub").read_text())
    words = ["ip", "netns", "exec", host.gate, sys.executable, "-m", "tests.e2e.sshd"]
    words += [GATE, str(GATE_PORT), str(folder)]
    return subprocess.Popen(words, cwd=ROOT, env=host.bed.environment)


def _qemu(host: ExistingHost, release: str) -> subprocess.Popen[bytes]:
    folder = host.folder
    image = ImageCache(CACHE / "images").find(release)
    nic = Nic(MAC, "10.0.2.15/24", gateway="10.0.2.2", dns="10.0.2.3")
    content, serial = seed.first_boot(FirstBoot.IDENTITY, _identity(folder), [nic])
    (folder / "seed").write_bytes(content)
    disk = folder / "disk.qcow2"
    backing = ("-b", str(image.disk), "-F", "qcow2")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk), "6G"], check=True
    )
    forwards = ",".join(
        f"hostfwd=tcp:{at}:{port}-:{port}" for at in (GATE, INSIDE) for port in (22, 2376, 2377)
    )
    argv = [
        *("ip", "netns", "exec", host.gate, "qemu-system-x86_64", "-M", "q35"),
        *("-accel", "tcg,tb-size=256", "-cpu", "max", "-m", "1024"),
        *("-display", "none", "-nodefaults", "-serial", f"file:{folder}/console"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline),
        *("-netdev", f"user,id=n,{forwards}", "-device", f"virtio-net-pci,netdev=n,mac={MAC}"),
        *("-object", "rng-random,id=r,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r"),
        *("-drive", f"if=none,id=root,file={disk},format=qcow2,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-drive", f"if=none,id=seed,file={folder}/seed,format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=seed,serial={serial}"),
    ]
    return subprocess.Popen(argv)


def _identity(folder: Path) -> Identity:
    """Somebody's server: sudo wants a password, and root may log in with a key."""
    root = (folder / "root_key.pub").read_bytes()
    return Identity(
        hostname="somebodys",
        machine_id=uuid.uuid4().hex,
        user=USER,
        authorized_keys=((folder / "user_key.pub").read_text().strip(),),
        host_key=(folder / "host_key").read_text(),
        host_key_public=(folder / "host_key.pub").read_text().strip(),
        files=(
            GuestFile("/etc/sudoers.d/machine", SUDOERS.encode(), 0o440),
            GuestFile(
                "/etc/ssh/sshd_config.d/00-root.conf", b"PermitRootLogin prohibit-password\n"
            ),
            GuestFile("/root/.ssh/authorized_keys", root, 0o600),
        ),
    )

"""Hosts that no VM is needed for: Debian's own systemd, sshd and packages, each host in namespaces of
its own, beside each other on one network that nothing else is on.

What the kernel would have to do for each of them alone is out of reach here: control groups limit
nothing where this computer's are not cgroup v2's, and a routing mesh needs its ip_vs.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from machine import keys, seed
from machine.images import ImageCache
from machine.model import GuestFile, Identity, Nic
from machine.paths import cache_root
from machine.runtime.bundle import BundleCache
from tests import artefact
from tests.e2e.testbed import CACHE, Bed

NAME: Final = "debian-13"
WITH_ENGINE: Final = f"{NAME}-engine"
FOLDER: Final = "test-hosts"
TOOL: Final = "10.79.0.254"
"""Where the tool is, on the hosts' network."""
BOOT: Final = """
set -eu
folder=$1 tree=$2 root=$1/root
cd "$folder"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$folder/changed,workdir=$folder/work" "$root"
mount --bind "$folder/engine" "$root/var/lib/docker"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"  # there is no work for a udev then (systemd-udevd.service)
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for name in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$name"; done
chmod 1777 "$root/tmp"
for name in null zero full random urandom tty; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
if [ -d identity ]; then  # as _images/debian/init.sh
    user=$(cat identity/user)
    cp -a identity/root/. "$root"
    chroot "$root" useradd --create-home --shell /bin/bash --groups sudo,docker "$user"
    mkdir -m 700 "$root/home/$user/.ssh"
    cp identity/authorized_keys "$root/home/$user/.ssh"
    chroot "$root" chown -R "$user:$user" "/home/$user/.ssh"
    rm -r identity
fi
cd "$root"
mkdir -p oldroot
pivot_root . oldroot
umount -l oldroot
# "container" is how systemd is told that devices and kernel are not its own (container-interface).
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    /sbin/init --log-target=console </dev/null
"""
INSTALL: Final = """
set -eu
mount -t proc proc "$0/proc"
printf '#!/bin/sh\nexit 101\n' >"$0/usr/sbin/policy-rc.d"  # invoke-rc.d starts nothing then
chmod 755 "$0/usr/sbin/policy-rc.d"
chroot "$0" sh -c 'dpkg --install /var/tmp/packages/*.deb >/dev/null'
rm -r "$0/usr/sbin/policy-rc.d" "$0"/var/tmp/*
"""
UNUSED: Final = ("systemd-growfs-root.service", "systemd-remount-fs.service")
"""Units of a computer that has disks."""


@dataclass
class Host:
    """One of them. It can be cut off, and started again with what it had."""

    bed: HostBed
    name: str
    number: int
    _boot: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def address(self) -> str:
        return f"10.79.0.{self.number}"

    @property
    def folder(self) -> Path:
        return self.bed.folder / self.name

    @property
    def namespace(self) -> str:
        return f"{self.bed.namespace}-{self.number}"

    @property
    def options(self) -> list[str]:
        """Of `machine create`, to have it as a machine."""
        return [
            *("-d", "generic", "--generic-ip-address", self.address),
            *("--generic-ssh-user", "machine", "--generic-ssh-key", str(self.bed.key)),
            *("--generic-host-key", (self.folder / "host_key.pub").read_text().strip()),
        ]

    def prepare(self) -> None:
        for name in ("root", "changed", "work", "engine", "identity"):
            (self.folder / name).mkdir(parents=True)
        if self.bed.laid_over:
            subprocess.run(
                ["cp", "-a", f"{self.bed.laid_over}/.", "changed"], cwd=self.folder, check=True
            )
        pair = keys.ed25519(comment=self.name)
        (self.folder / "host_key.pub").write_text(f"{pair.public}\n")
        mac = f"52:54:00:4f:00:{self.number:02x}"
        identity = Identity(
            hostname=self.name,
            machine_id=uuid.uuid4().hex,
            user="machine",
            authorized_keys=(self.bed.key.with_suffix(".pub").read_text().strip(),),
            host_key=pair.private,
            host_key_public=pair.public,
            files=tuple(
                GuestFile(f"/etc/systemd/system/{unit}", link="/dev/null") for unit in UNUSED
            ),
        )
        archive = seed.identity_tar(identity, [Nic(mac, f"{self.address}/24", gateway=TOOL)])
        unpack = ("tar", "-xp", "-C", str(self.folder / "identity"))
        subprocess.run(unpack, input=archive, check=True)
        _ip("netns", "add", self.namespace)
        card = ("link", "add", "eth0", "netns", self.namespace, "address", mac)
        _ip(*card, "type", "veth", "peer", f"host{self.number}", "netns", self.bed.namespace)
        _ip("-n", self.bed.namespace, "link", "set", f"host{self.number}", "master", "hosts", "up")

    def start(self) -> None:
        """Returns when its sshd answers."""
        group = control_groups() / self.namespace
        group.mkdir(exist_ok=True)
        enter = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
        words = [
            *("sh", "-c", enter, str(group), "nsenter", f"--net=/run/netns/{self.namespace}"),
            *("unshare", "-m", "-u", "-p", "-i", "-C", "-f", "--kill-child"),
            *("--propagation", "private", "sh", "-c", BOOT, "sh", str(self.folder)),
            str(self.bed.tree),
        ]
        with (self.folder / "console").open("ab") as log:
            self._boot = subprocess.Popen(words, stdout=log, stderr=log)
        probe = ("sh", "-c", f"timeout 2 bash -c '</dev/tcp/{self.address}/22'")
        self.bed.wait_for(lambda: self.bed.run(*probe).returncode == 0, 60)

    def cut_off(self) -> None:
        """As when its power fails. Twice is fine."""
        if self._boot:
            self._boot.kill()
            self._boot.wait()
            self._boot = None
        group = control_groups() / self.namespace
        self.bed.wait_for(lambda: _is_empty(group))
        for each in sorted(group.rglob("*"), reverse=True):
            if each.is_dir():
                each.rmdir()
        group.rmdir()

    def remove(self) -> None:
        if (control_groups() / self.namespace).exists():
            self.cut_off()
        _ip("netns", "del", self.namespace)


class HostBed(Bed):
    """A network with the tool on it, and a host for each of ``names``: with the engine's packages
    installed, or with another ``tree``, NAME, without. What is ``laid_over`` it they have, too."""

    script = """
set -eu
ip link set lo up
ip link add hosts type bridge
ip address add 10.79.0.254/24 dev hosts
ip link set hosts up
touch "$1/ready"
exec sleep infinity
"""

    def __init__(
        self, folder: Path, *names: str, tree: str = WITH_ENGINE, laid_over: Path | None = None
    ) -> None:
        super().__init__(folder)
        self.laid_over = laid_over
        self.tree = CACHE / FOLDER / tree
        self.hosts = {name: Host(self, name, at) for at, name in enumerate(names, start=1)}

    @property
    def key(self) -> Path:
        """What all of them are logged in to with."""
        return self.folder / "user_key"

    def start(self) -> None:
        pair = keys.ed25519(comment="user")
        self.key.write_text(pair.private)
        self.key.chmod(0o600)
        self.key.with_suffix(".pub").write_text(f"{pair.public}\n")
        for host in self.hosts.values():
            host.prepare()
            host.start()

    def __exit__(self, *exc: object) -> None:
        for host in self.hosts.values():
            host.remove()
        super().__exit__(*exc)

    def create(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Have a host as a machine of the same name."""
        return self.machine("create", *self.hosts[name].options, *words, name)


def control_groups() -> Path:
    """Where this computer has cgroup v2; its root is left as it is."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("This computer has no cgroup v2: mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def build(folder: Path) -> None:
    """Unpack the image that the hosts share, without and with the engine's packages installed, or
    leave what is there."""

    def plain(work: Path) -> Path:
        tree = ImageCache(CACHE / "images").find(NAME).tree
        assert tree
        (work / NAME).mkdir()
        words = ("tar", "-C", str(work / NAME), "--exclude=./dev/*", "-xpf", str(tree))
        subprocess.run(words, check=True)
        (work / NAME / "dev").mkdir(exist_ok=True)
        (work / NAME / "var/lib/docker").mkdir()
        return work / NAME

    def with_engine(work: Path) -> Path:
        subprocess.run(["cp", "-a", str(folder / NAME), str(work)], check=True)
        bundle = BundleCache(CACHE / "bundles").get(f"docker-{NAME}")
        packages = work / NAME / "var/tmp"
        subprocess.run(["tar", "-C", str(packages), "-xf", str(bundle.path)], check=True)
        subprocess.run(["unshare", "-m", "sh", "-c", INSTALL, str(work / NAME)], check=True)
        return work / NAME

    artefact.build(folder / NAME, plain)
    artefact.build(folder / WITH_ENGINE, with_engine)


def _is_empty(group: Path) -> bool:
    return "populated 0" in (group / "cgroup.events").read_text()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER)

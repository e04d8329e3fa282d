"""Hosts that no VM is needed for: Debian's own systemd, sshd and packages, each host in namespaces of
its own, beside each other on one network that nothing else is on.

What the kernel would have to do for each of them alone is out of reach here: control groups limit
nothing where this computer's are not cgroup v2's, and a routing mesh needs its ip_vs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from machine import keys, seed
from machine.images import ImageCache
from machine.model import GuestFile, Identity, Nic
from machine.paths import cache_root
from machine.runtime.bundle import BundleCache
from tests import artefact, foreign_image, openrc_image
from tests.artefact import CACHE
from tests.e2e.testbed import Bed
from tests.firewalled import INSIDE

NAME: Final = "debian-13"
OLDER: Final = "debian-12"
OPENRC: Final = "openrc"
WITH_ENGINE: Final = f"{NAME}-engine"
WITH_CLOUD_INIT: Final = f"{NAME}-cloud-init"
"""The same system as others publish it for clouds: cloud-init makes somebody of it."""
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
cat /proc/sys/kernel/random/uuid >"$root/run/boot_id"  # the kernel's would outlast a reboot
mount --bind "$root/run/boot_id" "$root/proc/sys/kernel/random/boot_id"
for name in null zero full random urandom tty; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for name in stdin:0 stdout:1 stderr:2; do
    ln -s "/proc/self/fd/${name#*:}" "$root/dev/${name%:*}"
done
if [ -d identity ]; then  # as _images/debian/init.sh
    user=$(cat identity/user)
    cp -a identity/root/. "$root"
    grep -q "^$user:" "$root/etc/passwd" ||
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
# "container" is how systemd is told that devices and kernel are not its own (container-interface);
# another init takes no note of the word behind its name.
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
PATIENT: Final = b"PerSourcePenalties no\n"
"""OpenSSH 9.8 and later shut out who looks at them too often without a login: more than 15 times in as
many seconds, which tests do here."""
UNUSED: Final = (
    *("systemd-growfs-root.service", "systemd-growfs@-.service"),  # of systemd 257 and 252
    "systemd-remount-fs.service",
)
"""Units of a computer that has disks."""
ENTER: Final = """
echo $$ >"$0/cgroup.procs"
while "$@"; [ $? -eq 129 ]; do :; done
"""
"""In a control group that all of a host ends with. pid_namespaces(7): reboot(2) ends an init there with
SIGHUP, and only whoever started it can start it again."""


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
    def group(self) -> Path:
        """Its control group."""
        return control_groups() / self.namespace

    @property
    def options(self) -> list[str]:
        """Of `machine create`, to have it as a machine."""
        return [
            *("-d", "generic", "--generic-ip-address", self.address),
            *("--generic-ssh-user", self.bed.user, "--generic-ssh-key", str(self.bed.key)),
            *("--generic-host-key", self.host_key),
        ]

    @property
    def host_key(self) -> str:
        return (self.folder / "host_key.pub").read_text().strip()

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
            user=self.bed.user,
            authorized_keys=(self.bed.key.with_suffix(".pub").read_text().strip(),),
            host_key=pair.private,
            host_key_public=pair.public,
            files=self.bed.files(self),
        )
        archive = seed.identity_tar(identity, [Nic(mac, f"{self.address}/24", gateway=TOOL)])
        unpack = ("tar", "-xp", "-C", str(self.folder / "identity"))
        subprocess.run(unpack, input=archive, check=True)
        self.connect(mac)

    def connect(self, mac: str) -> None:
        """Its own network, with a card on that of all."""
        _ip("netns", "add", self.namespace)
        card = ("link", "add", "eth0", "netns", self.namespace, "address", mac)
        _ip(*card, "type", "veth", "peer", f"host{self.number}", "netns", self.bed.namespace)
        _ip("-n", self.bed.namespace, "link", "set", f"host{self.number}", "master", "hosts", "up")

    def start(self) -> None:
        """Returns when its sshd answers."""
        self.power_on()
        probe = ("sh", "-c", f"timeout 2 bash -c '</dev/tcp/{self.address}/22'")
        self.bed.wait_for(lambda: self.bed.run(*probe).returncode == 0, 60)

    def power_on(self) -> None:
        self.group.mkdir(exist_ok=True)
        words = [
            *("sh", "-c", ENTER, str(self.group), "nsenter", f"--net=/run/netns/{self.namespace}"),
            *("unshare", "-m", "-u", "-p", "-i", "-C", "-f", "--kill-child"),
            *("--propagation", "private", "sh", "-c", BOOT, "sh", str(self.folder)),
            str(self.bed.tree),
        ]
        with (self.folder / "console").open("ab") as log:
            self._boot = subprocess.Popen(words, stdout=log, stderr=log)

    def root(self, script: str, *, stdin: bytes = b"", check: bool = True) -> str:
        """Run something on it as its owner would, at its own console."""
        assert self._boot
        init = _child(_child(self._boot.pid))
        enter = ("nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "-C", "--")
        words = [*enter, *INSIDE, "sh", "-euc", script]
        done = subprocess.run(words, input=stdin, capture_output=True, check=False)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def cut_off(self) -> None:
        """As when its power fails. Twice is fine."""
        if self.group.exists():
            (self.group / "cgroup.kill").write_text("1")
        if self._boot:
            self._boot.wait()
            self._boot = None
        if not self.group.exists():
            return
        self.bed.wait_for(lambda: _is_empty(self.group))
        for each in sorted(self.group.rglob("*"), reverse=True):
            if each.is_dir():
                each.rmdir()
        self.group.rmdir()

    def shut_down(self) -> None:
        """As by its power button; cut off when it does not end. Systemd's SIGRTMIN+4 is to power
        off (systemd(1)). Twice is fine."""
        if self._boot:
            (number,) = (self.group / "init.scope/cgroup.procs").read_text().split()
            os.kill(int(number), signal.SIGRTMIN + 4)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._boot.wait(30)
        self.cut_off()

    def remove(self) -> None:
        if self.group.exists():
            self.cut_off()
        if Path("/run/netns", self.namespace).exists():  # it was prepared
            _ip("netns", "del", self.namespace)


class HostBed(Bed):
    """A network with the tool on it, and a host for each of ``names``: with the engine's packages
    installed, or with another ``tree``, NAME, without. What is ``laid_over`` it they have, too. Its
    ``user`` becomes root by sudo, which wants the ``password`` if there is one."""

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
        self,
        folder: Path,
        *names: str,
        tree: str = WITH_ENGINE,
        user: str = "machine",
        password: str = "",
        laid_over: Path | None = None,
    ) -> None:
        super().__init__(folder)
        self.laid_over = laid_over
        self.tree = CACHE / FOLDER / tree
        self.user, self.password = user, password
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
            if self.password:
                host.root("chpasswd", stdin=f"{self.user}:{self.password}\n".encode())

    def __exit__(self, *exc: object) -> None:
        for host in self.hosts.values():
            host.remove()
        super().__exit__(*exc)

    def files(self, host: Host) -> tuple[GuestFile, ...]:
        """What a host has besides, at its first start."""
        unused = (GuestFile(f"/etc/systemd/system/{unit}", link="/dev/null") for unit in UNUSED)
        sudoers = GuestFile(
            "/etc/sudoers.d/machine", f"{self.user} ALL=(ALL:ALL) ALL\n".encode(), 0o440
        )
        sshd = GuestFile("/etc/ssh/sshd_config.d/00-tests.conf", PATIENT)
        return (
            *unused,
            *((sshd,) if self.tree.name != OLDER else ()),  # which knows nothing of it
            *((sudoers,) if self.password else ()),
        )

    def create(
        self, name: str, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Have a host as a machine of the same name."""
        return self.machine("create", *self.hosts[name].options, *words, name, env=env)


def control_groups() -> Path:
    """Where this computer has cgroup v2; its root is left as it is."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("This computer has no cgroup v2: mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def build(folder: Path) -> None:
    """Unpack the systems that hosts share, and one with the engine's packages installed; or leave
    what is there."""

    def with_cloud_init(work: Path) -> Path:
        root = _unpack(CACHE / foreign_image.FOLDER / foreign_image.SYSTEM, work)
        (root / "etc/machine-id").write_text("")
        enable = ("systemctl", "-q", "enable", "systemd-networkd", "systemd-resolved")
        subprocess.run(["chroot", str(root), *enable], check=True)
        return root

    def with_engine(work: Path) -> Path:
        subprocess.run(["cp", "-a", str(folder / NAME), str(work)], check=True)
        bundle = BundleCache(CACHE / "bundles").get(f"docker-{NAME}")
        packages = work / NAME / "var/tmp"
        subprocess.run(["tar", "-C", str(packages), "-xf", str(bundle.path)], check=True)
        subprocess.run(["unshare", "-m", "sh", "-c", INSTALL, str(work / NAME)], check=True)
        return work / NAME

    for name in (NAME, OLDER):
        tree = ImageCache(CACHE / "images").find(name).tree
        assert tree
        artefact.build(folder / name, partial(_unpack, tree))
    openrc = CACHE / openrc_image.FOLDER / openrc_image.NAME
    artefact.build(folder / OPENRC, partial(_unpack, openrc))
    artefact.build(folder / WITH_ENGINE, with_engine)
    artefact.build(folder / WITH_CLOUD_INIT, with_cloud_init)


def _unpack(archive: Path, work: Path) -> Path:
    root = work / "root"
    root.mkdir()
    words = ("tar", "-C", str(root), "--exclude=./dev/*", "-xpf", str(archive))
    subprocess.run(words, check=True)
    (root / "dev").mkdir(exist_ok=True)
    (root / "var/lib/docker").mkdir()
    return root


def _is_empty(group: Path) -> bool:
    return "populated 0" in (group / "cgroup.events").read_text()


def _child(pid: int) -> int:
    """The only one of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER)

"""A Debian with all of its firewalls, unpacked from packages: a host that nothing boots, with a network
of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from machine.chroot import ChrootGuest
from machine.paths import cache_root
from tests import artefact
from tests.artefact import CACHE

NAME: Final = "firewalled-debian-13.tar"
FOLDER: Final = "test-images"
PACKAGES: Final = (
    *("dbus", "firewalld", "iproute2", "iptables", "nftables", "systemd", "ufw"),
    "adduser",  # which comes with sshd, and the engine's packages need
)
ENTER: Final = """
set -eu
for name in dev proc sys; do mount --rbind /$name "$0/$name"; done
mount -t tmpfs tmpfs "$0/run"
mkdir -p "$0/run/lock" "$0/run/dbus"
ip link set lo up
: > "$0/run/ready"
exec sleep infinity
"""
INSIDE: Final = (
    *("env", "-i", "LC_ALL=C.UTF-8"),
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)


class Firewalled(ChrootGuest):
    """Its programs run in one network and one mount namespace: what one leaves, the next finds."""

    def __init__(self, root: Path, holder: int) -> None:
        enter = ("nsenter", "-t", str(holder), "-m", "-n", "--")
        self._inside = (*enter, "chroot", str(root), *INSIDE)


def build(target: Path) -> None:
    """Make the tree's archive, or leave the one that is there. Raises ImageError."""

    def make(work: Path) -> Path:
        artefact.bootstrap(work / NAME, PACKAGES, *artefact.BARE)
        return work / NAME

    artefact.build(target, make)


@contextmanager
def firewalled(folder: Path, archive: Path = CACHE / FOLDER / NAME) -> Iterator[Firewalled]:
    """Such a host, or one from another archive; nothing of it is left afterwards. Needs root."""
    root, namespace = folder / "root", f"machine-fw-{os.getpid()}"
    root.mkdir(parents=True)
    subprocess.run(["tar", "-C", root, "--exclude=./dev/*", "-xpf", archive], check=True)
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    start = ["ip", "netns", "exec", namespace, "unshare", "-m", "--propagation", "private"]
    holder = subprocess.Popen([*start, "sh", "-c", ENTER, str(root)])
    try:
        guest = Firewalled(root, holder.pid)
        end = time.monotonic() + 30
        while not guest.run("test", "-e", "/run/ready", check=False).ok:
            assert time.monotonic() < end
            assert holder.poll() is None
        yield guest
    finally:
        listed = subprocess.run(
            ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True
        )
        for number in listed.stdout.split():
            subprocess.run(["kill", "-9", number], check=False)
        holder.wait()
        subprocess.run(["ip", "netns", "del", namespace], check=True)
        shutil.rmtree(root)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else cache_root() / FOLDER / NAME)

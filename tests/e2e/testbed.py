"""A complete libvirt of its own: in a network and a mount namespace, nothing shared, nothing left."""

from __future__ import annotations

import grp
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("MACHINE_CACHE_PATH") or Path.home() / ".cache" / "machine")
"""Images and bundles are those that `make setup` built; taken before a test changes HOME."""

_MOUNTS = """
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/libvirt
for name in lib log cache; do
    mkdir -p "$1/$name"
    [ -d /var/$name/libvirt ] || mkdir -p /var/$name/libvirt
    mount --bind "$1/$name" /var/$name/libvirt
done
mkdir -p "$1/etc"
cp -a /etc/libvirt/. "$1/etc/"
rm -rf "$1"/etc/qemu/networks/autostart/* "$1"/etc/qemu/networks/*.xml "$1"/etc/qemu/*.xml
mount --bind "$1/etc" /etc/libvirt
[ ! -e "$1/kvm" ] || mount --bind "$1/kvm" /dev/kvm
ip link set lo up
exec sleep infinity
"""


class SystemBed:
    """libvirt's system mode. Everything that talks to its VMs runs inside, too."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("The tests of system mode need root: sudo make test")
        self.folder = folder
        self.store = folder / "store"
        self.home = folder / "home"
        self.namespace = f"machine-e2e-{os.getpid()}-{folder.name}"[:60]
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        if Path("/dev/kvm").exists():
            # The rights that udev gives it; libvirt is very slow with others (docs/libvirt.md).
            os.mknod(self.folder / "kvm", 0o20660, os.makedev(10, 232))
            os.chown(self.folder / "kvm", 0, grp.getgrnam("kvm").gr_gid)
            (self.folder / "kvm").chmod(0o660)
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        self._holder = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace]
            + ["unshare", "-m", "--propagation", "private"]
            + ["sh", "-c", _MOUNTS, "sh", str(self.folder)],
        )
        self._children.append(self._holder)
        self._wait_for(lambda: self.run("mountpoint", "-q", "/etc/libvirt").returncode == 0)
        self._wait_for(lambda: b"UP" in self.run("ip", "link", "show", "lo").stdout.encode())
        for program in ("virtlogd", "libvirtd"):
            log = (self.folder / f"{program}.log").open("wb")
            argv = [*self._inside(), program]
            self._children.append(subprocess.Popen(argv, stdout=log, stderr=log))
        self._wait_for(lambda: self.run("virsh", "-c", "qemu:///system", "list").returncode == 0)
        return self

    def __exit__(self, *exc: object) -> None:
        for number in self.processes():
            if number != self._holder.pid:
                os.kill(number, signal.SIGKILL)
        for child in reversed(self._children):
            child.kill()
            child.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[int]:
        """The ids of everything that runs in the namespace."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        )
        return [int(word) for word in listed.stdout.split()]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "MACHINE_STORAGE_PATH": str(self.store),
            "MACHINE_CACHE_PATH": str(CACHE),
            "PYTHONPATH": str(ROOT),
        }

    def machine(
        self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: int = 600
    ) -> subprocess.CompletedProcess[str]:
        """One command line of the tool."""
        return self.run(
            sys.executable, "-m", "machine", *words, stdin=stdin, env=env, timeout=timeout
        )

    def run(
        self, *argv: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: int = 600
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._inside(), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment, **(env or {})},
            cwd=ROOT,
            check=False,
        )

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """The tool in the background, its standard output to read."""
        return subprocess.Popen(
            [*self._inside(), sys.executable, "-m", "machine", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
            cwd=ROOT,
        )

    def _inside(self) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-m", "-n", "--"]

    def _wait_for(self, check: object, seconds: float = 30) -> None:
        assert callable(check)
        end = time.monotonic() + seconds
        while not check():
            if time.monotonic() > end:
                raise TimeoutError(f"The test bed did not come up: see {self.folder}")
            time.sleep(0.1)

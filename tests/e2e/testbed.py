"""A complete libvirt of its own: in a network and a mount namespace, nothing shared, nothing left."""

from __future__ import annotations

import contextlib
import grp
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from tests.artefact import CACHE

ROOT = Path(__file__).parents[2]


def own_cache(folder: Path) -> Path:
    """A cache with the images and bundles that `make setup` built, and with layers of its own."""
    (folder / "layers").mkdir(parents=True)
    for name in ("images", "bundles"):
        (folder / name).symlink_to(CACHE / name)
    return folder


STAYS = re.compile(
    r"machine-base-"  # images and bundles, shared by all machines
    r"|/(networks?|storage)/|dnsmasq|\bnetwork machine$"  # our network and pool
    r"|/\.locks/|/certs/"  # the store's own
    r"|/capabilities/|/nvram|\.pid$|/libvirt/(common|qemu|virt\w+)/?[\w.-]*$"  # libvirt's own
    r"|/qemu/log/|/log/libvirt/|(sh|sleep|virsh|find|nsenter|grep|libvirtd|virtlogd|python)\b\n?$"
)
"""What a removed machine may leave."""


ONE_PROCESSOR = {"MACHINE_LIBVIRT_CPUS": "1", "MACHINE_VIRTUALBOX_CPU_COUNT": "1"}
"""A guest that boots on two keeps an emulator of two busy a third longer, and tests have two at once."""


def of_process(number: int, what: str) -> str:
    """``comm`` or ``cmdline`` of proc(5); "" for a process that has ended meanwhile."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{number}/{what}").read_text()
    return ""


_SERVED = """
import ssl, sys
print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))))
"""


class Bed:
    """The namespaces, and the tool run inside them."""

    script = ""
    folders: tuple[str, ...] = ()
    """Of libvirt's own, to be looked through for what is left."""
    numbers = itertools.count(1)
    """Of all beds: folders of two modules may have one name."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise RuntimeError(
                "Tests on real VMs make namespaces, which needs root: sudo make test"
            )
        self.folder = folder
        self.store = folder / "store"
        self.home = folder / "home"
        self.cache = CACHE
        self.root = ROOT
        self.namespace = f"machine-{os.getpid()}-{next(self.numbers)}-{folder.name}"
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        self.prepare()
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        start = ["ip", "netns", "exec", self.namespace, "unshare", "-m", "--propagation", "private"]
        words = ["sh", "-c", self.script, "sh", str(self.folder), str(ROOT)]
        self._holder = subprocess.Popen([*start, *words])
        self._children.append(self._holder)
        try:
            self.wait_for(lambda: (self.folder / "ready").exists())
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for number in self.processes():
            if number != self._holder.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        for child in reversed(self._children):
            child.kill()
            child.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)
        shutil.rmtree(self.folder)

    def prepare(self) -> None:
        """Before the namespaces are made."""

    def start(self) -> None:
        """Once they are there."""

    def processes(self) -> list[int]:
        """The ids of everything that runs in the namespace."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        )
        return [int(word) for word in listed.stdout.split()]

    def running(self) -> set[str]:
        """A line for each program, as an inventory has it."""
        names = {of_process(number, "comm") for number in self.processes()}
        return {f"process {name}" for name in names if name}

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "MACHINE_STORAGE_PATH": str(self.store),
            "MACHINE_CACHE_PATH": str(self.cache),
            "PYTHONPATH": str(self.root),
            **ONE_PROCESSOR,
        }

    @contextlib.contextmanager
    def using(self, cache: Path) -> Iterator[None]:
        """Another cache for a while."""
        others, self.cache = self.cache, cache
        try:
            yield
        finally:
            self.cache = others

    def machine(
        self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: int = 600
    ) -> subprocess.CompletedProcess[str]:
        """One command line of the tool."""
        return self.run(*self.tool(), *words, stdin=stdin, env=env, timeout=timeout)

    def run(
        self, *argv: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: int = 600
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside(), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment, **(env or {})},
            cwd="/",
            check=False,
        )

    def variables(self, name: str) -> dict[str, str]:
        """What a shell has after eval "$(machine env NAME)"."""
        shown = self.machine("env", "--shell", "bash", name)
        assert shown.returncode == 0, shown.stderr
        words = shlex.split(shown.stdout, comments=True)
        return dict(word.split("=", 1) for word in words if "=" in word)

    def served(self, name: str) -> bytes:
        """The certificate that a machine's engine shows to whoever comes (DER)."""
        at, _, port = (
            self.machine("url", name).stdout.strip().removeprefix("tcp://").rpartition(":")
        )
        shown = self.run(*self.tool()[:1], "-c", _SERVED, at, port)
        assert shown.returncode == 0, shown.stderr
        return ssl.PEM_cert_to_DER_cert(shown.stdout.strip())

    def swarm_status(self, name: str) -> dict[str, Any]:
        """What a manager tells of the Swarm that a machine is in."""
        done = self.machine("swarm", "status", "--output", "json", name)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["data"]
        return found

    def popen(self, *words: str, stderr: IO[str] | None = None) -> subprocess.Popen[str]:
        """The tool in the background, its standard output to read."""
        return subprocess.Popen(
            [*self.inside(), *self.tool(), *words],
            stdout=subprocess.PIPE,
            stderr=stderr or subprocess.DEVNULL,
            text=True,
            env=self.environment,
            cwd="/",
        )

    def killed_at(
        self, step: str, *words: str, once: Callable[[], bool] | None = None
    ) -> list[str]:
        """Run a command and end it with SIGKILL at the moment when the step starts, or when
        ``once`` is true after that. Answers the notes that it had for its user."""
        process = self.popen(*words, "--output", "json")
        notes: list[str] = []
        reader: threading.Thread | None = None
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            if event["kind"] == "Note":
                notes.append(event["data"]["text"])
            if event["kind"] == "StepStarted" and event["data"]["step"] == step:
                try:
                    if once:
                        # What it goes on to say is read, or it would wait for that.
                        reader = threading.Thread(target=process.stdout.read)
                        reader.start()
                        self.wait_for(once, 120)
                finally:
                    os.kill(process.pid, signal.SIGKILL)
                break
        else:
            raise AssertionError(f"The step {step} never started")
        assert process.wait() == -signal.SIGKILL
        if reader:
            reader.join()
        process.stdout.close()
        return notes

    def left_of(self, name: str) -> str:
        """What there is of a machine anywhere: domains, volumes, reservations, files."""
        places = (
            self.run("virsh", "list", "--all", "--name").stdout,
            self.run("virsh", "vol-list", "machine").stdout,
            self.run("virsh", "net-dumpxml", "--inactive", "machine").stdout,
            "\n".join(each.name for each in self.store.glob("machines/*")),
        )
        return "\n".join(line for text in places for line in text.splitlines() if name in line)

    def inventory(self) -> set[str]:
        """Everything that a machine could leave behind: what libvirt knows, what runs, and every
        file in the folders that a machine's things may be in."""
        asked = {
            "domain": ("virsh", "list", "--all", "--name"),
            "volume": ("virsh", "vol-list", "--pool", "machine"),
            "network": ("virsh", "net-list", "--all", "--name"),
            "reservation": ("sh", "-c", "virsh net-dumpxml --inactive machine | grep '<host '"),
            "context": ("sh", "-c", 'find "$HOME/.docker" -type f 2>/dev/null'),
            "file": ("find", str(self.store), str(self.home), *self.folders, "-type", "f"),
        }
        found = {
            f"{kind} {line.split()[0]}" if kind == "volume" else f"{kind} {line.strip()}"
            for kind, words in asked.items()
            for line in self.run(*words).stdout.splitlines()
            if line.strip() and not line.startswith((" Name", "---"))
        }
        found |= self.running()
        return {line for line in found if not STAYS.search(line)}

    def tool(self) -> list[str]:
        return [str(self.root / ".venv" / "bin" / "python"), "-m", "machine"]

    def inside(self) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-m", "-n", "--"]

    def eventually(self, check: Callable[[], bool], seconds: float = 60) -> None:
        """As ``wait_for``, where what is asked may be refused meanwhile: a Swarm that chooses a leader
        answers nobody."""

        def holds() -> bool:
            with contextlib.suppress(AssertionError):
                return check()
            return False

        self.wait_for(holds, seconds)

    def wait_for(self, check: Callable[[], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not check():
            if time.monotonic() > end:
                raise TimeoutError(f"The test bed did not come up: see {self.folder}")
            time.sleep(0.1)


class SystemBed(Bed):
    """libvirt's system mode: its own daemons, folders, bridge and addresses."""

    folders = ("/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/run/libvirt")

    script = """
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/libvirt
for name in lib log cache; do
    mkdir -p "$1/$name" /var/$name/libvirt
    mount --bind "$1/$name" /var/$name/libvirt
done
mkdir -p "$1/etc"
cp -a /etc/libvirt/. "$1/etc/"
rm -rf "$1"/etc/qemu/networks/autostart/* "$1"/etc/qemu/networks/*.xml "$1"/etc/qemu/*.xml
mount --bind "$1/etc" /etc/libvirt
[ ! -e "$1/kvm" ] || mount --bind "$1/kvm" /dev/kvm
ip link set lo up
touch "$1/ready"
exec sleep infinity
"""

    def prepare(self) -> None:
        self.cache = own_cache(self.folder / "cache")
        if Path("/dev/kvm").exists():
            # The rights that udev gives it; libvirt is very slow with others (findings.py).
            os.mknod(self.folder / "kvm", 0o20660, os.makedev(10, 232))
            os.chown(self.folder / "kvm", 0, grp.getgrnam("kvm").gr_gid)
            (self.folder / "kvm").chmod(0o660)

    def start(self) -> None:
        for program in ("virtlogd", "libvirtd"):
            with (self.folder / f"{program}.log").open("wb") as log:
                argv = [*self.inside(), program]
                self._children.append(subprocess.Popen(argv, stdout=log, stderr=log))
        self.wait_for(lambda: self.run("virsh", "-c", "qemu:///system", "list").returncode == 0)


class SessionBed(Bed):
    """libvirt's session mode as an ordinary user with subordinate ids, who starts it without
    knowing. The checkout may lie where that user cannot look, so it is mounted where he can."""

    script = """
set -eu
mount --bind "$2" "$1/checkout"
echo nobody:100000:65536 > "$1/subids"
for name in subuid subgid; do mount --bind "$1/subids" /etc/$name; done
ip link set lo up
touch "$1/ready"
exec sleep infinity
"""
    user = 65534  # nobody

    def prepare(self) -> None:
        self.root = self.folder / "checkout"
        self.cache = self.folder / "cache"
        for name in ("checkout", "cache/images", "cache/bundles", "runtime"):
            (self.folder / name).mkdir(parents=True)
        for source in (CACHE / "images" / "debian-13", *CACHE.glob("bundles/docker-debian-13.*")):
            target = self.cache / source.relative_to(CACHE).parent
            subprocess.run(["cp", "-a", str(source), str(target)], check=True)
        for name in ("cache", "runtime", "home"):
            subprocess.run(["chown", "-R", f"{self.user}", str(self.folder / name)], check=True)
        self.store = self.home / "store"
        (self.folder / "runtime").chmod(0o700)
        self.folder.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        runtime = str(self.folder / "runtime")
        return {**super().environment, "XDG_RUNTIME_DIR": runtime, "USER": "nobody"}

    def inside(self) -> list[str]:
        who = f"{self.user}"
        return [*super().inside(), "setpriv", "--reuid", who, "--regid", who, "--clear-groups"]


class VirtualboxBed(Bed):
    """The real VBoxManage in the root that `make setup` unpacked, with a registry of its own, and QEMU
    in place of its hypervisor (tests/vboxmanage_on_qemu.py). What is on loopback stays in a network
    namespace. /dev/vboxdrv is there to be looked for, and is nobody's."""

    script = """
set -eu
mkdir -p "$1/tmp" "$1/layer" "$1/root" "$1/dev"
chmod 1777 "$1/tmp"
mount -t tmpfs tmpfs "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work"
mount -t overlay -o "lowerdir=$1/virtualbox,upperdir=$1/layer/upper,workdir=$1/layer/work" \\
    overlay "$1/root"
mount --rbind /dev "$1/root/dev"
mount --rbind /proc "$1/root/proc"
mount --bind "$1/tmp" "$1/root/tmp"  # the one service of all calls has its socket there
mkdir -p "$1/root$1"
mount --bind "$1" "$1/root$1"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for name in full null random tty urandom zero; do
    touch "$1/dev/$name"
    mount --bind "/dev/$name" "$1/dev/$name"
done
for name in pts shm; do
    mkdir "$1/dev/$name"
    mount --rbind "/dev/$name" "$1/dev/$name"
done
ln -s pts/ptmx "$1/dev/ptmx"
ln -s /proc/self/fd "$1/dev/fd"
mknod "$1/dev/vboxdrv" c 10 63
mount --move "$1/dev" /dev
ip link set lo up
touch "$1/ready"
exec sleep infinity
"""

    def prepare(self) -> None:
        self.cache = own_cache(self.folder / "cache")
        (self.folder / "virtualbox").symlink_to(CACHE / "test-virtualbox")

    def start(self) -> None:
        """A VBoxManage for PATH that also works from outside of the namespaces, and its service."""
        program = self.folder / "bin" / "VBoxManage"
        program.parent.mkdir()
        program.write_text(
            f"#!/bin/sh\nTEST_VBOXMANAGE='{' '.join(self.real('VBoxManage'))}' "
            f"VBOX_USER_HOME={self.home}/vbox exec {' '.join(self.inside())} "
            f'{ROOT}/.venv/bin/python {ROOT}/tests/vboxmanage_on_qemu.py "$@"\n'
        )
        program.chmod(0o755)
        self.start_service()

    def real(self, program: str) -> list[str]:
        """The command line of a program in the root."""
        own = (f"HOME={self.home}", f"VBOX_USER_HOME={self.home}/vbox")
        words = ("env", "-i", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", *own)
        return [
            *("chroot", f"{self.folder}/root", *words),
            *(f"VBOX_IPC_SOCKETID={os.getpid()}", program),
        ]

    def start_service(self) -> None:
        """What answers all calls. Started by the first of them it would end 5 s after the last, and
        a call in that moment waits 10 s for another one (seen with 7.2)."""
        argv = [*self.inside(), *self.real("/usr/lib/virtualbox/VBoxSVC")]
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(argv, stdout=log, stderr=log)
        self._children.append(self._service)
        self.wait_for(lambda: any((self.folder / "tmp").glob(".vbox-*-ipc/ipcd")))

    def restart_service(self) -> None:
        """So that it reads settings files anew."""
        self._service.terminate()
        self._service.wait()
        for left in (self.folder / "tmp").glob(".vbox-*-ipc/ipcd"):
            left.unlink()
        self.start_service()

    @property
    def environment(self) -> dict[str, str]:
        found = super().environment
        return {**found, "PATH": f"{self.folder / 'bin'}:{found['PATH']}"}

    def vbox(self, *words: str) -> str:
        """What VBoxManage answers, without its warnings."""
        said = self.run("VBoxManage", *words)
        return said.stdout.rpartition("until this problem is fixed.\n")[2].strip() + said.stderr

    def left_of(self, name: str) -> str:
        places = (
            *(self.vbox("list", what) for what in ("vms", "hdds", "dvds")),
            "\n".join(str(each) for each in self.home.glob("vbox/qemu/*")),
            "\n".join(str(each) for each in self.store.glob("machines/*")),
            "\n".join(of_process(number, "cmdline") for number in self.processes()),
        )
        return "\n".join(line for text in places for line in text.splitlines() if name in line)

    def inventory(self) -> set[str]:
        """Registry, media, files, processes; the bases that machines share are no machine's."""
        found = {
            line for what in ("vms", "runningvms") for line in self.vbox("list", what).splitlines()
        }
        found |= set(
            re.findall(r"Location: +(.*)", self.vbox("list", "hdds") + self.vbox("list", "dvds"))
        )
        found |= {str(each) for each in (*self.home.rglob("*"), *self.store.rglob("*"))}
        found |= self.running()
        return {line for line in found if not SHARED.search(line)}


SHARED = re.compile(
    r"/share/machine(/|$)|/\.locks|/certs(/|$)|/(vbox|\.local|\.docker|\.config|store|machines|share)$"
    r"|/vbox/(VirtualBox\.xml|VBoxSVC\.log|selectorwindow\.log|compreg\.dat|xpti\.dat|qemu$)"
    r"|process (sh|sleep|python|VBoxSVC|VBoxXPCOMIPCD|VBoxManage)"
)
"""What a removed VirtualBox machine may leave."""

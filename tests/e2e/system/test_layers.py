"""What is in a layer, looked at from outside: nothing that two machines may not share."""

from __future__ import annotations

import json
import mmap
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from machine.layers import Layer, LayerCache, LayerKind
from tests.e2e.testbed import SystemBed

pytestmark = pytest.mark.e2e

FOLDERS = ("etc", "home", "root", "tmp", "usr/sbin", "usr/local", "var")
SECRET = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")


@dataclass
class Opened:
    """A layer, and the folders of its disk in which a system keeps what is its own."""

    layer: Layer
    root: Path

    def files(self, folder: str = "") -> list[str]:
        """Of whatever kind, but folders."""
        found = (self.root / folder).rglob("*")
        return [
            str(each.relative_to(self.root))
            for each in found
            if each.is_symlink() or not each.is_dir()
        ]

    def filled(self, folder: str = "") -> list[str]:
        """Regular files with content."""
        paths = {name: self.root / name for name in self.files(folder)}
        return [
            name
            for name, path in paths.items()
            if path.is_file() and not path.is_symlink() and path.stat().st_size
        ]

    def text(self, name: str) -> str:
        return (self.root / name).read_text()


def opened(layer: Layer, disk: Path, work: Path) -> Opened:
    """Without mounting anything: a raw copy with all its backing, its journal replayed as at a
    mount, read by debugfs."""
    raw, root = work / "raw", work / "root"
    root.mkdir(parents=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(raw)], check=True)
    subprocess.run(
        ["e2fsck", "-p", "-E", "journal_only", str(raw)], capture_output=True, check=False
    )
    for folder in FOLDERS:
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        command = f"rdump /{folder} {(root / folder).parent}"
        subprocess.run(["debugfs", "-R", command, str(raw)], capture_output=True, check=True)
    raw.unlink()
    assert (root / "etc" / "os-release").is_symlink()
    return Opened(layer, root)


@pytest.fixture(scope="module")
def warm(bed: SystemBed, warm_cache: Path) -> Iterator[SystemBed]:
    with bed.using(warm_cache):
        built = bed.machine("layer", "build", "--warm")
        assert built.returncode == 0, built.stderr
        yield bed


@pytest.fixture(scope="module", params=list(LayerKind))
def layer(
    request: pytest.FixtureRequest,
    warm: SystemBed,
    warm_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Opened]:
    kind: LayerKind = request.param
    (found,) = [each for each in LayerCache(warm_cache / "layers").all() if each.kind is kind]
    disk = found.folder / "disk.qcow2"
    if kind is LayerKind.WARM:
        pool = warm.folder / "lib" / "images" / "machine"
        disk = flat(pool, found.facts["disk"], tmp_path_factory.mktemp("pool"))
    work = tmp_path_factory.mktemp(kind)
    yield opened(found, disk, work)
    shutil.rmtree(work)


def flat(pool: Path, name: str, work: Path) -> Path:
    """A disk of the pool whose backing is named as the daemon sees it, named as it is seen here."""
    info = subprocess.run(
        ["qemu-img", "info", "-U", "--output", "json", str(pool / name)],
        capture_output=True,
        check=True,
    )
    base = pool / Path(json.loads(info.stdout)["backing-filename"]).name
    copy = work / name
    subprocess.run(["cp", str(pool / name), str(copy)], check=True)
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", str(base), str(copy)], check=True
    )
    return copy


def test_it_is_a_whole_system_with_its_engine(layer: Opened) -> None:
    """So that what the others miss is not missed because nothing is there."""
    assert "usr/sbin/dockerd" in layer.files("usr/sbin")
    assert "etc/ssh/sshd_config" in layer.files("etc/ssh")
    assert "Package: docker.io\n" in layer.text("var/lib/dpkg/status")


def test_there_is_no_key_and_nobody_is_let_in(layer: Opened) -> None:
    named = re.compile(r"ssh_host_|/id_[a-z0-9]+$|authorized_keys|known_hosts|key\.(pem|json)$")
    assert [name for name in layer.filled() if named.search(name)] == []
    held = [each for each in layer.filled() if SECRET.search((layer.root / each).read_bytes())]
    assert held == []
    hashes = [line.split(":")[1] for line in layer.text("etc/shadow").splitlines()]
    assert [each for each in hashes if not each.startswith(("!", "*"))] == []


def test_there_is_no_identity(layer: Opened) -> None:
    machine_id = layer.root / "etc" / "machine-id"
    assert not machine_id.exists() or machine_id.read_text() in ("", "uninitialized\n")
    for name in ("var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "etc/docker/key.json"):
        assert name not in layer.filled()
    assert layer.files("etc/systemd/network") == []


def test_the_engine_has_no_state(layer: Opened) -> None:
    """Its id is in there, and a swarm's keys would be."""
    assert layer.files("var/lib/docker") == []
    made = layer.filled("var/lib/containerd")
    if layer.layer.kind is LayerKind.ENGINE:
        assert made == []
    assert [name for name in made if "/content/" in name or "/snapshots/" in name] == []
    assert [name for name in layer.files("etc/docker") if name.endswith("key.pem")] == []


def test_there_are_no_logs_leases_or_histories(layer: Opened) -> None:
    logs = layer.filled("var/log")
    if layer.layer.kind is LayerKind.WARM:  # the running journal becomes each machine's own
        logs = [
            name for name in logs if not re.fullmatch(r"var/log/journal/\w+/system.journal", name)
        ]
    assert logs == []
    assert [
        name for name in layer.files() if re.search(r"_history$|\.lease|^var/lib/dhcp/", name)
    ] == []
    for folder in ("var/lib/apt/lists", "var/cache/apt", "tmp", "var/tmp", "var/lib/machine"):
        kept = {name for name in layer.files(folder) if not name.endswith("instance-id")}
        assert kept == set(), folder


def test_what_its_making_needed_is_gone(layer: Opened) -> None:
    if layer.layer.kind is LayerKind.ENGINE:
        assert not (layer.root / "usr/sbin/policy-rc.d").exists()
        assert layer.filled("usr/local") == []
        assert "etc/systemd/system/multi-user.target.wants/docker.service" not in layer.files()


def lines_of(key: Path) -> list[bytes]:
    """Of a key in PEM those lines that are its own."""
    lines = [line for line in key.read_bytes().splitlines() if not line.startswith(b"-----")]
    return [line for line in lines if len(line) == len(lines[0])][1:] or lines


def test_no_key_of_the_store_is_in_the_memory(warm: SystemBed, warm_cache: Path) -> None:
    """Nor any other but those that are constants of programs."""
    warm.killed_at("vm", "create", "-d", "libvirt", "--warm", "holder")
    found = {each.kind: each for each in LayerCache(warm_cache / "layers").all()}
    layer, engine = found[LayerKind.WARM], found[LayerKind.ENGINE]
    folder = warm.store / "machines" / "holder"
    keys = [warm.store / "certs" / "ca-key.pem", folder / "key.pem", folder / "id_ed25519"]
    keys.append(folder / "ssh_host_ed25519_key")
    with (layer.folder / "memory").open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert memory.find(b"# On the machine whose memory becomes a warm layer") > 0
        for key in keys:
            wanted = lines_of(key)
            assert wanted
            assert [line for line in wanted if memory.find(line) >= 0] == [], key.name
        keys_there = {match[0].splitlines()[1] for match in SECRET.finditer(memory)}
        memory.close()
    with (engine.folder / "disk.qcow2").open("rb") as file:
        disk = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert [each for each in keys_there if disk.find(each) < 0] == []
        disk.close()
    assert warm.machine("rm", "-y", "holder").returncode == 0

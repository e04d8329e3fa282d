"""The same machine, whoever made its image: the first boot by our initramfs, and by cloud-init in
an image as others publish them (``tests/foreign_image.py``)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

from machine.model import FirstBoot
from tests import foreign_image
from tests.artefact import CACHE
from tests.e2e.testbed import SystemBed

pytestmark = pytest.mark.e2e

DISK_GIB = 6
EXTRA = """
# The next boots look for no source but the disk that is gone by then: a cloud-init that still runs
# takes the machine for a new one.
write_files:
  - path: /etc/cloud/cloud.cfg.d/90_sources.cfg
    content: "datasource_list: [NoCloud, None]"
users:
  - name: second
runcmd:
  - [touch, /var/lib/ran]
ssh_pwauth: true
"""
TEMPLATES = {
    FirstBoot.IDENTITY: 'image = "debian-13"',
    FirstBoot.CLOUD_INIT: f"image = 'foreign'\ncloud_init = '''{EXTRA}'''",
}
FACTS = """
echo "host=$(uname -n) $(cat /etc/hostname)"
echo "id=$(cat /etc/machine-id)"
echo "user=$(whoami)"
echo "groups=$(id -nG)"
echo "sudo=$(sudo -n id -u)"
echo "passwords=$(sudo passwd -S "$(whoami)" | cut -d' ' -f2) $(sudo passwd -S root | cut -d' ' -f2)"
sudo sshd -T | sed -nE 's/^(hostkey|permitrootlogin|(password|kbdinteractive)authentication) /\\1=/p'
echo "gib=$(df -BG --output=size / | tail -n 1)"
echo "route=$(ip -4 route show default | cut -d' ' -f1-3)"
echo "address=$(ip -4 -br address show scope global | grep -v docker | tr -s ' ' | cut -d' ' -f3)"
echo "dns=$(sed -n 's/^nameserver //p' /run/systemd/resolve/resolv.conf)"
echo "state=$(systemctl is-system-running --wait)"
"""


@dataclass
class Machine:
    bed: SystemBed
    name: str
    env: dict[str, str]
    facts: dict[str, str] = field(default_factory=dict)

    def tool(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.bed.machine(*words, env=self.env, timeout=1500)

    def ssh(self, script: str) -> str:
        ran = self.tool("ssh", self.name, script)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def learn(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.ssh(FACTS).splitlines())

    @property
    def folder(self) -> Path:
        return Path(self.env["MACHINE_STORAGE_PATH"]) / "machines" / self.name

    def host_keys(self) -> tuple[set[str], str]:
        """What sshd offers to whoever asks, and the key that is pinned."""
        scanned = self.bed.run("ssh-keyscan", "-T", "20", self.tool("ip", self.name).stdout.strip())
        offered = {line.split(maxsplit=1)[1] for line in scanned.stdout.splitlines()}
        return offered, (self.folder / "known_hosts").read_text().split(maxsplit=1)[1].strip()


@pytest.fixture(scope="module")
def env(bed: SystemBed) -> dict[str, str]:
    """A store of its own, and a cache that has the imported images beside the built ones."""
    cache = bed.folder / "first-boot-cache"
    (cache / "images").mkdir(parents=True)
    (cache / "images" / "debian-13").symlink_to(CACHE / "images" / "debian-13")
    (cache / "bundles").symlink_to(CACHE / "bundles")
    (cache / "layers").symlink_to(bed.cache / "layers")
    return {
        "MACHINE_CACHE_PATH": str(cache),
        "MACHINE_STORAGE_PATH": str(bed.folder / "first-boot-store"),
    }


def take_over(bed: SystemBed, env: dict[str, str], disk: Path, name: str) -> None:
    words = ("--name", name, "--os", "debian", "--os-version", "13")
    imported = bed.machine("image", "import", str(disk), *words, env=env)
    assert imported.returncode == 0, imported.stderr


def template(bed: SystemBed, name: str, text: str) -> str:
    path = bed.folder / f"{name}.toml"
    path.write_text(f'base = ["_sizes/small"]\n{text}\n')
    return str(path)


@pytest.fixture(scope="module")
def pair(bed: SystemBed, env: dict[str, str]) -> Iterator[dict[FirstBoot, Machine]]:
    """One machine of each kind, made at the same time."""
    take_over(bed, env, CACHE / foreign_image.FOLDER / foreign_image.NAME, "foreign")

    def make(kind: FirstBoot) -> Machine:
        machine = Machine(bed, f"{kind}.lab", env)
        words = ("-t", template(bed, kind, TEMPLATES[kind]), "--libvirt-disk-size", f"{DISK_GIB}")
        made = machine.tool("create", *words, machine.name)
        assert made.returncode == 0, made.stderr
        assert "cloud-init:" not in made.stderr  # it had nothing to complain of
        machine.facts = machine.learn()
        return machine

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(make, FirstBoot))
    yield dict(zip(FirstBoot, made, strict=True))
    names = [machine.name for machine in made]
    removed = bed.machine("rm", "-y", *names, env=env)
    assert removed.returncode == 0, removed.stderr
    assert bed.run("virsh", "list", "--all", "--name").stdout.strip() == ""


@pytest.fixture(params=list(FirstBoot))
def machine(request: pytest.FixtureRequest, pair: dict[FirstBoot, Machine]) -> Machine:
    return pair[request.param]


def test_it_is_who_it_was_made_to_be(machine: Machine) -> None:
    block = json.loads(machine.tool("inspect", machine.name).stdout)["Machine"]
    assert machine.facts["host"] == f"{machine.name} {machine.name}"
    assert machine.facts["id"] == block["id"].replace("-", "")
    assert machine.facts["user"] == "machine"
    assert "docker" in machine.facts["groups"].split()
    assert machine.facts["sudo"] == "0"
    assert machine.facts["state"] == "running"


def test_nobody_gets_in_by_a_password(machine: Machine) -> None:
    assert machine.facts["passwords"] == "L L"
    for keyword in ("permitrootlogin", "passwordauthentication", "kbdinteractiveauthentication"):
        assert machine.facts[keyword] == "no"


def test_its_only_host_key_is_the_one_it_was_given(machine: Machine) -> None:
    assert machine.facts["hostkey"] == "/etc/ssh/ssh_host_ed25519_key"
    offered, pinned = machine.host_keys()
    assert offered == {pinned}


def test_its_file_system_has_grown_with_its_disk(machine: Machine) -> None:
    assert DISK_GIB - 1 <= int(machine.facts["gib"].strip().rstrip("G")) <= DISK_GIB


def test_it_has_the_address_that_was_chosen(machine: Machine) -> None:
    xml = machine.bed.run("virsh", "net-dumpxml", "machine").stdout
    gateway = ElementTree.fromstring(xml).find("ip")
    assert gateway is not None
    assert machine.facts["address"] == machine.tool("ip", machine.name).stdout.strip() + "/24"
    assert machine.facts["route"] == f"default via {gateway.get('address')}"
    assert machine.facts["dns"] == gateway.get("address")


def test_first_boot_secrets_are_gone(machine: Machine) -> None:
    assert "seed" not in machine.bed.run("virsh", "vol-list", "machine").stdout
    assert "seed" not in machine.bed.run("virsh", "dumpxml", "--inactive", machine.name).stdout
    assert not (machine.folder / "ssh_host_ed25519_key").exists()


def test_the_templates_own_cloud_init_is_laid_over_ours(pair: dict[FirstBoot, Machine]) -> None:
    machine = pair[FirstBoot.CLOUD_INIT]
    said = machine.ssh("id -un second; ls /var/lib/ran; cat /etc/cloud/cloud.cfg.d/90_sources.cfg")
    assert said.splitlines() == ["second", "/var/lib/ran", "datasource_list: [NoCloud, None]"]


def test_a_restart_changes_nothing_of_it(pair: dict[FirstBoot, Machine]) -> None:
    machines = list(pair.values())
    restarted = machines[0].tool("restart", *(machine.name for machine in machines))
    assert restarted.returncode == 0, restarted.stderr
    for machine in machines:
        assert machine.learn() == machine.facts
        offered, pinned = machine.host_keys()
        assert offered == {pinned}
        disks = machine.bed.run("virsh", "domblklist", machine.name).stdout
        assert disks.count(" vd") == 1, disks
        assert machine.tool("config", machine.name).returncode == 0


@pytest.fixture(scope="module")
def empty(bed: SystemBed, env: dict[str, str]) -> str:
    """A template whose image has nothing on its 5 GiB."""
    disk = bed.folder / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "5G"], check=True)
    take_over(bed, env, disk, "empty")
    return template(bed, "empty", 'image = "empty"')


def test_a_disk_that_does_not_boot_is_told_with_its_console_and_undone(
    bed: SystemBed, env: dict[str, str], empty: str
) -> None:
    words = ("-t", empty, "--libvirt-boot-timeout", "15")
    failed = bed.machine("create", *words, "hollow", env=env)
    assert failed.returncode == 1
    assert 'Waited 15 s for "hollow" to take a login over SSH' in failed.stderr
    assert "Last lines of its console:" in failed.stderr
    assert "No bootable device" in failed.stderr
    assert "hollow" not in bed.run("virsh", "list", "--all", "--name").stdout
    assert "hollow" not in bed.run("virsh", "vol-list", "machine").stdout
    assert "hollow" not in bed.machine("ls", "-q", env=env).stdout


def test_what_an_image_cannot_be_is_refused(
    bed: SystemBed, env: dict[str, str], empty: str
) -> None:
    small = bed.machine("create", "-t", empty, "--libvirt-disk-size", "4", "small", env=env)
    assert small.returncode == 2
    assert "The image empty is larger than the disk of 4 GiB" in small.stderr
    assert "a disk of 5 GiB or more" in small.stderr
    path = template(bed, "mixed", "image = 'debian-13'\ncloud_init = 'package_update: true'")
    mixed = bed.machine("create", "-t", path, "mixed", env=env)
    assert mixed.returncode == 2
    assert "The image debian-13 does not run cloud-init" in mixed.stderr
    left = bed.machine("ls", "-q", env=env).stdout.split()
    assert not {"small", "mixed"} & set(left)

"""Machines that start from saved memory, in libvirt's system mode: each of three clones is somebody
else, and in everything else like a machine that booted. These tests build on each other in order."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from machine.layers import LayerCache
from tests.e2e.life import Use, restart
from tests.e2e.testbed import Bed, SystemBed

pytestmark = pytest.mark.e2e

NAMES = ("warm1", "warm2", "warm3")
COLD = "cold1"
KEY, CERT = "/etc/ssh/ssh_host_ed25519_key", "/etc/docker/server.pem"
FACTS = f"""
echo "random=$(head -c 32 /dev/urandom | base64 -w 0)"
echo "time=$(date +%s)"
echo "uname=$(uname -n)"
echo "hostname file=$(cat /etc/hostname)"
echo "hosts=$(grep ^127.0.1.1 /etc/hosts)"
bus() {{ sudo busctl --json=short "$@" | cut -d: -f3 | tr -d '[]"}}'; }}
echo "hostnamed=$(bus get-property org.freedesktop.hostname1 /org/freedesktop/hostname1 \
    org.freedesktop.hostname1 Hostname)"
echo "machine id=$(cat /etc/machine-id)"
echo "logind's id=$(bus call org.freedesktop.login1 /org/freedesktop/login1 \
    org.freedesktop.DBus.Peer GetMachineId)"
printf '[Service]\\nType=oneshot\\nExecStart=echo id %%m host %%H\\n' |
    sudo tee /run/systemd/system/specifiers.service > /dev/null
sudo systemctl daemon-reload
sudo systemctl start specifiers.service
logger -t said said here
sudo journalctl --sync
echo "systemd=$(sudo journalctl -u specifiers -o cat | grep '^id ' | tail -n 1)"
sudo rm /run/systemd/system/specifiers.service
echo "journal=$(sudo journalctl -t said -n 1 -o json | tr ',' '\\n' |
    sed -nE 's/.*"(_HOSTNAME|_MACHINE_ID)":"(.*)".*/\\1 \\2/p' | sort | tr '\\n' ' ')"
echo "journals=$(ls /var/log/journal)"
echo "engine's lines=$(sudo journalctl -u docker -o cat | grep -c 'Starting up\\|API listen')"
echo "engine's own=$(docker info -f '{{{{.ID}}}} {{{{.Name}}}}')"
echo "bridge=$(cat /sys/class/net/docker0/address)"
echo "mac=$(cat /sys/class/net/eth0/address)"
echo "address=$(ip -4 -o address show eth0 | tr -s ' ' | cut -d' ' -f4)"
echo "links=$(ip -o link | cut -d: -f2 | tr -d '\\n')"
echo "route=$(ip -4 route show default | cut -d' ' -f1-5)"
echo "dns=$(resolvectl dns eth0 | cut -d: -f2)"
echo "networkd=$(networkctl --no-legend | grep eth0 | tr -s ' ' | cut -d' ' -f5,6)"
echo "host key=$(sudo stat -c '%F %a %U' {KEY}) $(sudo sha256sum {KEY})"
echo "certificate=$(sudo stat -c '%F %a %U' {CERT}) $(sudo sha256sum {CERT})"
echo "logins=$(stat -c '%a %U' ~/.ssh/authorized_keys) $(sha256sum < ~/.ssh/authorized_keys)"
echo "state=$(systemctl is-system-running --wait)"
echo "failed=$(systemctl --failed --no-legend --plain)"
"""
FILES = """
sudo find /etc /home /root /usr/local /var/lib/machine /var/lib/systemd -xdev \
    -not -name random-seed -printf '%p %y %m %U %G\\n' | sort
"""
"""But the seed: one that booted has drawn it for its next boot, others do when they shut down."""


@dataclass
class Clone:
    bed: SystemBed
    name: str
    env: dict[str, str]
    facts: dict[str, str] = field(default_factory=dict)
    clock: tuple[float, float] = (0, 0)

    @property
    def folder(self) -> Path:
        return self.bed.store / "machines" / self.name

    @property
    def record(self) -> dict[str, object]:
        block: dict[str, object] = json.loads((self.folder / "config.json").read_text())["Machine"]
        return block

    @property
    def address(self) -> str:
        return self.bed.machine("ip", self.name).stdout.strip()

    def ssh(self, script: str) -> str:
        ran = self.bed.machine("ssh", self.name, script)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def learn(self) -> dict[str, str]:
        before = time.time()
        said = self.ssh(FACTS)
        self.clock = (before, time.time())
        return dict(line.split("=", 1) for line in said.splitlines())

    def files(self) -> set[str]:
        return set(self.ssh(FILES).replace(self.facts["machine id"], "ID").splitlines())


@pytest.fixture(scope="module")
def warm(bed: SystemBed, warm_cache: Path) -> Iterator[SystemBed]:
    with bed.using(warm_cache):
        yield bed


@pytest.fixture(scope="module")
def before(warm: SystemBed) -> set[str]:
    return warm.inventory()


@pytest.fixture(scope="module")
def clones(warm: SystemBed, before: set[str]) -> dict[str, Clone]:
    """Made at once by one command, from a layer that it makes first; and a machine of another size,
    of which there is no memory, for comparison."""
    made = warm.machine("create", "-d", "libvirt", "--warm", *NAMES, "--output", "json")
    assert made.returncode == 0, made.stderr
    events = [json.loads(line) for line in made.stdout.splitlines()]
    steps = [event["data"]["step"] for event in events if event["kind"] == "StepStarted"]
    assert steps.count("vm") == len(NAMES)
    assert steps.count("engine") <= 1
    assert steps.count("warm") <= 1
    cold = warm.machine("create", "-d", "libvirt", "--libvirt-memory", "1100", COLD)
    assert cold.returncode == 0, cold.stderr
    found = {}
    for name in (*NAMES, COLD):
        found[name] = Clone(warm, name, warm.variables(name))
        found[name].facts = found[name].learn()
    return found


@pytest.fixture
def worker(clones: Mapping[str, Clone]) -> str:
    return NAMES[0]


@pytest.fixture(params=NAMES)
def clone(request: pytest.FixtureRequest, clones: Mapping[str, Clone]) -> Clone:
    return clones[request.param]


def test_they_started_from_memory(clones: Mapping[str, Clone]) -> None:
    layers = [clones[name].record["layers"] for name in NAMES]
    assert len(layers[0]) == 2  # type: ignore[arg-type]
    assert layers[0] == layers[1] == layers[2]
    assert clones[COLD].record["layers"] == layers[0][:1]  # type: ignore[index]


def test_every_daemon_knows_it_by_its_name_and_its_id(clone: Clone) -> None:
    name, identifier = clone.name, str(clone.record["id"]).replace("-", "")
    facts = clone.facts
    for key in ("uname", "hostname file", "hostnamed"):
        assert facts[key] == name, key
    assert facts["hosts"] == f"127.0.1.1 {name}"
    for key in ("machine id", "logind's id", "journals"):
        assert facts[key] == identifier, key
    assert facts["systemd"] == f"id {identifier} host {name}"
    assert facts["journal"] == f"_HOSTNAME {name} _MACHINE_ID {identifier} "
    assert facts["engine's own"].split()[1] == name
    assert int(facts["engine's lines"]) > 0
    assert (facts["state"], facts["failed"]) == ("running", "")


def test_it_has_its_own_card_and_address(clone: Clone) -> None:
    domain = clone.bed.run("virsh", "dumpxml", clone.name).stdout
    card = ElementTree.fromstring(domain).find("devices/interface/mac")
    network = ElementTree.fromstring(clone.bed.run("virsh", "net-dumpxml", "machine").stdout)
    gateway = network.find("ip")
    assert card is not None
    assert gateway is not None
    assert clone.facts["mac"] == card.get("address")
    assert clone.facts["address"] == f"{clone.address}/24"
    assert clone.facts["route"] == f"default via {gateway.get('address')} dev eth0"
    assert clone.facts["dns"].strip() == gateway.get("address")


def test_it_offers_the_host_key_that_is_pinned(clone: Clone) -> None:
    scanned = clone.bed.run("ssh-keyscan", "-T", "20", clone.address).stdout
    offered = {line.split(maxsplit=1)[1] for line in scanned.splitlines() if line[0] != "#"}
    pinned = (clone.folder / "known_hosts").read_text().split(maxsplit=1)[1].strip()
    assert offered == {pinned}
    assert clone.facts["host key"].startswith("regular file 600 root")
    assert clone.facts["logins"].startswith("600 machine")


def test_its_engine_serves_the_certificate_that_was_issued(clone: Clone) -> None:
    issued = (clone.folder / "server.pem").read_text()
    assert clone.bed.served(clone.name) == ssl.PEM_cert_to_DER_cert(issued)
    assert clone.facts["certificate"].startswith("regular file 644 root")


def test_its_clock_is_right(clone: Clone) -> None:
    """The memory is of an earlier time."""
    begin, end = clone.clock
    assert begin - 3 <= int(clone.facts["time"]) <= end + 3


def public_key(clone: Clone) -> bytes:
    certificate = x509.load_pem_x509_certificate((clone.folder / "server.pem").read_bytes())
    key = certificate.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_no_two_are_alike(clones: Mapping[str, Clone]) -> None:
    three = [clones[name] for name in NAMES]
    for key in (
        *("random", "uname", "hostname file", "hosts", "hostnamed", "machine id", "logind's id"),
        *("systemd", "journal", "journals", "engine's own", "bridge", "mac", "address"),
        *("host key", "certificate", "logins"),
    ):
        assert len({each.facts[key] for each in three}) == len(three), key
    assert len({each.facts["engine's own"].split()[0] for each in three}) == len(three)
    assert len({public_key(each) for each in three}) == len(three)


def test_nothing_of_the_saved_machine_is_left_and_nothing_is_missing(
    clones: Mapping[str, Clone],
) -> None:
    """The same files, of the same kinds, owners and modes, as on a machine that booted."""
    clone, cold = clones[NAMES[0]], clones[COLD]
    assert clone.files() == cold.files()
    for key in ("links", "route", "dns", "networkd", "state", "failed"):
        assert clone.facts[key] == cold.facts[key], key
    assert clone.ssh("sudo find / -xdev -type p -not -path '/run/*'") == ""
    units = "systemctl list-units --all --no-legend --plain '*warm*' '*rehears*'"
    assert clone.ssh(units) == ""


def test_a_container_runs(
    clones: Mapping[str, Clone], worker: str, docker: str, image_tar: Path
) -> None:
    bed, env = clones[worker].bed, clones[worker].env
    imported = bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    ran = bed.run(docker, "run", "-i", "--rm", "hello", "cat", stdin="from here\n", env=env)
    assert (ran.returncode, ran.stdout) == (0, "from here\n"), ran.stderr


def test_pruning_leaves_what_they_are_backed_by(
    warm: SystemBed, warm_cache: Path, clones: Mapping[str, Clone]
) -> None:
    """They run, and the tests after this one start them again."""
    pruned = warm.machine("layer", "prune", "--all")
    assert pruned.returncode == 0, pruned.stderr
    kinds = {line.split()[0] for line in pruned.stdout.splitlines()}
    assert {"engine", "warm"} <= kinds
    assert LayerCache(warm_cache / "layers").all() == []
    volumes = warm.run("virsh", "vol-list", "machine").stdout
    assert "machine-base-warm-" in volumes
    assert "is gone" not in warm.machine("doctor").stdout
    for clone in clones.values():
        assert warm.machine("config", clone.name).returncode == 0


def test_a_boot_changes_nothing_of_it(clones: Mapping[str, Clone]) -> None:
    """Whoever reads its name, its id and its keys from the disk finds what its memory has."""
    clone = clones[NAMES[0]]
    restart(clone.bed, clone.name)
    again = clone.learn()
    for key in ("random", "time", "bridge"):
        assert again.pop(key) != clone.facts[key]
    del again["engine's lines"]
    assert again == {key: clone.facts[key] for key in again}


class TestUse(Use):
    @pytest.fixture
    def place(self, warm: SystemBed) -> Bed:
        return warm


def test_removal_leaves_nothing(
    warm: SystemBed, clones: Mapping[str, Clone], before: set[str]
) -> None:
    removed = warm.machine("rm", "-y", *clones)
    assert removed.returncode == 0, removed.stderr
    assert warm.machine("ls", "-q").stdout == ""
    assert warm.inventory() == before

"""What is done to a host, and undone: an unpacked Debian with its own dpkg, and real engine packages.

Nothing boots it, so tests/systemctl.sh stands in for systemctl; tests/e2e has the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import firewall, ledger
from machine.engine import ServerTls, Settings
from machine.errors import GuestError, GuestUnreachable
from machine.guest import Guest
from machine.model import EngineOptions, OsRelease
from machine.provisioners.debian import Debian
from machine.runtime.bundle import BundleCache
from machine.runtime.docker.engine import DAEMON_JSON, DockerEngine
from tests import archives
from tests.artefact import CACHE
from tests.firewalled import Firewalled, firewalled

SYSTEMCTL = Path(__file__).parents[1] / "systemctl.sh"
SETTINGS = Settings(ServerTls(b"ca", b"cert", b"key"), 2376, EngineOptions(), {"provider": "x"})
DOCKERD = b"#!/bin/sh\necho Docker version 1.2.3, build x\n"
UNIT = b"[Service]\nExecStart=/usr/sbin/dockerd -H fd://\n"

# Everything that has a content, an owner or a mode; dpkg's own books and logs tell the history.
INVENTORY = """
cd /
look() {
    find etc usr opt root srv home var/lib var/spool -xdev \\( -path var/lib/dpkg \\
        -o -path var/lib/systemd -o -path var/lib/docker -o -path var/lib/containerd \\
        -o -path etc/ld.so.cache -o -path 'etc/g*-' -o -path usr/share -o -path usr/lib/python3 \\
        \\) -prune -o "$@"
}
look -printf '%p %M %U %G %l\\n' | sort
look -type f -print0 | sort -z | xargs -0 sha256sum
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewalled]:
    with firewalled(tmp_path_factory.mktemp("ledger")) as guest:
        guest.put(SYSTEMCTL, "/usr/local/sbin/systemctl", mode=0o755)
        yield guest


def parts(guest: Guest) -> tuple[Debian, DockerEngine]:
    provisioner = Debian(guest, OsRelease("debian", version_id="13"))
    return provisioner, DockerEngine(guest, provisioner)


def inventory(guest: Guest) -> list[str]:
    """Of everything, with what is installed, enabled, running and in the group file."""
    state = (
        "dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n'\n"
        "mkdir -p /run/units\nls /run/units\nnft list ruleset"
    )
    return guest.script(INVENTORY + state, timeout=120).stdout.splitlines()


def lost(before: list[str], after: list[str]) -> tuple[list[str], list[str]]:
    return sorted(set(before) - set(after)), sorted(set(after) - set(before))


@pytest.fixture
def adopted(host: Firewalled) -> Iterator[Firewalled]:
    """An engine of somebody else's, whose files have owners and modes of their own."""
    host.put(DOCKERD, "/usr/sbin/dockerd", mode=0o755)
    host.put(UNIT, "/usr/lib/systemd/system/docker.service")
    host.put(b'{"icc": false}', DAEMON_JSON, mode=0o640, owner="daemon:adm")
    host.script(
        "ln -s /somewhere/ca.pem /etc/docker/ca.pem\nmkdir -p /var/lib/docker\n"
        "groupadd --system docker\nsystemctl enable docker.service\n"
        "systemctl restart docker.service\n"
    )
    yield host
    host.script(
        "systemctl disable docker.service\nsystemctl stop docker.service\nrm -rf /etc/docker "
        "/usr/sbin/dockerd /usr/lib/systemd/system/docker.service /var/lib/docker\n"
        "groupdel docker\nrmdir /etc/systemd/system/multi-user.target.wants 2>/dev/null || true"
    )


def change_everything(guest: Guest) -> None:
    provisioner, engine = parts(guest)
    ledger.keep(guest, provisioner, engine)
    assert engine.configure(SETTINGS)
    engine.restart()


def test_packages_are_installed_and_gone_again(host: Firewalled) -> None:
    provisioner, engine = parts(host)
    before = inventory(host)
    assert ledger.keep(host, provisioner, engine)
    bundle = BundleCache(CACHE / "bundles").get("docker-debian-13")
    folder = "/var/lib/machine/bundle"
    host.put(bundle.path, f"{folder}.tar")
    host.script(f"mkdir {folder}\ntar -xf {folder}.tar -C {folder}", timeout=120)
    ledger.note_packages(host, bundle.packages)
    engine.install(folder, "packages")
    assert (engine.installed_version() or "").startswith("26.1.5")
    assert engine.configure(SETTINGS)
    engine.restart()
    assert not engine.changes(SETTINGS)
    host.script("mkdir -p /var/lib/docker/volumes\ncp /etc/fstab /var/lib/docker/volumes/mine")
    said = ledger.undo(host, provisioner, engine)
    assert any("docker.io" in line and "Packages removed" in line for line in said)
    assert any(line.startswith("/var/lib/docker is left as it is") for line in said)
    assert host.get("/var/lib/docker/volumes/mine") is not None
    assert lost(before, inventory(host)) == ([], [])
    assert ledger.undo(host, provisioner, engine)[0].startswith("Nothing is put back")
    host.run("rm", "-rf", "/var/lib/docker")


def test_packages_that_others_need_stay(host: Firewalled) -> None:
    provisioner, engine = parts(host)
    ledger.keep(host, provisioner, engine)
    script = (
        "mkdir -p /tmp/{0}/DEBIAN\n"
        "printf 'Package: {0}\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@y>\\n"
        "Description: x\\n{1}' > /tmp/{0}/DEBIAN/control\n"
        "dpkg-deb -b /tmp/{0} /tmp/{0}.deb >/dev/null\n"
    )
    host.script(script.format("ours", "") + script.format("theirs", "Depends: ours\\n"))
    ledger.note_packages(host, ["ours", "dpkg"])
    host.script("dpkg -i /tmp/ours.deb /tmp/theirs.deb >/dev/null")
    assert "Packages that others need now stay: ours" in ledger.undo(host, provisioner, engine)
    assert "dpkg" in provisioner.packages()
    host.script("dpkg --purge theirs ours >/dev/null")


def test_the_static_engine_is_gone_again(host: Firewalled, tmp_path: Path) -> None:
    provisioner, engine = parts(host)
    before = inventory(host)
    ledger.keep(host, provisioner, engine)
    shown = b"#!/bin/sh\necho Docker version 9.9.9, build x\n"
    archive = archives.docker(
        tmp_path / "docker-9.9.9.tgz", dockerd=shown, containerd=shown, runc=shown, docker=shown
    )
    host.put(archive, "/var/lib/machine/bundle/archive/docker-9.9.9.tgz")
    engine.install("/var/lib/machine/bundle", "static")
    assert engine.installed_version() == "9.9.9"
    assert engine.configure(SETTINGS)
    engine.restart()
    assert not engine.configure(SETTINGS)
    said = ledger.undo(host, provisioner, engine)
    assert "The group docker is gone again" in said
    assert "docker.service is stopped" in said
    assert lost(before, inventory(host)) == ([], [])


def test_an_engine_that_was_there_runs_as_before(adopted: Firewalled) -> None:
    before = inventory(adopted)
    change_everything(adopted)
    provisioner, engine = parts(adopted)
    assert not ledger.keep(adopted, provisioner, engine)
    assert engine.configure(Settings(SETTINGS.tls, 2376, EngineOptions(opts=("icc=true",))))
    host_only = adopted.run("stat", "-c", "%a %u", ledger.FOLDER).stdout.split()
    assert host_only == ["700", "0"]
    adopted.script("systemctl disable docker.service\n: > /run/units.log")
    said = ledger.undo(adopted, provisioner, engine)
    assert f"{DAEMON_JSON} is as it was before" in said
    assert "/etc/docker/server-key.pem is gone again" in said
    assert "docker.service starts at every boot again" in said
    assert "docker.service runs as before" in said
    assert "restart docker.service" in (adopted.get("/run/units.log") or b"").decode()
    assert lost(before, inventory(adopted)) == ([], [])


def test_a_host_that_was_not_changed_is_left_alone(adopted: Firewalled) -> None:
    provisioner, engine = parts(adopted)
    ledger.keep(adopted, provisioner, engine)
    adopted.script(": > /run/units.log")
    said = ledger.undo(adopted, provisioner, engine)
    assert [line for line in said if not line.startswith("/var/lib/docker is left")] == []
    assert "restart" not in (adopted.get("/run/units.log") or b"").decode()


def test_an_opened_port_is_closed_again(host: Firewalled) -> None:
    host.put(
        b"table inet f {\n chain i { type filter hook input priority 0; policy drop; }\n}\n",
        "/etc/nftables.conf",
    )
    host.run("nft", "-f", "/etc/nftables.conf")
    before = inventory(host)
    provisioner, engine = parts(host)
    ledger.keep(host, provisioner, engine)
    (obstacle,) = firewall.look(host, 2376)
    ledger.open_port(host, obstacle)
    assert firewall.look(host, 2376) == []
    assert "What was opened in nftables is closed again" in ledger.undo(host, provisioner, engine)
    assert lost(before, inventory(host)) == ([], [])
    host.run("nft", "flush", "ruleset")


class CutOff:
    """A login that is lost before the call of this number."""

    def __init__(self, guest: Guest, calls: int) -> None:
        self.guest, self.left = guest, calls
        self.user = guest.user

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*words: Any, **rest: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise GuestUnreachable("The connection to the host was lost")
            return getattr(self.guest, name)(*words, **rest)

        return call


def cut_off(guest: Guest, calls: int, work: Callable[[Guest], object]) -> bool:
    """Whether the work was cut off after that many calls."""
    try:
        work(CutOff(guest, calls))
    except GuestUnreachable:
        return True
    return False


@pytest.mark.parametrize("calls", [1, 3, 4])
def test_keeping_that_was_cut_off_begins_again(adopted: Firewalled, calls: int) -> None:
    before = inventory(adopted)
    assert cut_off(adopted, calls, lambda guest: ledger.keep(guest, *parts(guest)))
    change_everything(adopted)
    ledger.undo(adopted, *parts(adopted))
    assert lost(before, inventory(adopted)) == ([], [])


@pytest.mark.parametrize("calls", range(4, 29, 4))
def test_undoing_that_was_cut_off_goes_on(adopted: Firewalled, calls: int) -> None:
    before = inventory(adopted)
    change_everything(adopted)
    cut_off(adopted, calls, lambda guest: ledger.undo(guest, *parts(guest)))
    adopted.script(": > /run/units.log")
    said = ledger.undo(adopted, *parts(adopted))
    assert lost(before, inventory(adopted)) == ([], [])
    if f"{DAEMON_JSON} is as it was before" in said:
        assert "restart docker.service" in (adopted.get("/run/units.log") or b"").decode()


def test_a_damaged_list_is_told(adopted: Firewalled) -> None:
    ledger.keep(adopted, *parts(adopted))
    adopted.put(b"{", f"{ledger.FOLDER}/before.json")
    with pytest.raises(GuestError, match=r"before\.json on the host is damaged"):
        ledger.undo(adopted, *parts(adopted))
    adopted.run("rm", "-rf", ledger.HOME)

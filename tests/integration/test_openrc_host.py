"""A host with OpenRC and busybox, and the real engine: these tests build on each other in order.

It is Alpine's stand-in, made of Debian's packages (tests/openrc_image.py says what it does not show).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from machine.model import GuestFile
from tests.hosts import OPENRC, Host, HostBed
from tests.openrc_image import USER

NAME = "somebodys"
NETWORK: Final = """\
#!/sbin/openrc-run
depend() {{ provide net; }}
start() {{
    ip link set lo up
    ip address add {address}/24 dev eth0
    ip link set eth0 up
}}
"""
INVENTORY = r"""
find /etc /usr /opt /root /home -xdev ! -path '/etc/g*-' ! -path '*/.sudo_as*' ! -name ld.so.cache \
    ! -type d -exec stat -c '%n %a %u %g %s' {} +
find /etc /usr /opt /home -xdev -type d
find /etc /usr/local -xdev -type f ! -path '/etc/g*-' -exec sha256sum {} +
ls /etc/runlevels/*
ls -d /var/lib/machine 2>/dev/null || true
"""
SERVER = "pgrep -x dockerd || true"


class OpenRcBed(HostBed):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, NAME, tree=OPENRC, user=USER)

    def files(self, host: Host) -> tuple[GuestFile, ...]:
        script = NETWORK.format(address=host.address).encode()
        return (GuestFile("/etc/init.d/network", script, 0o755),)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("openrc")
    with OpenRcBed(folder / "bed") as bed:
        bed.cache = folder / "cache"
        yield bed.hosts[NAME]


@pytest.fixture(scope="module")
def untouched(host: Host) -> list[str]:
    return inventory(host)


def inventory(host: Host) -> list[str]:
    return sorted(host.root(INVENTORY).splitlines())


def test_it_is_what_it_stands_for(host: Host, untouched: list[str]) -> None:
    programs = host.root("readlink -f /proc/$$/exe; readlink -f $(which mv)").split()
    assert programs == ["/usr/bin/busybox", "/usr/bin/busybox"]
    assert "ID=alpine" in host.root("cat /etc/os-release")
    assert host.root("rc-status --runlevel") == "default\n"
    assert host.root("ls -d /run/systemd/system 2>/dev/null || true") == ""


def test_an_engine_is_installed_and_runs_a_container(
    host: Host, untouched: list[str], static_archive: Path, docker: str, image_tar: Path
) -> None:
    words = ("bundle", "build", "docker", "--kind", "static", "--from", str(static_archive))
    built = host.bed.machine(*words)
    assert built.returncode == 0, built.stderr
    made = host.bed.create(NAME, "--engine-env", "SEEN=by the daemon")
    assert made.returncode == 0, made.stderr
    env = host.bed.variables(NAME)
    imported = host.bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hi", env=env)
    assert imported.returncode == 0, imported.stderr
    ran = host.bed.run(docker, "run", "-i", "--rm", "hi", "cat", stdin="from here\n", env=env)
    assert (ran.returncode, ran.stdout) == (0, "from here\n"), ran.stderr
    assert host.root("ls /etc/runlevels/default/docker")
    environment = host.root("tr '\\0' '\\n' < /proc/$(pgrep -x dockerd)/environ")
    assert "SEEN=by the daemon\n" in environment
    programs = host.root("for p in dockerd containerd; do readlink /proc/$(pgrep -x $p)/exe; done")
    home = "/usr/local/libexec/machine/docker/26.1.5"
    assert programs.split() == [f"{home}/dockerd", f"{home}/containerd"]


def test_provisioning_again_changes_nothing(host: Host) -> None:
    before = host.root(SERVER)
    again = host.bed.machine("provision", NAME)
    assert again.returncode == 0, again.stderr
    assert "nothing had to change" in again.stderr
    assert host.root(SERVER) == before


def test_a_dockerd_that_ends_comes_back(host: Host) -> None:
    before = host.root(SERVER)
    host.root("kill -9 $(pgrep -x dockerd)")
    host.bed.wait_for(lambda: host.root("docker ps -q && echo up", check=False) == "up\n", 90)
    assert host.root(SERVER) not in ("", before)


def test_variables_of_the_users_stay_beside_ours(host: Host) -> None:
    host.root("sed -i '1i # the owner wrote this' /etc/conf.d/docker")
    host.root("sed -i 's/--tlsverify/--nosuchflag/' /etc/conf.d/docker")
    mended = host.bed.machine("provision", NAME)
    assert mended.returncode == 0, mended.stderr
    assert host.root("head -1 /etc/conf.d/docker") == "# the owner wrote this\n"
    assert "nosuchflag" not in host.root("cat /etc/conf.d/docker")


def test_it_is_as_it_was_before(host: Host, untouched: list[str]) -> None:
    removed = host.bed.machine("rm", "-y", "--undo", NAME)
    assert removed.returncode == 0, removed.stderr
    assert "/var/lib/docker is left as it is" in removed.stderr + removed.stdout
    assert inventory(host) == untouched
    assert host.root(SERVER) == ""

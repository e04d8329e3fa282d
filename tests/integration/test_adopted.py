"""A host that is there already, with somebody's own engine and a container on it that is not to stop.
These tests build on each other in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.testbed import of_process
from tests.hosts import Host
from tests.somebodys import SUDO, USER, SomebodysBed, inventory, known, run_container

PASSPHRASE = "a phrase"
INSIDE = "10.81.0.5"
"""The host's address as only the gate knows it."""
UNIT = """\
[Service]
Type=notify
ExecStart=/opt/docker/dockerd -H unix:///var/run/docker.sock --log-level warn
Environment=PATH=/opt/docker:/usr/sbin:/usr/bin:/sbin:/bin
KillMode=process
[Install]
WantedBy=multi-user.target
"""
SET_UP = f"""
ln -s /opt/docker/docker /opt/docker/dockerd /usr/local/bin
mkdir -p /etc/docker
echo '{{"live-restore": true}}' > /etc/docker/daemon.json
cat > /etc/systemd/system/docker.service <<'EOF'
{UNIT}EOF
systemctl daemon-reload
systemctl enable -q --now docker
tries=0
until docker version >/dev/null 2>&1; do tries=$((tries + 1)); [ $tries -lt 60 ]; sleep 1; done
docker import /opt/box.tar box >/dev/null
docker run -d --name kept --network none box /bin/busybox sleep 10000 >/dev/null
"""
KEPT = "docker inspect -f '{{.State.Pid}} {{.State.Running}}' kept"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SomebodysBed]:
    with SomebodysBed(tmp_path_factory.mktemp("adopted") / "bed", "somebodys", "gate") as made:
        yield made


@pytest.fixture(scope="module")
def host(bed: SomebodysBed) -> Host:
    return bed.hosts["somebodys"]


@pytest.fixture(scope="module")
def engine(host: Host, static_archive: Path, image_tar: Path) -> list[str]:
    """The inventory, as its owner has left it."""
    host.root("tar -xz -C /opt", stdin=static_archive.read_bytes())
    host.root("cat > /opt/box.tar", stdin=image_tar.read_bytes())
    host.root(SET_UP)
    return inventory(host)


@pytest.fixture(scope="module")
def sealed(host: Host) -> Path:
    """The user's key, with a passphrase."""
    path = host.bed.folder / "sealed_key"
    path.write_bytes(host.bed.key.read_bytes())
    path.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(path)]
    subprocess.run(change, check=True)
    return path


@pytest.fixture(scope="module")
def agent(bed: SomebodysBed) -> Iterator[dict[str, str]]:
    """An SSH agent that has the user's key."""
    socket = bed.home / "agent"
    started = bed.run("ssh-agent", "-a", str(socket)).stdout
    (number,) = re.findall(r"SSH_AGENT_PID=(\d+)", started)
    env = {"SSH_AUTH_SOCK": str(socket)}
    added = bed.run("ssh-add", "-q", str(bed.key), env=env)
    assert added.returncode == 0, added.stderr
    yield env
    os.kill(int(number), signal.SIGTERM)


@pytest.fixture(scope="module")
def gate(bed: SomebodysBed, host: Host) -> Path:
    """The user's ssh config with a way to the host, whose address there nobody but the gate knows."""
    gate = bed.hosts["gate"]
    host.root(f"ip address add {INSIDE}/32 dev eth0")
    gate.root(f"ip route add {INSIDE} via {host.address}")
    assert bed.run("bash", "-c", f"</dev/tcp/{INSIDE}/22").returncode != 0
    home = bed.home / ".ssh"
    home.mkdir(mode=0o700)
    (home / "known_hosts").write_text(f"{gate.address} {gate.host_key}\n{INSIDE} {host.host_key}\n")
    (home / "config").write_text(
        f"Host inside\n  HostName {INSIDE}\n  User {USER}\n"
        f"  ProxyJump {USER}@{gate.address}\n  UserKnownHostsFile {home}/known_hosts\n"
        f"Host {gate.address}\n  UserKnownHostsFile {home}/known_hosts\n"
    )
    return home / "config"


def test_an_engine_is_adopted_through_a_gate(
    host: Host, engine: list[str], agent: dict[str, str], gate: Path, docker: str, image_tar: Path
) -> None:
    """The gate is in the user's own ssh config and known_hosts; the agent opens both doors. No
    packet goes to the host but through the gate."""
    bed = host.bed
    kept = host.root(KEPT)
    env = {**SUDO, **agent}
    words = ["create", "-d", "generic", "--generic-ip-address", "inside", "--adopt"]
    made = bed.machine(*words, "--generic-ssh-config", str(gate), "g2", env=env)
    assert made.returncode == 0, made.stderr
    url = bed.machine("url", "g2", env=env).stdout
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+\n", url)
    run_container(bed, "g2", docker, image_tar)
    assert host.root(KEPT) == kept
    assert host.root("cat /etc/docker/daemon.json") == '{"live-restore": true}\n'
    assert bed.machine("ssh", "g2", "hostname", env=env).stdout == "somebodys\n"
    changed = set(inventory(host)) - set(engine)
    assert all("docker" in line or "/var/lib/machine" in line for line in changed), changed


def test_an_adopted_one_goes_back_to_what_it_was(
    host: Host, engine: list[str], agent: dict[str, str]
) -> None:
    kept = host.root(KEPT)
    gone = host.bed.machine("rm", "-y", "--undo", "g2", env={**SUDO, **agent})
    assert gone.returncode == 0, gone.stderr
    assert inventory(host) == engine
    assert host.root(KEPT) == kept
    tunnels = [of_process(each, "cmdline") for each in host.bed.processes()]
    assert not [words for words in tunnels if "-N\0-M\0-S" in words]


def test_a_registered_host_is_not_touched(host: Host, engine: list[str], sealed: Path) -> None:
    """By a key with a passphrase; it is reached by SSH, and its engine by nobody."""
    bed = host.bed
    env = {"MACHINE_GENERIC_SSH_PASSPHRASE": PASSPHRASE}
    words = known(host, "--generic-ssh-key", str(sealed))
    made = bed.machine(*words, "--register", "g3", env=env)
    assert made.returncode == 0, made.stderr
    assert bed.machine("ssh", "g3", "whoami", env=env).stdout == f"{USER}\n"
    for word in ("env", "config"):
        refused = bed.machine(word, "g3", env=env)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no certificates of it are known" in refused.stderr
    for words in (["provision", "g3"], ["regenerate-certs", "-f", "g3"]):
        refused = bed.machine(*words, env=env)
        assert refused.returncode == 1
        assert "only registered here" in refused.stderr
    wrong = bed.machine("ssh", "g3", "true", env={"MACHINE_GENERIC_SSH_PASSPHRASE": "not that"})
    assert wrong.returncode == 1
    assert "passphrase is another one" in wrong.stderr
    assert bed.machine("rm", "-y", "g3").returncode == 0
    assert inventory(host) == engine


def test_a_record_says_nothing_of_an_image(host: Host) -> None:
    made = host.bed.machine(*known(host), "--register", "g5", env=SUDO)
    assert made.returncode == 0, made.stderr
    record = json.loads(host.bed.machine("inspect", "g5").stdout)
    assert record["Machine"]["image"] == ""
    assert record["Driver"]["SSHKeyPath"] == str(host.bed.key)
    assert host.bed.machine("rm", "-y", "g5").returncode == 0


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        (
            "mount --bind /etc /etc; mount -o remount,bind,ro /etc",
            "umount /etc",
            ("Read-only file system", "findmnt"),
        ),
        (
            "mkdir /var/lib/machine; mount -t tmpfs -o nr_inodes=1 tmpfs /var/lib/machine",
            "umount /var/lib/machine; rmdir /var/lib/machine",
            ("No space left on device", "df -h"),
        ),
        (
            "mount -t tmpfs -o mode=1777,nr_inodes=1 tmpfs /tmp",
            "umount /tmp",
            ("/tmp/.machine-", "cannot be written on the host", "df -h"),
        ),
        (
            "mv /opt/docker/dockerd /opt/dockerd; cp /bin/false /opt/docker/dockerd",
            "mv /opt/dockerd /opt/docker/dockerd",
            ("There is an engine on the host, and it does not run",),
        ),
    ],
    ids=["read-only", "full", "full-tmp", "broken"],
)
def test_a_host_in_trouble_is_left_as_it_is(
    host: Host, engine: list[str], spoil: str, mend: str, words: tuple[str, ...]
) -> None:
    """Each says what it is; and when it is mended, nothing was changed."""
    host.root(spoil)
    try:
        refused = host.bed.machine(*known(host), "--adopt", "g6", env=SUDO)
    finally:
        host.root(mend)
    assert refused.returncode == 1
    for word in words:
        assert word in refused.stderr, refused.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    assert inventory(host) == engine


def test_an_engine_that_cannot_start_as_we_want_it_runs_as_before(
    host: Host, engine: list[str]
) -> None:
    """Something else has the port."""
    kept = host.root(KEPT)
    listen = ("--socket-property=ListenStream=0.0.0.0:2400", "--socket-property=Accept=yes")
    host.root(f"systemd-run --quiet --unit=taken {' '.join(listen)} true")
    words = known(host, "--generic-engine-port", "2400")
    failed = host.bed.machine(*words, "--adopt", "g7", env=SUDO)
    host.root("systemctl stop taken.socket")
    assert failed.returncode == 1
    assert "dockerd does not start with its new configuration" in failed.stderr
    assert "address already in use" in failed.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    assert inventory(host) == engine
    assert host.root(KEPT) == kept


def test_what_could_not_be_put_back_at_once_is_put_back_later(
    host: Host, engine: list[str]
) -> None:
    """The file system becomes read-only when the engine is restarted: the record stays."""
    kept = host.root(KEPT)
    drop_in = "/run/systemd/system/docker.service.d"
    spoil = "mount --bind /etc /etc && mount -o remount,bind,ro /etc && false"
    host.root(
        f"mkdir -p {drop_in}; echo '[Service]\nExecStartPre=sh -c \"{spoil}\"' > {drop_in}/x.conf\n"
        "systemctl daemon-reload"
    )
    failed = host.bed.machine(*known(host), "--adopt", "g8", env=SUDO)
    assert failed.returncode == 1
    assert "machine rm --undo g8" in failed.stderr
    assert host.bed.machine("ls", "-q").stdout == "g8\n"
    host.root(
        f"while umount /etc; do :; done 2>/dev/null; rm -r {drop_in}\nsystemctl daemon-reload"
    )
    gone = host.bed.machine("rm", "-y", "--undo", "g8", env=SUDO)
    assert gone.returncode == 0, gone.stderr
    assert inventory(host) == engine
    assert host.root(KEPT) == kept

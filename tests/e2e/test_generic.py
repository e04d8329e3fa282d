"""Hosts that are there already: a VM that somebody else set up, whose sudo wants a password. These
tests build on each other in order: installed, undone, adopted through a gate, registered."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.e2e import existing
from tests.e2e.existing import GATE, GATE_PORT, INSIDE, PASSWORD, USER, ExistingHost

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning"),
]

SUDO = {"MACHINE_GENERIC_SUDO_PASSWORD": PASSWORD}
PASSPHRASE = "a phrase"
INVENTORY = r"""
find /etc /usr/local /opt /root /home -xdev \( -type f -o -type l \) ! -name .sudo_as_admin_successful \
    ! -path '/etc/ld.so.cache' -exec stat -c '%n %F %a %U:%G' {} +
find /etc /usr/local -xdev -type f ! -path '/etc/ld.so.cache' -exec sha256sum {} +
find /usr -xdev -path /usr/local -prune -o -printf '%p %y %m %u:%g\n' | grep -v /__pycache__
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'
systemctl list-units --type=service --state=running --no-legend --plain --no-pager | cut -d' ' -f1 |
    grep -v -e ^user@ -e ^systemd-
cut -d: -f1,3 /etc/group /etc/passwd
ls -d /var/lib/machine/* /var/lib/docker /tmp/.machine* 2>/dev/null || true
"""
"""Everything on a host that this tool could change, of which it is to say that it did not."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExistingHost]:
    with existing.existing(tmp_path_factory.mktemp("existing")) as made:
        yield made


@pytest.fixture(scope="module")
def untouched(host: ExistingHost) -> list[str]:
    """The host before anything was done to it."""
    return inventory(host)


def inventory(host: ExistingHost) -> list[str]:
    return sorted(host.root(INVENTORY).splitlines())


def generic(host: ExistingHost, *more: str) -> list[str]:
    """The words of a create of this host by its address."""
    return [
        *("create", "-d", "generic", "--generic-ip-address", GATE, "--generic-ssh-user", USER),
        *("--generic-ssh-key", str(host.user_key), *more),
    ]


def known(host: ExistingHost, *more: str) -> list[str]:
    return generic(host, "--generic-host-key", host.host_key, *more)


def test_a_key_that_nobody_vouches_for_is_not_taken(host: ExistingHost) -> None:
    refused = host.bed.machine(*generic(host), "g1")
    assert refused.returncode == 3
    assert "is not known, and its key was not confirmed" in refused.stderr
    assert "SHA256:" in refused.stderr
    other = host.bed.machine(*generic(host, "--generic-host-key", "SHA256:AAAA"), "g1")
    assert other.returncode == 3
    assert "has another key than it should have" in other.stderr
    assert host.bed.machine("ls", "-q").stdout == ""


def test_what_cannot_be_reached_is_said_at_once(host: ExistingHost) -> None:
    nobody = host.bed.machine(*known(host, "--generic-ip-address", "10.78.0.9"), "g1")
    assert nobody.returncode == 3
    assert "No connection to 10.78.0.9 port 22" in nobody.stderr
    closed = host.bed.machine(*known(host, "--generic-ssh-port", "2377"), "g1")
    assert closed.returncode == 3
    assert f"{GATE} port 2377 does not speak SSH" in closed.stderr
    missing = host.bed.machine(*known(host, "--generic-ssh-key", "/nosuch"), "g1")
    assert (missing.returncode, "There is no key /nosuch" in missing.stderr) == (3, True)
    stranger = host.bed.machine(*known(host, "--generic-ssh-user", "bob"), "g1")
    assert stranger.returncode == 1
    assert "refuses the key of bob" in stranger.stderr
    assert host.bed.machine("ls", "-q").stdout == ""


def test_a_password_that_sudo_does_not_want_changes_nothing(
    host: ExistingHost, untouched: list[str]
) -> None:
    nobody = host.bed.machine(*known(host), "g1")
    assert nobody.returncode == 1
    assert "there is nobody to ask" in nobody.stderr
    wrong = host.bed.machine(*known(host), "g1", env={"MACHINE_GENERIC_SUDO_PASSWORD": "wrong"})
    assert wrong.returncode == 1
    assert f"sudo on the host refuses {USER}" in wrong.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    assert inventory(host) == untouched


def test_a_dry_run_says_what_would_be_changed(host: ExistingHost, untouched: list[str]) -> None:
    dry = host.bed.machine(*known(host), "--dry-run", "g1", env=SUDO)
    assert dry.returncode == 0, dry.stderr
    for part in ("docker.io", "+++ /etc/docker/daemon.json", "docker.service", "--tlsverify"):
        assert part in dry.stdout, dry.stdout
    assert "PRIVATE KEY" not in dry.stdout
    assert PASSWORD not in dry.stdout + dry.stderr
    assert host.bed.machine("ls", "-q").stdout == ""
    assert inventory(host) == untouched


def test_its_user_is_asked_for_the_key_and_the_password(host: ExistingHost) -> None:
    """On a terminal, and only once for each."""
    bed = host.bed
    words = [*bed.inside(), *bed.tool(), *generic(host), "g1"]
    env = {**bed.environment, "TERM": "xterm"}
    child = pexpect.spawn(
        words[0], words[1:], env=env, timeout=300, encoding="utf-8", dimensions=(50, 150)
    )
    child.expect(r"The host at .* is not known yet. Its key is SHA256:\S+ .*\(y/n\): ")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(host.folder / "host_key.pub")], capture_output=True, text=True
    ).stdout
    assert child.after
    assert shown.split()[1] in str(child.after)
    child.sendline("y")
    child.expect(f"Password of {USER} for sudo on {GATE}: ")
    child.sendline(PASSWORD)
    child.expect("g1 is ready")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    for word in (PASSWORD, "Password"):
        assert word not in str(child.before)


def test_it_runs_containers(host: ExistingHost, docker: str, image_tar: Path) -> None:
    run_container(host, "g1", docker, image_tar)
    listed = host.bed.machine("ls").stdout
    assert re.search(rf"g1 .* generic .* Running .* tcp://{GATE}:2376 .* v\d", listed), listed


def run_container(host: ExistingHost, name: str, docker: str, image_tar: Path) -> None:
    """By the docker program, pointed there as a user does it."""
    shown = host.bed.machine("env", name, "--shell", "bash")
    assert shown.returncode == 0, shown.stderr
    env = dict(re.findall(r'export (\w+)="(.*)"', shown.stdout))
    assert host.bed.run(docker, "import", str(image_tar), "box", env=env).returncode == 0
    ran = host.bed.run(
        docker, "run", "--rm", "--network", "none", "box", "/bin/echo", "hi", env=env
    )
    assert ran.stdout == "hi\n", ran.stderr


def test_no_secret_is_kept(host: ExistingHost) -> None:
    for path in host.bed.store.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_provisioning_again_changes_nothing(host: ExistingHost) -> None:
    started = host.root("systemctl show -P ActiveEnterTimestamp docker")
    before = inventory(host)
    again = host.bed.machine("provision", "g1", env=SUDO)
    assert again.returncode == 0, again.stderr
    assert "nothing had to change" in again.stderr
    assert inventory(host) == before
    assert host.root("systemctl show -P ActiveEnterTimestamp docker") == started


def test_its_own_verbs_alone_are_refused(host: ExistingHost) -> None:
    for verb in ("stop", "kill", "start"):
        refused = host.bed.machine(verb, "g1")
        assert refused.returncode == 1
        assert "generic driver cannot" in refused.stderr or "already running" in refused.stderr


def test_it_reboots(host: ExistingHost) -> None:
    before = host.root("cat /proc/sys/kernel/random/boot_id")
    rebooted = host.bed.machine("restart", "g1", env=SUDO)
    assert rebooted.returncode == 0, rebooted.stderr
    assert host.root("cat /proc/sys/kernel/random/boot_id") != before
    assert host.bed.machine("config", "g1").returncode == 0


def test_undo_leaves_it_as_it_was(host: ExistingHost, untouched: list[str]) -> None:
    """The data of its containers are the user's: they stay."""
    gone = host.bed.machine("rm", "-y", "--undo", "g1", env=SUDO)
    assert gone.returncode == 0, gone.stderr
    assert "/var/lib/docker" in gone.stderr
    host.root("rm -rf /var/lib/docker /var/lib/containerd")
    assert inventory(host) == untouched
    assert host.bed.machine("ls", "-q").stdout == ""


UNIT = """\
[Service]
ExecStart=/opt/docker/dockerd -H unix:///var/run/docker.sock --log-level warn
Environment=PATH=/opt/docker:/usr/sbin:/usr/bin:/sbin:/bin
KillMode=process
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def engine(
    host: ExistingHost, untouched: list[str], static_archive: Path, image_tar: Path
) -> list[str]:
    """Somebody's own engine on the host, with a container that is not to stop; the inventory."""
    for source, command in ((static_archive, "tar -xz -C /opt"), (image_tar, "cat > /opt/box.tar")):
        with source.open("rb") as stream:
            subprocess.run([*host.bed.inside(), *host.as_root(command)], stdin=stream, check=True)
    host.root(
        "ln -s /opt/docker/docker /opt/docker/dockerd /usr/local/bin\nmkdir -p /etc/docker\n"
        "echo '{\"live-restore\": true}' > /etc/docker/daemon.json\n"
        f"cat > /etc/systemd/system/docker.service <<'EOF'\n{UNIT}EOF\n"
        "systemctl daemon-reload; systemctl enable -q --now docker\n"
        "tries=0; until docker version >/dev/null 2>&1; do "
        "tries=$((tries + 1)); [ $tries -lt 60 ]; sleep 1; done\n"
        "docker import /opt/box.tar box >/dev/null\n"
        "docker run -d --name kept --network none box /bin/busybox sleep 10000 >/dev/null\n"
    )
    return inventory(host)


@pytest.fixture(scope="module")
def agent(host: ExistingHost) -> Iterator[dict[str, str]]:
    """An SSH agent that has the user's key, which has a passphrase from now on."""
    sealed = host.folder / "sealed_key"
    sealed.write_bytes(host.user_key.read_bytes())
    sealed.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(sealed)]
    subprocess.run(change, check=True)
    socket = host.bed.home / "agent"
    started = host.bed.run("ssh-agent", "-a", str(socket)).stdout
    (number,) = re.findall(r"SSH_AGENT_PID=(\d+)", started)
    env = {"SSH_AUTH_SOCK": str(socket)}
    added = host.bed.run("ssh-add", "-q", str(host.user_key), env=env)
    assert added.returncode == 0, added.stderr
    yield env
    os.kill(int(number), signal.SIGTERM)


def test_an_engine_is_adopted_through_a_gate(
    host: ExistingHost, engine: list[str], agent: dict[str, str], docker: str, image_tar: Path
) -> None:
    """The gate is in the user's own ssh config and known_hosts; the agent opens both doors. No
    packet goes to the host but through the gate."""
    bed = host.bed
    home = bed.home / ".ssh"
    home.mkdir(mode=0o700)
    gate_key = (host.folder / "gate_key.pub").read_text()
    (home / "known_hosts").write_text(f"[{GATE}]:{GATE_PORT} {gate_key}{INSIDE} {host.host_key}\n")
    (home / "config").write_text(
        f"Host inside\n  HostName {INSIDE}\n  User {USER}\n"
        f"  ProxyJump {USER}@{GATE}:{GATE_PORT}\n  UserKnownHostsFile {home}/known_hosts\n"
        f"Host {GATE}\n  UserKnownHostsFile {home}/known_hosts\n"
    )
    pid = host.root("docker inspect -f '{{.State.Pid}}' kept")
    env = {**SUDO, **agent}
    words = ["create", "-d", "generic", "--generic-ip-address", "inside", "--adopt"]
    words += ["--generic-ssh-config", str(home / "config")]
    made = bed.machine(*words, "g2", env=env)
    assert made.returncode == 0, made.stderr
    url = bed.machine("url", "g2", env=env).stdout
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+\n", url)
    run_container(host, "g2", docker, image_tar)
    assert host.root("docker inspect -f '{{.State.Pid}}' kept") == pid
    assert host.root("cat /etc/docker/daemon.json") == '{"live-restore": true}\n'
    assert bed.machine("ssh", "g2", "hostname", env=env).stdout == "somebodys\n"
    changed = set(inventory(host)) - set(engine)
    assert all("docker" in line or "/var/lib/machine" in line for line in changed), changed


def test_an_adopted_one_goes_back_to_what_it_was(
    host: ExistingHost, engine: list[str], agent: dict[str, str]
) -> None:
    pid = host.root("docker inspect -f '{{.State.Pid}}' kept")
    gone = host.bed.machine("rm", "-y", "--undo", "g2", env={**SUDO, **agent})
    assert gone.returncode == 0, gone.stderr
    assert inventory(host) == engine
    assert host.root("docker inspect -f '{{.State.Pid}}' kept") == pid
    assert not host.bed.run("pgrep", "-f", "-- -N -M -S").stdout


def test_a_registered_host_is_not_touched(host: ExistingHost, engine: list[str]) -> None:
    """By a key with a passphrase; it is reached by SSH, and its engine by nobody."""
    bed = host.bed
    env = {"MACHINE_GENERIC_SSH_PASSPHRASE": PASSPHRASE}
    sealed = str(host.folder / "sealed_key")
    made = bed.machine(*known(host, "--generic-ssh-key", sealed), "--register", "g3", env=env)
    assert made.returncode == 0, made.stderr
    assert bed.machine("ssh", "g3", "whoami", env=env).stdout == f"{USER}\n"
    for word in ("env", "config"):
        refused = bed.machine(word, "g3", env=env)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no certificates of it are known" in refused.stderr
    for words in (("provision", "g3"), ("regenerate-certs", "-f", "g3")):
        refused = bed.machine(*words, env=env)
        assert refused.returncode == 1
        assert "only registered here" in refused.stderr
    wrong = bed.machine("ssh", "g3", "true", env={"MACHINE_GENERIC_SSH_PASSPHRASE": "not that"})
    assert wrong.returncode == 1
    assert "passphrase is another one" in wrong.stderr
    assert bed.machine("rm", "-y", "g3").returncode == 0
    assert inventory(host) == engine


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        (
            "mount --bind /etc /etc; mount -o remount,bind,ro /etc",
            "umount /etc",
            ("Read-only file system", "findmnt"),
        ),
        (
            "fallocate -l 100G /fill 2>/dev/null || dd if=/dev/zero of=/fill bs=4M 2>/dev/null || true",
            "rm /fill",
            ("No space left on device", "df -h"),
        ),
        (
            "mv /opt/docker/dockerd /opt/dockerd; cp /bin/false /opt/docker/dockerd",
            "mv /opt/dockerd /opt/docker/dockerd",
            ("There is an engine on the host, and it does not run",),
        ),
    ],
    ids=["read-only", "full", "broken"],
)
def test_a_host_in_trouble_is_left_as_it_is(
    host: ExistingHost, engine: list[str], spoil: str, mend: str, words: tuple[str, ...]
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
    host.root("rm -rf /var/lib/machine/before*")
    assert inventory(host) == engine


def test_a_system_that_nobody_serves_is_named(host: ExistingHost) -> None:
    host.root("mv /etc/os-release /etc/os-release.kept; echo ID=plan9 > /etc/os-release")
    try:
        refused = host.bed.machine(*known(host), "g4", env=SUDO)
    finally:
        host.root("mv /etc/os-release.kept /etc/os-release")
    assert refused.returncode == 1
    assert "No provisioner serves this system: plan9" in refused.stderr
    assert host.bed.machine("ls", "-q").stdout == ""


def test_a_record_says_nothing_of_an_image(host: ExistingHost) -> None:
    made = host.bed.machine(*known(host), "--register", "g5", env=SUDO)
    assert made.returncode == 0, made.stderr
    record = json.loads(host.bed.machine("inspect", "g5").stdout)
    assert record["Machine"]["image"] == ""
    assert record["Driver"]["SSHKeyPath"] == str(host.user_key)
    assert host.bed.machine("rm", "-y", "g5").returncode == 0

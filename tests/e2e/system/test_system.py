"""A machine's life in libvirt's system mode, on a real VM: these tests build on each other in order."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pexpect
import pytest

from machine import tls
from tests.e2e.life import Stopped
from tests.e2e.testbed import Bed, SystemBed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def before(bed: SystemBed) -> set[str]:
    return bed.inventory()


@pytest.fixture(scope="module")
def worker(bed: SystemBed, before: set[str]) -> str:
    """A machine made by the command that the README shows, and a few options."""
    made = bed.machine(
        *("create", "-d", "libvirt", "--tls-san", "w.example.org"),
        *("--context", "--ssh-config", "worker1"),
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == ""
    return "worker1"


def test_a_container_runs(bed: SystemBed, worker: str, docker: str, image_tar: Path) -> None:
    env = bed.variables(worker)
    imported = bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    ran = bed.run(docker, "run", "-i", "--rm", "hello", "cat", stdin="from here\n", env=env)
    assert (ran.returncode, ran.stdout) == (0, "from here\n"), ran.stderr
    failed = bed.run(docker, "run", "--rm", "hello", "sh", "-c", "exit 3", env=env)
    assert failed.returncode == 3


def test_it_is_listed(bed: SystemBed, worker: str) -> None:
    listed = json.loads(bed.machine("ls", "--output", "json").stdout)
    (row,) = listed["data"]
    assert (row["name"], row["driver"], row["state"]) == (worker, "libvirt", "Running")
    assert row["url"] == bed.machine("url", worker).stdout.strip()
    assert re.match(r"\d+\.\d+", row["engine_version"])
    active = bed.machine("active", env={"DOCKER_HOST": row["url"]})
    assert active.stdout == f"{worker}\n"


def test_what_it_takes_is_known(bed: SystemBed, worker: str) -> None:
    """By libvirt, and its containers by its engine."""
    told = json.loads(bed.machine("top", "--once", "--output", "json").stdout)
    (row,) = told["data"]
    assert (row["name"], row["state"], row["error"]) == (worker, "Running", "")
    assert row["cpus"] >= 1
    assert set(row["containers"].values()) <= {"exited"}


def test_values_stand_alone_on_standard_output(bed: SystemBed, worker: str) -> None:
    address = bed.machine("ip", worker).stdout.strip()
    assert bed.machine("url", worker).stdout == f"tcp://{address}:2376\n"
    assert bed.machine("status", worker).stdout == "Running\n"
    shown = bed.machine("inspect", worker, "-f", "{{.Driver.IPAddress}}")
    assert shown.stdout == f"{address}\n"
    assert bed.machine("config", worker).stdout.splitlines()[-1] == f"-H=tcp://{address}:2376"


def test_much_output_on_standard_error_does_not_block(bed: SystemBed, worker: str) -> None:
    ran = bed.machine("ssh", worker, "head -c 8000000 /dev/zero | tr '\\0' x >&2; echo end")
    assert ran.stdout == "end\n"
    assert len(ran.stderr) == 8000000


def test_the_guest_is_who_it_was_made_to_be(bed: SystemBed, worker: str) -> None:
    machine = json.loads(bed.machine("inspect", worker).stdout)["Machine"]
    said = bed.machine("ssh", worker, "hostname; cat /etc/machine-id; whoami; sudo id -u")
    lines = said.stdout.split()
    assert lines == [worker, machine["id"].replace("-", ""), "machine", "0"]
    assert bed.machine("ssh", worker, "systemctl is-system-running").stdout == "running\n"


def test_first_boot_secrets_are_gone(bed: SystemBed, worker: str) -> None:
    volumes = bed.run("virsh", "vol-list", "machine").stdout
    assert "disk.qcow2" in volumes
    assert "seed" not in volumes
    assert not (bed.store / "machines" / worker / "ssh_host_ed25519_key").exists()
    domain = bed.run("virsh", "dumpxml", "--inactive", worker).stdout
    assert "machine-identity" not in domain
    assert "machine-bundle" not in domain


def test_another_host_key_is_refused_before_anything_is_sent(bed: SystemBed, worker: str) -> None:
    """The man in the middle: what answers at the machine's address is an SSH server that has
    another key and would let anybody in."""
    started = bed.machine(
        "ssh",
        worker,
        "ssh-keygen -q -t ed25519 -N '' -f /tmp/other && sudo mkdir -p /run/sshd && "
        "sudo /usr/sbin/sshd -h /tmp/other -p 2222 -E /tmp/middle.log -o LogLevel=DEBUG1",
    )
    assert started.returncode == 0, started.stderr
    record = bed.store / "machines" / worker / "config.json"
    good = record.read_text()
    record.write_text(good.replace('"ssh_port": 22,', '"ssh_port": 2222,'))
    try:
        refused = bed.machine("ssh", worker, "true")
        by_program = bed.machine("ssh", worker, "-v", "true")
    finally:
        record.write_text(good)
    assert refused.returncode == 1
    assert "has another key than the one it was given" in refused.stderr
    assert by_program.returncode == 255
    assert "Host key verification failed" in by_program.stderr
    seen = bed.machine(
        "ssh", worker, "sudo cat /tmp/middle.log; sudo pkill -f 'sshd -h /tmp/other'"
    )
    assert seen.stdout.count("Connection from") == 2
    assert "userauth" not in seen.stdout


def test_other_programs_know_it_by_name(bed: SystemBed, worker: str, docker: str) -> None:
    version = bed.run(docker, "--context", worker, "version", "-f", "{{.Server.Version}}")
    assert version.returncode == 0, version.stderr
    assert version.stdout.strip() == bed.machine("version", worker).stdout.strip()
    config = bed.store / "machines" / worker / "ssh_config"
    assert bed.run("ssh", "-F", str(config), worker, "hostname").stdout == f"{worker}\n"


def test_a_terminal_is_passed_on(bed: SystemBed, worker: str) -> None:
    """An interactive login: the ssh program takes the terminal over, with our key and our pin."""
    child = pexpect.spawn(
        bed.inside()[0],
        [*bed.inside()[1:], *bed.tool(), "ssh", worker],
        env=bed.environment,
        timeout=60,
        encoding="utf-8",
    )
    child.expect(r"\$ ")
    child.sendline("tty; stty size; exit 7")
    child.expect("/dev/pts/0")
    child.expect("24 80")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7


_PROBE = """
import socket, ssl, sys
host, ca, cert, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if cert:
    context.load_cert_chain(cert, key)
with socket.create_connection((host, 2376), 20) as raw:
    with context.wrap_socket(raw, server_hostname=host) as tls:
        tls.sendall(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
        print(tls.recv(100).split()[1].decode())
"""


def test_the_engine_answers_only_our_certificate(
    bed: SystemBed, worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bed.store / "machines" / worker
    address = bed.machine("ip", worker).stdout.strip()
    other = tls.Authority(tmp_path / "other", tmp_path / "lock")
    other.ensure()
    shutil.copytree(bed.store / "certs", tmp_path / "expired")
    monkeypatch.setattr(tls, "BACKDATE", timedelta(days=9))
    monkeypatch.setattr(tls, "LEAF_DAYS", -1)
    tls.Authority(tmp_path / "expired", tmp_path / "lock").renew_client()

    def ask(cert: Path | str, key: Path | str) -> subprocess.CompletedProcess[str]:
        words = (address, str(folder / "ca.pem"), str(cert), str(key))
        return bed.run(sys.executable, "-c", _PROBE, *words)

    assert ask(folder / "cert.pem", folder / "key.pem").stdout == "200\n"
    for whose, alert in (
        ("", "certificate required"),
        ("other", "(unknown ca|bad certificate|unknown certificate authority)"),
        ("expired", "(bad certificate|certificate expired)"),
    ):
        pair = (tmp_path / whose / "cert.pem", tmp_path / whose / "key.pem") if whose else ("", "")
        refused = ask(*pair)
        assert refused.returncode != 0
        assert re.search(f"alert {alert}", refused.stderr), (whose, refused.stderr)
    names = tls.names_of((folder / "server.pem").read_bytes())
    assert {worker, address, "localhost", "w.example.org"} <= names


def test_engine_options_that_dockerd_refuses_change_nothing(bed: SystemBed, worker: str) -> None:
    record = bed.store / "machines" / worker / "config.json"
    good = record.read_text()
    data = json.loads(good)
    data["HostOptions"]["EngineOptions"]["ArbitraryFlags"] = ["nosuch=1"]
    record.write_text(json.dumps(data))
    try:
        refused = bed.machine("provision", worker)
    finally:
        record.write_text(good)
    assert refused.returncode == 1
    assert "dockerd refuses the engine options" in refused.stderr
    assert "nosuch" in refused.stderr
    assert bed.machine("config", worker).returncode == 0
    assert "nothing had to change" in bed.machine("provision", worker).stderr


class TestLife(Stopped):
    disk_gib = 24

    @pytest.fixture
    def place(self, bed: SystemBed) -> Bed:
        return bed


def test_certificates_are_renewed(bed: SystemBed, worker: str) -> None:
    folder = bed.store / "machines" / worker
    before = (folder / "server.pem").read_bytes()
    renewed = bed.machine("regenerate-certs", "--force", "--client-certs", worker)
    assert renewed.returncode == 0, renewed.stderr
    assert (folder / "server.pem").read_bytes() != before
    assert bed.machine("config", worker).returncode == 0


def test_the_console_is_there(bed: SystemBed, worker: str) -> None:
    shown = bed.machine("console", "-n", "200", worker)
    assert shown.returncode == 0
    assert "machine: identity" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_the_console_is_followed(bed: SystemBed, worker: str) -> None:
    following = bed.popen("console", "-n", "0", "-f", worker)
    assert following.stdout
    try:
        bed.machine("ssh", worker, "echo said on the console | sudo tee /dev/ttyS0")
        assert following.stdout.readline().strip() == "said on the console"
    finally:
        following.kill()
        following.wait()
        following.stdout.close()


def test_a_moved_store_keeps_working(bed: SystemBed, worker: str) -> None:
    moved = bed.store.with_name("moved")
    bed.store.rename(moved)
    try:
        env = {"MACHINE_STORAGE_PATH": str(moved)}
        assert bed.machine("config", worker, env=env).returncode == 0
        assert bed.machine("ssh", worker, "hostname", env=env).stdout == f"{worker}\n"
    finally:
        moved.rename(bed.store)


def test_a_name_and_an_address_are_taken_once(bed: SystemBed, worker: str) -> None:
    again = bed.machine("create", "-d", "libvirt", worker)
    assert again.returncode == 1
    assert f'Docker machine "{worker}" already exists' in again.stderr
    address = bed.machine("ip", worker).stdout.strip()
    taken = bed.machine("create", "-d", "libvirt", "--libvirt-ip", address, "other")
    assert taken.returncode == 3
    assert f"{address} is taken by {worker}" in taken.stderr
    outside = bed.machine("create", "-d", "libvirt", "--libvirt-ip", "8.8.8.8", "other")
    assert outside.returncode == 2
    assert "no host address of the network" in outside.stderr
    assert bed.machine("ls", "-q").stdout == f"{worker}\n"


def test_debian_12_with_engine_options(bed: SystemBed, docker: str, image_tar: Path) -> None:
    made = bed.machine(
        *("create", "-d", "libvirt", "-t", "debian-12"),
        *("--engine-label", "tier=web", "--engine-opt", "log-driver=local"),
        *("--engine-env", "MACHINE_TEST=a b", "--engine-registry-mirror", "https://m.example"),
        *("--engine-insecure-registry", "r.example:5000", "old"),
    )
    assert made.returncode == 0, made.stderr
    env = bed.variables("old")
    form = "{{range .Labels}}{{.}} {{end}}{{.LoggingDriver}} {{json .RegistryConfig.Mirrors}}"
    info = bed.run(docker, "info", "-f", form, env=env)
    wanted = ["provider=libvirt", "tier=web", "local", '["https://m.example/"]']
    assert sorted(info.stdout.split()) == sorted(wanted), info.stderr
    assert "r.example:5000" in bed.run(docker, "info", env=env).stdout
    shown = bed.machine(
        "ssh", "old", ". /etc/os-release; echo $VERSION_ID; sudo cat /proc/$(pidof dockerd)/environ"
    )
    assert shown.stdout.startswith("12\n")
    assert "MACHINE_TEST=a b\0" in shown.stdout
    imported = bed.run(docker, "import", "-c", "ENV PATH=/bin", str(image_tar), "hello", env=env)
    assert imported.returncode == 0, imported.stderr
    assert bed.run(docker, "run", "--rm", "hello", "echo", "ran", env=env).stdout == "ran\n"
    assert bed.machine("rm", "-y", "old").returncode == 0


def test_removal_leaves_nothing(bed: SystemBed, worker: str, before: set[str]) -> None:
    assert any(worker in line for line in bed.inventory())
    removed = bed.machine("rm", "-y", worker)
    assert removed.returncode == 0, removed.stderr
    assert bed.machine("ls", "-q").stdout == ""
    assert bed.inventory() == before
    assert bed.machine("rm", "-y", worker).returncode == 1

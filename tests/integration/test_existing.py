"""Hosts and engines that are there already: the contract, and what is told before anybody logs in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from machine import flags, keys, ssh, wait
from machine.driver import HostRef
from machine.drivers.generic import resolve
from machine.drivers.generic.config import GenericConfig, GenericFacts
from machine.drivers.generic.driver import GenericDriver
from machine.drivers.none import NoneDriver, parse
from machine.errors import BadOption, PreflightError
from machine.events import Event, Question, Reporter
from machine.model import Address
from machine.store import Store
from machine.testing.contract import DriverContract
from tests.integration.test_cli import machine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[tuple[Address, str]]:
    """Where it listens, and its public key."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    pair = keys.ed25519()
    (folder / "host_key").write_text(pair.private)
    (folder / "authorized_keys").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "tests.e2e.sshd", "127.0.0.1", str(port), str(folder)]
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        wait.until("the server", (folder / "listening").exists, timeout=30)
        yield Address("127.0.0.1", port), pair.public
        process.kill()


class TestNone(DriverContract):
    driver_type = NoneDriver
    config: ClassVar[dict[str, Any]] = {"url": "tcp://127.0.0.1:2376"}


class TestGeneric(DriverContract):
    driver_type = GenericDriver

    @pytest.fixture(autouse=True)
    def there(self, sshd: tuple[Address, str], monkeypatch: pytest.MonkeyPatch) -> None:
        address, public = sshd
        there = {"ip_address": address.host, "ssh_port": address.ssh_port}
        known = {"host_key": ssh.fingerprint(public)}
        monkeypatch.setattr(TestGeneric, "config", {**there, **known})


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("tcp://10.0.0.1:2376", ("10.0.0.1", 2376)),
        ("tcp://[fd00::1]:1234", ("fd00::1", 1234)),
        ("https://build.example", ("build.example", 2376)),
        ("localhost", ("localhost", 2376)),
        ("localhost:4243", ("localhost", 4243)),
    ],
)
def test_an_engines_url_is_read(url: str, place: tuple[str, int]) -> None:
    assert parse(url) == place


@pytest.mark.parametrize("url", ["unix:///var/run/docker.sock", "tcp://", "tcp://host:port", ""])
def test_what_is_no_url_of_an_engine_is_said(url: str) -> None:
    with pytest.raises(BadOption, match=r"--url|URL"):
        flags.build("none", NoneDriver.config_type, {"url": url}, {})


def preflight(folder: Path, answer: str | None, **config: Any) -> tuple[GenericDriver, list[str]]:
    """A driver that was asked whether it can be made, and what its user was asked."""
    asked: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Question):
            asked.append(event.text)
            event.answer = answer

    host = HostRef("g1", "0" * 36, folder)
    driver = GenericDriver(host, GenericConfig(**config), GenericFacts(), report=Reporter(emit))
    driver.preflight()
    return driver, asked


def test_a_key_in_known_hosts_is_taken(sshd: tuple[Address, str], tmp_path: Path) -> None:
    """Under its name or its address, hashed or not, whatever its kind."""
    address, public = sshd
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{address.ssh_port} {public}\n")
    config = tmp_path / "config"
    config.write_text(f"Host *\n  UserKnownHostsFile {known}\n")
    given = {"ip_address": "127.0.0.1", "ssh_port": address.ssh_port, "ssh_config": str(config)}
    driver, asked = preflight(tmp_path, None, **given)
    assert driver.facts.host_key == " ".join(public.split()[:2])
    assert asked == []
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()
    _, asked = preflight(tmp_path, None, **given)
    assert asked == []
    known.write_text(f"[127.0.0.1]:{address.ssh_port} {keys.ed25519().public}\n")
    with pytest.raises(PreflightError, match="another key"):
        preflight(tmp_path, "y", **given)


def test_a_key_that_nobody_knows_is_shown(sshd: tuple[Address, str], tmp_path: Path) -> None:
    address, public = sshd
    config = tmp_path / "config"
    config.write_text(f"Host *\n  UserKnownHostsFile {tmp_path}/none\n")
    given = {"ip_address": "127.0.0.1", "ssh_port": address.ssh_port, "ssh_config": str(config)}
    driver, asked = preflight(tmp_path, "yes", **given)
    assert ssh.fingerprint(public) in asked[0]
    assert driver.facts.host_key in public
    for answer in ("no", None, ""):
        with pytest.raises(PreflightError, match="was not confirmed") as caught:
            preflight(tmp_path, answer, **given)
        assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in caught.value.hint


def test_the_users_own_ssh_config_counts(tmp_path: Path) -> None:
    """And options win over it."""
    config, key = tmp_path / "config", tmp_path / "key"
    key.touch()
    config.write_text(
        f"Host web\n  HostName 10.1.2.3\n  Port 2222\n  User alice\n  IdentityFile {key}\n"
        "  ProxyJump bob@gate:22\n"
    )
    given = GenericConfig(ip_address="web", ssh_config=str(config))
    found = resolve.facts(given, GenericFacts(), resolve.ssh_entry(given))
    assert (found.host, found.ssh_port, found.user) == ("10.1.2.3", 2222, "alice")
    assert (found.keys, found.jump) == ((str(key),), "bob@gate:22")
    given = GenericConfig(
        ip_address="web", ssh_config=str(config), ssh_user="root", ssh_port=22, ssh_jump="other"
    )
    found = resolve.facts(given, GenericFacts(), resolve.ssh_entry(given))
    assert (found.ssh_port, found.user, found.jump) == (22, "root", "other")
    config.write_text("Host web\n  ProxyCommand nc %h %p\n")
    with pytest.raises(PreflightError, match="ProxyCommand"):
        given = GenericConfig(ip_address="web", ssh_config=str(config))
        resolve.facts(given, GenericFacts(), resolve.ssh_entry(given))


def test_an_engine_is_known_by_its_url(engine: str, own_home: Path) -> None:
    """With its certificates it is like any other machine; without, there is only the URL."""
    theirs = Store().folder(engine).root
    url = machine("url", engine).stdout.strip()
    made = machine("create", "-d", "none", "--url", url, "--none-tls-folder", str(theirs), "n1")
    assert made.returncode == 0, made.stderr
    assert machine("url", "n1").stdout.strip() == url
    assert machine("status", "n1").stdout == "Running\n"
    shown = machine("env", "n1", "--shell", "bash")
    assert shown.returncode == 0, shown.stderr
    assert f'export DOCKER_CERT_PATH="{Store().folder("n1").root}"' in shown.stdout
    assert machine("version", "n1").stdout == "26.1.5\n"
    listed = machine("ls", "--filter", "name=n1").stdout
    assert "none" in listed
    assert "v26.1.5" in listed
    for words in (("stop", "n1"), ("ssh", "n1", "true"), ("provision", "n1")):
        refused = machine(*words)
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
    assert machine("rm", "-y", "n1").returncode == 0
    missing = machine(
        "create", "-d", "none", "--url", url, "--none-tls-folder", str(own_home), "n2"
    )
    assert missing.returncode == 1
    assert f"There is no ca.pem in {own_home}" in missing.stderr


def test_the_first_certificates_are_made_as_gitlab_runners_users_do(own_home: Path) -> None:
    made = machine("create", "-d", "none", "--url", "localhost", "dummy")
    assert made.returncode == 0, made.stderr
    assert (Store().folders.certs / "ca.pem").exists()
    assert machine("url", "dummy").stdout == "tcp://localhost:2376\n"
    refused = machine("config", "dummy")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no certificates of it are known" in refused.stderr
    assert machine("rm", "-f", "dummy").returncode == 0


@pytest.mark.parametrize("flag", ["--adopt", "--register", "--dry-run"])
def test_what_is_for_hosts_that_are_there_is_refused_elsewhere(flag: str, own_home: Path) -> None:
    refused = machine("create", "-d", "none", "--url", "localhost", flag, "n1")
    assert refused.returncode == 2
    assert "for a host that is there already" in refused.stderr
    assert machine("ls", "-q").stdout == ""


def test_what_the_drivers_need_is_asked_for(own_home: Path) -> None:
    for driver, flag in (("none", "--url"), ("generic", "--generic-ip-address")):
        refused = machine("create", "-d", driver, "n1")
        assert refused.returncode == 2
        assert flag in refused.stderr

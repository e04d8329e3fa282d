"""A host that is there already, as a real VM behind a gate: one walk from its create to the way back.
What else is claimed of such hosts is in tests/integration: test_generic.py, test_adopted.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import existing
from tests.e2e.existing import GATE, GATE_PORT, INSIDE, ExistingHost
from tests.somebodys import INVENTORY, PASSWORD, SUDO, USER, run_container

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExistingHost]:
    with existing.existing(tmp_path_factory.mktemp("existing")) as made:
        yield made


def inventory(host: ExistingHost) -> list[str]:
    return sorted(host.root(f"mkdir -p /var/lib/docker\n{INVENTORY}").splitlines())


def test_it_is_set_up_and_put_back_through_a_gate(
    host: ExistingHost, docker: str, image_tar: Path
) -> None:
    """Its sudo wants a password, and no packet goes to it but through the gate."""
    bed = host.bed
    home = bed.home / ".ssh"
    home.mkdir(mode=0o700)
    gate_key = (host.folder / "gate_key.pub").read_text()
    (home / "known_hosts").write_text(f"[{GATE}]:{GATE_PORT} {gate_key}{INSIDE} {host.host_key}\n")
    (home / "config").write_text(
        f"Host inside\n  HostName {INSIDE}\n  User {USER}\n  IdentityFile {host.user_key}\n"
        f"  ProxyJump {USER}@{GATE}:{GATE_PORT}\n  UserKnownHostsFile {home}/known_hosts\n"
        f"Host {GATE}\n  IdentityFile {host.user_key}\n  UserKnownHostsFile {home}/known_hosts\n"
    )
    untouched = inventory(host)
    words = ["create", "-d", "generic", "--generic-ip-address", "inside"]
    made = bed.machine(*words, "--generic-ssh-config", str(home / "config"), "g1", env=SUDO)
    assert made.returncode == 0, made.stderr
    assert PASSWORD not in made.stdout + made.stderr
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+\n", bed.machine("url", "g1").stdout)
    run_container(bed, "g1", docker, image_tar)
    gone = bed.machine("rm", "-y", "--undo", "g1", env=SUDO)
    assert gone.returncode == 0, gone.stderr
    host.root("rm -rf /var/lib/docker /var/lib/containerd")
    assert inventory(host) == untouched

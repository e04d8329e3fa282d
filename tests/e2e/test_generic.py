"""Hosts that are there already: a VM that somebody else set up, whose sudo wants a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import existing
from tests.e2e.existing import GATE, PASSWORD, USER, ExistingHost

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExistingHost]:
    with existing.existing(tmp_path_factory.mktemp("existing")) as made:
        yield made


def words(host: ExistingHost) -> list[str]:
    """What a create needs to be told of the host."""
    return [
        *("create", "-d", "generic", "--generic-ip-address", GATE, "--generic-ssh-user", USER),
        *("--generic-ssh-key", str(host.user_key), "--generic-host-key", host.host_key),
    ]


def test_first(host: ExistingHost) -> None:
    env = {"SUDO_PW": PASSWORD}
    done = host.bed.machine(*words(host), "--generic-sudo-password", "env:SUDO_PW", "g1", env=env)
    print(done.stderr)
    assert done.returncode == 0
    assert Path(host.bed.store).exists()
    for cmd in (
        ["ls"],
        ["config", "g1"],
        ["ssh", "g1", "sudo", "-n", "true"],
        ["provision", "g1"],
        ["inspect", "g1"],
    ):
        d = host.bed.machine(*cmd, env=env)
        print(d.stdout, d.stderr)
    host.root("docker run --help >/dev/null")

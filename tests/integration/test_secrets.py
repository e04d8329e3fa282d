"""A secret that is given to a create is in no record, no output and no log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import secret
from machine.errors import SecretMissing
from tests import amazon

CANARY = "canary-secret-0815"
CRASHING = f"""
from machine.drivers.amazonec2.driver import Amazonec2Driver

class Crashing(Amazonec2Driver):
    name = "crashing"

    def preflight(self):
        raise RuntimeError("unexpected: {CANARY}")
"""
"""A driver with a bug that knows the secret."""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with amazon.server(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture(autouse=True)
def account(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in amazon.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", moto)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def machine(*words: str) -> subprocess.CompletedProcess[str]:
    """With the secret in nothing that it says."""
    argv = [sys.executable, "-m", "machine", *words]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert CANARY not in ran.stdout + ran.stderr
    return ran


def create(*words: str, driver: str = "amazonec2") -> subprocess.CompletedProcess[str]:
    """Which ends where SSH should answer: there is no VM behind the instance."""
    options = ("--keep-on-failure", f"--{driver}-boot-timeout", "1")
    ran = machine("create", "-d", driver, *options, *words)
    assert ran.returncode == 1, ran.stderr
    return ran


def holding(folder: Path) -> list[str]:
    """Names of the files that have the canary in them."""
    found = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    return [each.name for each in found if CANARY.encode() in each.read_bytes()]


def config(home: Path) -> dict[str, str]:
    text = (home / ".docker" / "machine" / "machines" / "w1" / "config.json").read_text()
    return dict(json.loads(text)["Machine"]["config"])


def test_a_value_on_the_command_line_is_in_its_own_file_alone(own_home: Path) -> None:
    keys = ("--amazonec2-access-key", "AKIA0000", "--amazonec2-secret-key", CANARY)
    assert "better is to say where it is" in create(*keys, "w1").stderr
    for words in (["inspect", "w1"], ["ls"], ["-D", "status", "w1"], ["doctor"]):
        machine(*words)
    assert holding(own_home) == ["secret-secret_key"]
    assert config(own_home)["secret_key"] == "file:secret-secret_key"
    assert machine("status", "w1").stdout == "Running\n"
    assert machine("rm", "-y", "w1").returncode == 0
    assert holding(own_home) == []


def test_of_variables_their_names_are_kept_and_others_may_take_their_place(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    create("w1")
    assert config(own_home)["secret_key"] == "env:AWS_SECRET_ACCESS_KEY"
    assert holding(own_home) == []
    for variable in amazon.CREDENTIALS:
        monkeypatch.delenv(variable)
    (own_home / ".aws").mkdir()
    keys = "aws_access_key_id = AKIA1111\naws_secret_access_key = rotated\n"
    (own_home / ".aws" / "credentials").write_text(f"[default]\n{keys}")
    assert machine("status", "w1").stdout == "Running\n"
    assert machine("rm", "-y", "w1").returncode == 0


def test_a_crash_report_does_not_have_it(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = tmp_path / "crashing-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Name: crashing\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[machine.drivers]\ncrashing = crashing:Crashing\n")
    (tmp_path / "crashing.py").write_text(CRASHING)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    assert (
        "this is a bug in machine"
        in create("--crashing-secret-key", CANARY, "w1", driver="crashing").stderr
    )
    (log,) = own_home.glob(".cache/machine/crash.log")
    assert "unexpected: ***" in log.read_text()
    assert holding(own_home) == ["secret-secret_key"]


def test_a_program_may_tell_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("told-by-a-program\n")
    assert secret.resolve(f"command:cat {tmp_path}/key") == "told-by-a-program"
    with pytest.raises(SecretMissing, match="gives no secret"):
        secret.resolve("command:false")
    with pytest.raises(SecretMissing, match="is empty"):
        secret.resolve("command:true")

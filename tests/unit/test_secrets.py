"""Where a secret is, instead of what it is: what a record holds of it, and how it is found again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keyring
import keyring.backend
import pytest

from machine import flags, secret
from machine.errors import SecretMissing
from machine.events import Note, Reporter
from machine.paths import MachineFolder
from machine.redaction import redact
from machine.workflows import secrets

VALUE = "canary-4711"


@dataclass(frozen=True, slots=True)
class Config:
    token: str = flags.option("", "where the token is", env=("CLOUD_TOKEN",), secret=True)
    region: str = flags.option("", "region", env=("CLOUD_REGION",))


OPTIONS = flags.options("cloud", Config)


def built(given: dict[str, str], table: dict[str, str] | None = None) -> Config:
    words = secrets.references(OPTIONS, given, table or {})
    return flags.build("cloud", Config, words, table or {})


def test_of_a_variable_its_name_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_TOKEN", VALUE)
    monkeypatch.setenv("CLOUD_REGION", "there")
    assert built({}) == Config("env:CLOUD_TOKEN", "there")
    assert flags.build("cloud", Config, {}, {}) == Config("env:CLOUD_TOKEN", "there")


def test_a_variable_may_hold_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_CLOUD_TOKEN", "command:pass show cloud")
    monkeypatch.setenv("CLOUD_TOKEN", VALUE)
    assert built({}).token == "command:pass show cloud"


def test_a_reference_stays_and_a_files_path_counts_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert built({"token": "keyring:cloud/me"}).token == "keyring:cloud/me"
    assert built({"token": "file:key"}).token == f"file:{tmp_path}/key"
    assert built({"token": "file:~/key"}).token == "file:~/key"


@pytest.mark.parametrize("table", [False, True])
def test_a_value_goes_into_a_file_of_the_machines_own(table: bool, tmp_path: Path) -> None:
    given, found = ({}, {"token": VALUE}) if table else ({"token": VALUE}, {})
    said: list[object] = []
    folder = MachineFolder(tmp_path)
    secrets.keep(OPTIONS, given, found, folder, Reporter(said.append))
    config = built(given, found)
    assert config.token == "file:secret-token"
    (file,) = tmp_path.glob("secret-*")
    assert (file.read_text(), file.stat().st_mode & 0o777) == (VALUE, 0o600)
    (note,) = said
    assert isinstance(note, Note)
    assert note.warning
    assert VALUE not in note.text
    assert "keyring:SERVICE/USER" in note.text
    assert secret.resolve(flags.within(config.token, tmp_path)) == VALUE


def test_what_was_seen_is_said_no_more() -> None:
    secrets.notice(OPTIONS, {"token": "seen-once-1234"})
    assert redact("it is seen-once-1234!") == "it is ***!"


class Ring(keyring.backend.KeyringBackend):
    """A keyring that holds one password."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        return VALUE if (service, username) == ("cloud", "me") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


def test_references_are_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLACE", "first")
    assert secret.resolve("env:PLACE") == "first"
    monkeypatch.setenv("PLACE", "second")
    assert secret.resolve("env:PLACE") == "second"
    (tmp_path / "key").write_text(f"{VALUE}\n")
    assert secret.resolve(f"file:{tmp_path}/key") == VALUE
    keyring.set_keyring(Ring())  # type: ignore[no-untyped-call]
    assert secret.resolve("keyring:cloud/me") == VALUE
    assert redact(VALUE) == "***"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("env:NOSUCH", "NOSUCH is not set"),
        ("file:/nosuch", "/nosuch cannot be read"),
        ("keyring:cloud/you", "nothing for cloud"),
        (VALUE, "by no reference"),
    ],
)
def test_what_is_missing_is_named(reference: str, words: str) -> None:
    keyring.set_keyring(Ring())  # type: ignore[no-untyped-call]
    with pytest.raises(SecretMissing, match=words) as caught:
        secret.resolve(reference)
    assert VALUE not in f"{caught.value.brief} {caught.value.details} {caught.value.hint}"

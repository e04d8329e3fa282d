"""The docker client's contexts: made, renewed, and nobody else's touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from machine.errors import BadOption, EngineError
from machine.model import TlsFiles
from machine.runtime.docker import context

URL = "tcp://192.0.2.1:2376"


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    files = TlsFiles(*(tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")))
    for path in (files.ca, files.cert, files.key):
        path.write_text(path.name)
    return files


def meta(home: Path, name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return home / ".docker" / "contexts" / "meta" / digest / "meta.json"


def test_it_is_made_renewed_and_removed(own_home: Path, tls: TlsFiles) -> None:
    context.write("worker1", "tcp://192.0.2.9:1", tls, "id-1")
    context.write("worker1", URL, tls, "id-1")
    written = json.loads(meta(own_home, "worker1").read_text())
    assert written["Name"] == "worker1"
    assert written["Endpoints"]["docker"]["Host"] == URL
    keys = list((own_home / ".docker" / "contexts" / "tls").rglob("key.pem"))
    assert [each.read_text() for each in keys] == ["key.pem"]
    assert keys[0].stat().st_mode & 0o777 == 0o600
    context.remove("worker1", "id-1")
    context.remove("worker1", "id-1")
    assert not list((own_home / ".docker").rglob("*.*"))


def test_anothers_context_is_left_alone(own_home: Path, tls: TlsFiles) -> None:
    path = meta(own_home, "worker1")
    path.parent.mkdir(parents=True)
    for text in ('{"Name": "worker1", "Metadata": {}}', "damaged"):
        path.write_text(text)
        with pytest.raises(EngineError, match="already"):
            context.write("worker1", URL, tls, "id-1")
        context.remove("worker1", "id-1")
        assert path.read_text() == text


@pytest.mark.parametrize("name", ["default", "a", "-x"])
def test_names_that_the_client_does_not_take(name: str) -> None:
    with pytest.raises(BadOption, match="takes no context"):
        context.check(name, "id-1")


def test_the_current_context_is_reset_and_other_settings_stay(
    own_home: Path, tls: TlsFiles
) -> None:
    config = own_home / ".docker" / "config.json"
    context.write("worker1", URL, tls, "id-1")
    config.write_text('{"auths": {}, "currentContext": "worker1"}')
    context.remove("worker1", "id-1")
    assert json.loads(config.read_text()) == {"auths": {}}
    context.write("worker1", URL, tls, "id-1")
    config.write_text('{"currentContext": "other"}')
    context.remove("worker1", "id-1")
    assert json.loads(config.read_text()) == {"currentContext": "other"}

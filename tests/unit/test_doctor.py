"""What doctor says of a store; nothing is changed unless asked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from machine import record, tls
from machine.model import EngineOptions
from machine.store import Store
from machine.workflows.doctor import examine


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One finished machine, with an authority and a key."""
    store = Store(tmp_path / "store")
    made = record.new("w1", "libvirt", record.block(), EngineOptions())
    made.ours.journal.finished = True
    store.reserve(made)
    tls.Authority(store.folders.certs, tmp_path / "lock").ensure()
    store.folder("w1").ssh_key.touch(0o600)
    return store


def told(store: Store, *, fix: bool = False) -> list[tuple[str, str, bool]]:
    found = examine(store, [], fix=fix)
    return [(each.level, each.text, each.fixed) for each in found if each.subject != "programs"]


def test_a_store_in_order(store: Store) -> None:
    assert told(store) == [("ok", f"{store.root}: 1 machines", False)]


def test_a_create_that_was_cut_off(store: Store) -> None:
    cut = record.new("cut", "libvirt", record.block(), EngineOptions())
    cut.ours.journal.step = "boot"
    store.reserve(cut)
    assert told(store) == [("warning", 'its create has not ended (step "boot")', False)]


def test_a_damaged_record(store: Store) -> None:
    store.folder("w1").record.write_text("{")
    ((level, text, _),) = told(store)
    assert level == "error"
    assert "not JSON" in text


def test_a_key_that_others_may_read(store: Store) -> None:
    key = store.folder("w1").ssh_key
    store.folder("w1").ssh_key_public.touch(0o644)
    key.chmod(0o644)
    ((level, text, _),) = told(store)
    assert level == "warning"
    assert str(key) in text
    assert key.stat().st_mode & 0o777 == 0o644
    assert [each[2] for each in told(store, fix=True)] == [True]
    assert key.stat().st_mode & 0o777 == 0o600
    assert told(store)[0][0] == "ok"


def test_a_certificate_near_its_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tls.Authority(store.folders.certs, tmp_path / "lock")
    for days, level, word in ((7, "warning", "ends"), (-1, "error", "ended")):
        monkeypatch.setattr(tls, "LEAF_DAYS", days)
        monkeypatch.setattr(tls, "BACKDATE", timedelta(days=9))
        authority.renew_client()
        ((found, text, _),) = told(store)
        assert found == level
        assert f"cert.pem {word} on" in text
    (store.folders.certs / "cert.pem").write_text("damaged")
    ((found, text, _),) = told(store)
    assert "cannot be read" in text


def test_what_a_removal_left(store: Store) -> None:
    left = store.folders.machines / ".gone-x" / "w0"
    left.mkdir(parents=True)
    assert [each[0] for each in told(store)] == ["warning"]
    assert [each[2] for each in told(store, fix=True)] == [True]
    assert not left.exists()

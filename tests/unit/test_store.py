from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine import record as records
from machine.errors import BadName, HostExists, HostNotFound, RecordDamaged, StoreError
from machine.model import Address, EngineOptions
from machine.record import Record
from machine.store import Store, check_name, write


def fresh(name: str = "worker1", **values: object) -> Record:
    return records.new(name, "libvirt", records.block(**values), EngineOptions(labels=("a=b",)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_an_empty_store_lists_nothing_and_is_not_made(store: Store) -> None:
    assert store.names() == []
    assert not store.root.exists()


def test_a_record_comes_back_as_it_was_saved(store: Store) -> None:
    record = fresh(cpus=3, config={"ip": "10.0.0.2"})
    record.ours.journal.done.append("preflight")
    store.reserve(record)
    loaded = store.load("worker1")
    assert loaded.block == record.block
    assert loaded.engine_options == record.engine_options
    assert loaded.as_json() == record.as_json()


def test_the_engines_options_are_changed_beside_keys_of_others(store: Store) -> None:
    record = fresh()
    record.raw["HostOptions"]["EngineOptions"]["LogLevel"] = "debug"
    options = EngineOptions(labels=("a=b",), opts=("x=1",), tls_sans=("name",))
    record.engine_options = options
    store.reserve(record)
    loaded = store.load("worker1")
    assert loaded.engine_options == options
    assert loaded.raw["HostOptions"]["EngineOptions"]["LogLevel"] == "debug"
    loaded.engine_options = EngineOptions()
    assert loaded.engine_options == EngineOptions()


def test_keys_that_others_wrote_are_kept(store: Store) -> None:
    store.reserve(fresh())
    path = store.folder("worker1").record
    raw = json.loads(path.read_text())
    raw["Theirs"] = {"deep": [1, 2]}
    raw["Driver"]["ResolvedZone"] = "z"
    raw["Machine"]["later"] = "x"
    path.write_text(json.dumps(raw))
    store.save(store.load("worker1"))
    after = json.loads(path.read_text())
    assert after["Theirs"] == {"deep": [1, 2]}
    assert after["Driver"]["ResolvedZone"] == "z"
    assert after["Machine"]["later"] == "x"


def test_docker_machines_keys_are_there(store: Store) -> None:
    store.reserve(fresh())
    raw = json.loads(store.folder("worker1").record.read_text())
    assert raw["ConfigVersion"] == 3
    assert raw["Name"] == "worker1"
    assert {"IPAddress", "MachineName", "SSHUser", "SSHPort", "SSHKeyPath", "StorePath"} <= set(
        raw["Driver"]
    )
    assert raw["HostOptions"]["AuthOptions"]["StorePath"] == str(store.folder("worker1").root)
    assert set(raw["HostOptions"]) >= {"EngineOptions", "SwarmOptions", "AuthOptions"}


def test_a_moved_store_keeps_working(store: Store, tmp_path: Path) -> None:
    store.reserve(fresh())
    moved = Store(tmp_path / "elsewhere")
    shutil.move(store.root, moved.root)
    auth = moved.load("worker1").raw["HostOptions"]["AuthOptions"]
    assert auth["StorePath"] == str(moved.folder("worker1").root)
    assert auth["CaCertPath"] == str(moved.root / "certs" / "ca.pem")


def test_a_name_is_taken_once(store: Store) -> None:
    store.reserve(fresh())
    with pytest.raises(HostExists, match="already exists"):
        store.reserve(fresh())


def test_only_the_owner_can_read(store: Store) -> None:
    store.reserve(fresh())
    assert store.folder("worker1").record.stat().st_mode & 0o777 == 0o600
    assert store.folder("worker1").root.stat().st_mode & 0o777 == 0o700


def test_deleting_twice_is_fine(store: Store) -> None:
    store.reserve(fresh())
    store.delete("worker1")
    store.delete("worker1")
    assert store.names() == []
    assert list(store.folders.machines.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"ConfigVersion": "3"}',
        '{"ConfigVersion": true}',
        '{"ConfigVersion": 3}',
        '{"ConfigVersion": 3, "DriverName": 1, "Driver": {}, "HostOptions": {}}',
        '{"ConfigVersion": 3, "DriverName": "x", "Driver": [], "HostOptions": {}}',
        '{"ConfigVersion": 3, "DriverName": "x", "Driver": {}, "HostOptions": {}, "Machine": []}',
        '{"ConfigVersion": 3, "DriverName": "x", "Driver": {}, "HostOptions": {},'
        ' "Machine": {"schema": 1}}',
        '{"ConfigVersion": 3, "DriverName": "x", "Driver": {}, "HostOptions": {},'
        ' "Machine": {"schema": 1, "id": "i", "created": "c", "cpus": "two"}}',
        '{"ConfigVersion": 3, "DriverName": "x", "Driver": {}, "HostOptions": {},'
        ' "Machine": {"schema": 99, "id": "i", "created": "c"}}',
    ],
)
def test_damage_is_named_and_left_alone(store: Store, text: str) -> None:
    store.reserve(fresh())
    path = store.folder("worker1").record
    path.write_text(text)
    with pytest.raises(RecordDamaged, match="worker1"):
        store.load("worker1")
    assert path.read_text() == text
    assert store.names() == ["worker1"]


def test_bytes_that_are_no_text_are_damage(store: Store) -> None:
    store.reserve(fresh())
    store.folder("worker1").record.write_bytes(b"\xff\xfe{")
    with pytest.raises(RecordDamaged):
        store.load("worker1")


def test_a_record_from_the_future_is_refused_by_number(store: Store) -> None:
    store.reserve(fresh())
    store.folder("worker1").record.write_text('{"ConfigVersion": 4}')
    with pytest.raises(RecordDamaged, match="newer"):
        store.load("worker1")


def test_an_old_record_is_migrated_and_kept_beside(store: Store) -> None:
    folder = store.folder("old")
    folder.root.mkdir(parents=True)
    old = {
        "DriverName": "virtualbox",
        "Driver": {"IPAddress": "192.168.99.100"},
        "StorePath": "/gone/machines/old",
        "PrivateKeyPath": "/gone/certs/ca-key.pem",
        "SwarmMaster": True,
    }
    folder.record.write_text(json.dumps(old))
    record = store.load("old")
    assert record.block is None
    assert record.raw["HostOptions"]["SwarmOptions"]["Master"] is True
    store.save(record)
    assert json.loads((folder.root / "config.json.bak").read_text()) == old
    assert json.loads(folder.record.read_text())["ConfigVersion"] == 3


def test_a_folder_without_a_record_is_listed_and_named(store: Store) -> None:
    store.folder("half").root.mkdir(parents=True)
    assert store.names() == ["half"]
    with pytest.raises(RecordDamaged, match=r"no config\.json"):
        store.load("half")


@pytest.mark.parametrize("name", ["../certs", "a/b", "", ".", "..", "/etc", "no\nline"])
def test_a_name_never_leaves_the_store(store: Store, name: str) -> None:
    store.reserve(fresh())
    with pytest.raises(HostNotFound):
        store.load(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "-a",
        "a-",
        "a.",
        ".a",
        "a_b",
        "a b",
        "ü",
        "a/b",
        "x" * 64,
        "a\n",
        "\uff11",
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(BadName, match="Invalid hostname specified"):
        check_name(name)


@given(st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?", fullmatch=True))
@settings(max_examples=50)
def test_host_names_are_accepted(name: str) -> None:
    check_name(name)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert {each.name for each in tmp_path.iterdir()} == {"file", "home"}


def test_the_address_is_written_for_other_readers(store: Store) -> None:
    record = fresh()
    store.reserve(record)
    record.note_address(Address("10.1.2.3", 22, 2376))
    store.save(record)
    driver = json.loads(store.folder("worker1").record.read_text())["Driver"]
    assert (driver["IPAddress"], driver["SSHPort"]) == ("10.1.2.3", 22)

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from machine import manifest


def filled(folder: Path) -> dict[str, dict[str, object]]:
    (folder / "a").write_bytes(b"first")
    (folder / "b").write_bytes(b"")
    return manifest.entries(folder, ["a", "b", "not there"])


def test_entries_are_of_the_files_that_are_there(tmp_path: Path) -> None:
    found = filled(tmp_path)
    assert set(found) == {"a", "b"}
    assert found["a"]["sha256"] == hashlib.sha256(b"first").hexdigest()
    assert found["a"]["size"] == 5
    assert found["b"]["sha256"] == hashlib.sha256().hexdigest()


def test_what_nobody_touched_is_neither_changed_nor_damaged(tmp_path: Path) -> None:
    known = filled(tmp_path)
    assert manifest.changed(tmp_path, known) == ""
    assert manifest.damaged(tmp_path, known) == ""


def test_another_time_is_a_change_and_no_damage(tmp_path: Path) -> None:
    known = filled(tmp_path)
    os.utime(tmp_path / "a", ns=(1, 1))
    assert manifest.changed(tmp_path, known) == "a"
    assert manifest.damaged(tmp_path, known) == ""


def test_another_byte_with_the_old_time_is_seen_only_by_reading(tmp_path: Path) -> None:
    known = filled(tmp_path)
    before = (tmp_path / "a").stat()
    (tmp_path / "a").write_bytes(b"fIrst")
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert manifest.changed(tmp_path, known) == ""
    assert manifest.damaged(tmp_path, known) == "a"


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    known = filled(tmp_path)
    (tmp_path / "b").unlink()
    for look in (manifest.changed, manifest.damaged):
        with pytest.raises(FileNotFoundError):
            look(tmp_path, known)


def test_what_is_no_entry_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"first")
    with pytest.raises(KeyError):
        manifest.changed(tmp_path, {"a": {"size": 5}})

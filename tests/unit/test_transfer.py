from __future__ import annotations

from pathlib import Path

import pytest

from machine.errors import GuestError
from machine.transfer import End, LocalSide, copy


def end(path: Path | str) -> End:
    return End(LocalSide(), str(path), str(path))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "a b").write_text("content")
    (root / "link").symlink_to("deep/a b")
    return root


def test_a_file_goes_to_a_new_name_or_into_a_folder(tree: Path, tmp_path: Path) -> None:
    source = tree / "deep" / "a b"
    copy(end(source), end(tmp_path / "new"), recursive=False)
    copy(end(source), end(tree), recursive=False)
    assert (tmp_path / "new").read_text() == "content"
    assert (tree / "a b").read_text() == "content"


def test_a_folder_is_made_or_goes_into_one(tree: Path, tmp_path: Path) -> None:
    copy(end(tree), end(tmp_path / "new"), recursive=True)
    assert (tmp_path / "new" / "deep" / "a b").read_text() == "content"
    assert not (tmp_path / "new" / "link").is_symlink()
    copy(end(f"{tree}/"), end(tmp_path / "new"), recursive=True)
    assert (tmp_path / "new" / "tree" / "deep" / "a b").exists()


def test_a_folder_needs_recursion(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="is a folder"):
        copy(end(tree), end(tmp_path / "new"), recursive=False)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="nosuch: there is no such file"):
        copy(end(tmp_path / "nosuch"), end(tmp_path / "new"), recursive=False)


def test_a_failed_copy_leaves_no_half_file(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="nowhere"):
        copy(end(tree / "link"), end(tmp_path / "nowhere" / "x"), recursive=False)
    (tree / "dangling").symlink_to("nothing")
    with pytest.raises(GuestError, match="link to nothing"):
        copy(end(tree), end(tmp_path / "new"), recursive=True)
    assert not [each for each in tmp_path.rglob(".*") if each.is_file()]

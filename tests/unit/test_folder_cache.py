from __future__ import annotations

import errno
from pathlib import Path

import pytest

from machine.errors import DiskFull, ImageError, LayerError
from machine.events import Reporter
from machine.folder_cache import FolderCache


class Things(FolderCache):
    what = "thing"
    error = LayerError


@pytest.fixture
def cache(tmp_path: Path) -> Things:
    return Things(tmp_path / "things")


def shown(cache: Things) -> set[str]:
    """What is no lock."""
    return {each.name for each in cache.root.iterdir() if not each.name.endswith(".lock")}


def make(cache: Things, content: str) -> None:
    with cache.change("one", Reporter()) as work:
        new = work / "new"
        new.mkdir()
        (new / "file").write_text(content)
        cache.put("one", new, work)


def test_a_folder_is_there_as_a_whole_and_nothing_beside_it(cache: Things) -> None:
    make(cache, "first")
    assert (cache.root / "one" / "file").read_text() == "first"
    assert shown(cache) == {"one"}


def test_another_takes_the_place_of_the_one_before(cache: Things) -> None:
    make(cache, "first")
    make(cache, "second")
    assert (cache.root / "one" / "file").read_text() == "second"
    assert shown(cache) == {"one"}


def test_a_making_that_fails_changes_nothing(cache: Things) -> None:
    make(cache, "first")
    with pytest.raises(ImageError), cache.change("one", Reporter()) as work:
        (work / "half").write_text("half")
        raise ImageError("It failed")
    assert (cache.root / "one" / "file").read_text() == "first"
    assert shown(cache) == {"one"}


def test_what_a_killed_process_left_is_removed_by_the_next(cache: Things) -> None:
    left = cache.root / ".one~killed"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    other = cache.root / ".two~killed"
    other.mkdir()
    make(cache, "first")
    assert shown(cache) == {"one", ".two~killed"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(cache: Things, number: int) -> None:
    with pytest.raises(DiskFull) as caught, cache.change("one", Reporter()):
        raise OSError(number, "said by the kernel")
    assert caught.value.hint
    assert shown(cache) == set()


def test_a_program_that_met_a_full_disk_is_told_as_such(cache: Things) -> None:
    words = "mke2fs: No space left on device while copying"
    with pytest.raises(DiskFull) as caught, cache.change("one", Reporter()):
        raise ImageError("Building the image failed", details=words)
    assert caught.value.details == words


def test_a_folder_that_cannot_be_written_has_the_caches_own_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LayerError, match="cannot be written") as caught:
        make(Things(tmp_path / "file" / "things"), "first")
    assert "MACHINE_CACHE_PATH" in caught.value.hint

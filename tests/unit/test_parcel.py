from __future__ import annotations

import io
import os
import tarfile
import threading
from pathlib import Path

from machine import parcel


def sent(root: Path, *paths: str) -> tuple[dict[str, bytes], list[str]]:
    """The content of files by their names in the archives, and what was too restless."""
    content: dict[str, bytes] = {}
    restless = []
    for each in parcel.packed(root, root.name, paths):
        restless += each.restless
        with tarfile.open(fileobj=each.archive) as tar:
            for member in tar:
                file = tar.extractfile(member)
                content[member.name] = file.read() if file else member.linkname.encode()
    return content, restless


def test_a_file_that_changes_is_sent_as_it_was_at_one_moment(tmp_path: Path) -> None:
    """Written in place over and over, each time of one letter."""
    busy, stop = tmp_path / "busy", threading.Event()
    busy.touch()

    def write() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            busy.write_bytes(bytes([65 + count % 26]) * 100_000)
            stop.wait(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            content, restless = sent(tmp_path, "busy")
            for text in content.values():
                assert len(set(text)) <= 1
            assert restless == ([] if content else ["busy"])
    finally:
        stop.set()
        writer.join()


def test_names_times_and_links_arrive(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    names = ["a b", "new\nline", "-dash", os.fsdecode(b"\xff"), "link"]
    for name in names[:-1]:
        (root / name).write_text(name, errors="surrogateescape")
        os.utime(root / name, ns=(10**9 + 7, 10**9 + 7))
    (root / "link").symlink_to("./a b")
    target = tmp_path / "target"
    for each in parcel.packed(root, "root", ["", *names, "missing"]):
        assert parcel.unpack(each.archive, target, "root", ["", *names]) == ["", *names]
    for name in names[:-1]:
        assert (target / name).read_bytes() == (root / name).read_bytes()
        assert (target / name).stat().st_mtime_ns == 10**9 + 7
    assert os.readlink(target / "link") == "./a b"  # noqa: PTH115 - as it is


def test_nothing_is_unpacked_that_was_not_asked_for_or_through_a_link(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "way").symlink_to(outside)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("./root/other", "./root/way/in", "./root/../outside/in", "./root/good"):
            tar.addfile(tarfile.TarInfo(name))
    archive.seek(0)
    assert parcel.unpack(archive, root, "root", ["way/in", "../outside/in", "good"]) == ["good"]
    assert not list(outside.iterdir())
    assert not (root / "other").exists()

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machine import container_archive
from machine.container_image import Image
from machine.errors import ArchiveError, MachineError
from machine.runtime.docker.images import archive
from tests.container_images import (
    config,
    digest,
    docker_archive,
    oci_files,
    packed,
    tree,
    written,
)

BASE, TOP = tree({"base": b"base" * 100}), tree({"top": b"top"})
ID = digest(config([BASE, TOP]))


def images(path: Path) -> list[Image]:
    with tempfile.TemporaryFile() as spool, container_archive.opened(path, spool) as found:
        for each in found:
            each.verify(each.layers)
        return found


def refused(path: Path) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        images(path)
    return caught.value


def test_a_docker_archive_is_read(tmp_path: Path) -> None:
    (found,) = images(docker_archive(tmp_path / "a.tar", {"web:1": [BASE, TOP]}))
    assert (found.id, found.names, found.platform) == (ID, ("web:1",), "linux/amd64")
    assert [each.diff_id for each in found.layers] == [digest(BASE), digest(TOP)]
    assert found.layers[0].chain_id == digest(BASE)
    assert found.layers[1].chain_id == digest(f"{digest(BASE)} {digest(TOP)}".encode())


@pytest.mark.parametrize("zipped", [True, False])
def test_an_oci_layout_is_read_as_a_folder_and_as_a_tar(tmp_path: Path, zipped: bool) -> None:
    files = oci_files({"web:1": [BASE, TOP]}, zipped=zipped)
    (folder,) = images(written(tmp_path / "layout", files))
    (tar,) = images(packed(tmp_path / "a.tar", {f"./{name}": files[name] for name in files}))
    assert folder.id == tar.id == ID
    assert folder.names == tar.names == ("web:1",)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_may_be_compressed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = docker_archive(tmp_path / "a.tar", {"web:1": [BASE, TOP]})
    path.write_bytes(pack(path.read_bytes()))
    assert images(path)[0].id == ID
    path.write_bytes(path.read_bytes()[:-20])
    assert "damaged" in refused(path).brief


def test_what_is_sent_is_an_archive_again(tmp_path: Path) -> None:
    path = written(tmp_path / "layout", oci_files({"web:1": [BASE, TOP]}))
    with tempfile.TemporaryFile() as spool, container_archive.opened(path, spool) as found:
        (image,) = found
        whole = b"".join(archive(image, image.layers, ["web:2"]))
        sparse = b"".join(archive(image, image.layers[1:], ["web:2"]))
    (tmp_path / "whole.tar").write_bytes(whole)
    (again,) = images(tmp_path / "whole.tar")
    assert (again.id, again.names) == (ID, ("web:2",))
    with tempfile.TemporaryFile() as file:
        file.write(sparse)
        (partly,) = container_archive.read(file, "it")
        assert [each.blob is None for each in partly.layers] == [True, False]
        assert partly.id == ID


def test_links_stand_for_layers(tmp_path: Path) -> None:
    """docker save before 25 writes a layer that occurs twice once."""
    path = docker_archive(tmp_path / "a.tar", {"web:1": [BASE, TOP]})
    with tarfile.open(path) as old, tarfile.open(tmp_path / "b.tar", "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content
            if member.name.endswith("layer.tar"):
                link = tarfile.TarInfo(member.name)
                link.type, link.linkname = tarfile.SYMTYPE, f"../real-{member.name[:8]}"
                new.addfile(link)
                member = tarfile.TarInfo(f"real-{link.name[:8]}")
                member.size = content.seek(0, io.SEEK_END)
                content.seek(0)
            new.addfile(member, content)
    assert images(tmp_path / "b.tar")[0].id == ID


def test_an_index_of_platforms_has_those_that_were_fetched(tmp_path: Path) -> None:
    files = oci_files({"": [BASE]})
    arm = oci_files({"": [TOP]}, "arm64")
    entries = [
        *json.loads(files["index.json"])["manifests"],
        *json.loads(arm["index.json"])["manifests"],
        {"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "riscv64"}},
        {"digest": "sha256:" + "1" * 64, "platform": {"os": "unknown"}},
    ]
    inner = json.dumps({"manifests": entries}).encode()
    called = {"io.containerd.image.name": "docker.io/library/web:1"}
    outer = {"manifests": [{"digest": digest(inner), "annotations": called}]}
    layout = {
        **files,
        **arm,
        f"blobs/sha256/{digest(inner)[7:]}": inner,
        "index.json": json.dumps(outer).encode(),
    }
    found = images(written(tmp_path / "layout", layout))
    assert [each.platform for each in found] == ["linux/amd64", "linux/arm64"]
    assert {each.names for each in found} == {("web:1",)}


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    assert "no file or folder" in refused(tmp_path / "nothing").brief
    (tmp_path / "text").write_text("hello" * 300)
    assert "no image archive" in refused(tmp_path / "text").brief
    (tmp_path / "empty").touch()
    assert "no image archive" in refused(tmp_path / "empty").brief
    (tmp_path / "zstd").write_bytes(b"\x28\xb5\x2f\xfd...")
    assert "zstd -d" in refused(tmp_path / "zstd").hint
    assert "OCI" in refused(packed(tmp_path / "a.tar", {"readme": b""})).hint
    assert "docker import" in refused(packed(tmp_path / "b.tar", {"bin/sh": b""})).hint
    (tmp_path / "folder").mkdir()
    assert "There is no image in" in refused(tmp_path / "folder").brief


def test_what_is_damaged_is_said(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar", {"web:1": [BASE, TOP]})
    path.write_bytes(path.read_bytes().replace(b"base" * 100, b"bass" * 100))
    assert "damaged" in refused(path).brief
    docker_archive(path, {"web:1": [BASE, TOP]})
    path.write_bytes(path.read_bytes().replace(b"amd64", b"amd65"))
    assert "not what its name says" in refused(path).details
    docker_archive(path, {"web:1": [BASE, TOP]})
    path.write_bytes(path.read_bytes()[:1200])
    assert "no image archive" in refused(path).brief
    for name in (files := oci_files({"web:1": [BASE, TOP]})):
        if name.startswith("blobs/"):
            folder = written(tmp_path / name[-8:], {**files, name: files[name][:-1] + b"\1"})
            assert "damaged" in refused(folder).brief
            (folder / name).unlink()
            assert "damaged" in refused(folder).brief


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {},
        [1],
        [{"Config": "c", "Layers": []}],
        [{"Config": "../../etc/passwd", "Layers": []}],
        [{"Config": "c.json", "Layers": ["l"]}],
        [{"Config": "c.json", "Layers": None}],
        "[" * 100_000,
    ],
)
def test_a_manifest_that_says_nothing_is_damaged(tmp_path: Path, manifest: Any) -> None:
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    files = {"manifest.json": text.encode(), "c.json": config([BASE, TOP]), "l": BASE}
    assert "damaged" in refused(packed(tmp_path / "a.tar", files)).brief
    assert "damaged" in refused(written(tmp_path / "folder", files)).brief


def test_an_index_without_end_is_damaged(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    index = b'{"manifests": []}'
    for _ in range(20):
        files[f"blobs/sha256/{digest(index)[7:]}"] = index
        index = json.dumps({"manifests": [{"digest": digest(index)}]}).encode()
    assert "damaged" in refused(written(tmp_path / "a", {**files, "index.json": index})).brief


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(f"sha256:{'a' * 64}"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "digest", "annotations", "Config", "Layers", "RepoTags", "config"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["manifest.json", "index.json"]), JSON)
def test_whatever_is_in_it_nothing_but_an_error_comes(
    tmp_path: Path, name: str, content: Any
) -> None:
    path = packed(tmp_path / "a.tar", {name: json.dumps(content).encode()})
    with pytest.raises(MachineError):
        images(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10239), st.binary(min_size=1, max_size=4))
def test_a_flipped_byte_is_found_or_does_no_harm(tmp_path: Path, at: int, by: bytes) -> None:
    path = docker_archive(tmp_path / "a.tar", {"web:1": [BASE, TOP]})
    content = path.read_bytes()
    path.write_bytes(content[:at] + by + content[at + len(by) :])
    try:
        found: Sequence[Image] = images(path)
    except MachineError:
        return
    assert [each.diff_id for each in found[0].layers] == [digest(BASE), digest(TOP)]

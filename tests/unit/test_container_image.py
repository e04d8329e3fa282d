from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.container_image import PIECE, Blob, Image, Layer, chain, choose, full_name
from machine.errors import ArchiveError, BadOption
from tests.container_images import config, digest, tree


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[Blob]:
    """Of a layer of several pieces, with others' bytes around it."""
    content = tree({"a": b"a" * (2 * PIECE)})
    (tmp_path / "file").write_bytes(b"before" + content + b"behind")
    with (tmp_path / "file").open("rb") as file:
        yield Blob(file, 6, len(content), "layer")


def image(*layers: bytes, arch: str = "amd64", names: tuple[str, ...] = ()) -> Image:
    ids = [digest(each) for each in layers]
    found = tuple(Layer(*each, None) for each in zip(ids, chain(ids), strict=True))
    return Image(config(layers, arch), f"linux/{arch}", found, names)


def test_chain_ids_are_those_of_the_specification() -> None:
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert chain([]) == []
    assert chain([a, b]) == [a, digest(f"{a} {b}".encode())]
    assert chain([a, b, a])[2] == digest(f"{digest(f'{a} {b}'.encode())} {a}".encode())


def test_a_layer_is_what_its_digest_says(blob: Blob) -> None:
    whole = b"".join(blob.pieces())
    assert len(next(blob.pieces())) == PIECE
    Layer(digest(whole), "", blob).verify()
    Layer("sha256:of the tar in it", "", blob, digest(whole)).verify()
    with pytest.raises(ArchiveError, match="damaged: layer"):
        Layer(digest(b"other"), "", blob).verify()
    with pytest.raises(ArchiveError, match="damaged: layer"):
        Layer(digest(whole), "", blob, digest(b"other")).verify()
    with pytest.raises(ArchiveError) as caught:
        Layer(digest(whole), "", None).verify()
    assert "not in the archive" in caught.value.details


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3), st.booleans())
def test_a_compressed_layer_is_known_by_what_is_in_it(parts: list[bytes], cut: bool) -> None:
    packed = b"".join(gzip.compress(each * 5000) for each in parts)
    packed = packed[:-3] if cut else packed
    with tempfile.TemporaryFile() as file:
        file.write(packed)
        file.flush()
        layer = Layer(
            digest(b"".join(each * 5000 for each in parts)), "", Blob(file, 0, len(packed), "l")
        )
        if cut:
            with pytest.raises(ArchiveError, match="damaged: l"):
                layer.verify()
        else:
            layer.verify()


def test_a_file_that_became_shorter_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    with (tmp_path / "file").open("rb") as file:
        with pytest.raises(ArchiveError) as caught:
            list(Blob(file, 0, 6, "it").pieces())
        assert "ends too early" in caught.value.details
        with pytest.raises(ArchiveError, match="it"):
            Blob(file, 0, 5, "it").content(4)


def test_the_image_for_a_platform_is_chosen() -> None:
    amd, arm = image(b"1"), image(b"2", arch="arm64")
    assert choose([amd, arm], "linux/arm64") is arm
    assert choose([amd], "linux/arm64", any_platform=True) is amd
    small = image(b"3", arch="386")
    assert choose([small], "linux/amd64") is small
    assert choose([amd, small], "linux/amd64") is amd
    with pytest.raises(ArchiveError, match="is for linux/amd64, and the machine is linux/arm64"):
        choose([amd], "linux/arm64")


def test_of_several_one_is_to_be_named() -> None:
    one, two = image(b"1", names=("one:latest",)), image(b"2", names=("two:1",))
    with pytest.raises(ArchiveError) as caught:
        choose([one, two], "linux/amd64")
    assert "one:latest" in caught.value.details
    assert "two:1" in caught.value.details
    for word in ("two:1", two.id, two.id[7:15]):
        assert choose([one, two], "linux/amd64", only=word) is two
    assert choose([one, two], "linux/amd64", only="one") is one
    assert choose([one, image(b"1")], "linux/amd64") is one  # the same under two names
    with pytest.raises(ArchiveError, match="no image three"):
        choose([one, two], "linux/amd64", only="three")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web", "web:latest"),
        ("web:1.2", "web:1.2"),
        ("docker.io/library/web", "web:latest"),
        ("docker.io/team/web:1", "team/web:1"),
        ("example.org:5000/team/web", "example.org:5000/team/web:latest"),
        ("localhost/a__b-c.d:X_1", "localhost/a__b-c.d:X_1"),
    ],
)
def test_names_are_those_that_engines_list(text: str, name: str) -> None:
    assert full_name(text) == full_name(name) == name


@pytest.mark.parametrize(
    "text", ["", "Web", "web:", "web:a b", "-web", "web@sha256:" + "a" * 64, "a//b", "a" * 256, "ä"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadOption):
        full_name(text)


def test_a_layer_is_read_once(tmp_path: Path) -> None:
    class Counted(io.FileIO):
        asked = 0

        def fileno(self) -> int:
            Counted.asked += 1
            return super().fileno()

    (tmp_path / "file").write_bytes(content := tree({"a": b"a"}))
    with Counted(tmp_path / "file") as file:
        layer = Layer(digest(content), digest(content), Blob(file, 0, len(content), "layer"))
        one = Image(config([content]), "linux/amd64", (layer,))
        one.verify(one.layers)
        before = Counted.asked
        one.verify(one.layers)
        assert Counted.asked == before

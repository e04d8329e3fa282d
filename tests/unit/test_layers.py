from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from machine.errors import LayerError, LayerNotFound
from machine.events import Event, Note, Reporter
from machine.layers import KEY_DIGITS, MANIFEST, Layer, LayerCache, LayerKind, key_of
from machine.model import FirstBoot, Image

INPUTS = {"image": "11", "engine": "docker", "qemu": "10.0.2"}


class Making:
    """Fills a layer's folder, and counts how often."""

    def __init__(self, content: bytes = b"content of the layer") -> None:
        self.content = content
        self.times = 0

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        self.times += 1
        for name in ("disk.qcow2", "memory"):
            (folder / name).write_bytes(self.content)
            (folder / name).chmod(0o600)
        return {"disk": f"volume {self.times}"}


class Words(list[str]):
    """Everything that is told."""

    @property
    def report(self) -> Reporter:
        return Reporter(self._keep)

    def _keep(self, event: Event) -> None:
        assert isinstance(event, Note)
        self.append(event.text)


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(tmp_path / "layers")


@pytest.fixture
def words() -> Words:
    return Words()


def ensure(
    cache: LayerCache, making: Making, kind: LayerKind = LayerKind.WARM, **inputs: str
) -> Layer:
    return cache.ensure(kind, {**INPUTS, **inputs}, "a title", making, Reporter())


def damage(path: Path, *, keep_time: bool) -> None:
    """One bit of one byte."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_it_is_made_once_and_found_then(cache: LayerCache) -> None:
    making = Making()
    made = ensure(cache, making)
    assert ensure(cache, making) == made
    assert cache.find(LayerKind.WARM, INPUTS, Reporter()) == made
    assert cache.all() == [made]
    assert making.times == 1
    assert (made.title, made.facts, made.inputs) == ("a title", {"disk": "volume 1"}, INPUTS)
    assert made.size == 2 * len(making.content)
    assert set(made.files) == {"disk.qcow2", "memory"}


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (LayerKind.WARM, {"qemu": "10.0.3"}),  # another QEMU
        (LayerKind.WARM, {"files": "edited"}),
        (LayerKind.ENGINE, {}),
    ],
)
def test_of_anything_else_it_is_another_layer(
    cache: LayerCache, kind: LayerKind, inputs: dict[str, str]
) -> None:
    first = ensure(cache, Making())
    assert cache.find(kind, {**INPUTS, **inputs}, Reporter()) is None
    second = ensure(cache, Making(), kind, **inputs)
    assert second.key != first.key
    assert len(cache.all()) == 2


def test_the_order_of_inputs_is_nothing() -> None:
    backwards = dict(reversed(INPUTS.items()))
    assert key_of(LayerKind.WARM, backwards) == key_of(LayerKind.WARM, INPUTS)


def test_a_manifest_that_claims_other_inputs_is_matched_by_neither(
    cache: LayerCache, words: Words
) -> None:
    """Its folder is named by the key of what it was made from."""
    made = ensure(cache, Making())
    manifest = made.folder / MANIFEST
    data = json.loads(manifest.read_text())
    data["inputs"]["qemu"] = "10.0.3"
    data["key"] = key_of(LayerKind.WARM, data["inputs"])
    manifest.write_text(json.dumps(data))
    assert cache.find(LayerKind.WARM, INPUTS, words.report) is None
    assert cache.find(LayerKind.WARM, data["inputs"], words.report) is None


def test_one_byte_and_the_time_are_noticed_when_it_is_looked_for(
    cache: LayerCache, words: Words
) -> None:
    making = Making()
    made = ensure(cache, making)
    damage(made.folder / "memory", keep_time=False)
    assert cache.find(LayerKind.WARM, INPUTS, words.report) is None
    (said,) = words
    assert f"The layer {made.folder.name} is damaged (memory is not what was written)" in said
    assert "it is not used" in said
    assert ensure(cache, making).facts == {"disk": "volume 2"}
    assert cache.find(LayerKind.WARM, INPUTS, Reporter())


def test_one_byte_with_the_old_time_is_noticed_by_verify(cache: LayerCache) -> None:
    made = ensure(cache, Making())
    damage(made.folder / "disk.qcow2", keep_time=True)
    with pytest.raises(LayerError, match=r"disk\.qcow2 is not what was written") as caught:
        cache.verify(made)
    assert made.folder.name in caught.value.hint


def test_a_time_alone_is_no_damage(cache: LayerCache, words: Words) -> None:
    made = ensure(cache, Making())
    os.utime(made.folder / "memory", ns=(1, 1))
    assert cache.find(LayerKind.WARM, INPUTS, words.report) == made
    assert words == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_memory_that_others_may_look_at_is_not_used(
    cache: LayerCache, words: Words, mode: int
) -> None:
    made = ensure(cache, Making())
    (made.folder / "memory").chmod(mode)
    assert cache.find(LayerKind.WARM, INPUTS, words.report) is None
    (said,) = words
    assert "memory of the layer" in said
    assert "may be read or written by others" in said
    with pytest.raises(LayerError, match="by others"):
        cache.verify(made)


def test_a_disk_that_others_may_read_is_fine(cache: LayerCache) -> None:
    made = ensure(cache, Making(), LayerKind.ENGINE)
    (made.folder / "disk.qcow2").chmod(0o644)
    assert cache.find(LayerKind.ENGINE, INPUTS, Reporter()) == made


@pytest.mark.parametrize("name", ["disk.qcow2", "memory"])
def test_a_file_that_is_gone_is_damage(cache: LayerCache, words: Words, name: str) -> None:
    made = ensure(cache, Making())
    (made.folder / name).unlink()
    assert cache.find(LayerKind.WARM, INPUTS, words.report) is None
    assert "is damaged" in words[0]


def broken_manifests() -> Iterator[str]:
    good: dict[str, Any] = {
        "schema": 1,
        "key": key_of(LayerKind.WARM, INPUTS),
        "kind": "warm",
        "title": "",
        "inputs": INPUTS,
        "facts": {},
        "files": {},
        "created": "",
    }
    yield ""
    yield "[]"
    yield json.dumps(good)[:-9]
    for key in good:
        yield json.dumps({name: value for name, value in good.items() if name != key})
    yield json.dumps({**good, "schema": 2})
    yield json.dumps({**good, "kind": "hot"})
    yield json.dumps({**good, "files": {"memory": 1}})
    yield json.dumps({**good, "files": {"memory": {"size": 1}}})


@pytest.mark.parametrize("text", list(broken_manifests()))
def test_a_manifest_that_is_none_is_told_and_replaced(
    cache: LayerCache, words: Words, text: str
) -> None:
    making = Making()
    made = ensure(cache, making)
    (made.folder / MANIFEST).write_text(text)
    assert cache.find(LayerKind.WARM, INPUTS, words.report) is None
    assert words
    assert ensure(cache, making).facts == {"disk": "volume 2"}
    assert cache.problems() == []


def test_a_folder_that_is_no_layer_is_a_problem_and_can_be_removed(cache: LayerCache) -> None:
    made = ensure(cache, Making())
    (made.folder / MANIFEST).write_text("")
    assert cache.all() == []
    (problem,) = cache.problems()
    assert made.folder.name in problem.brief
    for _ in range(2):
        cache.remove(made.folder.name)
        assert cache.problems() == []
        assert not made.folder.exists()


def test_one_is_named_by_the_beginning_of_its_key(cache: LayerCache) -> None:
    one, two = ensure(cache, Making()), ensure(cache, Making(), LayerKind.ENGINE)
    assert cache.get(one.key[:KEY_DIGITS]) == one
    assert cache.get(two.key) == two
    for ref, said in (("", "names no layer"), ("x", "names no layer")):
        with pytest.raises(LayerNotFound, match=said):
            cache.get(ref)


def test_a_beginning_that_two_keys_have_names_neither(cache: LayerCache) -> None:
    made = [ensure(cache, Making(), image=f"{number}") for number in range(17)]
    firsts = [each.key[0] for each in made]
    shared = next(each for each in firsts if firsts.count(each) > 1)  # 17 keys, 16 digits
    with pytest.raises(LayerNotFound, match="names several layers"):
        cache.get(shared)


def test_a_making_that_fails_leaves_nothing(cache: LayerCache) -> None:
    def fail(folder: Path) -> Mapping[str, Any]:
        (folder / "memory").write_bytes(b"half")
        raise LayerError("It failed")

    with pytest.raises(LayerError, match="It failed"):
        cache.ensure(LayerKind.WARM, INPUTS, "", fail, Reporter())
    assert [each.name for each in cache.root.iterdir() if each.suffix != ".lock"] == []


def test_when_it_was_used_is_noted(cache: LayerCache) -> None:
    made = ensure(cache, Making())
    assert made.used is None
    made.note_use()
    assert made.used is not None
    assert cache.find(LayerKind.WARM, INPUTS, Reporter()) == made


def test_an_image_with_a_layer_on_it_has_the_layers_disk(cache: LayerCache) -> None:
    made = ensure(cache, Making(), LayerKind.ENGINE)
    image = Image(
        name="debian-13",
        digest="of the image",
        os="debian",
        os_version="13",
        arch="x86_64",
        first_boot=FirstBoot.IDENTITY,
        disk=Path("/elsewhere/disk.qcow2"),
        disk_gib=3,
        kernel=Path("/elsewhere/vmlinuz"),
        initrd=Path("/elsewhere/initrd"),
        cmdline="quiet",
        tree=Path("/elsewhere/tree.tar.zst"),
    )
    on = made.on(image)
    assert (on.digest, on.disk) == (made.files["disk.qcow2"]["sha256"], made.folder / "disk.qcow2")
    assert on.tree is None
    assert (on.kernel, on.cmdline) == (image.kernel, image.cmdline)

"""`machine layer` on a cache of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from machine.events import Reporter
from machine.layers import LayerCache, LayerKind
from tests.integration.test_cli import machine


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LayerCache:
    monkeypatch.setenv("MACHINE_CACHE_PATH", str(tmp_path))
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    return LayerCache()


def made(cache: LayerCache, image: str) -> str:
    """A layer of that image, by its folder's name."""

    def fill(folder: Path) -> Mapping[str, str]:
        (folder / "disk.qcow2").write_bytes(image.encode() * 1000)
        return {"image": "debian-13"}

    inputs = {"image": image}
    return cache.ensure(
        LayerKind.ENGINE, inputs, "debian-13 + docker", fill, Reporter()
    ).folder.name


def test_a_layer_is_listed_shown_and_verified(cache: LayerCache) -> None:
    name = made(cache, "one")
    assert machine("layer", "ls").stdout.splitlines()[1].split()[:3] == [
        name,
        "engine",
        "debian-13",
    ]
    shown = json.loads(machine("layer", "show", name[:6]).stdout)["data"]
    assert (shown["inputs"], shown["machines"], shown["used"]) == ({"image": "one"}, [], None)
    assert machine("layer", "verify").returncode == 0
    (cache.root / name / "disk.qcow2").write_bytes(b"other")
    refused = machine("layer", "verify")
    assert refused.returncode == 1
    assert "disk.qcow2 is not what was written" in refused.stderr


def test_pruning_removes_what_is_replaced_or_damaged_and_what_is_named(cache: LayerCache) -> None:
    old, new = made(cache, "old"), made(cache, "new")
    manifest = cache.root / old / "layer.json"
    manifest.write_text(manifest.read_text().replace('"created": "2', '"created": "1'))
    broken = cache.root / "0123456789abcdef"
    broken.mkdir()
    (broken / "layer.json").write_text("{")
    told = machine("layer", "prune", "--dry-run").stdout
    assert (old in told, new in told, broken.name in told) == (True, False, True)
    assert manifest.exists()
    assert machine("layer", "prune", "0123").returncode == 0
    assert not broken.exists()
    assert machine("layer", "prune").returncode == 0
    assert [each.folder.name for each in cache.all()] == [new]
    refused = machine("layer", "prune", "nosuch")
    assert refused.returncode == 1
    assert "machine layer ls shows them" in refused.stderr
    assert machine("layer", "prune", "--all").returncode == 0
    assert cache.all() == []

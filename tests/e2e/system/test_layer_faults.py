"""What can go wrong with layers: kills while they are made and used, damage, a full disk. No machine
starts from anything that was not compared. These tests build on each other in order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from machine.layers import Layer, LayerCache, LayerKind
from machine.workflows.create import STEPS
from tests.e2e.testbed import SystemBed, own_cache

pytestmark = pytest.mark.e2e

WALK = [name for name, _, _ in STEPS if name not in ("system", "install", "configure", "start")]
"""The steps of a create that begins with a layer."""
CREATE = ("create", "-d", "libvirt")
BUILD = ("layer", "build", "--output", "json")


@pytest.fixture(scope="module")
def warm(bed: SystemBed, warm_cache: Path) -> Iterator[SystemBed]:
    with bed.using(warm_cache):
        yield bed


def layers(cache: Path, kind: LayerKind) -> list[Layer]:
    return [each for each in LayerCache(cache / "layers").all() if each.kind is kind]


def made(cache: Path) -> set[str]:
    """Everything among the layers that is no lock: they, and what is being made."""
    return {each.name for each in (cache / "layers").iterdir() if each.suffix != ".lock"}


def builders(bed: SystemBed) -> str:
    return bed.left_of("base-warm-").replace("-disk.qcow2", "").strip()


def started(lines: str, step: str) -> int:
    """How often a step was started, by the lines of one or more commands."""
    events: list[dict[str, Any]] = [json.loads(line) for line in lines.splitlines()]
    return sum(event["kind"] == "StepStarted" and event["data"]["step"] == step for event in events)


@pytest.fixture(scope="module", autouse=True)
def cleared(bed: SystemBed) -> Iterator[None]:
    """A test that fails half-way through a machine's life fails alone."""
    yield
    left = bed.machine("ls", "-q").stdout.split()
    if left:
        bed.machine("rm", "-y", *left)


def test_killed_while_the_engine_is_put_in(warm: SystemBed, warm_cache: Path) -> None:
    """In the middle of it, when a system is unpacked and there are programs at work in it."""

    def unpacked() -> bool:
        return any(warm_cache.glob("layers/.*~*/root/usr/sbin/dockerd"))

    warm.killed_at("engine", "layer", "build", once=unpacked)
    assert layers(warm_cache, LayerKind.ENGINE) == []
    assert len(made(warm_cache)) == 1


def test_two_processes_make_a_layer_once_and_nothing_else_is_left(
    warm: SystemBed, warm_cache: Path
) -> None:
    first = warm.popen(*BUILD)
    assert first.stdout
    told = first.stdout.readline()
    while not started(told, "engine"):
        told += first.stdout.readline()
    second = warm.machine(*BUILD)
    told += first.communicate(timeout=300)[0] + second.stdout
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert started(told, "engine") == 1
    (layer,) = layers(warm_cache, LayerKind.ENGINE)
    assert made(warm_cache) == {layer.folder.name}
    mounted = Path("/proc/self/mountinfo").read_text()
    assert str(warm_cache) not in mounted


def test_killed_while_a_machine_is_booted_for_its_memory(warm: SystemBed, warm_cache: Path) -> None:
    """The next who builds removes what the killed one had running."""

    def runs() -> bool:
        return "base-warm-" in warm.run("virsh", "list", "--name").stdout

    warm.killed_at("warm", "layer", "build", "--warm", once=runs)
    assert layers(warm_cache, LayerKind.WARM) == []
    assert "base-warm-" in warm.run("virsh", "list", "--name").stdout
    built = warm.machine(*BUILD, "--warm")
    assert built.returncode == 0, built.stderr
    (layer,) = layers(warm_cache, LayerKind.WARM)
    assert len(made(warm_cache)) == 2
    (left,) = warm.left_of("base-warm-").splitlines()
    assert left.split()[0] == layer.facts["disk"]


def test_killed_at_every_step_it_is_resumed_and_starts_warm(
    warm: SystemBed, warm_cache: Path
) -> None:
    words: tuple[str, ...] = (*CREATE, "--warm", "phoenix")
    for step in WALK:
        warm.killed_at(step, *words)
        words = ("create", "--resume", "phoenix")
    ended = warm.machine(*words)
    assert ended.returncode == 0, ended.stderr
    assert warm.machine("config", "phoenix").returncode == 0
    assert warm.machine("ssh", "phoenix", "hostname").stdout == "phoenix\n"
    assert len(began_with(warm, "phoenix")) == 2
    assert warm.machine("rm", "-y", "phoenix").returncode == 0
    assert warm.left_of("phoenix") == ""


def began_with(bed: SystemBed, name: str) -> list[str]:
    record = json.loads((bed.store / "machines" / name / "config.json").read_text())
    found: list[str] = record["Machine"]["layers"]
    return found


def test_killed_at_every_step_it_is_removed(warm: SystemBed) -> None:
    left = {}
    for step in WALK:
        warm.killed_at(step, *CREATE, "--warm", f"gone-{step}")
        removed = warm.machine("rm", "-y", f"gone-{step}")
        left[step] = removed.stderr if removed.returncode else warm.left_of(f"gone-{step}")
    assert left == dict.fromkeys(WALK, "")


def seen(bed: SystemBed, name: str) -> Callable[[], bool]:
    """Its domain runs, or is being given its memory."""
    return lambda: name in bed.run("virsh", "list", "--name").stdout.split()


def test_killed_while_its_memory_is_restored(warm: SystemBed) -> None:
    """It is somebody's whole memory or nothing: half of one never runs."""
    warm.killed_at("vm", *CREATE, "--warm", "half1", once=seen(warm, "half1"))
    resumed = warm.machine("create", "--resume", "half1")
    assert resumed.returncode == 0, resumed.stderr
    assert warm.machine("ssh", "half1", "hostname").stdout == "half1\n"
    warm.killed_at("vm", *CREATE, "--warm", "half2", once=seen(warm, "half2"))
    removed = warm.machine("rm", "-y", "half1", "half2")
    assert removed.returncode == 0, removed.stderr
    assert warm.left_of("half") == ""


@pytest.fixture(scope="module")
def built(warm: SystemBed) -> None:
    ready = warm.machine("layer", "build", "--warm")
    assert ready.returncode == 0, ready.stderr


@pytest.fixture
def copy(
    warm: SystemBed, built: None, warm_cache: Path, tmp_path: Path
) -> Iterator[tuple[SystemBed, Layer, Layer]]:
    """The bed with a copy of the layers, to be damaged: its engine layer and its warm one."""
    cache = own_cache(tmp_path / "cache")
    for source in (warm_cache / "layers").iterdir():
        if source.is_dir():
            subprocess.run(["cp", "-a", str(source), str(cache / "layers")], check=True)
    (engine,), (memory,) = (layers(cache, kind) for kind in LayerKind)
    with warm.using(cache):
        yield warm, engine, memory
    shutil.rmtree(cache)


def damage(path: Path) -> None:
    """One bit, and nobody was there."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cold_start(bed: SystemBed, name: str) -> list[str]:
    """What is said by a create that is cut off when its machine boots, and had no memory; but for
    what is said of this computer."""
    notes = [each for each in bed.killed_at("boot", *CREATE, name) if "KVM" not in each]
    assert len(began_with(bed, name)) == 1
    assert bed.machine("rm", "-y", name).returncode == 0
    return notes


def test_damaged_memory_is_noticed_before_it_runs_and_is_not_used_again(
    copy: tuple[SystemBed, Layer, Layer],
) -> None:
    bed, _, memory = copy
    damage(memory.folder / "memory")
    assert cold_start(bed, "d1") == ["It starts cold: its memory is damaged"]
    assert not memory.folder.exists()
    assert cold_start(bed, "d2") == []


def test_memory_that_others_may_read_is_refused(copy: tuple[SystemBed, Layer, Layer]) -> None:
    bed, _, memory = copy
    (memory.folder / "memory").chmod(0o644)
    (said,) = cold_start(bed, "open")
    assert "may be read or written by others; it is not used" in said


def test_memory_of_another_qemu_is_not_matched(copy: tuple[SystemBed, Layer, Layer]) -> None:
    bed, _, memory = copy
    manifest = memory.folder / "layer.json"
    data = json.loads(manifest.read_text())
    data["inputs"]["qemu"] = "1"
    from machine.layers import KEY_DIGITS, key_of

    data["key"] = key_of(LayerKind.WARM, data["inputs"])
    manifest.write_text(json.dumps(data))
    memory.folder.rename(memory.folder.with_name(data["key"][:KEY_DIGITS]))
    (said,) = cold_start(bed, "older")
    assert said == "Saved memory is left aside: other qemu"


def test_memory_whose_disk_is_gone_is_not_used(copy: tuple[SystemBed, Layer, Layer]) -> None:
    bed, _, memory = copy
    manifest = memory.folder / "layer.json"
    data = json.loads(manifest.read_text())
    data["facts"]["disk"] = "machine-base-warm-nosuch.qcow2"
    manifest.write_text(json.dumps(data))
    (said,) = cold_start(bed, "diskless")
    assert said == "It starts cold: its disk machine-base-warm-nosuch.qcow2 is gone from the pool"


@contextmanager
def written_to(bed: SystemBed, name: str) -> Iterator[None]:
    """As if somebody had written to a volume of the pool just now."""
    path = bed.folder / "lib" / "images" / "machine" / name
    before = path.stat()
    os.utime(path)
    try:
        yield
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_memory_whose_disk_was_written_to_is_not_used(
    copy: tuple[SystemBed, Layer, Layer],
) -> None:
    bed, _, memory = copy
    with written_to(bed, memory.facts["disk"]):
        (said,) = cold_start(bed, "altered")
    assert said == f"It starts cold: its disk {memory.facts['disk']} was written to"


def test_no_machine_is_made_from_a_base_that_was_written_to(
    copy: tuple[SystemBed, Layer, Layer],
) -> None:
    bed, engine, _ = copy
    name = f"machine-base-{engine.files['disk.qcow2']['sha256'][:16]}.qcow2"
    with written_to(bed, name):
        refused = bed.machine(*CREATE, "unsafe")
    assert refused.returncode == 1
    assert f"The volume {name} was written to" in refused.stderr
    assert bed.left_of("unsafe") == ""


def forget(bed: SystemBed, digest: str) -> Callable[[], None]:
    """As on another computer: the pool has no copy of a base. Answers what brings it back."""
    pool = bed.folder / "lib" / "images" / "machine"
    aside = bed.folder / "aside"
    aside.mkdir()
    for each in pool.glob(f"machine-base-{digest[:16]}*"):
        each.rename(aside / each.name)
    bed.run("virsh", "pool-refresh", "machine")

    def back() -> None:
        for each in aside.iterdir():
            with suppress(FileNotFoundError):
                (pool / each.name).unlink()
            each.rename(pool / each.name)
        aside.rmdir()
        bed.run("virsh", "pool-refresh", "machine")

    return back


def test_a_damaged_layer_never_comes_into_a_pool_and_is_made_again(
    copy: tuple[SystemBed, Layer, Layer],
) -> None:
    bed, engine, memory = copy
    shutil.rmtree(memory.folder)
    damage(engine.folder / "disk.qcow2")
    back = forget(bed, engine.files["disk.qcow2"]["sha256"])
    try:
        notes = cold_start(bed, "mended")
    finally:
        back()
    assert any(f"The layer {engine.folder.name} is damaged" in each for each in notes)
    cache = LayerCache(engine.folder.parent)
    (again,) = cache.all()
    cache.verify(again)
    assert again.files != engine.files


def test_a_full_disk_is_told_and_leaves_nothing(bed: SystemBed, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = (
        'mount -t tmpfs -o size=64m tmpfs "$1"; ln -s "$2/images" "$2/bundles" "$1"; '
        'where=$1; shift 2; "$@"; code=$?; ls "$where/layers"; exit $code'
    )
    full = bed.run(
        *("unshare", "-m", "sh", "-c", script, "sh", str(small), str(bed.cache)),
        *(*bed.tool(), "layer", "build"),
        env={"MACHINE_CACHE_PATH": str(small)},
    )
    assert (full.returncode, full.stdout) == (1, "")
    assert "No space left on device" in full.stderr or "is full" in full.stderr
    assert "MACHINE_CACHE_PATH" in full.stderr
    assert "Traceback" not in full.stderr


def test_a_machine_whose_base_is_gone_is_named(warm: SystemBed, warm_cache: Path) -> None:
    """By doctor, and by what would start it."""
    warm.killed_at("boot", *CREATE, "groundless")
    warm.run("virsh", "destroy", "groundless")
    assert "is gone" not in warm.machine("doctor").stdout
    (engine,) = layers(warm_cache, LayerKind.ENGINE)
    digest = engine.files["disk.qcow2"]["sha256"]
    back = forget(warm, digest)
    try:
        refused = warm.machine("start", "groundless")
        examined = warm.machine("doctor")
    finally:
        back()
    name = f"machine-base-{digest[:16]}.qcow2"
    assert refused.returncode == 1
    assert name in refused.stderr
    assert "is gone" in refused.stderr
    assert "Traceback" not in refused.stderr
    (line,) = [each for each in examined.stdout.splitlines() if name in each]
    assert "groundless" in line
    assert "is gone" in line
    assert warm.machine("rm", "-y", "groundless").returncode == 0
    assert warm.left_of("groundless") == ""

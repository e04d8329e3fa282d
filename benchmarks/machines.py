"""What a machine costs, against the same image and engine brought up by hand with QEMU and ssh."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import by_hand, guest
from benchmarks.by_hand import Reached, Size
from benchmarks.clock import Row, medians, row, seconds, shown
from benchmarks.creates import Created, create, middle
from benchmarks.guest import GuestBoot
from machine.drivers.libvirt.storage import SYSTEM_PATH
from machine.images import ImageCache
from machine.layers import Layer, LayerCache, LayerKind
from machine.runtime.bundle import BundleCache
from tests.e2e.testbed import CACHE, SystemBed

IMAGE, BUNDLE = "debian-13", "docker-debian-13"
AT_ONCE = 5
FROM_LAYER, WARM, LOGINS, REMOVALS = 2, 3, 7, 2
"""How often each is measured."""
COLD, FIRST, LAYERED = 1.15, 1.10, 1.15
WARM_LOGIN, WARM_ENGINE, TOGETHER = 0.15, 0.25, 2.5
LOGIN, DISK_MB, REMOVE = 1.5, 100.0, 2.0
"""Targets: times what each is compared with, and MB."""


@dataclass(frozen=True, slots=True)
class Measured:
    rows: list[Row]
    size: Size
    cold: Created
    cold_by_hand: Reached
    layered: Created
    layered_by_hand: Reached
    warm: Created
    guest: GuestBoot  # of a machine from the layer
    memory_bytes: int  # that a warm start reads
    kernel: str
    engine: str


def measure() -> Measured:
    with tempfile.TemporaryDirectory() as folder, _bed(Path(folder)) as bed:
        return _measure(bed)


@contextmanager
def _bed(folder: Path) -> Iterator[SystemBed]:
    """With the images and bundles of `make setup`, and no layer yet."""
    bed = SystemBed(folder / "bench")
    bed.cache = folder / "cache"
    bed.cache.mkdir()
    for name in ("images", "bundles"):
        (bed.cache / name).symlink_to(CACHE / name)
    with bed:
        yield bed


def _measure(bed: SystemBed) -> Measured:
    print("\nFrom the image; the last column is against the same by hand")
    before = create(bed, "--no-layers", "before")
    record = json.loads(_machine(bed, "inspect", "before"))["Machine"]
    size = Size(record["facts"]["kind"], record["cpus"], record["memory_mib"], record["disk_gib"])
    _remove(bed, "before")
    image = ImageCache(CACHE / "images").find(IMAGE)
    bundle = BundleCache(CACHE / "bundles").get(BUNDLE)
    hand = by_hand.boot(bed, size, image, bundle)
    rows = [
        row("by hand: qemu to a login", hand.login),
        row("by hand: its engine installed, to its answer", hand.engine),
        row("create --no-layers, the first on a computer", before.whole, hand.engine),
    ]
    cold = create(bed, "--no-layers", "cold")
    _remove(bed, "cold")
    rows.append(row("create --no-layers", cold.whole, hand.engine, COLD))
    first = create(bed, "first")
    _remove(bed, "first")
    rows.append(row("create, its engine layer made, against that", first.whole, cold.whole, FIRST))

    print("\nFrom the engine layer; the last column is against the same by hand")
    on_layer = _layer(bed, LayerKind.ENGINE).on(image)
    hands: list[Reached] = []
    runs: list[Created] = []
    own: dict[str, float] = {}
    note = {"vm": lambda: own.update(made=_own_bytes(bed))}
    for number in range(FROM_LAYER):
        if number:
            _remove(bed, "layered")
        hands.append(by_hand.boot(bed, size, on_layer))
        runs.append(create(bed, "--ssh-config", "layered", at=note))
    layered = middle(runs)
    layered_hand = sorted(hands, key=lambda each: each.engine)[(len(hands) - 1) // 2]
    rows += [
        row("by hand: qemu to a login", layered_hand.login),
        row("by hand: to the engine's answer", layered_hand.engine),
        row("create, to a login", layered.reached["boot"], layered_hand.login),
        row(
            "create, to the engine's answer",
            layered.reached["verify"],
            layered_hand.engine,
            LAYERED,
        ),
        *_ssh(bed, "layered"),
        *_sizes(bed, own["made"]),
    ]
    boot = guest.boot(bed, "layered")
    kernel = _machine(bed, "ssh", "layered", "uname -r").strip()
    _remove(bed, "layered")

    print("\nWarm; the last column is against the bare boots above")
    saving = create(bed, "--warm", "saving")
    _remove(bed, "saving")
    warms = []
    for _ in range(WARM):
        warms.append(create(bed, "--warm", "warm", at=note))
        _remove(bed, "warm")
    warm = middle(warms)
    to_login = min(hand.login, layered_hand.login)
    names = [f"worker{number}" for number in range(1, AT_ONCE + 1)]
    at_once = seconds(lambda: _machine(bed, "create", "-d", "libvirt", "--warm", *names))
    rows += [
        row("create --warm, the memory saved first", saving.whole),
        row("create --warm, to a login", warm.reached["boot"], to_login, WARM_LOGIN),
        row(
            "create --warm, to the engine's answer",
            warm.reached["verify"],
            layered_hand.engine,
            WARM_ENGINE,
        ),
        row(f"create --warm, {AT_ONCE} at once, against one", at_once, warm.whole, TOGETHER),
        *_removals(bed, names),
    ]
    return Measured(
        rows=rows,
        size=size,
        cold=cold,
        cold_by_hand=hand,
        layered=layered,
        layered_by_hand=layered_hand,
        warm=warm,
        guest=boot,
        memory_bytes=_layer(bed, LayerKind.WARM).size,
        kernel=kernel,
        engine=f"{bundle.engine} {bundle.version}",
    )


def _layer(bed: SystemBed, kind: LayerKind) -> Layer:
    (found,) = (each for each in LayerCache(bed.cache / "layers").all() if each.kind is kind)
    return found


def _machine(bed: SystemBed, *words: str) -> str:
    done = bed.machine(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _remove(bed: SystemBed, name: str) -> None:
    _machine(bed, "rm", "-y", name)


def _ssh(bed: SystemBed, name: str) -> list[Row]:
    config = str(bed.store / "machines" / name / "ssh_config")
    works = {
        "the ssh program with the same key": lambda: bed.run("ssh", "-F", config, name, "true"),
        "machine ssh NAME true": lambda: _machine(bed, "ssh", name, "true"),
    }
    took = medians(works, LOGINS)
    base, ours = took
    return [row(base, took[base]), row(ours, took[ours], took[base], LOGIN)]


def _removals(bed: SystemBed, names: list[str]) -> list[Row]:
    """Of running machines that are alike, in turn."""

    def virsh(name: str) -> None:
        volume = ("vol-delete", "--pool", "machine", volumes[name])
        for words in (("destroy", name), ("undefine", name), volume):
            done = bed.run("virsh", *words)
            assert done.returncode == 0, done.stderr

    listed = bed.run("virsh", "vol-list", "machine").stdout.split()
    volumes = {
        name: next(v for v in listed if v.startswith(f"machine-{name}-") and v.endswith(".qcow2"))
        for name in names
    }
    left = iter(names)
    works = {
        "virsh destroy, undefine, vol-delete": lambda: virsh(next(left)),
        "machine rm": lambda: _remove(bed, next(left)),
    }
    took = medians(works, REMOVALS)
    base, ours = took
    return [row(base, took[base]), row(ours, took[ours], took[base], REMOVE)]


def _own_bytes(bed: SystemBed) -> float:
    """What the volumes of the only machine take on the disk."""
    pool = Path(str(bed.folder / "lib") + SYSTEM_PATH.removeprefix("/var/lib/libvirt"))
    own = (each for each in pool.glob("machine-*") if not each.name.startswith("machine-base-"))
    return sum(each.stat().st_blocks * 512 for each in own)


def _sizes(bed: SystemBed, made: float) -> list[Row]:
    """Of the only machine that there is."""
    answering = _own_bytes(bed)
    rows = [
        shown(
            Row("disk of a new machine before its first write", made / 1e6, "MB", target=DISK_MB)
        ),
        shown(Row("disk of its own when its engine answers", answering / 1e6, "MB")),
    ]
    for number in bed.processes():
        status = Path(f"/proc/{number}/status").read_text()
        if "qemu-system" in status.splitlines()[0]:
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            rows.append(shown(Row("memory of its QEMU", int(resident.split()[1]) / 1024, "MiB")))
    return rows

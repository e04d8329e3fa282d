"""What a machine costs, against the same image and engine brought up by hand with QEMU and ssh."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import by_hand, guest, running
from benchmarks.by_hand import Reached, Size
from benchmarks.clock import Row, row, seconds
from benchmarks.creates import Created, create
from benchmarks.guest import GuestBoot
from benchmarks.running import remove, tool
from machine.images import ImageCache
from machine.layers import Layer, LayerCache, LayerKind
from machine.model import Image
from machine.runtime.bundle import Bundle, BundleCache
from tests.artefact import CACHE
from tests.e2e.testbed import SystemBed

IMAGE, BUNDLE = "debian-13", "docker-debian-13"
AT_ONCE = 5
FROM_LAYER, WARM = 2, 3
"""How often each is measured."""
COLD, FIRST, LAYERED = 1.15, 1.10, 1.15
WARM_LOGIN, WARM_ANSWER, TOGETHER = 0.15, 0.25, 2.5
"""Targets: times what each is compared with."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One way to make a machine."""

    rows: list[Row]
    created: Created
    by_hand: Reached  # what it is compared with


@dataclass(frozen=True, slots=True)
class Measured:
    size: Size
    cold: Stage
    layered: Stage
    warm: Stage
    guest: GuestBoot  # of a machine from the layer
    memory_bytes: int  # that a warm start reads
    kernel: str
    engine: str

    @property
    def rows(self) -> list[Row]:
        return [*self.cold.rows, *self.layered.rows, *self.warm.rows]


def measure() -> Measured:
    image = ImageCache(CACHE / "images").find(IMAGE)
    bundle = BundleCache(CACHE / "bundles").get(BUNDLE)
    with tempfile.TemporaryDirectory() as folder, _bed(Path(folder)) as bed:
        size, cold = _from_image(bed, image, bundle)
        layered = _from_layer(bed, size, _layer(bed, LayerKind.ENGINE).on(image))
        booted = guest.boot(bed, "layered")
        kernel = tool(bed, "ssh", "layered", "uname -r").strip()
        remove(bed, "layered")
        warm = _warm(bed, cold.by_hand, layered.by_hand)
        memory = _layer(bed, LayerKind.WARM).size
    engine = f"{bundle.engine} {bundle.version}"
    return Measured(size, cold, layered, warm, booted, memory, kernel, engine)


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


def _from_image(bed: SystemBed, image: Image, bundle: Bundle) -> tuple[Size, Stage]:
    print("\nFrom the image; the last column is against the same by hand")
    before = create(bed, "--no-layers", "before")
    record = json.loads(tool(bed, "inspect", "before"))["Machine"]
    size = Size(record["facts"]["kind"], record["cpus"], record["memory_mib"], record["disk_gib"])
    remove(bed, "before")
    hand = by_hand.boot(bed, size, image, bundle)
    rows = [
        row("bare boot of the image, to a login", hand.login),
        row("and its engine installed, to its answer", hand.engine),
        row("create --no-layers, the first on a computer", before.whole, hand.engine),
    ]
    cold = create(bed, "--no-layers", "cold")
    remove(bed, "cold")
    rows.append(row("create --no-layers", cold.whole, hand.engine, COLD))
    first = create(bed, "first")
    remove(bed, "first")
    rows += [
        row("create, its layer made, against --no-layers", first.whole, cold.whole, FIRST),
        row("the making of that layer", first.steps["layer"]),
    ]
    return size, Stage(rows, cold, hand)


def _from_layer(bed: SystemBed, size: Size, image: Image) -> Stage:
    """Leaves the last machine there."""
    print("\nFrom the engine layer; the last column is against the same by hand")
    hands, runs, made = [], [], [0]
    for number in range(FROM_LAYER):
        if number:
            remove(bed, "layered")
        hands.append(by_hand.boot(bed, size, image))
        runs.append(
            create(
                bed,
                *("--ssh-config", "layered"),
                at={"vm": lambda: made.append(running.own_bytes(bed))},
            )
        )
    created = _middle(runs)
    hand = sorted(hands, key=lambda each: each.engine)[(FROM_LAYER - 1) // 2]
    rows = [
        row("bare boot of the layer, to a login", hand.login),
        row("bare boot of the layer, to the engine's answer", hand.engine),
        row("create from the layer, to a login", created.reached["boot"], hand.login),
        row(
            "create from the layer, to the engine's answer",
            created.reached["verify"],
            hand.engine,
            LAYERED,
        ),
        *running.commands(bed, "layered"),
        *running.sizes(bed, made[-1]),
    ]
    return Stage(rows, created, hand)


def _warm(bed: SystemBed, image: Reached, layer: Reached) -> Stage:
    print("\nWarm; the last column is against the bare boots above")
    saving = create(bed, "--warm", "saving")
    remove(bed, "saving")
    runs = []
    for _ in range(WARM):
        runs.append(create(bed, "--warm", "warm"))
        remove(bed, "warm")
    created = _middle(runs)
    bare = Reached(min(image.login, layer.login), layer.engine)
    names = [f"worker{number}" for number in range(1, AT_ONCE + 1)]
    at_once = seconds(lambda: tool(bed, "create", "-d", "libvirt", "--warm", *names))
    to_login, to_answer = created.reached["boot"], created.reached["verify"]
    rows = [
        row("create --warm, the memory saved first", saving.whole),
        row("create --warm, to a login", to_login, bare.login, WARM_LOGIN),
        row("create --warm, to the engine's answer", to_answer, bare.engine, WARM_ANSWER),
        row(f"create --warm, {AT_ONCE} at once, against one", at_once, created.whole, TOGETHER),
        *running.removals(bed, names),
    ]
    return Stage(rows, created, bare)


def _layer(bed: SystemBed, kind: LayerKind) -> Layer:
    (found,) = (each for each in LayerCache(bed.cache / "layers").all() if each.kind is kind)
    return found


def _middle(runs: Sequence[Created]) -> Created:
    """The median, by the time to the engine's answer; of an even number the quicker of two."""
    return sorted(runs, key=lambda each: each.reached["verify"])[(len(runs) - 1) // 2]

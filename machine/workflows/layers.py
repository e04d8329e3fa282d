"""The layers of a create: an engine put into an image once, natively, before anything boots."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from machine import image_build, registry
from machine.chroot import ChrootGuest
from machine.engine import ServerTls, Settings
from machine.errors import MachineError, PreflightError, WarmRefused
from machine.events import Reporter
from machine.host import Host
from machine.images import ImageCache
from machine.layers import Layer, LayerCache, LayerKind, key_of
from machine.model import EngineOptions, GuestFile, Identity, Image, VmSpec
from machine.paths import shipped_templates
from machine.provision_detect import detect
from machine.runtime.bundle import Bundle, BundleCache, deliver, discard
from machine.store import Store
from machine.workflows import bootstrap

MARKER = b"machine: warm"
"""What templates/warm/warm.sh says on the console when the memory can be saved."""
RECIPE = "1"
"""How an engine layer is made; another number makes all of them anew."""


def engine(image: Image, bundle: Bundle, report: Reporter) -> Layer:
    """The image with the engine of the bundle installed: found, or made now by the same code that
    installs it on a booted host. Nothing of it runs, so nobody's keys, ids or logs come to be.
    Raises PreflightError for programs that are missing, LayerError, DiskFull."""

    def make(folder: Path) -> Mapping[str, Any]:
        image_build.check(image.arch)
        ImageCache().verify(image.name)
        BundleCache().verify(bundle)
        assert image.tree
        with (
            report.step("engine", f"Putting {bundle.engine} {bundle.version} into {image.name}"),
            image_build.unpacked(image.tree, folder.parent) as root,
        ):
            guest = ChrootGuest(root)
            provisioner = detect(guest)
            installed = registry.engine(bundle.engine)(guest, provisioner)
            installed.install(deliver(guest, bundle, Reporter()), bundle.kind)
            discard(guest)
            provisioner.disable_service(installed.unit)
            image_build.seal(root)
            image_build.make_disk(root, folder / "disk.qcow2")
        return {"image": image.name, "engine": bundle.engine, "version": bundle.version}

    title = f"{image.name} + {bundle.engine} {bundle.version}"
    return LayerCache().ensure(LayerKind.ENGINE, _inputs(image, bundle), title, make, report)


def warm(host: Host, spec: VmSpec, report: Reporter, *, build: bool) -> Layer | None:
    """The memory of a machine like ``spec`` that is nobody's yet; None where there is none and
    ``build`` does not ask for it. Raises WarmRefused where there can be none, and what ``save_warm``
    raises."""
    reason = _not_warm(host)
    if reason:
        raise WarmRefused(reason)
    inputs = {
        "recipe": RECIPE,
        "user": host.block.user,
        "labels": json.dumps(bootstrap.labels(host)),
        "disk image": spec.booted.digest,
        "files": _digest(_rehearsal(host)),
        **host.driver.warm_inputs(spec),
    }
    title = f"{host.block.image}, {spec.cpus} CPUs, {spec.memory_mib} MiB, {spec.disk_gib} GiB"
    name = f"warm-{key_of(LayerKind.WARM, inputs)[:8]}"
    cache = LayerCache()
    found = cache.find(LayerKind.WARM, inputs, report)
    if found or not build:
        if not found and (why := _other(cache, title, inputs)):
            report.note(f"Saved memory is left aside: {why}")
        return found

    def make(folder: Path) -> Mapping[str, Any]:
        nobody = Identity(
            hostname=name,
            machine_id=uuid.uuid4().hex,
            user=host.block.user,
            authorized_keys=(),
            host_key="",
            host_key_public="",
            files=_rehearsal(host),
        )
        with report.step("warm", "Booting a machine once, to keep its memory"):
            return host.driver.save_warm(replace(spec, identity=nobody), folder, MARKER)

    return cache.ensure(LayerKind.WARM, inputs, title, make, report)


def _other(cache: LayerCache, title: str, inputs: Mapping[str, str]) -> str:
    """What the newest memory with that title was made of that is not so any more; or ""."""
    others = [each for each in cache.all() if (each.kind, each.title) == (LayerKind.WARM, title)]
    if not others:
        return ""
    before = others[-1].inputs
    other = ", ".join(key for key in inputs if inputs[key] != before.get(key))
    return f"other {other}" if other else ""


@dataclass(frozen=True, slots=True)
class Pruned:
    """One thing that was removed, or would be."""

    kind: str  # "engine", "warm", "damaged", or the driver that held it
    name: str
    title: str
    size: int  # bytes


def prune(
    store: Store, refs: Sequence[str] = (), *, everything: bool = False, dry_run: bool = False
) -> list[Pruned]:
    """Remove layers, and what providers hold that nothing is backed by: those that ``refs`` names,
    or ``everything``, or else those that no create will use any more because a newer one has
    their place, or they are damaged. Machines keep what they are backed by. Raises LayerNotFound."""
    cache = LayerCache()
    layers = cache.all()
    broken = cache.damaged()
    if refs:
        broken = [name for name in broken if any(name.startswith(ref) for ref in refs if ref)]
        named = [ref for ref in refs if not any(name.startswith(ref) for name in broken)]
        doomed = [cache.get(ref) for ref in named]
    else:
        doomed = layers if everything else stale(layers)
    doomed = [each for each in doomed if each.folder.name not in broken]
    pruned = [Pruned(each.kind, each.folder.name, each.title, each.size) for each in doomed]
    pruned += [Pruned("damaged", name, "", 0) for name in broken]
    removed = {each.name for each in pruned}
    for name in () if dry_run else removed:
        cache.remove(name)
    disks = {each.folder.name: str(each.facts.get("disk", "")) for each in layers}
    gone = frozenset(disk for name, disk in disks.items() if name in removed)
    keep = frozenset(disk for name, disk in disks.items() if name not in removed)
    hosts = _hosts(store)
    for name in registry.names("machine.drivers", registry.DRIVERS):
        drivers = [host.driver for host in hosts if host.record.driver_name == name]
        found = registry.driver(name).prune(drivers, keep, gone, dry_run=dry_run)
        pruned += [Pruned(name, each, "", size) for each, size in sorted(found.items())]
    return pruned


def stale(layers: Sequence[Layer]) -> list[Layer]:
    """Those that a newer one of the same title has replaced."""
    newest = {(each.kind, each.title): each for each in layers}
    return [each for each in layers if newest[each.kind, each.title] is not each]


def _hosts(store: Store) -> list[Host]:
    found = []
    for name in store.names():
        with suppress(MachineError):
            host = Host.load(store, name)
            _ = host.driver
            found.append(host)
    return found


def _not_warm(host: Host) -> str:
    """Why such a machine cannot start warm, whatever its provider can do; or ""."""
    options = host.record.engine_options
    if not host.engine.door:
        return f"{host.engine.name} has none"
    if replace(options, tls_sans=()) != EngineOptions():
        return "its engine's options are not those of the saved one"
    return ""


def _rehearsal(host: Host) -> tuple[GuestFile, ...]:
    """What makes a machine warm: our scripts, and the engine's configuration without keys."""
    engine, here = host.engine, shipped_templates() / "warm"
    nothing = Settings(ServerTls(b"", b"", b""), host.engine_port, labels=bootstrap.labels(host))
    configured = engine.first_boot(host.block.bundle_kind, nothing)
    unit = (here / "machine-warm.service").read_text()
    for name, word in (("DOOR", engine.door), ("UNIT", engine.unit), ("USER", host.block.user)):
        unit = unit.replace(f"@{name}@", word)
    units = "/etc/systemd/system"
    return (
        GuestFile("/usr/local/lib/machine/warm/warm.sh", (here / "warm.sh").read_bytes()),
        GuestFile("/usr/local/lib/machine/warm/rehearse.sh", engine.rehearsal().encode()),
        GuestFile(f"{units}/machine-warm.service", unit.encode()),
        GuestFile(
            f"{units}/multi-user.target.wants/machine-warm.service",
            link=f"{units}/machine-warm.service",
        ),
        *(each for each in configured if each.content),
    )


def _digest(files: Sequence[GuestFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path} {file.mode} {file.link} {len(file.content)}\n".encode())
        digest.update(file.content)
    return digest.hexdigest()


def missing(image: Image) -> str:
    """Why no engine layer can be made here, or ""."""
    if image.tree is None and not image.recipe:
        return f"the image {image.name} was not built here"
    if image.tree is None or image.recipe != image_build.recipe():
        return (
            f"the image {image.name} was built by another version of this tool "
            f"(machine image build {image.name} makes it anew)"
        )
    try:
        image_build.check(image.arch)
    except PreflightError as exc:
        return exc.brief
    return ""


def _inputs(image: Image, bundle: Bundle) -> dict[str, str]:
    return {
        "recipe": RECIPE,
        "image": image.digest,
        "engine": bundle.engine,
        "bundle": bundle.sha256,
    }

"""The layers of a create: an engine put into an image once, natively, before anything boots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import image_build, registry
from machine.chroot import ChrootGuest
from machine.errors import PreflightError
from machine.events import Reporter
from machine.images import ImageCache
from machine.layers import Layer, LayerCache, LayerKind
from machine.model import Image
from machine.provision_detect import detect
from machine.runtime.bundle import Bundle, BundleCache, deliver, discard

RECIPE = "1"
"""How an engine layer is made; another number makes all of them anew."""


def can_hold_engine(image: Image) -> bool:
    """Whether an engine layer of it can be made: only what we built comes as a tree of files."""
    return image.tree is not None


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


def missing(image: Image) -> str:
    """Why no engine layer can be made here, or ""."""
    if not can_hold_engine(image):
        return f"the image {image.name} was not built here by this version"
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

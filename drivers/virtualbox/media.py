"""Disks: bases that machines share, each machine's own writes over one, and the first-boot disk.

A base is never attached itself. ``unregistervm --delete``, and removing a machine in VirtualBox's own
window, delete a base with the last disk that is laid over it (seen with 7.2): hence each base keeps a
child that belongs to no machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from machine import command
from machine.drivers.virtualbox.vboxmanage import VBoxManage
from machine.errors import DriverError
from machine.model import Image
from machine.paths import data_root

CONTROLLER: Final = "sata"
DISK_PORT, SEED_PORT = 0, 1
_KEEP: Final = ".keep.vdi"


def folder() -> Path:
    """Of the bases: machines need them, so they are not in the cache, which may be emptied."""
    return data_root() / "virtualbox"


def lock() -> AbstractContextManager[object]:
    """One process at a time makes what machines share, or removes it."""
    from filelock import FileLock

    folder().mkdir(parents=True, exist_ok=True)
    return FileLock(folder() / ".lock")


def base(vbox: VBoxManage, image: Image, disk_gib: int) -> Path:
    """The image as a disk of that size that VirtualBox boots; made once. The caller holds the lock.
    Raises DriverError, ImageError, PreflightError."""
    path = folder() / f"{image.name}-{image.digest[:16]}-{disk_gib}.vdi"
    if not path.exists():
        _convert(image, disk_gib, path)
    _keep(vbox, path)
    return path


def _convert(image: Image, disk_gib: int, path: Path) -> None:
    """By qemu-img, which skips holes: ``convertfromraw`` reads all of them (20 GiB: 1 s, not 50)."""
    from machine import boot_disk

    raw, unfinished = path.with_suffix(".raw"), path.with_suffix(".part")
    try:
        boot_disk.raw(image, disk_gib, raw)
        result = command.run(
            *("qemu-img", "convert", "-f", "raw", "-O", "vdi", raw, unfinished),
            check=False,
            timeout=1800,
        )
        if not result.ok:
            raise DriverError(
                f"The image {image.name} could not be made a disk for VirtualBox",
                details=result.stderr.strip(),
                hint=f"df -h {path.parent}",
            )
        unfinished.rename(path)
    finally:
        raw.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)


def _keep(vbox: VBoxManage, path: Path) -> None:
    """The child that belongs to nobody; one that VirtualBox has forgotten is made anew."""
    child = _kept(path)
    if not child.exists() or all(each["Location"] != str(child) for each in vbox.list("hdds")):
        child.unlink(missing_ok=True)
        vbox.make_child(child, path)


def protect(vbox: VBoxManage) -> None:
    """Every base has its child again. The caller holds the lock."""
    for each in vbox.list("hdds"):
        path = Path(each["Location"])
        if path.parent == folder() and not path.name.endswith(_KEEP):
            _keep(vbox, path)


def _kept(path: Path) -> Path:
    return path.with_name(path.stem + _KEEP)


def close_below(vbox: VBoxManage, place: Path) -> None:
    """Forget and delete all disks in a folder, those with others laid over them last."""
    while inside := [each for each in vbox.list("hdds") if place in Path(each["Location"]).parents]:
        parents = {each.get("Parent UUID", "") for each in inside}
        for each in inside:
            if each["UUID"] not in parents:
                vbox.close_medium("disk", each["UUID"], delete=True)
    for each in vbox.list("dvds"):
        if place in Path(each["Location"]).parents:
            vbox.close_medium("dvd", each["UUID"], delete=False)


def unneeded(vbox: VBoxManage) -> Iterator[Path]:
    """Bases with no disk over them but their own. The caller holds the lock."""
    disks = vbox.list("hdds")
    names = {each["UUID"]: each["Location"] for each in disks}
    needed = {
        names.get(each.get("Parent UUID", ""))
        for each in disks
        if not each["Location"].endswith(_KEEP)
    }
    for path in folder().glob("*.vdi"):
        if not path.name.endswith(_KEEP) and str(path) not in needed:
            yield path


def remove_base(vbox: VBoxManage, path: Path) -> None:
    registered: Mapping[str, str] = {each["Location"]: each["UUID"] for each in vbox.list("hdds")}
    for each in (_kept(path), path):
        if str(each) in registered:
            vbox.close_medium("disk", registered[str(each)], delete=True)
        each.unlink(missing_ok=True)

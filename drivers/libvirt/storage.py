"""Our storage pool and the volumes in it: bases by digest, overlays and seeds by machine."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from machine.drivers.libvirt import connection
from machine.drivers.libvirt.connection import doing, module
from machine.drivers.libvirt.escape import escape
from machine.errors import DigestMismatch, DriverError
from machine.paths import data_root

OURS: Final = "machine"
SYSTEM_PATH: Final = "/var/lib/libvirt/images/machine"
SHARED: Final = "machine-base-"
WARM: Final = f"{SHARED}warm-"
"""What the names of volumes begin with that are no machine's own, and of those that a saved machine
has left: no cache can bring such a one again."""
READY: Final = ".ready"
"""Suffix of the empty volume that says that an upload came to its end."""
CHUNK: Final = 256 * 1024
COPIED: Final = 4 << 20
"""Bytes at a time, through the daemon and past it."""
_SHARED: Final = re.compile(
    rf"{SHARED}[0-9a-f]{{16}}\.\w+(?:\{READY})?|{WARM}[0-9a-f]{{8}}-[0-9a-f]{{8}}-[a-z0-9.]+"
)
_OWN: Final = re.compile(r"machine-(.+)-([0-9a-f]{8})-[a-z0-9.]+")


def pool(conn: Any, name: str, *, session: bool) -> Any:
    """The pool of that name, active; the default one is made when it is missing."""
    libvirt = module()
    try:
        found = conn.storagePoolLookupByName(name)
    except libvirt.libvirtError as exc:
        if name != OURS:
            raise DriverError(
                f'There is no storage pool "{name}"',
                hint="virsh pool-list --all shows them; leave --libvirt-pool out for our own",
            ) from exc
        found = _make(conn, name, data_root() / "disks" if session else Path(SYSTEM_PATH))
    if not found.isActive():
        with doing(f"starting the pool {name}"):
            found.create()
    return found


def _make(conn: Any, name: str, path: Path) -> Any:
    libvirt = module()
    xml = (
        f"<pool type='dir'><name>{escape(name)}</name><target><path>{escape(str(path))}</path>"
        "<permissions><mode>0711</mode></permissions></target></pool>"
    )
    try:
        made = conn.storagePoolDefineXML(xml)
        made.build()
        made.setAutostart(1)
    except libvirt.libvirtError as exc:
        with suppress(libvirt.libvirtError):  # another process made it at the same moment
            return conn.storagePoolLookupByName(name)
        raise DriverError(f"The storage pool {name} cannot be made", details=str(exc)) from exc
    return made


def path_of(where: Any) -> str:
    """The pool's folder on the hypervisor's computer."""
    found = ElementTree.fromstring(where.XMLDesc()).findtext("target/path")  # noqa: S314
    assert found
    return found


def volume(where: Any, name: str) -> Any | None:
    libvirt = module()
    try:
        return where.storageVolLookupByName(name)
    except libvirt.libvirtError:
        return None


def backing(found: Any) -> str:
    """The path of what a volume's writes are laid over, or ""."""
    return ElementTree.fromstring(found.XMLDesc()).findtext("backingStore/path") or ""  # noqa: S314


def missing(where: Any, paths: Iterable[str]) -> str:
    """The first of those files, or of what they are laid over, that should be in the pool and is
    not; or ""."""
    with suppress(module().libvirtError):
        where.refresh()
    folder = Path(path_of(where))
    for path in paths:
        while path and Path(path).parent == folder:
            found = volume(where, Path(path).name)
            if found is None:
                return path
            path = backing(found)
    return ""


def shared(
    where: Any, name: str, source: Path, sha256: str, progress: Callable[[int, int], None]
) -> str:
    """A file of ours in the pool, brought there once, and only if it has that digest; answers its
    path there. One at a time is the caller's matter. Raises DigestMismatch."""
    found, ready = volume(where, name), volume(where, name + READY)
    if found is None or ready is None:
        delete(where, name)
        delete(where, name + READY)
        digest = hashlib.sha256()
        with source.open("rb") as file:

            def read(size: int) -> bytes:
                chunk = file.read(size)
                digest.update(chunk)
                return chunk

            bring = _copy if _ours_to_write(where) else upload
            bring(where, name, read, source.stat().st_size, progress)
        if digest.hexdigest() != sha256:
            delete(where, name)
            raise DigestMismatch(f"{source} is not what its manifest says")
        upload(where, name + READY, lambda size: b"", 0)
        return f"{path_of(where)}/{name}"
    if changed(found) > changed(ready):
        raise DriverError(
            f"The volume {name} was written to after it had been brought to the pool: no machine is "
            "made from it, and those that are backed by it may be damaged",
            hint="Remove those machines (machine layer ls and virsh vol-dumpxml show which), then:\n"
            "machine layer prune",
        )
    return str(found.path())


def _ours_to_write(where: Any) -> bool:
    """Whether this process may put files into the pool's folder itself: faster than by way of the
    daemon, which takes 256 KiB at a time (34 MiB a second were seen, against 500)."""
    remote = connection.is_remote(where.connect().getURI())
    return not remote and os.access(path_of(where), os.W_OK | os.X_OK)


def _copy(
    where: Any,
    name: str,
    read: Callable[[int], bytes],
    size: int,
    progress: Callable[[int, int], None],
) -> None:
    """As ``upload``, by an ordinary copy."""
    target = Path(path_of(where)) / name
    done = 0
    try:
        with target.open("wb") as file:
            target.chmod(0o644)
            while chunk := read(COPIED):
                file.write(chunk)
                done += len(chunk)
                progress(done, size)
    except OSError as exc:
        target.unlink(missing_ok=True)
        raise DriverError(f"{name} cannot be put into the pool", details=str(exc)) from exc
    with doing("looking at the pool"):
        where.refresh()


def upload(
    where: Any,
    name: str,
    read: Callable[[int], bytes],
    size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    mode: str = "0644",
) -> str:
    """A new volume with that content, through a stream: the same for a remote hypervisor."""
    xml = (
        f"<volume><name>{escape(name)}</name><capacity unit='bytes'>{size}</capacity>"
        f"<target><format type='raw'/>"
        f"<permissions><mode>{mode}</mode></permissions></target></volume>"
    )
    with doing(f"uploading {name}"):
        made = where.createXML(xml)
        if size:
            stream = where.connect().newStream()
            made.upload(stream, 0, size)
            done = 0

            def send(stream: Any, count: int, opaque: object) -> bytes:
                nonlocal done
                chunk = read(min(count, CHUNK))
                done += len(chunk)
                progress(done, size)
                return chunk

            stream.sendAll(send, None)
            stream.finish()
    return str(made.path())


def disk(where: Any, name: str, disk_gib: int, backing: str = "") -> str:
    """A qcow2 volume of a machine's own: empty, or its writes over the shared base ``backing``.
    Twice is fine. Version 3 (``compat`` 1.1): libvirt's own choice, 2, has no zero clusters, and a
    file system that grows to 20 GiB fills 290 MiB with zeros."""
    found = volume(where, name)
    if found is not None:
        return str(found.path())
    base = (
        f"<backingStore><path>{escape(backing)}</path><format type='qcow2'/></backingStore>"
        if backing
        else ""
    )
    xml = (
        f"<volume><name>{escape(name)}</name><capacity unit='GiB'>{disk_gib}</capacity>"
        "<target><format type='qcow2'/><compat>1.1</compat>"
        "<permissions><mode>0600</mode></permissions></target>"
        f"{base}</volume>"
    )
    with doing(f"making the disk {name}"):
        return str(where.createXML(xml).path())


def grow(where: Any, name: str, disk_gib: int) -> None:
    """Twice is fine. Raises DriverError for a disk that is gone, and libvirtError for one that
    would shrink."""
    found = volume(where, name)
    if found is None:
        raise DriverError(f"The disk {name} is gone")
    if found.info()[1] != disk_gib << 30:
        found.resize(disk_gib << 30)


def prefix(host_name: str, host_id: str) -> str:
    """What the names of a machine's own volumes begin with."""
    return f"machine-{host_name}-{host_id[:8]}-"


def owner(name: str) -> tuple[str, str] | None:
    """The reverse of ``prefix``: whose volume it is by its name, a machine's name and the first
    eight digits of its id; None for what is shared, or not ours."""
    match = None if is_shared(name) else _OWN.fullmatch(name)
    return (match[1], match[2]) if match else None


def is_shared(name: str) -> bool:
    """Whether a volume is there for many machines."""
    return _SHARED.fullmatch(name) is not None


def changed(found: Any) -> float:
    """When a volume was last written to, in seconds since 1970; libvirt looks now."""
    text = ElementTree.fromstring(found.XMLDesc()).findtext("target/timestamps/mtime")  # noqa: S314
    return float(text or 0)


def delete_all(where: Any, name_prefix: str, keep: str = "") -> None:
    """Every volume of one machine, but the one called ``keep``; twice is fine."""
    libvirt = module()
    with suppress(libvirt.libvirtError):
        where.refresh()  # the console log became a volume without our doing
    for each in where.listAllVolumes():
        if each.name().startswith(name_prefix) and each.name() != keep:
            with suppress(libvirt.libvirtError):
                each.delete()


def delete(where: Any, name: str) -> None:
    """Twice is fine."""
    libvirt = module()
    found = volume(where, name)
    if found is not None:
        with suppress(libvirt.libvirtError):
            found.delete()


def content(where: Any, name: str, offset: int) -> bytes:
    """What a volume holds from ``offset`` on; read by the daemon, so it works for files that only
    the hypervisor's user may read, and on another computer."""
    libvirt = module()
    with suppress(libvirt.libvirtError):
        where.refresh()
    found = volume(where, name)
    if found is None:
        return b""
    try:
        length = found.info()[1]
        if length <= offset:
            return b""
        parts: list[bytes] = []
        stream = where.connect().newStream()
        found.download(stream, offset, length - offset)
        stream.recvAll(lambda stream, data, opaque: parts.append(data), None)
        stream.finish()
    except libvirt.libvirtError as exc:
        raise DriverError(f"The console log {name} cannot be read", details=str(exc)) from exc
    return b"".join(parts)

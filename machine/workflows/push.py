"""Images onto machines' engines without a registry: only what an engine lacks is sent."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from machine import container_archive, download
from machine.container_image import Image, Images, KnownImage, Layer, choose, full_name
from machine.errors import (
    ArchiveError,
    BadOption,
    CommandFailed,
    EngineError,
    EngineFull,
    GuestError,
    MachineError,
    TimedOut,
    UsageError,
)
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.paths import cache_root
from machine.store import Store

LOGIN: Final = 5
"""Seconds for a login that is of use, and not needed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be on the machines."""

    tag: str = ""  # instead of the names that it has
    only: str = ""  # of several in an archive
    any_platform: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one machine was sent."""

    machine: str
    image: str  # its id there
    names: tuple[str, ...]
    layers_sent: int
    layers_present: int
    layer_bytes: int
    bytes_sent: int  # with what describes the image


class Offer(Protocol):
    """An image that machines can have."""

    id: str  # "" where an archive has to say which image it is
    names: tuple[str, ...]  # likewise

    def images(self, report: Reporter) -> list[Image]:
        """For all platforms."""
        ...


@dataclass
class InArchive:
    found: list[Image]
    id: str = ""
    names: tuple[str, ...] = ()

    def images(self, report: Reporter) -> list[Image]:
        return self.found


@dataclass
class OnMachine:
    """Fetched once, by the first of the machines that lacks it."""

    source: Host
    ref: str
    id: str
    names: tuple[str, ...]
    spool: IO[bytes]
    _found: list[Image] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def images(self, report: Reporter) -> list[Image]:
        with self._lock:
            if not self._found:
                title = f"Fetching {self.ref} from {self.source.name}"
                with report.step("fetch", title), _kept():
                    self._fetch(report)
        return self._found

    def _fetch(self, report: Reporter) -> None:
        self.spool.seek(0)
        self.spool.truncate()
        with self.source.images() as images:
            for piece in images.save(self.ref):
                self.spool.write(piece)
                report.progress("fetch", self.spool.tell(), None)
        self.spool.flush()
        self._found = container_archive.read(self.spool, f"what {self.source.name} sent")


@contextmanager
def from_archive(path: Path) -> Iterator[Offer]:
    """Raises ArchiveError, DiskFull."""
    with ExitStack() as stack:
        spool = stack.enter_context(_spool())
        with _kept():
            images = stack.enter_context(container_archive.opened(path, spool))
        yield InArchive(images)


@contextmanager
def from_machine(store: Store, name: str, ref: str) -> Iterator[Offer]:
    """Raises HostNotRunning, ArchiveError where there is no such image, EngineError, DiskFull."""
    host = Host.load(store, name)
    host.require_running()
    named: tuple[str, ...] = ()
    with host.images() as images:
        found = images.find(ref)
    if found is None:
        raise ArchiveError(
            f'There is no image {ref} on "{name}"',
            hint="An image of this computer's: docker save IMAGE -o FILE, and machine push FILE",
        )
    with suppress(BadOption):  # an id, or a digest
        named = tuple(each for each in found.names if each == full_name(ref))
    with _spool() as spool:
        yield OnMachine(host, ref, found.id, named, spool)


def push(store: Store, name: str, offer: Offer, wanted: Wanted, emit: Emit = ignore) -> Pushed:
    """Have the image on a machine's engine under its names. Raises HostNotRunning, ArchiveError,
    EngineFull, EngineError."""
    host = Host.load(store, name, Reporter(emit, name))
    host.require_running()
    with host.images() as images:
        names = _names(wanted, offer.names)
        if offer.id and names and (found := images.find(offer.id)):
            return _named(host, images, found, names)
        return _sent(host, images, offer, wanted)


def _sent(host: Host, images: Images, offer: Offer, wanted: Wanted) -> Pushed:
    report = host.report
    image = choose(
        offer.images(report),
        images.platform(),
        only=wanted.only,
        any_platform=wanted.any_platform,
    )
    names = _names(wanted, offer.names or image.names)
    if not names:
        raise UsageError(f"The image {image.title} has no name", hint="Give it one: --tag NAME:TAG")
    with report.step("compare", "Asking what it has"):
        if found := images.find(image.id):
            return _named(host, images, found, names)
        there = images.layers()
    lacking = [each for each in image.layers if each.chain_id not in there]
    _require_room(host, images, image, lacking)
    if lacking:
        with report.step("verify", "Checking the layers"):
            image.verify(lacking)
    size = sum(each.size for each in {each.diff_id: each for each in lacking}.values())
    title = f"Sending {len(lacking)} of {len(image.layers)} layers"
    with report.step("send", title):
        sent = images.load(
            image, lacking, names, lambda done, total: report.progress("send", done, total)
        )
    if not (found := images.find(names[0])):
        raise EngineError(f'The engine of "{host.name}" took the image, and does not have it')
    present = len(image.layers) - len(lacking)
    return Pushed(host.name, found.id, names, len(lacking), present, size, sent)


def _named(host: Host, images: Images, found: KnownImage, names: tuple[str, ...]) -> Pushed:
    """One that is there already, by further names if it has others."""
    for each in names:
        if each not in found.names:
            images.tag(found.id, each)
    return Pushed(host.name, found.id, names, 0, found.layers, 0, 0)


def _names(wanted: Wanted, own: Sequence[str]) -> tuple[str, ...]:
    return (full_name(wanted.tag),) if wanted.tag else tuple(own)


def _require_room(host: Host, images: Images, image: Image, layers: Sequence[Layer]) -> None:
    """Where a login is known, so that nothing is sent in vain. Raises EngineFull."""
    if not layers or not host.has_login:
        return
    if not (folder := images.folder()):
        return
    needed = images.room(layers)
    try:
        with host.guest(timeout=LOGIN) as guest:
            said = guest.run("df", "-P", "-k", folder).stdout
        free = int(said.splitlines()[-1].split()[3]) << 10
    except (GuestError, CommandFailed, TimedOut, ValueError, IndexError):
        return
    if free < needed:
        raise EngineFull(
            f'There is no room for {image.title} on "{host.name}"',
            details=f"{needed >> 20} MiB are needed in {folder} while it is loaded, "
            f"and {free >> 20} MiB are free",
            hint=f"See what takes it: machine ssh {host.name} sudo du -xhd1 {folder}\n"
            "Remove images and containers there, or make a machine with a larger disk",
        )


@contextmanager
def _spool() -> Iterator[IO[bytes]]:
    """A file of the cache that has no name: it is gone with this process, however that ends."""
    with ExitStack() as stack:
        with _kept():
            cache_root().mkdir(parents=True, exist_ok=True)
            spool = stack.enter_context(tempfile.TemporaryFile(dir=cache_root()))
        yield spool


@contextmanager
def _kept() -> Iterator[None]:
    """What the cache could not keep is said as elsewhere."""
    try:
        yield
    except OSError as exc:
        raise download.cannot_write(cache_root() / "image", exc, MachineError) from exc

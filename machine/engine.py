"""The contract of one container runtime: what it needs, how it is configured, how it answers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from machine.errors import BadOption, EngineUnreachable, Unsupported
from machine.model import (
    Address,
    BundleKind,
    EngineInfo,
    EngineOptions,
    FileChange,
    GuestFile,
    Project,
    Standing,
    TlsFiles,
    Verdict,
)
from machine.wait import Deadline

if TYPE_CHECKING:
    from machine.container_image import Images
    from machine.guest import Guest
    from machine.provisioner import Provisioner
    from machine.swarm import Swarm

VERSION: Final = re.compile(r"\d[0-9A-Za-z.+~-]*")
GOARCH: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""uname -m to the word that Go's builds, and Debian, have for it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a `packages` bundle of an engine is made of, for one release of a distribution."""

    packages: tuple[str, ...]  # names whose closure is bundled; the first gives its version


@dataclass(frozen=True, slots=True)
class Archive:
    """What a `static` bundle of an engine is made of: upstream's own tar archive in gzip, of
    programs that need nothing of a distribution's. It lies unchanged in ``archive/`` of the
    bundle. ``file`` and ``url`` name {version}, {arch} (uname -m) or {goarch}."""

    file: str  # "docker-{version}.tgz"
    url: str  # the folder it is in
    programs: tuple[str, ...]  # members without which it is not it, each an executable

    def name(self, arch: str, version: str = "VERSION") -> str:
        return self.file.format(version=version, arch=arch, goarch=GOARCH.get(arch, arch))

    def location(self, arch: str, version: str = "VERSION") -> str:
        folder = self.url.format(version=version, arch=arch, goarch=GOARCH.get(arch, arch))
        return f"{folder}/{self.name(arch, version)}"

    def version_of(self, file: str, arch: str) -> str:
        """The version that a file's name says; "" for one that is not named as upstream's."""
        before, after = self.name(arch, "\0").split("\0")
        version = file.removeprefix(before).removesuffix(after)
        fits = VERSION.fullmatch(version) and file == self.name(arch, version)
        return version if fits else ""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The engine's side of mutual TLS, as PEM."""

    ca: bytes
    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine is to be on one host."""

    tls: ServerTls
    port: int  # of its TLS listener
    options: EngineOptions = field(default_factory=EngineOptions)
    labels: Mapping[str, str] = field(default_factory=dict)
    adopt: bool = False  # its own configuration stays: only TLS and the listener are ours
    former: EngineOptions = field(default_factory=EngineOptions)
    """What it was configured with before: what is in ``options`` no more is taken back."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Everything on a host that installing, configuring and starting an engine may change."""

    files: tuple[str, ...]
    trees: tuple[str, ...]  # folders that hold nothing but the engine's programs
    in_use: tuple[str, ...] = field(default=(), kw_only=True)  # links in those, to what is in use
    units: tuple[str, ...]  # its services, in the order to stop them
    group: str  # whoever is in it may use the engine
    data: tuple[str, ...]  # what belongs to its user: never touched
    folders: tuple[str, ...] = ()  # that it makes besides, and may leave empty
    erasers: tuple[str, ...] = ()  # programs by which packages delete that when they are purged


class Engine(ABC):
    """One container runtime on one guest. Every method may be called twice; none uses the network
    from inside the guest."""

    name: ClassVar[str]
    port: ClassVar[int]  # of its TLS listener, unless another is asked for
    service: ClassVar[str]  # what its log is found under on a guest
    unit: ClassVar[str]  # what the service manager starts it by
    door: ClassVar[str] = ""
    """A file that it opens when it starts, before it has become anybody (no id, no state, no
    socket): where that is a pipe it waits, and a warm machine's memory is saved there. "" if there
    is none: its machines do not start warm."""
    archive: ClassVar[Archive | None] = None  # None: there are no static bundles of it

    def __init__(self, guest: Guest, provisioner: Provisioner) -> None:
        self.guest = guest
        self.provisioner = provisioner

    @classmethod
    @abstractmethod
    def recipe(cls, os_id: str, os_version: str) -> Recipe | None:
        """What to bundle for a release of a distribution; None where there are no packages of it,
        or none that are known."""

    @abstractmethod
    def installed_version(self) -> str | None:
        """The version that is installed on the guest; None if there is none. Raises EngineError for
        one that is there and does not run."""

    def installed_kind(self) -> str:
        """What kind of bundle (BundleKind) the programs in use are, or could be, from; "" where
        there are none."""
        return BundleKind.PACKAGES if self.installed_version() is not None else ""

    @abstractmethod
    def install(self, folder: str, kind: str, *, exact: bool = False) -> None:
        """Install from a verified bundle of ``kind`` (BundleKind) in ``folder`` on the guest:
        package files are in ``packages/`` of it, upstream's archive in ``archive/``. What is
        installed already is replaced by what is newer, and by anything else only if it is to be
        ``exact``. Starts nothing, and leaves what is needed to go back: programs of another kind or
        release, until ``tidy``. Killed in between, ``installed_version`` is None or the call is
        repeated."""

    def tidy(self) -> None:
        """Remove programs of ours that are not in use any more. Called when an upgrade, or the
        way back from one, has come to its end."""
        return

    @abstractmethod
    def changes(self, settings: Settings, kind: str = "") -> Sequence[FileChange]:
        """What ``configure`` would write: daemon configuration, TLS files, the listener. Keys of
        the user's that are already in the configuration are kept. Only looks. ``kind`` is of the
        bundle that the engine is still to be installed from, where there is none yet. Raises
        EngineError for what of the user's does not go with it, and says what to do."""

    @abstractmethod
    def configure(self, settings: Settings) -> bool:
        """Make the ``changes``; True if there were any. Does not restart."""

    @abstractmethod
    def footprint(self) -> Footprint:
        """What may be changed on this host, whatever the settings are and whatever it is installed
        from."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it, so that nothing but ``restart`` starts it again before the next boot."""

    def at_stake(self) -> str:
        """What ends when it is restarted now, in a few words; "" where nothing does."""
        return ""

    @classmethod
    def boots_configured(cls, options: EngineOptions) -> bool:
        """Whether ``first_boot`` can configure it before it ever ran. False for options that it
        has to look at itself before they are believed: those go the way of ``configure``."""
        return False

    @classmethod
    def first_boot(cls, kind: str, settings: Settings) -> tuple[GuestFile, ...]:
        """What ``configure`` would write on a host with systemd that has the engine from a bundle
        of ``kind`` and ran it never, and what starts it at every boot. Called when
        ``boots_configured``."""
        raise NotImplementedError

    @classmethod
    def rehearsal(cls) -> str:
        """A shell script that is run as root on a machine that becomes a warm layer: what makes
        its first start cheaper, with nothing of its state left. Called where there is a door."""
        return ""

    @abstractmethod
    def restart(self) -> None:
        """Start it with the configuration as it is now, at every boot too. If it does not come up
        with a changed configuration, and did with the old one, put that back. Raises EngineError."""

    @classmethod
    @abstractmethod
    def probe(cls, address: Address, tls: TlsFiles, *, timeout: float) -> EngineInfo:
        """Ask the engine for its version from here, over mutual TLS (standard library only: `ls`
        calls it for every machine). Raises EngineUnreachable with the reason."""

    @classmethod
    def survey(
        cls, engines: Mapping[str, tuple[Address, TlsFiles]], *, timeout: float
    ) -> Iterator[tuple[str, EngineInfo | EngineUnreachable]]:
        """``probe`` of many, by name, each answer as soon as it is there, in any order; ``timeout``
        is seconds for all. Called in a thread. Override where they can all be asked at once: here
        one after the other is, each with its share of the time that is left."""
        deadline = Deadline(timeout)
        for at, (name, (address, tls)) in enumerate(engines.items()):
            share = max(deadline.left, 0.1) / (len(engines) - at)
            try:
                yield name, cls.probe(address, tls, timeout=share)
            except EngineUnreachable as exc:
                yield name, exc

    @classmethod
    def api(
        cls, address: Address, tls: TlsFiles, *, timeout: float = 60
    ) -> AbstractContextManager[Any]:
        """A client of its API, for the engine's own code (``swarm`` and the like) alone. Entering it
        raises EngineUnreachable; leaving it, EngineError or EngineUnreachable for what the client has
        raised."""
        raise Unsupported(f"{cls.name} has no API that is known here")

    @classmethod
    def swarm(cls, client: Any) -> Swarm:
        """Its Swarm, by a client that ``api`` gave. Raises Unsupported where it has none."""
        raise Unsupported(f"{cls.name} has no Swarm mode")

    @classmethod
    def images(cls, client: Any) -> Images:
        """Its images, by a client that ``api`` gave. Raises Unsupported where none can be sent."""
        raise Unsupported(f"{cls.name} takes no images from here")

    @classmethod
    def standing(cls, client: Any) -> Standing:
        """By a client of ``api``. Called seldom: it may cost the host some work. Raises as that."""
        raise Unsupported(f"{cls.name} has no API that is known here")

    @classmethod
    def containers(cls, client: Any) -> Mapping[str, str]:
        """The containers on the host, by name, and the engine's word for the state of each, of which
        "running" is one. By a client of ``api``; one call that an idle host hardly notices, for
        `top` makes it every few seconds. Raises as ``api``."""
        raise Unsupported(f"{cls.name} has no API that is known here")

    @classmethod
    def check(cls, guest: Guest, client: Any, address: Address) -> Iterator[Verdict]:
        """Start small containers and show what they are made of, each verdict as soon as it is
        there. ``client`` is what ``api`` gave. What was made, by a check that was killed too, is gone
        when the iterator ends or is closed. Called by one process at a time. Raises GuestError and
        EngineError where nothing can be shown."""
        raise Unsupported(f"{cls.name} has nothing that a check could look at")

    @classmethod
    def url(cls, address: Address) -> str:
        """What a client is pointed at: "tcp://HOST:PORT"."""
        at = address.engine_at
        host = f"[{at}]" if ":" in at else at
        return f"tcp://{host}:{address.engine_port}"

    @classmethod
    def client_env(cls, url: str, tls_folder: Path) -> dict[str, str | None]:
        """Variables that make its client talk to ``url``; None means: unset."""
        raise NotImplementedError

    @classmethod
    def project(
        cls, arguments: Sequence[str], env: Mapping[str, str | None], exclude: Sequence[str] = ()
    ) -> Project:
        """What its client would do with a project of several containers, for `compose`. ``exclude``
        are patterns of the user's besides those of the project. Raises PreflightError where the
        program for it is missing, and EngineError for a project that it cannot read."""
        raise Unsupported(f"{cls.name} has no compose that is known here")

    @classmethod
    def check_context(cls, name: str, mark: str) -> None:
        """Called before a machine is made that its client shall know by name. ``mark`` is the
        machine's id. Raises BadOption or EngineError when that cannot be."""
        raise BadOption(f"The client of {cls.name} knows no contexts", hint="Leave --context out")

    @classmethod
    def write_context(cls, name: str, url: str, tls: TlsFiles, mark: str) -> None:
        """Make the client know the machine by name, or renew what it knows. Twice is fine."""
        cls.check_context(name, mark)

    @classmethod
    def remove_context(cls, name: str, mark: str) -> None:
        """Take that away again, if it has the machine's mark. Twice is fine."""
        return

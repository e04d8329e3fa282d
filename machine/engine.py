"""The contract of one container runtime: what it needs, how it is configured, how it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from machine.errors import BadOption
from machine.guest import Guest
from machine.model import Address, EngineInfo, EngineOptions, TlsFiles
from machine.provisioner import Provisioner


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a bundle of an engine is made of, on one kind of guest."""

    packages: tuple[str, ...]  # names whose closure makes a `packages` bundle


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The engine's side of mutual TLS, as PEM."""

    ca: bytes
    cert: bytes
    key: bytes


class Engine(ABC):
    """One container runtime on one guest. Every method may be called twice; none uses the network
    from inside the guest."""

    name: ClassVar[str]
    port: ClassVar[int]  # its TLS listener

    def __init__(self, guest: Guest, provisioner: Provisioner) -> None:
        self.guest = guest
        self.provisioner = provisioner

    @classmethod
    @abstractmethod
    def recipe(cls, os_id: str, os_version: str) -> Recipe | None:
        """What to bundle for a release of a distribution; None where it is not known."""

    @abstractmethod
    def installed_version(self) -> str | None:
        """The version that is installed on the guest; None if there is none."""

    @abstractmethod
    def install(self, folder: str, kind: str) -> None:
        """Install from an unpacked and verified bundle of ``kind`` ("packages") in
        ``folder`` on the guest. Starts nothing."""

    @abstractmethod
    def configure(self, options: EngineOptions, labels: Mapping[str, str], tls: ServerTls) -> bool:
        """Write daemon configuration, TLS files and unit drop-in; True if anything changed.
        Keys of the user's that are already in the configuration are kept. Does not restart."""

    @abstractmethod
    def restart(self) -> None:
        """Start it with the configuration as it is now, at every boot too. If it does not come up
        with a changed configuration, put the old one back and raise EngineError."""

    @classmethod
    @abstractmethod
    def probe(cls, address: Address, tls: TlsFiles, *, timeout: float) -> EngineInfo:
        """Ask the engine for its version from here, over mutual TLS (standard library only: `ls`
        calls it for every machine). Raises EngineUnreachable with the reason."""

    @classmethod
    def url(cls, address: Address) -> str:
        """What a client is pointed at: "tcp://HOST:PORT"."""
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"tcp://{host}:{address.engine_port}"

    @classmethod
    def client_env(cls, url: str, tls_folder: Path) -> dict[str, str | None]:
        """Variables that make its client talk to ``url``; None means: unset."""
        raise NotImplementedError

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

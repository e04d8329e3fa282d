"""One machine with everything that can be done to it: its record, driver, engine and guest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from machine import registry
from machine.driver import Driver, HostRef
from machine.engine import Engine
from machine.errors import EngineError, GuestError, HostError, HostGone, HostNotRunning
from machine.events import Reporter
from machine.flags import as_dict, from_dict, secret_keys, within
from machine.model import Address, Can, EngineInfo, Login, Setup, Source, State, TlsFiles
from machine.paths import MachineFolder
from machine.record import Block, Record
from machine.store import Store

if TYPE_CHECKING:
    from machine.container_image import Images
    from machine.ssh import SshGuest
    from machine.swarm import Swarm


@dataclasses.dataclass
class Host:
    """A machine of the store. Making one loads its driver's code, and asks nobody anything."""

    store: Store
    record: Record
    report: Reporter = dataclasses.field(default_factory=Reporter)

    @classmethod
    def load(cls, store: Store, name: str, report: Reporter | None = None) -> Self:
        """Raises HostNotFound, RecordDamaged, StoreError. Whether the driver is installed shows
        when ``driver`` is first used (DriverNotFound)."""
        return cls(store, store.load(name), report or Reporter(host=name))

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def block(self) -> Block:
        return self.record.ours

    @property
    def folder(self) -> MachineFolder:
        return self.store.folder(self.name)

    @property
    def login(self) -> Login:
        """How to log in to it over SSH."""
        ours = Login(self.block.user, self.folder.known_hosts, (self.folder.ssh_key,))
        return self.driver.login(ours)

    @property
    def setup(self) -> Setup:
        return Setup(self.block.setup)

    @property
    def engine_port(self) -> int:
        """Where the engine listens on the host itself."""
        return self.block.engine_port or self.engine.port

    @property
    def is_asked(self) -> bool:
        """Whether its engine can be asked over TLS: it has our certificates, or theirs are known."""
        return self.is_changed or self.driver.certificates() is not None

    @cached_property
    def driver(self) -> Driver[Any, Any]:
        cls = registry.driver(self.record.driver_name)
        block = self.block
        return cls(
            HostRef(self.name, block.id, self.folder.root),
            from_dict(cls.config_type, self._config(cls.config_type)),
            from_dict(cls.facts_type, block.facts),
            checkpoint=self._checkpoint,
            report=self.report,
        )

    @cached_property
    def engine(self) -> type[Engine]:
        return registry.engine(self.block.engine)

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.folder.ca, self.folder.client_cert, self.folder.client_key)

    @property
    def is_changed(self) -> bool:
        """Whether anything is changed on it: not on what is only registered."""
        return self.has_login and self.setup is not Setup.REGISTER

    @property
    def has_login(self) -> bool:
        """Whether anybody can log in to it: not where only its engine is known."""
        return self.driver.source is not Source.ENGINE

    def state(self) -> State:
        return self.driver.state()

    def address(self) -> Address:
        return self.driver.address()

    def url(self) -> str:
        return self.engine.url(self.address())

    def require_running(self) -> None:
        """Raises HostNotRunning, or HostGone when the provider does not know it any more."""
        state = self.state()
        if state is State.MISSING:
            raise HostGone(
                f'"{self.name}" does not exist any more at its provider ({self.record.driver_name})',
                hint=f"Forget it with: machine rm {self.name}",
            )
        if state is not State.RUNNING:
            exc = HostNotRunning(self.name, state)
            if Can.POWER not in self.driver.can:
                exc.details, exc.hint = self.driver.explain(), ""
            raise exc

    def ask(self, *, timeout: float = 20) -> EngineInfo:
        """The engine's own answer over mutual TLS, from here. Raises EngineUnreachable, and
        EngineError where no certificates of it are known."""
        self._connect()
        return self.engine.probe(self.address(), self.tls, timeout=timeout)

    @contextmanager
    def api(self, *, timeout: float = 60) -> Iterator[Any]:
        """A client of its engine's API, to be handed to the engine's own code. Raises as ``ask``."""
        self._connect()
        with self.engine.api(self.address(), self.tls, timeout=timeout) as client:
            yield client

    @contextmanager
    def swarm(self, *, timeout: float = 60) -> Iterator[Swarm]:
        """Its engine's Swarm. Raises as ``ask``, and Unsupported for an engine without one."""
        with self.api(timeout=timeout) as client:
            yield self.engine.swarm(client)

    @contextmanager
    def images(self, *, timeout: float = 20) -> Iterator[Images]:
        """Its engine's images. Raises as ``ask``, and Unsupported for an engine that takes none."""
        with self.api(timeout=timeout) as client:
            yield self.engine.images(client)

    def require_ours(self) -> None:
        """Raises HostError for a host that nothing is to be changed on."""
        if not self.is_changed:
            raise HostError(
                f'"{self.name}" is only registered here: nothing on it is changed',
                hint=f"To have its engine set up: machine rm {self.name}, then create it with --adopt",
            )

    def require_complete(self) -> None:
        """Raises HostError while its create has not ended."""
        if not self.block.journal.finished:
            raise HostError(
                f'The create of "{self.name}" has not ended',
                hint=f"machine create --resume {self.name}",
            )

    def require_login(self) -> None:
        """Raises GuestError for one that only the engine is known of."""
        if not self.has_login:
            raise GuestError(
                f'No login to "{self.name}" is known: only its engine is',
                hint="The generic driver knows hosts by their SSH",
            )

    def client_env(self) -> dict[str, str | None]:
        """The variables that make the engine's client talk to this machine."""
        return self.engine.client_env(self.url(), self.folder.root)

    def guest(self, *, timeout: float = 20) -> SshGuest:
        """Log in; a context manager. Raises GuestUnreachable, HostKeyMismatch, GuestError."""
        from machine import ssh

        self.require_login()
        return ssh.connect(self.address(), self.login, timeout=timeout)

    def save(self) -> None:
        self.store.save(self.record)

    def _connect(self) -> None:
        if not self.is_asked:
            raise EngineError(
                f'The engine of "{self.name}" cannot be asked: no certificates of it are known',
                hint="Remove it, and create it again with the folder that has its ca.pem, cert.pem "
                "and key.pem",
            )
        self.driver.connect()

    def _config(self, config_type: type[Any]) -> dict[str, Any]:
        """What the record has of it; secrets of the machine's own are files of its folder."""
        config = self.block.config
        ours = {
            key: within(config[key], self.folder.root)
            for key in secret_keys(config_type)
            if config.get(key)
        }
        return {**config, **ours}

    def _checkpoint(self, facts: Any) -> None:
        self.block.facts = as_dict(facts)
        self.save()


def certs_lock(store: Store) -> Path:
    """The one lock under which the store's CA is made."""
    return store.folders.locks / "certs.lock"

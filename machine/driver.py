"""The contract of a driver: one host, as its provider sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin

from machine.errors import MachineError, Unsupported, WarmRefused
from machine.events import Reporter
from machine.model import (
    Address,
    Can,
    Login,
    Sighting,
    Size,
    Snapshot,
    Source,
    State,
    Usage,
    VmSpec,
)

C = TypeVar("C")
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class HostRef:
    """Which host of the store a driver object stands for."""

    name: str
    id: str  # UUID: the mark on everything outside, and a VM's own UUID
    folder: Path  # the machine's folder in the store


class Driver(ABC, Generic[C, F]):
    """One host, as its provider sees it.

    The core calls, in this order: ``memory_available``, ``preflight``, ``reserve``, ``create``,
    ``address``, ``settle``; later ``state``, ``address``, the power verbs, ``remove``. A killed
    create is called again from the start of the same call, with the facts of the last ``save``.
    """

    name: ClassVar[str]
    source: ClassVar[Source] = Source.IMAGE
    can: ClassVar[Can] = Can.NOTHING
    experimental: ClassVar[str] = ""
    """One line: that it never ran against its real provider, and what it ran against instead."""
    ignored: ClassVar[Mapping[str, str]] = {}
    """Flags of docker-machine's that do nothing here, and why; one that takes a value has a word
    for it behind: ``{"--virtualbox-boot2docker-url URL": "images come from templates"}``."""
    resizes: ClassVar[frozenset[str]] = frozenset()
    """The fields of ``Size`` that ``resize`` can change."""
    config_type: ClassVar[type[Any]]  # frozen dataclass of machine.flags.option fields
    facts_type: ClassVar[type[Any]]  # frozen dataclass, every field with a default
    """Both are what a class names in ``Driver[Config, Facts]``, unless it says otherwise."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for base in cls.__dict__.get("__orig_bases__", ()):
            origin, types = get_origin(base), get_args(base)
            if isinstance(origin, type) and issubclass(origin, Driver) and len(types) == 2:
                for name, each in zip(("config_type", "facts_type"), types, strict=True):
                    if isinstance(each, type) and name not in cls.__dict__:
                        setattr(cls, name, each)

    def __init__(
        self,
        host: HostRef,
        config: C,
        facts: F,
        *,
        checkpoint: Callable[[F], None] = lambda facts: None,
        report: Reporter | None = None,
    ) -> None:
        self.host = host
        self.config = config
        self.facts = facts
        self._checkpoint = checkpoint
        self.report = report or Reporter()

    @classmethod
    def size(cls, config: C) -> Size:
        """What the user chose of the host's size, where options say it in other words or units."""
        return Size(
            getattr(config, "cpus", None),
            getattr(config, "memory", None),
            getattr(config, "disk_size", None),
        )

    def save(self, facts: F) -> None:
        """Put what was learned on disk now: called before waiting on anything that was made."""
        self.facts = facts
        self._checkpoint(facts)

    def memory_available(self) -> int | None:
        """MiB that new hosts can have at its provider now; None where that is not known, or is no
        bound. Called once before hosts are made, of one of them. May raise what ``preflight``
        does."""
        return None

    def preflight(self) -> None:
        """Called before anything is made; makes nothing. Raises PreflightError saying what is
        missing and the exact remedy. Checks this machine's own config too (address, pool)."""

    def reserve(self, engine_port: int) -> Address | None:
        """Called before ``create``: choose how the host will be reached, and keep it, so that its
        certificate is there at its first boot. Twice is fine; ``remove`` gives it back. None where
        only the provider can tell, once the host is there."""
        return None

    @abstractmethod
    def create(self, spec: VmSpec) -> None:
        """Make the host and start it. Called again after a kill: finds what the earlier call made
        (by ``host.id``) and goes on or starts over. Does not wait for the guest to boot. Raises
        WarmRefused when ``spec.warm`` cannot be started from: called again without it then."""

    def warm_inputs(self, spec: VmSpec) -> Mapping[str, str]:
        """What the memory of a machine like this depends on at its provider: programs, versions,
        processor, devices. Raises WarmRefused where there is no warm start, and says why."""
        raise WarmRefused(f"the {self.name} driver cannot start a machine from saved memory")

    def save_warm(self, spec: VmSpec, folder: Path, marker: bytes) -> Mapping[str, Any]:
        """Boot a machine of ``spec`` that is nobody's, wait until its console says ``marker``, and
        save its memory into ``folder``; answers what ``VmSpec.warm`` is to hand back as facts.
        Nothing else of it is left, and nothing at all when it fails. Raises DriverError, TimedOut."""
        raise Unsupported(f"The {self.name} driver saves no memory")

    @abstractmethod
    def state(self) -> State:
        """One call to the provider. MISSING and UNKNOWN (provider not reached) are answers."""

    @abstractmethod
    def address(self) -> Address:
        """How to reach it from here. Raises DriverError while it is not known yet."""

    def peer_address(self) -> str:
        """Where other machines of the same user reach it (for a Swarm); it is, or is brought to, one
        of the host's own. Raises DriverError where there is none."""
        return self.address().host

    def login(self, ours: Login) -> Login:
        """How to log in; ``ours`` is with the key that was made for the machine."""
        return ours

    def host_key(self) -> str:
        """The public SSH host key of a host that has one already ("ssh-ed25519 AAAA..."), which
        ``preflight`` found and the user took for right; "" for hosts that are given ours."""
        return ""

    def certificates(self) -> Path | None:
        """A folder with the ca.pem, cert.pem and key.pem that an engine which is not set up by us
        is asked with; None where it has ours, or none at all. An option ``tls_folder`` says it."""
        folder = getattr(self.config, "tls_folder", "")
        return Path(folder).expanduser().absolute() if folder else None

    def connect(self) -> None:
        """Called before the engine is asked or its URL handed out: brings up what ``address``
        needs to be true here. Twice is fine. Raises DriverError."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the host and everything made for it, running or not. Twice is fine, and so is
        half a create. Raises nothing for what is already gone."""

    def settle(self) -> None:
        """Called when the host has been reached for the first time: remove first-boot media and the
        secrets on them. Twice is fine."""

    def start(self) -> None:
        """Start a stopped host; does not wait for the guest. Starting a running one is fine."""
        raise Unsupported(f"The {self.name} driver cannot start a machine")

    def stop(self) -> None:
        """Ask the guest to shut down and return at once; the caller waits on ``state``."""
        raise Unsupported(f"The {self.name} driver cannot stop a machine")

    def kill(self) -> None:
        """Power off at once; returns when it is off. Killing a stopped host is fine."""
        raise Unsupported(f"The {self.name} driver cannot kill a machine")

    def pause(self) -> None:
        raise Unsupported(f"The {self.name} driver cannot pause a machine")

    def resume(self) -> None:
        raise Unsupported(f"The {self.name} driver cannot resume a machine")

    def snapshot(self, name: str) -> None:
        """Keep the machine's present state under a new name. Raises DriverError for one it has."""
        raise Unsupported(f"The {self.name} driver keeps no snapshots")

    def snapshots(self) -> Sequence[Snapshot]:
        """What was kept, the oldest first."""
        raise Unsupported(f"The {self.name} driver keeps no snapshots")

    def restore(self, name: str) -> None:
        """Return a stopped machine to a kept state. Raises DriverError for one that is not there."""
        raise Unsupported(f"The {self.name} driver keeps no snapshots")

    def delete_snapshot(self, name: str) -> None:
        """Forget a kept state; the machine stays as it is. Raises DriverError for one that is not
        there."""
        raise Unsupported(f"The {self.name} driver keeps no snapshots")

    def resize(self, wanted: Size) -> Mapping[str, Any]:
        """Change the size of a stopped machine: of ``wanted`` only what ``resizes`` names, and a
        disk only to a larger one. Returns once it is true; answers the options that say it from now
        on, by key. Twice is fine. Raises PreflightError for a kind that there is not, DriverError."""
        raise Unsupported(f"The {self.name} driver cannot change a machine's size")

    def console(self, offset: int = 0) -> tuple[bytes, int]:
        """The serial log from byte ``offset`` on, and the offset to ask with next. Works in any
        state; (b"", offset) when there is nothing new."""
        raise Unsupported(f"The {self.name} driver keeps no console log")

    def explain(self) -> str:
        """Called when a boot failed: what the provider knows (one or two lines), or ""."""
        return ""

    @classmethod
    def survey(cls, drivers: Sequence[Self]) -> Mapping[str, Sighting]:
        """States (and addresses of running ones) of many hosts, by name; never raises for one of
        them. Override where the provider can answer for all in one call."""
        seen: dict[str, Sighting] = {}
        for driver in drivers:
            try:
                state = driver.state()
                address = driver.address() if state is State.RUNNING else None
            except MachineError as exc:
                seen[driver.host.name] = Sighting(State.UNKNOWN, problem=exc.brief)
            else:
                seen[driver.host.name] = Sighting(state, address)
        return seen

    @classmethod
    def usage(cls, drivers: Sequence[Self]) -> Mapping[str, Usage]:
        """What running ones take, by name, as far as the provider tells it and the hosts themselves
        need not be asked; never raises for one of them. `top` calls it every few seconds, in a
        thread. Override where one call to the provider answers for all."""
        return {}

    @classmethod
    def prune(
        cls, drivers: Sequence[Self], keep: frozenset[str], gone: frozenset[str], *, dry_run: bool
    ) -> Mapping[str, int]:
        """Remove what this provider holds for all machines and none needs any more; answers names
        and bytes. ``drivers`` are all machines of the store; ``keep`` and ``gone`` are what facts
        of ``save_warm`` named, of layers that stay and of those that are removed now. ``dry_run``
        only answers. Providers that do not answer are passed over."""
        return {}

    @classmethod
    def findings(cls, store: Path, known_ids: frozenset[str], *, fix: bool) -> Sequence[Finding]:
        """What `machine doctor` should say of this driver's provider: what is missing for it to
        work, and things of ours (by their mark) whose id no record of ``store`` knows. ``fix``
        repairs what is safe: another store's things are named, and left alone."""
        return ()

    @classmethod
    def strays(cls, drivers: Sequence[Self], known_ids: frozenset[str]) -> Sequence[Finding]:
        """What `machine doctor` should say of hosts with our mark whose id no record knows, where
        only machines' own configs tell where to look. ``drivers`` are all machines of the store
        that are this driver's; without any, nobody is asked who is not configured otherwise."""
        return ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `machine doctor`."""

    level: str  # "ok", "warning", "error"
    subject: str  # "libvirt", "store", "machine worker1"
    text: str
    remedy: str = ""  # the command to type
    fixed: bool = False

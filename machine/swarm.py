"""The contract of engines that act as one: what workflows see of a Swarm, from one of its engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

PORT: Final = 2377
"""Of managers, where members and those who join reach them."""


class Role(StrEnum):
    MANAGER = "manager"
    WORKER = "worker"


class Availability(StrEnum):
    """What a node is given to do: ``DRAIN`` takes away what it has."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Membership:
    """What an engine says of itself. ``state`` is "inactive" where it is in no Swarm, "locked" where
    it waits for its unlock key, "error" or "pending" where it does not get in; else "active"."""

    state: str
    node: str = ""  # its id
    role: Role | None = None  # as it plays it, which the Swarm may have changed a moment ago
    cluster: str = ""  # the Swarm's id; only managers know it
    address: str = ""
    managers: tuple[str, ...] = ()  # ADDRESS:PORT, of those that it knows
    problem: str = ""
    folder: str = ""  # on its host, what it knows of its Swarm
    certificate: str = ""  # likewise, the file with its own (PEM)

    @property
    def is_in(self) -> bool:
        return self.state != "inactive"

    @property
    def is_manager(self) -> bool:
        return self.state == "active" and self.role is Role.MANAGER


@dataclass(frozen=True, slots=True)
class Node:
    """What a manager knows of a member."""

    id: str
    name: str  # the host's
    role: Role
    availability: Availability
    state: str  # "ready", "down", "unknown", "disconnected"
    address: str = ""
    leader: bool = False
    reachable: bool = False  # of managers, by the others
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a node comes into a Swarm. Addresses are without ports; ``data_path`` is where containers'
    own traffic goes, "" for the advertised one."""

    address: str
    data_path: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a new Swarm is to be."""

    pools: tuple[str, ...] = ()  # of addresses for its overlay networks, "10.20.0.0/16"
    subnet_bits: int = 24  # of each of those networks
    data_path_port: int = 0  # 0: the engine's own, 4789 of UDP
    autolock: bool = False  # a manager that restarts waits for the unlock key
    from_its_state: bool = False  # what this manager knows of a lost one goes on in the new one


def reasons(waiting: Sequence[str]) -> list[str]:
    """Of what ``Swarm.waiting`` answers, each once."""
    return sorted(set(filter(None, waiting)))


@dataclass(frozen=True, slots=True)
class Certificates:
    """``authority`` is that of the Swarm (PEM), which members trust. Their own are valid for
    ``member_days``, and renewed by themselves in time while they are on."""

    authority: bytes
    member_days: int


class Swarm(ABC):
    """One engine's view of its Swarm. Every call raises EngineUnreachable or EngineError; what only
    a manager knows or may do, a worker's engine refuses."""

    @abstractmethod
    def membership(self) -> Membership:
        """Of this engine; the only thing that one that is in no Swarm answers."""

    @abstractmethod
    def init(self, entrance: Entrance, cluster: Cluster) -> None:
        """Begin a Swarm, with this engine as its first manager. Refused for one that is in one."""

    @abstractmethod
    def join(self, entrance: Entrance, managers: Sequence[str], token: str) -> None:
        """Become a member of the Swarm of ``managers`` (addresses): as what, the token says. Returns
        when it is one. Refused for one that is in one."""

    @abstractmethod
    def leave(self, *, force: bool) -> None:
        """Go, and forget what was known. A manager only goes by force."""

    @abstractmethod
    def nodes(self) -> Sequence[Node]:
        """All members. Refused where the managers have no quorum."""

    @abstractmethod
    def change(
        self,
        node: str,
        *,
        role: Role | None = None,
        availability: Availability | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Give a node another role or availability, or ``labels`` besides those it has. Twice is fine.
        Returns when it is decided, which is before it is so."""

    @abstractmethod
    def remove(self, node: str) -> None:
        """Take a node off the list: a worker that has left, or is lost. Twice is fine."""

    @abstractmethod
    def tasks(self) -> Mapping[str, int]:
        """By node, how many tasks run there (or are about to, or have not ended yet)."""

    @abstractmethod
    def waiting(self) -> Sequence[str]:
        """For each task that is to run and does not yet, why no node takes it; "" while one may."""

    @abstractmethod
    def token(self, role: Role, *, rotate: bool = False) -> str:
        """What lets others join as ``role``; a secret. ``rotate`` makes the present one worthless."""

    @abstractmethod
    def unlock_key(self, *, rotate: bool = False) -> str:
        """Of a Swarm whose managers lock themselves; "" of one whose managers do not. A secret."""

    @abstractmethod
    def unlock(self, key: str) -> None:
        """Let a manager that has restarted go on."""

    @abstractmethod
    def certificates(self) -> Certificates:
        """What members know each other by."""

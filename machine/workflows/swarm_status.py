"""What a Swarm is like at this moment, as one of its managers tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from machine import tls
from machine.errors import MachineError
from machine.host import Host
from machine.store import Store
from machine.swarm import Node, Role
from machine.workflows import managers, quorum

MOST: Final = 8
"""Members that are logged in to at once."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A node, and the machine that it is; "" where the store has none."""

    node: Node
    machine: str
    tasks: int
    certificate_ends: str = ""
    """The day (ISO 8601); "" where it was not asked for, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Status:
    """``authority_ends`` is the day that the Swarm's own authority ends (ISO 8601); ``certificate_days``
    is how long a member's is valid, which is renewed by itself while it is on."""

    cluster: str
    told_by: str
    managers: quorum.Managers
    seats: Sequence[Seat]
    authority_ends: str
    certificate_days: int
    waiting: Sequence[str]  # of each task that is to run and does not yet, why no node takes it
    astray: Mapping[str, str] = field(default_factory=dict)  # machines that think they are in it

    @property
    def leader(self) -> str:
        return next((each.node.name for each in self.seats if each.node.leader), "")


@dataclass(frozen=True, slots=True)
class Known:
    """A Swarm of the store's machines, as a listing shows it."""

    cluster: str
    machines: Sequence[str]
    managers: quorum.Managers | None  # None: no manager answers
    nodes: int = 0
    problem: str = ""


def status(store: Store, name: str, *, certificates: bool = False) -> Status:
    """Of the Swarm that a machine is in. ``certificates`` logs in to its machines, to read until when
    each one's own is valid. Raises HostError for one that is in none, SwarmUnreachable."""
    with managers.managed(store, name) as lead:
        names, tasks = managers.machines(store, lead), lead.swarm.tasks()
        trust = lead.swarm.certificates()
        ends = _certificates_end(store, names) if certificates else {}
        seats = [
            Seat(node, names.get(node.id, ""), tasks.get(node.id, 0), ends.get(node.id, ""))
            for node in sorted(lead.nodes, key=lambda node: (node.role is Role.WORKER, node.name))
        ]
        return Status(
            cluster=lead.cluster,
            told_by=lead.host.name,
            managers=quorum.Managers.of(lead.nodes),
            seats=seats,
            authority_ends=tls.ends(trust.authority).date().isoformat(),
            certificate_days=trust.member_days,
            waiting=lead.swarm.waiting(),
            astray=_astray(store, lead),
        )


def known(store: Store) -> list[Known]:
    """Every Swarm that a record of the store names."""
    by_cluster: dict[str, list[str]] = defaultdict(list)
    for record in store.ours():
        if record.ours.swarm:
            by_cluster[record.ours.swarm].append(record.name)
    return [_known(store, cluster, names) for cluster, names in sorted(by_cluster.items())]


def _known(store: Store, cluster: str, names: Sequence[str]) -> Known:
    try:
        with managers.managed(store, names[0]) as lead:
            return Known(cluster, names, quorum.Managers.of(lead.nodes), len(lead.nodes))
    except MachineError as exc:
        return Known(cluster, names, None, problem=exc.brief)


def _certificates_end(store: Store, names: Mapping[str, str]) -> dict[str, str]:
    """By node: the day, of those whose machine lets it be read."""

    def ends(name: str) -> str:
        try:
            host = Host.load(store, name)
            with host.swarm(timeout=managers.ANSWER_TIMEOUT) as own:
                file = own.membership().certificate
            with host.guest() as guest:
                content = guest.get(file, sudo=True)
        except MachineError:
            return ""
        return tls.ends(content).date().isoformat() if content else ""

    with ThreadPoolExecutor(max_workers=MOST) as pool:
        return dict(zip(names, pool.map(ends, names.values()), strict=True))


def _astray(store: Store, lead: managers.Lead) -> dict[str, str]:
    """Machines whose record says that they are in it, and that its managers do not know."""
    ids = {node.id for node in lead.nodes}
    return {
        record.name: "its managers do not know it"
        for record in store.ours()
        if record.ours.swarm == lead.cluster and record.ours.node not in ids
    }

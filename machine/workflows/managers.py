"""Who can speak for a Swarm: the managers of it among the machines, and which machine is which node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from machine import wait
from machine.errors import HostError, MachineError, SwarmUnreachable, TimedOut
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import State
from machine.store import Store
from machine.swarm import Membership, Node, Role, Swarm

ANSWER_TIMEOUT: Final = 10
"""Seconds for one answer. A manager without a leader keeps its client waiting for some time; another
took 2.5 s for its first list of nodes under emulation."""
SEEN_TIMEOUT: Final = 30
"""Seconds that a leader gives members to report, before they are down for it (dispatcher heartbeat:
5 s, and three of them)."""
ROLE_TIMEOUT: Final = 120
"""Seconds until a node plays a role that it was given; some 10 were seen under emulation."""


@dataclass(frozen=True, slots=True)
class Lead:
    """A manager that answers, and its Swarm as it sees it."""

    host: Host
    swarm: Swarm
    cluster: str
    nodes: Sequence[Node]

    @property
    def addresses(self) -> list[str]:
        """Of all managers that can be reached: whoever joins needs one."""
        return [node.address for node in self.nodes if node.reachable and node.address]

    def node(self, identifier: str) -> Node | None:
        return next((each for each in self.nodes if each.id == identifier), None)


@contextmanager
def managed(store: Store, name: str, *, besides: str = "") -> Iterator[Lead]:
    """A manager of the Swarm that a machine is in: itself, or another machine of the store, but not
    ``besides``. Raises HostError for a machine that is in none, and SwarmUnreachable where no
    manager answers."""
    answers: list[str] = []
    for host in _candidates(store, name):
        if host.name == besides:
            continue
        with ExitStack() as stack:
            try:
                lead = _asked(host, stack)
            except MachineError as exc:
                answers.append(f"{host.name}: {exc.line}")
                continue
            if isinstance(lead, Lead):
                yield lead
                return
            answers.append(f"{host.name}: {lead}")
    raise SwarmUnreachable(name, answers)


def _asked(host: Host, stack: ExitStack) -> Lead | str:
    """Its view of the Swarm, if it is a manager; else what it is."""
    swarm = stack.enter_context(host.swarm(timeout=ANSWER_TIMEOUT))
    now = swarm.membership()
    if now.is_manager and now.cluster:
        return Lead(host, swarm, now.cluster, swarm.nodes())
    return said(now)


def settled(lead: Lead) -> Sequence[Node]:
    """All nodes, once each is seen or given up: a state is unknown while a new leader waits for its
    members to say that they are there."""

    def seen() -> Sequence[Node] | None:
        nodes = lead.swarm.nodes()
        return None if any(node.state == "unknown" for node in nodes) else nodes

    try:
        return wait.until("its nodes to be seen", seen, timeout=SEEN_TIMEOUT)
    except TimedOut:
        return lead.swarm.nodes()


def membership(host: Host) -> Membership:
    """What the engine of a machine that runs says of itself."""
    with host.swarm(timeout=20) as swarm:
        return swarm.membership()


def machines(store: Store, lead: Lead) -> dict[str, str]:
    """Names of machines by the ids of their nodes. One that was brought in by others is found by
    its host's name, and then known."""
    found = {
        record.ours.node: record.name
        for record in store.ours()
        if record.ours.swarm == lead.cluster
    }
    for node in lead.nodes:
        if node.id not in found and store.exists(node.name):
            found.update(_learned(store, node, lead.cluster))
    known = {node.id for node in lead.nodes}
    return {node: name for node, name in found.items() if node in known}


def note(host: Host, cluster: str, node: str) -> None:
    """Write down which Swarm it is in: whoever removes it, on or off, has to know."""
    host.block.swarm, host.block.node, host.block.drained = cluster, node, False
    host.save()


def forget(host: Host) -> None:
    note(host, "", "")


def become(lead: Lead, host: Host, role: Role) -> None:
    """Give a node another role, and wait until it plays it."""
    lead.swarm.change(host.block.node, role=role)

    def plays() -> bool:
        try:
            now = membership(host)
        except MachineError:  # the API of a manager that becomes one answers late
            return False
        return now.role is role and now.state == "active"

    wait.until(
        f'"{host.name}" to be a {role}',
        plays,
        timeout=ROLE_TIMEOUT,
        hint=f"machine swarm status {host.name}",
    )


def seated(store: Store, name: str, emit: Emit = ignore) -> Host:
    """A machine whose record says which node it is, learned from its engine where it was brought in
    by others. Raises HostError for one that is in no Swarm."""
    host = Host.load(store, name, Reporter(emit, name))
    if not host.block.node:
        learn(store, host)
    return host


def learn(store: Store, host: Host) -> None:
    """Write down what its engine says. Raises HostError for one that is in no Swarm."""
    now = membership(host)
    if not now.is_in:
        raise outside(host.name)
    with managed(store, host.name) as lead:
        note(host, lead.cluster, now.node)


def outside(name: str) -> HostError:
    return HostError(
        f'"{name}" is in no Swarm',
        hint=f"Begin one: machine swarm init {name}\n"
        f"or join another machine's: machine swarm join {name} --to MANAGER",
    )


def _candidates(store: Store, name: str) -> Iterator[Host]:
    """The machine itself, then those of its Swarm; of one that others brought in, all machines."""
    first = Host.load(store, name)
    swarm = first.block.swarm
    if swarm or first.state() is State.RUNNING:
        if not swarm and not membership(first).is_in:
            raise outside(name)
        yield first
        for record in store.ours():
            theirs = record.ours.swarm
            if record.name != name and (theirs == swarm if swarm else theirs):
                yield Host(store, record, Reporter(host=record.name))
        return
    raise outside(name)


def _learned(store: Store, node: Node, cluster: str) -> dict[str, str]:
    try:
        host = Host.load(store, node.name)
        if membership(host).node != node.id:
            return {}
        with store.lock(node.name):
            host = Host.load(store, node.name)
            note(host, cluster, node.id)
    except MachineError:
        return {}
    return {node.id: node.name}


def said(now: Membership) -> str:
    if not now.is_in:
        return "in no Swarm"
    as_what = f"as a {now.role}" if now.role else f"and is {now.state}"
    return f"{as_what}: {now.problem}" if now.problem else as_what

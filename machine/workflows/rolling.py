"""The engines of a Swarm, one after the other: no service loses its tasks by it, no two managers are
off at a time, and it stops at the first node that does not come back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from machine import wait
from machine.errors import HostError, MachineError, lines
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.store import Store
from machine.swarm import Node, Role
from machine.workflows import departure, managers, quorum, swarm
from machine.workflows.upgrade import Outcome, Wish, upgrade_host

BACK_TIMEOUT: Final = 180
"""Seconds for a node whose engine answers to be a member again; a new leader is chosen in some 10."""


def order(nodes: Sequence[Node], begun: Collection[str] = ()) -> list[Node]:
    """Workers, then managers, and their leader last. Before them those, by their ids, that an
    earlier run had ``begun`` with: it is one at most, and may be off."""
    return sorted(
        nodes,
        key=lambda node: (
            node.id not in begun,
            node.role is Role.MANAGER,
            node.leader,
            node.name,
        ),
    )


def upgrade(store: Store, name: str, emit: Emit = ignore, *, wish: Wish, yes: bool = False) -> None:
    """``upgrade_host`` for each machine of the Swarm that a machine is in. What is as it should be is
    passed over, so that a second call goes on where the first one stopped. Raises HostError, before
    anything is changed, where a member is down or a manager is not reached; what went wrong with a
    machine is raised with what is still to come."""
    left = _machines(store, name, emit)
    while left:
        machine = _next(store, name, left)
        left.remove(machine)
        try:
            outcome = one(store, machine, emit, wish=wish, yes=yes)
            Reporter(emit, machine).note(outcome.told)
        except MachineError as exc:
            exc.hint = _stopped(exc.hint, machine, left)
            raise


def _machines(store: Store, name: str, emit: Emit) -> list[str]:
    """All of them; what stands in the way of any is told first."""
    with managers.managed(store, name) as lead:
        names, nodes = managers.machines(store, lead), managers.settled(lead)
    _require_whole([node for node in nodes if node.id not in _begun(store, names)], names)
    report = Reporter(emit, name)
    if strangers := [node.name for node in nodes if node.id not in names]:
        report.warn(f"Not machines of this store, and left as they are: {', '.join(strangers)}")
    if quorum.Managers.of(nodes).spare < 1:
        report.note(
            "While a manager restarts there is no quorum: services go on, and nothing can be changed"
        )
    return list(names.values())


def _require_whole(nodes: Sequence[Node], names: Mapping[str, str]) -> None:
    lost = [names.get(node.id, node.name) for node in order(nodes) if not _is_there(node)]
    if lost:
        raise HostError(
            f"Not all of the Swarm is there: {', '.join(lost)}",
            details="One node at a time is taken away from it, and that is so already.",
            hint=f"Bring back what is off: machine start {' '.join(lost)}\n"
            f"Take out what is lost: machine swarm leave --force {' '.join(lost)}",
        )


def _is_there(node: Node) -> bool:
    return node.state == "ready" and (node.role is Role.WORKER or node.reachable)


def _next(store: Store, name: str, left: Sequence[str]) -> str:
    """Who leads may be another one since the last step."""
    with managers.managed(store, name) as lead:
        names = managers.machines(store, lead)
        nodes = [node for node in lead.nodes if names.get(node.id) in left]
    return names[order(nodes, _begun(store, names))[0].id] if nodes else left[0]


def _begun(store: Store, names: Mapping[str, str]) -> set[str]:
    """Nodes that were taken away from the Swarm by this tool, and not given back."""
    return {node for node, name in names.items() if store.load(name).ours.drained}


def one(store: Store, name: str, emit: Emit = ignore, *, wish: Wish, yes: bool = False) -> Outcome:
    """``upgrade_host`` for one member: others take its tasks before, and it is back among them
    afterwards. Two managers at once are its caller's affair."""
    with store.lock(name, wait=5):
        host = managers.seated(store, name, emit)
        host.require_ours()
        host.require_running()
        try:
            aside = partial(departure.move_tasks, store, host)
            outcome = upgrade_host(host, wish, yes=yes, prepare=aside)
            if outcome.changed or host.block.drained:
                _come_back(store, host)
        except MachineError:
            with suppress(MachineError):  # where its engine answers it takes tasks as it did
                host.ask()
                departure.stand_in(store, host)
            raise
        departure.stand_in(store, host)
        return outcome


def _come_back(store: Store, host: Host) -> None:
    """Wait until the Swarm has it again, as what it was."""

    def is_member() -> bool:
        try:
            with managers.managed(store, host.name) as lead:
                node = lead.node(host.block.node)
        except MachineError:
            return False
        return node is not None and _is_there(node)

    with host.report.step("member", "Coming back into the Swarm"):
        with host.swarm() as own:
            if own.membership().state == "locked":
                swarm.unlock_host(store, host, own)
        wait.until(
            f'"{host.name}" to be a member again',
            is_member,
            timeout=BACK_TIMEOUT,
            hint=f"machine swarm status {host.name}",
        )


def _stopped(hint: str, machine: str, left: Sequence[str]) -> str:
    rest = f", and {', '.join(sorted(left))} had not begun" if left else ""
    told = f"It stopped at {machine}{rest}. The same command goes on from there"
    return lines(hint, told)

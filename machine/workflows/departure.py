"""What a node owes its Swarm before it goes, for a while or for good: nobody loses a task by it, and
those who stay keep their quorum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from machine import wait
from machine.errors import EngineError, HostError, MachineError, TimedOut
from machine.events import Emit, ignore
from machine.host import Host
from machine.model import State
from machine.store import Store
from machine.swarm import Availability, Node, Role, reasons
from machine.workflows import managers, quorum
from machine.workflows.managers import Lead

ASK_TIMEOUT: Final = 5
"""Seconds for an engine to say whether it is in a Swarm that no record knows of."""
DRAIN_TIMEOUT: Final = 300
"""Seconds for the tasks of a node to end: each has its service's stop grace period, 10 s unless it is
told otherwise."""
SETTLE_TIMEOUT: Final = 180
"""Seconds for tasks to start elsewhere; what does not fit anywhere waits for ever."""

LEAVE_TIMEOUT: Final = 90
"""Seconds for an engine to let go of its Swarm; under emulation the first 15 were seen to be too few."""


def check(store: Store, names: Sequence[str], *, stays: bool) -> frozenset[str]:
    """Called before machines are stopped or removed together; answers those of them that have others
    of their Swarm left to hand their tasks to. ``stays``: they come back, and are managers meanwhile.
    Raises HostError where a Swarm would lose its quorum."""
    swarms: dict[str, list[Host]] = defaultdict(list)
    for host in _members(store, names):
        swarms[host.block.swarm].append(host)
    owing: set[str] = set()
    for hosts in swarms.values():
        going = {host.block.node for host in hosts}
        try:
            with managers.managed(store, hosts[0].name) as lead:
                nodes = lead.nodes
        except MachineError:
            owing |= {host.name for host in hosts}
            continue  # nobody has a quorum to lose
        quorum.require(nodes, going, stays=stays)
        if any(node.id not in going and node.state == "ready" for node in nodes):
            owing |= {host.name for host in hosts}
    return frozenset(owing)


def found_out(store: Store, host: Host, *, stays: bool) -> bool:
    """Called before one machine is stopped or removed: whether it is a member all the same, which
    others brought in, and its record knows nothing of; then as ``check``. Its engine is asked once."""
    if host.block.swarm or not host.is_changed or host.state() is not State.RUNNING:
        return False
    try:
        if not host.ask(timeout=ASK_TIMEOUT).swarm.startswith("active"):
            return False
        managers.learn(store, host)
    except MachineError:
        return False
    return host.name in check(store, [host.name], stays=stays)


def leave(store: Store, name: str, emit: Emit = ignore, *, force: bool = False) -> None:
    """Take a machine out of its Swarm: drained, demoted, gone, and off the list. Raises HostError for
    one that is in none, or where the others would lose their quorum; ``force`` does it all the same,
    and where no manager answers."""
    with store.lock(name, wait=5):
        host = managers.seated(store, name, emit)
        depart(store, host, force=force)


def depart(store: Store, host: Host, *, force: bool = False) -> None:
    """As ``leave``, of a machine that may be off, for a caller that holds its lock."""
    try:
        with managers.managed(store, host.name) as lead:
            if not force:
                quorum.require(lead.nodes, {host.block.node}, stays=False)
            nodes = managers.settled(lead) if len(lead.nodes) > 1 else ()
            node = next((each for each in nodes if each.id == host.block.node), None)
            if node and node.state == "ready":
                drain(host, lead)
        if node and node.role is Role.MANAGER:
            _demote(store, host, node)
    except MachineError as exc:
        if not force:
            raise
        host.report.warn(f"Leaving all the same: {exc.line}")
    if host.state() is State.RUNNING:
        with host.report.step("leave", "Leaving the Swarm"):
            _go(host)
    _strike(store, host)
    managers.forget(host)


def set_aside(store: Store, name: str, emit: Emit = ignore) -> None:
    """Drain a node until it is activated, whatever happens to its machine meanwhile. Twice is fine."""
    with store.lock(name, wait=5):
        host = managers.seated(store, name, emit)
        with managers.managed(store, name) as lead:
            drain(host, lead)


def activate(store: Store, name: str, emit: Emit = ignore) -> None:
    """Let a node take tasks again. Twice is fine."""
    with store.lock(name, wait=5):
        host = managers.seated(store, name, emit)
        host.block.drained = True
        stand_in(store, host)


def stand_aside(store: Store, host: Host) -> None:
    """Before a node is off for a while: its tasks go elsewhere. ``stand_in`` is the way back. A
    Swarm that cannot be asked keeps nobody running."""
    try:
        move_tasks(store, host)
    except MachineError as exc:
        host.report.warn(f"Its tasks were not moved: {exc.line}")


def move_tasks(store: Store, host: Host) -> None:
    """As ``stand_aside``, for whoever wants to know what goes wrong. Twice is fine: what was cut off
    is waited for."""
    with managers.managed(store, host.name) as lead:
        node = lead.node(host.block.node)
        if node is None or not any(_takes_tasks(each) for each in lead.nodes if each.id != node.id):
            return
        if not host.block.drained:
            if node.availability is not Availability.ACTIVE:
                return
            host.block.drained = True
            host.save()
        drain(host, lead)


def stand_in(store: Store, host: Host) -> None:
    """A node that ``stand_aside`` drained takes tasks again. Twice is fine."""
    if not host.block.drained:
        return

    def given() -> bool:
        try:
            with managers.managed(store, host.name) as lead:
                lead.swarm.change(host.block.node, availability=Availability.ACTIVE)
        except EngineError:
            return False
        return True

    with host.report.step("active", "Taking tasks again"):
        wait.until(
            "a manager of its Swarm",
            given,
            timeout=managers.ROLE_TIMEOUT,
            hint=f"It stays drained until then: machine swarm activate {host.name}",
        )
    host.block.drained = False
    host.save()


def drain(host: Host, lead: Lead) -> None:
    """Take a node's tasks away, and wait until they have ended and run elsewhere. Raises TimedOut."""
    node = host.block.node
    with host.report.step("drain", "Moving its tasks"):
        lead.swarm.change(node, availability=Availability.DRAIN)
        wait.until(
            f'the tasks of "{host.name}" to end',
            lambda: not lead.swarm.tasks().get(node),
            timeout=DRAIN_TIMEOUT,
            hint=f"machine swarm status {host.name}",
        )
        with suppress(TimedOut):
            wait.until(
                "its tasks to run elsewhere",
                lambda: all(lead.swarm.waiting()),
                timeout=SETTLE_TIMEOUT,
            )
        if left := lead.swarm.waiting():
            told = f"{len(left)} tasks have not found another place to run"
            host.report.warn(": ".join(filter(None, (told, "; ".join(reasons(left))))))


def _members(store: Store, names: Sequence[str]) -> list[Host]:
    """Those of the machines whose records say that they are in a Swarm."""
    found = []
    for name in names:
        try:
            host = Host.load(store, name)
            if host.block.swarm:
                found.append(host)
        except MachineError:
            continue  # whoever stops or removes it says what is wrong
    return found


def _takes_tasks(node: Node) -> bool:
    return node.state == "ready" and node.availability is Availability.ACTIVE


def _demote(store: Store, host: Host, node: Node) -> None:
    """Its part in the quorum goes to the others."""
    with (
        host.report.step("demote", "Handing its part of the quorum over"),
        managers.managed(store, host.name, besides=host.name) as other,
    ):
        if node.state == "ready":
            managers.become(other, host, Role.WORKER)
        else:
            other.swarm.change(node.id, role=Role.WORKER)


def _go(host: Host) -> None:
    """An engine gives its member 15 s to end, and then says no, while that goes on to end."""
    said = [""]
    with host.swarm() as own:

        def outside() -> bool:
            try:
                if own.membership().is_in:
                    own.leave(force=True)
            except EngineError as exc:
                said.append(exc.line)
            return not own.membership().is_in

        wait.until(
            f'the engine of "{host.name}" to leave its Swarm',
            outside,
            timeout=LEAVE_TIMEOUT,
            last_answer=lambda: said[-1],
        )


def _strike(store: Store, host: Host) -> None:
    """Off the list; it has left, or is lost."""
    try:
        with managers.managed(store, host.name, besides=host.name) as other:
            other.swarm.remove(host.block.node)
    except MachineError as exc:
        if not isinstance(exc, EngineError | HostError):
            raise
        host.report.note("Nobody is left in its Swarm to be told")

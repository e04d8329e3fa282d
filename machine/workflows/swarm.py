"""Several engines as one: begin a Swarm, join it, change who is what in it, look at all of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from machine import wait
from machine.errors import EngineError, HostError, MachineError
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import Source
from machine.store import Store
from machine.swarm import Cluster, Entrance, Membership, Role, Swarm
from machine.workflows import managers, quorum

PORTS: Final = "TCP 2377 and 7946, UDP 7946 and 4789"
"""Between members (docs.docker.com/engine/swarm/swarm-tutorial: open protocols and ports)."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a machine takes part; "" is what is right for its driver."""

    address: str = ""  # that others reach it at
    data_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


USUAL: Final = Way()


def init(
    store: Store,
    name: str,
    emit: Emit = ignore,
    *,
    way: Way = USUAL,
    cluster: Cluster | None = None,
) -> None:
    """Begin a Swarm on a machine. Raises HostError for one that is in one."""
    with store.lock(name, wait=5):
        host = _running(store, name, emit)
        with host.swarm() as swarm:
            require_outside(host, swarm.membership())
            with host.report.step("swarm-init", "Beginning a Swarm"):
                swarm.init(entrance(host, way), cluster or Cluster())
            now = swarm.membership()
            managers.note(host, now.cluster, now.node)
            swarm.change(now.node, labels=_labels(host, way))
            _advise(host, swarm)


def join(
    store: Store,
    name: str,
    emit: Emit = ignore,
    *,
    to: str,
    role: Role = Role.WORKER,
    way: Way = USUAL,
) -> None:
    """Bring a machine into the Swarm of another one, ``to``. Raises HostError for a machine that is
    in one; one that does not get in is left outside."""
    with store.lock(name, wait=5):
        host = _running(store, name, emit)
        with managers.managed(store, to) as lead, host.swarm(timeout=120) as swarm:
            require_outside(host, swarm.membership())
            token = lead.swarm.token(role)
            title = f'Joining the Swarm of "{to}" as a {role}'
            with host.report.step("swarm-join", title):
                _enter(host, swarm, entrance(host, way), lead.addresses, token)
            node = swarm.membership().node
            managers.note(host, lead.cluster, node)
            lead.swarm.change(node, labels=_labels(host, way))
            if role is Role.MANAGER:
                _advise(host, lead.swarm)


def promote(store: Store, name: str, emit: Emit = ignore) -> None:
    """Make a worker a manager, and wait until it is one. Twice is fine."""
    _give(store, name, Role.MANAGER, emit)


def demote(store: Store, name: str, emit: Emit = ignore, *, force: bool = False) -> None:
    """Make a manager a worker, and wait until it is one. Twice is fine. Raises HostError where the
    Swarm would lose its quorum, unless ``force``."""
    _give(store, name, Role.WORKER, emit, force=force)


def token(store: Store, name: str, role: Role, *, rotate: bool = False) -> str:
    """What others join with, to the Swarm that a machine is in."""
    with managers.managed(store, name) as lead:
        return lead.swarm.token(role, rotate=rotate)


def unlock_key(store: Store, name: str, *, rotate: bool = False) -> str:
    """Raises HostError where managers do not lock themselves."""
    with managers.managed(store, name) as lead:
        key = lead.swarm.unlock_key(rotate=rotate)
    if not key:
        raise HostError(
            f'The managers of the Swarm of "{name}" do not lock themselves',
            hint="A Swarm that is begun with --autolock has an unlock key",
        )
    return key


def unlock(store: Store, name: str, emit: Emit = ignore) -> None:
    """Let a manager that has restarted go on; the key comes from another manager, or is asked for."""
    with store.lock(name, wait=5):
        host = _running(store, name, emit)
        with host.swarm() as swarm:
            if swarm.membership().state != "locked":
                raise HostError(f'"{name}" is not locked')
            unlock_host(store, host, swarm)


def unlock_host(store: Store, host: Host, swarm: Swarm) -> None:
    """As ``unlock``, for a caller that holds the lock of a machine that is locked."""
    try:
        key = unlock_key(store, host.name)
    except MachineError:
        key = host.report.ask("Unlock key of the Swarm", hidden=True) or ""
    with host.report.step("unlock", "Unlocking"):
        swarm.unlock(key)
    wait_for_membership(host, swarm)


def members(store: Store, name: str) -> list[str]:
    """The machines of the Swarm that a machine is in, itself among them."""
    with managers.managed(store, name) as lead:
        return sorted(managers.machines(store, lead).values())


def require_outside(host: Host, membership: Membership) -> None:
    """Raises HostError for one that is in a Swarm already, or on the way into one."""
    if not membership.is_in:
        return
    raise HostError(
        f'"{host.name}" is in a Swarm already, {managers.said(membership)}',
        hint=f"Look at it with: machine swarm status {host.name}\n"
        f"Take it out with: machine swarm leave {host.name}",
    )


def _give(store: Store, name: str, role: Role, emit: Emit, *, force: bool = False) -> None:
    with store.lock(name, wait=5):
        host = managers.seated(store, name, emit)
        with managers.managed(store, name) as lead:
            node = lead.node(host.block.node)
            if node is None:
                raise managers.outside(name)
            if node.role is role:
                host.report.note(f'"{name}" is a {role} already')
                return
            if role is Role.WORKER and not force:
                quorum.require(lead.nodes, {node.id}, stays=False)
        # A manager does not see through its own way down: another one is asked for it.
        besides = "" if role is Role.MANAGER else name
        with managers.managed(store, name, besides=besides) as lead:
            with host.report.step("role", f"Becoming a {role}"):
                managers.become(lead, host, role)
            _advise(host, lead.swarm)


def _running(store: Store, name: str, emit: Emit) -> Host:
    host = Host.load(store, name, Reporter(emit, name))
    host.require_complete()
    host.require_running()
    return host


def _enter(
    host: Host, swarm: Swarm, way_in: Entrance, addresses: Sequence[str], token: str
) -> None:
    try:
        swarm.join(way_in, addresses, token)
        wait_for_membership(host, swarm)
    except MachineError as exc:
        if swarm.membership().is_in:  # it would go on trying, and be neither in nor out
            swarm.leave(force=True)
        exc.hint = exc.hint or (
            f"Do {host.name} ({way_in.address}) and {', '.join(addresses)} reach each other ({PORTS}),"
            " and do their clocks agree?"
        )
        raise


def wait_for_membership(host: Host, swarm: Swarm) -> None:
    """Raises EngineError with the engine's own word, where it does not get in."""

    def settled() -> Membership | None:
        now = swarm.membership()
        return None if now.state == "pending" else now

    now = wait.until(f'"{host.name}" to be a member', settled, timeout=60)
    if now.state != "active":
        raise EngineError(f'"{host.name}" does not get into the Swarm', details=now.problem)


def entrance(host: Host, way: Way) -> Entrance:
    """Raises HostError where other machines cannot reach it."""
    address = way.address or _own_address(host)
    if ipaddress.ip_address(address).is_loopback:
        raise HostError(
            f'"{host.name}" is reached at {address}, where other machines do not reach it',
            hint="Say where they do: --advertise-addr ADDRESS",
        )
    return Entrance(address, way.data_path)


def _own_address(host: Host) -> str:
    """Where others reach it. A host that was there before may be reached from here by an address
    that is not its own (a NAT, a name): the one that it goes out by is taken then."""
    address = host.driver.peer_address()
    if host.driver.source is not Source.HOST:
        return address
    with host.guest() as guest:
        own = guest.run("hostname", "-I", check=False).stdout.split()
        if not own or address in own:
            return address
        # RFC 5737's network for examples: nothing is sent, only looked up.
        route = guest.run("ip", "-4", "route", "get", "192.0.2.1", check=False).stdout.split()
    return route[route.index("src") + 1] if "src" in route else own[0]


def _labels(host: Host, way: Way) -> dict[str, str]:
    """By which services can be placed: what the machine is, and what its user says."""
    block = host.block
    made = host.driver.source in (Source.IMAGE, Source.PROVIDER)
    size = {"cpus": str(block.cpus), "memory_mib": str(block.memory_mib)} if made else {}
    about = {"driver": host.record.driver_name, "template": block.template, **size}
    return {**about, **way.labels}


def _advise(host: Host, swarm: Swarm) -> None:
    if advice := quorum.Managers.of(swarm.nodes()).advice:
        host.report.note(advice)

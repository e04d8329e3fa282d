"""Kept states of a machine: taken, returned to, forgotten."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from machine.errors import BadOption, DriverError, HostError
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import Can, Snapshot, State
from machine.store import Store
from machine.workflows import power

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OFF: Final = (State.STOPPED, State.SAVED)


def take(store: Store, name: str, snapshot: str, emit: Emit = ignore) -> None:
    """Keep the present state, of a running machine too. Raises Unsupported, BadOption, DriverError
    for a name that is taken, and HostError while its create has not ended: secrets of the first
    boot would be kept with it."""
    if not NAME.fullmatch(snapshot):
        raise BadOption(
            f"A snapshot cannot be called {snapshot!r}",
            hint="A letter or digit first, then also . _ and -; at most 64",
        )
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        if any(each.name == snapshot for each in host.driver.snapshots()):
            raise DriverError(
                f'"{name}" has a snapshot "{snapshot}" already',
                hint=f"machine snapshot rm {name} {snapshot}",
            )
        host.require_complete()
        with report.step("snapshot", f"Taking the snapshot {snapshot}"):
            host.driver.snapshot(snapshot)


def kept(store: Store, name: str) -> Sequence[Snapshot]:
    """The oldest first. Raises Unsupported."""
    return Host.load(store, name).driver.snapshots()


def check(store: Store, name: str, snapshot: str, *, restart: bool = False) -> None:
    """What can be told before a machine's present state is given up for a kept one. Raises
    DriverError for a snapshot that is not there, HostError for a machine that is not off, unless
    it is to be restarted."""
    _ready(Host.load(store, name), snapshot, restart=restart)


def restore(
    store: Store, name: str, snapshot: str, emit: Emit = ignore, *, restart: bool = False
) -> None:
    """Return to a kept state; what was written since is lost. A machine that is on is powered off
    first and started afterwards with ``restart``. Raises what ``check`` does."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        if _ready(host, snapshot, restart=restart) not in OFF:
            with report.step("kill", "Powering off"):
                _off(host)
        host.block.restored = True  # before it is true: a kill in between costs one look
        host.save()
        with report.step("restore", f"Returning to the snapshot {snapshot}"):
            host.driver.restore(snapshot)
        if restart:
            power.bring_up(host)


def remove(store: Store, name: str, snapshot: str, emit: Emit = ignore) -> None:
    """Forget a kept state; the machine stays as it is. Raises DriverError for one that is not
    there."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        _find(host, snapshot)
        with report.step("snapshot", f"Removing the snapshot {snapshot}"):
            host.driver.delete_snapshot(snapshot)


def _ready(host: Host, snapshot: str, *, restart: bool) -> State:
    _find(host, snapshot)
    state = power.known_state(host)
    if state not in OFF and not restart:
        raise HostError(
            f'"{host.name}" is {state}, and has to be stopped to return to a snapshot',
            hint=f"machine stop {host.name}\n"
            f"or power it off and start it again: machine snapshot restore --restart "
            f"{host.name} {snapshot}",
        )
    return state


def _find(host: Host, snapshot: str) -> None:
    names = [each.name for each in host.driver.snapshots()]
    if snapshot not in names:
        raise DriverError(
            f'"{host.name}" has no snapshot "{snapshot}"',
            hint=f"It has: {', '.join(names)}"
            if names
            else f"machine snapshot take {host.name} {snapshot} keeps its present state",
        )


def _off(host: Host) -> None:
    """At once: what the guest would still write is given up."""
    if Can.KILL in host.driver.can:
        host.driver.kill()
    else:
        power.shut_down(host)

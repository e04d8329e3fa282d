"""Removal: first everything outside the store, then the record, so that nothing is orphaned."""

from __future__ import annotations

from machine.errors import HostNotFound, MachineError
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import Source
from machine.store import Store
from machine.workflows import departure, entries, existing, forwards


def remove(
    store: Store,
    name: str,
    emit: Emit = ignore,
    *,
    force: bool = False,
    undo: bool = False,
    depart: bool = False,
) -> None:
    """Remove a machine in any state, a half-made one too. With ``force`` the record goes even if
    the provider cannot be asked, and a warning names what may be left there. ``undo`` puts a host
    that was there before back as it was. ``depart``: others of its Swarm are left, who are told, and
    take its tasks first."""
    report = Reporter(emit, name)
    if not store.exists(name):
        raise HostNotFound(name)
    with store.lock(name, wait=5):
        if not store.exists(name):  # another process was faster
            return
        try:
            host = Host.load(store, name, report)
            if depart or (not force and departure.found_out(store, host, stays=False)):
                departure.depart(store, host, force=force)
            if undo:
                existing.undo(host)
            with report.step("remove", "Removing the machine"):
                discard(host)
            if not undo and host.driver.source is Source.HOST and host.block.journal.finished:
                report.note("The host itself stays as it is; --undo would have put it back")
        except MachineError as exc:
            if not force:
                raise
            report.warn(f"Forgotten, but something of it may be left at its provider: {exc}")
            store.delete(name)


def discard(host: Host) -> None:
    """Everything of the host, outside and in the store. The caller holds its lock."""
    forwards.end(host.block.id)
    host.driver.remove()
    entries.remove(host)
    host.store.delete(host.name)

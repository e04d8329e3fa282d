"""What containers are made of, shown on a live host."""

from __future__ import annotations

from collections.abc import Generator

from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import Verdict
from machine.store import Store


def check(store: Store, name: str, emit: Emit = ignore) -> Generator[Verdict, None, None]:
    """Verdicts as they come; the machine is held until the generator ends or is closed, and then
    nothing is left on it: that is why it may be one that is only registered here. Raises HostBusy,
    HostNotRunning, HostGone, GuestError, EngineError."""
    with store.lock(name, wait=5):
        host = Host.load(store, name, Reporter(emit, name))
        host.require_running()
        with host.guest() as guest, host.api(timeout=300) as client:
            host.report.note(f"Starting small containers on {name}; they are removed afterwards")
            yield from host.engine.check(guest, client, host.address())

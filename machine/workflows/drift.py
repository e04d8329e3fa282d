"""What differs on a live host from what its fleet's file says; it only looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from machine.engine import Settings
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import FileChange
from machine.store import Store
from machine.workflows import bootstrap, create
from machine.workflows.create import CreateRequest


@dataclass(frozen=True, slots=True)
class Drift:
    """In words, but for the files, which are shown as they would be changed back."""

    files: Sequence[FileChange] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.files or self.notes)


def look(store: Store, wanted: CreateRequest, emit: Emit = ignore) -> Drift:
    """Of a machine that is there and runs. Raises what a login does."""
    host = Host.load(store, wanted.name, Reporter(emit, wanted.name))
    if not host.is_changed:
        return Drift()
    drafted = create.planned(store, wanted)
    former = host.record.engine_options
    host.record.engine_options = drafted.record.engine_options
    with host.report.step("drift", "Comparing the host with the file"):
        session = bootstrap.Session.open(host)
        try:
            return _compared(session, replace(_settings(session), former=former))
        finally:
            session.close()


def _settings(session: bootstrap.Session) -> Settings:
    return bootstrap.settings(session.host, bootstrap.server_tls(session.host))


def _compared(session: bootstrap.Session, settings: Settings) -> Drift:
    engine = session.engine
    if engine.installed_version() is None:
        return Drift(notes=("the engine is gone",))
    notes = []
    state = session.provisioner.service_state(engine.unit)
    if state is None or not state.active:
        notes.append("the engine does not run")
    elif not state.enabled:
        notes.append("the engine does not start at a boot")
    return Drift(engine.changes(settings), tuple(notes))

"""Bring a host that exists back to what its record says, and renew its certificates."""

from __future__ import annotations

from machine import fallback
from machine.errors import EngineError
from machine.events import Emit, Reporter, ignore
from machine.host import Host, certs_lock
from machine.model import EngineOptions, Setup
from machine.store import Store
from machine.workflows import bootstrap, entries, power


def provision(store: Store, name: str, emit: Emit = ignore) -> bool:
    """Engine, configuration and certificates as recorded; True if anything had to change. The
    engine is restarted only then."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        return bring_back(Host.load(store, name, report))


def bring_back(host: Host, options: EngineOptions | None = None) -> bool:
    """As ``provision``, for a caller that holds the lock. ``options``: what the engine is to have
    from now on; the record says so, and is saved, once it has."""
    host.require_ours()
    host.require_running()
    with host.report.step("system", "Detecting the system"):
        session = bootstrap.Session.open(host)
    try:
        changed = _bring_up(session, options)
    finally:
        session.close()
    with host.report.step("verify", "Asking the engine over TLS"):
        bootstrap.verify(host)
    if options is not None:
        host.save()
    return changed


def _bring_up(session: bootstrap.Session, options: EngineOptions | None) -> bool:
    host, report = session.host, session.host.report
    changed = fallback.kept(session.guest) is not None  # of an upgrade that was cut off
    if changed:
        fallback.put_files_back(session.guest, session.engine, session.provisioner)
    if session.engine.installed_version() is None:
        if host.setup is Setup.ADOPT:
            raise EngineError(
                f'The engine of "{host.name}" is gone: it was adopted, and came from elsewhere',
                hint="Install it as it was, or remove the machine and create it without --adopt",
            )
        with report.step("install", "Installing the engine"):
            changed = session.ensure_engine()
    with report.step("configure", "Configuring the engine"):
        former = host.record.engine_options
        if options is not None:
            host.record.engine_options = options
        renamed = host.record.engine_options.tls_sans != former.tls_sans
        renew = renamed or not bootstrap.certificate_fits(host)
        changed = session.configure_engine(fresh_certificate=renew, former=former) or changed
    if changed:
        with report.step("start", "Starting the engine"):
            session.engine.restart()
        fallback.forget(session.guest)
    return changed


def regenerate_certs(store: Store, name: str, emit: Emit = ignore) -> None:
    """A new server certificate, and the store's present client certificate in the machine's
    folder. Restarts the engine: dockerd reads its certificate once."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        host.require_ours()
        host.require_running()
        bootstrap.copy_client_certs(host)
        entries.renew(host)
        with report.step("certificate", "Renewing the server certificate"):
            power.renew_certificate(host)
        with report.step("verify", "Asking the engine over TLS"):
            bootstrap.verify(host)


def renew_client_certificate(store: Store) -> None:
    """A new client certificate from the same CA, in certs/ and in every machine's folder. The
    engines trust the CA, so none of them is touched."""
    from machine.tls import Authority

    authority = Authority(store.folders.certs, certs_lock(store))
    authority.renew_client()
    for name in store.names():
        if store.folder(name).ca.exists():
            host = Host(store, store.load(name))
            bootstrap.copy_client_certs(host)
            entries.renew(host)

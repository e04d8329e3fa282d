"""What a create would change on a host that is there already; it only looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from machine import firewall, ledger
from machine.engine import ServerTls
from machine.model import BundleKind, FileChange, Setup
from machine.runtime.bundle import BundleCache
from machine.workflows import bootstrap
from machine.workflows.bootstrap import Session


@dataclass(slots=True)
class Plan:
    """In words, but for the files."""

    packages: list[str] = field(default_factory=list)
    files: Sequence[FileChange] = ()
    services: list[str] = field(default_factory=list)
    firewall: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.packages or self.files or self.services or self.firewall)


def plan(session: Session) -> Plan:
    """Raises what the create itself would, where that can be told before."""
    host, engine, provisioner = session.host, session.engine, session.provisioner
    found = Plan()
    if host.setup is Setup.REGISTER:
        return found
    kind = ""
    if host.setup is Setup.ADOPT:
        session.require_engine()
    elif engine.installed_version() is None:
        kind = _install(session, found)
    found.files = engine.changes(bootstrap.settings(host, _tls(session)), kind)
    state = provisioner.service_state(engine.unit)
    if kind:
        found.services.append(f"{engine.unit} would be installed, started, and start at every boot")
    elif found.files:
        stake = engine.at_stake()
        if state and state.active:
            found.services.append(
                f"{engine.unit} would be restarted" + (f"; {stake}" if stake else "")
            )
        else:
            found.services.append(f"{engine.unit} would be started")
        if state and not state.enabled:
            found.services.append(f"{engine.unit} would start at every boot")
    for obstacle in firewall.look(session.guest, host.engine_port):
        found.firewall += [obstacle.text, *(f"# {command}" for command in obstacle.opening)]
        if obstacle.opening and not obstacle.lasting:
            found.firewall.append(
                "Nothing there loads its rules at a boot: it would last till then"
            )
    if not found.is_empty:
        found.notes.append(f"What is there now would be kept on the host, in {ledger.FOLDER}")
    return found


def diff(change: FileChange) -> list[str]:
    """As diff -u shows it; of what only root may read, no word."""
    import difflib

    if change.is_secret:
        return [f"{change.path}: {'another' if change.before else 'new'}, not shown"]
    before, after = (
        (content or b"").decode("utf-8", "replace").splitlines()
        for content in (change.before, change.after)
    )
    old = change.path if change.before is not None else "/dev/null"
    return list(difflib.unified_diff(before, after, old, change.path, lineterm=""))


def _install(session: Session, found: Plan) -> str:
    """What would be installed; answers the bundle's kind."""
    host, release = session.host, session.provisioner.release
    kind = bootstrap.bundle_kind(host, release.id, release.version_id)
    arch = session.guest.run("uname", "-m").stdout.strip()
    bundle = bootstrap.known_bundle(host, release.id, release.version_id, arch, kind)
    if bundle is None:
        BundleCache().preflight(host.engine, kind)
        found.packages.append(f"{host.block.engine}, from a bundle ({kind}) that is made first")
    elif bundle.kind == BundleKind.STATIC:
        found.packages.append(f"{bundle.engine} {bundle.version}, from upstream's archive")
    else:
        there = session.provisioner.packages()
        newer = session.provisioner.newer(bundle.packages, there)
        for name, version in sorted(bundle.packages.items()):
            if name not in there:
                found.packages.append(f"{name} {version}")
            elif name in newer:
                found.packages.append(f"{name} {version} instead of {there[name]}")
    return bundle.kind if bundle else kind


def _tls(session: Session) -> ServerTls:
    """Before a create there are no certificates: words stand for them."""
    folder = session.host.folder
    if folder.ca.exists() and folder.server_cert.exists():
        return bootstrap.server_tls(session.host)
    return ServerTls(b"(the certificate of your CA)\n", b"(its own certificate)\n", b"(its key)\n")

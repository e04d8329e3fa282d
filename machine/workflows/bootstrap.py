"""From a booted guest to an engine that answers: the part that create, provision and start share."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from machine import ledger, wait
from machine.engine import Engine, ServerTls, Settings
from machine.errors import (
    BundleError,
    DriverError,
    EngineError,
    GuestUnreachable,
    MachineError,
    StoreError,
)
from machine.host import Host, certs_lock
from machine.model import BundleKind, EngineInfo, EngineOptions, Setup, State
from machine.provision_detect import detect
from machine.provisioner import Provisioner
from machine.runtime.bundle import Bundle, BundleCache, deliver, discard
from machine.store import write

if TYPE_CHECKING:
    from machine.ssh import SshGuest

ENGINE_ANSWERS: Final = 180
"""Seconds for an engine that was started to answer; 30 s were seen under emulation, on a busy host."""

CLOUD_INIT_STATUS: Final = "/run/cloud-init/status.json"
CLOUD_INIT_RESULT: Final = "/run/cloud-init/result.json"
"""Written when all of its stages have ended (cloud-init's documentation, "Status")."""
CLOUD_INIT_OFF: Final = "/etc/cloud/cloud-init.disabled"
_OFF: Final = """
touch {off}
if command -v usermod >/dev/null; then groupadd -f docker; usermod -aG docker {user}
else grep -q ^docker: /etc/group || addgroup -S docker; addgroup {user} docker; fi
"""
"""shadow's programs, or else busybox's."""


@dataclass
class Session:
    """A login to a host whose system is known."""

    host: Host
    guest: SshGuest
    provisioner: Provisioner
    engine: Engine

    @classmethod
    def open(cls, host: Host, login: SshGuest | None = None) -> Self:
        """Log in, unless a login is handed over, and look which system it is."""
        guest = login or host.guest()
        try:
            provisioner = detect(guest)
            return cls(host, guest, provisioner, host.engine(guest, provisioner))
        except BaseException:
            guest.close()
            raise

    def close(self) -> None:
        self.guest.close()

    def install_engine(self, bundle: Bundle, *, exact: bool = False) -> None:
        folder = deliver(self.guest, bundle, self.host.report)
        ledger.note_packages(self.guest, bundle.packages)
        self.engine.install(folder, bundle.kind, exact=exact)
        discard(self.guest)

    def ensure_engine(self) -> bool:
        """Install the engine unless there is one, whoever it came from; True if there was none."""
        if self.engine.installed_version() is not None:
            return False
        release = self.provisioner.release
        arch = self.guest.run("uname", "-m").stdout.strip()
        self.install_engine(ensure_bundle(self.host, release.id, release.version_id, arch))
        self.host.save()
        return True

    def require_engine(self) -> None:
        """Raises EngineError where there is none that could be adopted, or one that does not run."""
        if self.engine.installed_version() is None:
            raise EngineError(
                "There is no engine on the host that could be adopted",
                hint="Without --adopt, one is installed",
            )

    def configure_engine(
        self, *, fresh_certificate: bool = False, former: EngineOptions | None = None
    ) -> bool:
        """Bring configuration and certificates to what the record says; True if it changed.
        ``former`` options are those that it said before."""
        host = self.host
        if fresh_certificate or not host.folder.server_cert.exists():
            issue_server_certificate(host)
        wanted = settings(host, server_tls(host))
        return self.engine.configure(replace(wanted, former=former) if former else wanted)


def labels(host: Host) -> dict[str, str]:
    """What docker-machine always labels an engine with."""
    return {"provider": host.record.driver_name}


def settings(host: Host, tls: ServerTls) -> Settings:
    """How the record says that the engine is to be."""
    return Settings(
        tls,
        host.engine_port,
        host.record.engine_options,
        labels(host),
        adopt=host.setup is Setup.ADOPT,
    )


def server_tls(host: Host) -> ServerTls:
    """The engine's side of mutual TLS, as the machine's folder has it."""
    return ServerTls(
        ca=host.folder.ca.read_bytes(),
        cert=host.folder.server_cert.read_bytes(),
        key=host.folder.server_key.read_bytes(),
    )


def bundle_for(host: Host, os_id: str, os_version: str, arch: str) -> Bundle:
    """The bundle that the record names, or else the newest that fits. Raises BundleError."""
    block = host.block
    found = known_bundle(host, os_id, os_version, arch, block.bundle_kind)
    if found is None:
        raise BundleError(
            f"There is no {block.bundle_kind} bundle of {block.engine} for {os_id} {os_version}",
            hint="machine bundle build makes one; machine bundle ls shows what is there",
        )
    return found


def known_bundle(host: Host, os_id: str, os_version: str, arch: str, kind: str) -> Bundle | None:
    """The one that the record names, or else the newest of a kind that fits."""
    cache = BundleCache()
    return cache.with_digest(host.block.bundle) or cache.find(
        host.block.engine, os_id, os_version, arch, kind
    )


def bundle_kind(host: Host, os_id: str, os_version: str) -> str:
    """Where no packages are known for a system, upstream's own archive serves."""
    kind = host.block.bundle_kind
    if kind == BundleKind.PACKAGES and not host.engine.recipe(os_id, os_version):
        return BundleKind.STATIC
    return kind


def ensure_bundle(host: Host, os_id: str, os_version: str, arch: str) -> Bundle:
    """As ``bundle_for``, builds one if there is none, and notes it in the record."""
    block = host.block
    cache = BundleCache()
    block.bundle_kind = bundle_kind(host, os_id, os_version)
    found = cache.with_digest(block.bundle) or cache.ensure(
        host.engine, os_id, os_version, arch, block.bundle_kind, report=host.report
    )
    block.bundle = found.sha256
    return found


def wait_for_ssh(host: Host) -> SshGuest:
    """The first login that succeeds, for the caller to use and close. Ends early when the VM is not
    running any more, or its host key is not ours. Raises TimedOut, DriverError, HostKeyMismatch."""
    last = ""

    def login() -> SshGuest | None:
        nonlocal last
        state = host.state()
        if state not in (State.RUNNING, State.STARTING, State.UNKNOWN):
            raise DriverError(
                f'"{host.name}" stopped while it was booting (state: {state})',
                details=host.driver.explain(),
                hint=f"machine console {host.name}",
            )
        try:
            return host.guest(timeout=10)
        except GuestUnreachable as exc:
            last = _one_line(exc)
            return None

    return wait.until(
        f'"{host.name}" to take a login over SSH',
        login,
        timeout=host.block.boot_timeout,
        most=0.3,
        hint=f"machine console {host.name} shows how far its boot got; "
        "a slow computer may need a longer boot timeout",
        last_answer=lambda: f"Last answer: {last}",
    )


def wait_for_cloud_init(host: Host) -> None:
    """Return when cloud-init has come to its end (until then it may hold dpkg's lock, and restart
    sshd), and turn it off: docs/design/0007. Says what it complained of. Twice is fine.
    Raises TimedOut."""
    last = ""

    def ended() -> bytes | None:
        nonlocal last
        try:
            with host.guest(timeout=10) as guest:
                return _close_cloud_init(guest)
        except GuestUnreachable as exc:
            last = _one_line(exc)
            return None

    status = wait.until(
        f'cloud-init of "{host.name}" to come to its end',
        ended,
        timeout=host.block.boot_timeout,
        most=3,
        hint=f"machine ssh {host.name} cloud-init status --long",
        last_answer=lambda: last,
    )
    for complaint in complaints(status):
        host.report.warn(f"cloud-init: {complaint}")


def _close_cloud_init(guest: SshGuest) -> bytes | None:
    """Its status once it has ended, else None."""
    off = guest.run("test", "-e", CLOUD_INIT_OFF, check=False).ok
    if not off and guest.get(CLOUD_INIT_RESULT) is None:
        return None
    # A user that the image brought along has none of the groups: cloud-init adds them to new ones.
    guest.script(_OFF.format(off=CLOUD_INIT_OFF, user=guest.user), sudo=True)
    return guest.get(CLOUD_INIT_STATUS) or b"{}"


def complaints(status: bytes) -> list[str]:
    """Errors and warnings in cloud-init's status.json, each once. What it could not use of a
    template's configuration is a warning to it (``recoverable_errors``, since 23.4)."""
    found: list[str] = []
    for stage in json.loads(status).get("v1", {}).values():
        if isinstance(stage, dict):
            found += stage.get("errors", [])
            for level, texts in stage.get("recoverable_errors", {}).items():
                found += texts if level != "DEPRECATED" else []
    return list(dict.fromkeys(" ".join(text.split()) for text in found))


def verify(host: Host, *, timeout: float = ENGINE_ANSWERS) -> EngineInfo:
    """The engine's own answer over mutual TLS, from here. Raises TimedOut with its last answer."""
    last = ""

    def probe() -> EngineInfo | None:
        nonlocal last
        try:
            return host.ask(timeout=10)
        except MachineError as exc:
            last = _one_line(exc)
            return None

    return wait.until(
        f'the engine of "{host.name}" to answer at {host.url()}',
        probe,
        timeout=timeout,
        most=0.2,
        hint=f"machine ssh {host.name} sudo journalctl -u {host.engine.service} -n 50",
        last_answer=lambda: f"Last answer: {last}",
    )


def issue_server_certificate(host: Host) -> None:
    """A new key and certificate for the engine, valid for its name, address and ``--tls-san``."""
    from machine.tls import Authority

    authority = Authority(host.store.folders.certs, certs_lock(host.store))
    address = host.address()
    names = [host.name, address.host, address.engine_at, "localhost", "127.0.0.1"]
    cert, key = authority.issue_server([*names, *host.record.engine_options.tls_sans])
    write(host.folder.server_key, key)
    write(host.folder.server_cert, cert, mode=0o644)


def certificate_fits(host: Host) -> bool:
    """Whether the engine's certificate names the address that the host has now."""
    from machine.tls import names_of

    path = host.folder.server_cert
    return path.exists() and host.address().engine_at in names_of(path.read_bytes())


def copy_client_certs(host: Host) -> None:
    """The client's files into the machine's folder, so that it can be DOCKER_CERT_PATH. Raises
    StoreError for a folder of the user's that does not have them."""
    theirs = host.driver.certificates()
    if not host.is_asked:
        return
    certs = theirs or host.store.folders.certs
    for name in ("ca.pem", "cert.pem", "key.pem"):
        if not (certs / name).is_file():
            raise StoreError(f"There is no {name} in {certs}")
    write(host.folder.ca, (certs / "ca.pem").read_bytes(), mode=0o644)
    write(host.folder.client_cert, (certs / "cert.pem").read_bytes(), mode=0o644)
    write(host.folder.client_key, (certs / "key.pem").read_bytes())


def _one_line(exc: MachineError) -> str:
    return " - ".join(part for part in (exc.brief, exc.details.strip()) if part)

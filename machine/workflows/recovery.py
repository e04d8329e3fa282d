"""A Swarm that was lost, in part or as a whole: what a manager knows is kept, and goes on elsewhere."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from machine import files, sealed, wait
from machine.errors import EngineError, HostError, MachineError
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.store import Store
from machine.swarm import Cluster, Entrance, Role, Swarm
from machine.workflows import bootstrap, managers, quorum, swarm
from machine.workflows.bootstrap import Session

MAGIC: Final = b"machine-swarm-backup-1\n"
"""Then a line of JSON, which is a Backup, and the folder as tar in gzip; all of it may be sealed."""
ELECTION_TIMEOUT: Final = 60
"""Seconds; one second was seen, and many on a busy computer."""
HOLD: Final = "/var/tmp/machine-swarm.tar.gz"  # noqa: S108 - made by root with mode 0600, and moved


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself."""

    machine: str
    cluster: str
    engine_version: str
    created: str  # ISO 8601


def backup(
    store: Store, name: str, target: Path, emit: Emit = ignore, *, passphrase: str = ""
) -> Backup:
    """Keep what a manager knows: members, services, networks, secrets, and the Swarm's authority. Its
    engine is off meanwhile, and its containers with it. Raises HostError for a worker, or where the
    Swarm would lose its quorum in between and has other managers."""
    with store.lock(name, wait=5):
        host = managers.seated(store, name, emit)
        host.require_ours()
        with host.swarm() as own:
            now = own.membership()
            if not now.is_manager:
                raise HostError(
                    f'"{name}" is no manager: it knows nothing of its Swarm',
                    hint=f"The managers are shown by: machine swarm status {name}",
                )
            nodes = own.nodes()
        if quorum.Managers.of(nodes).total > 1:
            quorum.require(nodes, {now.node}, stays=True)
        about = Backup(name, now.cluster, host.ask().version, _now())
        session = Session.open(host)
        try:
            with _engine_off(session), host.report.step("backup", "Reading the Swarm's state"):
                content = _packed(session, now.folder)
        finally:
            session.close()
        header = json.dumps(asdict(about)).encode()
        content = MAGIC + header + b"\n" + content
        files.replace(
            target, sealed.seal(content, passphrase) if passphrase else content, mode=0o600
        )
    return about


def read(source: Path, passphrase: str = "") -> tuple[Backup, bytes]:
    """What a backup says of itself, and the packed folder. Raises MachineError."""
    try:
        content = source.read_bytes()
    except OSError as exc:
        raise MachineError(f"{source} cannot be read: {exc.strerror}") from exc
    if sealed.is_sealed(content):
        if not passphrase:
            raise MachineError(f"{source} is encrypted", hint="--passphrase SECRET")
        content = sealed.unseal(content, passphrase)
    header, sign, packed = content.removeprefix(MAGIC).partition(b"\n")
    if not content.startswith(MAGIC) or not sign:
        raise MachineError(
            f"{source} is no backup of a Swarm", hint="They are made by: machine swarm backup"
        )
    return Backup(**json.loads(header)), packed


def restore(
    store: Store,
    name: str,
    source: Path,
    emit: Emit = ignore,
    *,
    passphrase: str = "",
    way: swarm.Way = swarm.USUAL,
) -> Backup:
    """Begin the Swarm of a backup again on a machine that is in none, as its only manager. Those who
    were members have to leave what is gone, and to join. Raises HostError, EngineError."""
    about, packed = read(source, passphrase)
    with store.lock(name, wait=5):
        host = Host.load(store, name, Reporter(emit, name))
        host.require_ours()
        host.require_running()
        with host.swarm() as own:
            now = own.membership()
        swarm.require_outside(host, now)
        _compare(host, about)
        entrance = swarm.entrance(host, way)
        session = Session.open(host)
        try:
            with _engine_off(session), host.report.step("restore", "Writing the Swarm's state"):
                _unpacked(session, packed, now.folder)
        finally:
            session.close()
        with host.swarm(timeout=180) as own, host.report.step("begin", "Beginning it again"):
            _unlocked(host, own)
            _begin_alone(host, own, entrance)
    return about


def recover(
    store: Store, name: str, emit: Emit = ignore, *, way: swarm.Way = swarm.USUAL
) -> Sequence[str]:
    """Let a manager go on alone when the others are lost for good; answers the hosts that were
    managers, which have to leave and join when they are back. Raises HostError where there is a
    quorum: then nothing is lost."""
    with store.lock(name, wait=5):
        host = Host.load(store, name, Reporter(emit, name))
        host.require_running()
        with host.swarm(timeout=180) as own:
            now = own.membership()
            if not now.is_manager:
                raise HostError(
                    f'"{name}" is no manager: only one of them can go on',
                    hint="machine swarm ls shows the Swarms, and machine swarm backup keeps them",
                )
            if _has_quorum(own):
                raise HostError(
                    f'The Swarm of "{name}" has its quorum: nothing is to be recovered',
                    hint=f"machine swarm status {name}",
                )
            entrance = swarm.entrance(host, way)
            with host.report.step("recover", "Going on as the only manager"):
                return _begin_alone(host, own, entrance)


def _has_quorum(own: Swarm) -> bool:
    try:
        return quorum.Managers.of(own.nodes()).has_quorum
    except EngineError:
        return False


def _begin_alone(host: Host, own: Swarm, entrance: Entrance) -> list[str]:
    """What it knows is the Swarm, and it is the only manager of it; answers the hosts that were others,
    and are struck off."""
    own.init(entrance, Cluster(from_its_state=True))
    _settled(host, own)
    others = [
        node for node in own.nodes() if node.role is Role.MANAGER and node.id != host.block.node
    ]
    for node in others:
        own.remove(node.id)  # whatever the list says, it is a manager no more
    return [node.name for node in others]


def _settled(host: Host, own: Swarm) -> None:
    """It is a manager, and leads itself: that takes an election."""
    swarm.wait_for_membership(host, own)

    def leads() -> bool:
        try:
            return any(node.leader for node in own.nodes())
        except EngineError:
            return False

    wait.until(f'"{host.name}" to lead', leads, timeout=ELECTION_TIMEOUT)
    now = own.membership()
    managers.note(host, now.cluster, now.node)


def _unlocked(host: Host, own: Swarm) -> None:
    if own.membership().state == "locked":
        key = host.report.ask("Unlock key of the Swarm", hidden=True)
        if not key:
            raise HostError("The Swarm is locked, and there is nobody to ask for its key")
        own.unlock(key)
        swarm.wait_for_membership(host, own)


def _compare(host: Host, about: Backup) -> None:
    version = host.ask().version
    if version != about.engine_version:
        host.report.warn(
            f"The backup is of engine {about.engine_version}, and {host.name} has {version}: Docker "
            "promises it for the same version only"
        )


@contextmanager
def _engine_off(session: Session) -> Iterator[None]:
    """As short as can be; it is started again whatever happens."""
    if stake := session.engine.at_stake():
        session.host.report.warn(f"The engine is stopped for a moment: {stake}")
    session.engine.stop()
    try:
        yield
    finally:
        session.engine.restart()
        bootstrap.verify(session.host)


def _packed(session: Session, folder: str) -> bytes:
    quoted = shlex.quote(folder)
    session.guest.script(f"umask 077\ntar -C {quoted} -czf {HOLD} .\n", sudo=True, timeout=300)
    content = session.guest.get(HOLD, sudo=True)
    session.guest.run("rm", "-f", HOLD, sudo=True)
    if not content:
        raise EngineError(f'"{session.host.name}" has no state of a Swarm in {folder}')
    return content


def _unpacked(session: Session, packed: bytes, folder: str) -> None:
    quoted = shlex.quote(folder)
    session.guest.put(packed, HOLD, mode=0o600)
    session.guest.script(
        f"rm -rf {quoted}\nmkdir -m 700 {quoted}\ntar -C {quoted} -xzf {HOLD}\nrm -f {HOLD}\n",
        sudo=True,
        timeout=300,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

"""VMs by libvirt: system or session mode, with or without KVM, here or on another computer."""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from machine import wait
from machine.driver import Driver, Finding, HostRef
from machine.drivers.libvirt import (
    acceleration,
    connection,
    forward,
    network,
    preflight,
    storage,
)
from machine.drivers.libvirt.config import LibvirtConfig, LibvirtFacts
from machine.drivers.libvirt.connection import doing, module
from machine.drivers.libvirt.domain import disk_xml, readonly_targets, resize, sources, undefine
from machine.errors import BadOption, DriverError, MachineError, TimedOut, WarmRefused
from machine.model import Address, Can, Sighting, Size, State, Usage, VmSpec, Warm
from machine.paths import cache_root

if TYPE_CHECKING:
    from machine.drivers.libvirt.assembly import Assembly

_STATES: Final = {  # virDomainState
    0: State.UNKNOWN,
    1: State.RUNNING,
    2: State.RUNNING,  # blocked on a resource
    3: State.PAUSED,
    4: State.STOPPING,
    5: State.STOPPED,
    6: State.ERROR,  # crashed
    7: State.SAVED,  # suspended by the guest
}


class LibvirtDriver(Driver[LibvirtConfig, LibvirtFacts]):
    name: ClassVar[str] = "libvirt"
    can: ClassVar[Can] = (
        Can.POWER
        | Can.KILL
        | Can.PAUSE
        | Can.CONSOLE
        | Can.IDENTITY
        | Can.CLOUD_INIT
        | Can.MEDIA
        | Can.WARM
        | Can.RESIZE
    )
    resizes: ClassVar[frozenset[str]] = frozenset({"cpus", "memory_mib", "disk_gib"})
    config_type: ClassVar[type[LibvirtConfig]] = LibvirtConfig
    facts_type: ClassVar[type[LibvirtFacts]] = LibvirtFacts

    def memory_available(self) -> int | None:
        uri = connection.resolve(self.facts.uri or self.config.uri)
        return preflight.memory(connection.connect(uri))

    def preflight(self) -> None:
        from machine.drivers.libvirt import findings

        uri = connection.resolve(self.facts.uri or self.config.uri)
        conn = connection.connect(uri)
        preflight.name(conn, self.host.name, self.host.id)
        session, remote = connection.is_session(uri), connection.is_remote(uri)
        if not (session or remote):
            for finding in findings.kvm_device(fix=False):
                self.report.warn(f"{finding.text}. Type: {finding.remedy}")
        preflight.emulator(conn, conn.getInfo()[0], self.config.machine_type)
        preflight.pool(conn, self.config.pool, local_session=session and not remote)
        if not session:
            preflight.addresses(conn, self.config)
        elif self.config.ip:
            raise BadOption(
                "--libvirt-ip needs system mode; in session mode a machine is at 127.0.0.1",
                hint="--libvirt-uri qemu:///system",
            )
        self.save(
            replace(
                self.facts,
                uri=uri,
                session=session,
                forwarded=session or remote,
                mac=network.mac(self.host.id, "nic"),
            )
        )

    def reserve(self, engine_port: int) -> Address:
        """A reservation in the network, or ports of the hypervisor's computer, or both where that
        is another one. Only QEMU's start shows whether ports are free: they may move then."""
        facts = replace(self.facts, engine_port=engine_port)
        if facts.session:
            facts = replace(facts, lan=network.lan_address(self.host.id))
        else:
            net = network.network(self._connect(), self.config.network)
            lan = network.reserve(net, self.host.name, facts.mac, self.config.ip)
            facts = replace(facts, lan=lan, address=lan)
        if facts.forwarded:
            ssh_port, engine_port = forward.ports(self.host.id)
            host = connection.remote_host(facts.uri) or "127.0.0.1"
            facts = replace(facts, address=host, ssh_port=ssh_port, engine_port=engine_port)
        self.save(facts)
        return self.address()

    def create(self, spec: VmSpec) -> None:
        conn = self._connect()
        pool = self._pool()
        with self._uploads():
            self._choose_kind(pool)
            files = self._assembly(pool).share(spec)
            self.reserve(spec.engine_port)
            if spec.warm:
                self._start_over()
            if (domain := self._domain()) is None:
                xml = self._assembly(pool).xml(spec, files)
                with doing(f"defining {self.host.name}"):
                    domain = conn.defineXML(xml)
        try:
            self._power_on(domain, spec.warm)
        except DriverError as exc:
            if not spec.warm:
                raise
            self._start_over()
            if isinstance(exc, WarmRefused):
                raise
            raise WarmRefused(f"its memory could not be restored: {exc.details}") from exc

    def warm_inputs(self, spec: VmSpec) -> Mapping[str, str]:
        """Of everything that QEMU's stream is tied to, and of what the guest saw of its devices."""
        from machine.drivers.libvirt import warm

        warm.check(self._assembly(None))
        pool = self._pool()
        with self._uploads():
            self._choose_kind(pool)
        return warm.inputs(self._assembly(pool), spec)

    def save_warm(self, spec: VmSpec, folder: Path, marker: bytes) -> Mapping[str, Any]:
        from machine.drivers.libvirt import memory, warm

        name = f"base-{spec.identity.hostname}"
        with warm.being_made(name):
            self._clear(name)
            builder = self._sibling(name, str(uuid.uuid4()))
            try:
                builder.preflight()
                builder.create(spec)
                warm.wait_for(builder, marker, self.config.boot_timeout)
                memory.save(builder._existing(), folder)
            except BaseException:
                builder.remove()
                raise
            disk = builder._volume("disk.qcow2")
            builder._remove(keep=disk)
        found = storage.volume(self._pool(), disk)
        return {"disk": disk, "written": storage.changed(found)}

    def state(self) -> State:
        return self._sight(self._connection()).state

    def address(self) -> Address:
        facts = self.facts
        if not facts.address:
            raise DriverError(f'"{self.host.name}" has no address yet')
        return Address(facts.address, facts.ssh_port, facts.engine_port)

    def peer_address(self) -> str:
        """In session mode on the socket network, else on libvirt's."""
        return self.facts.lan or self.address().host

    def remove(self) -> None:
        if self.facts.uri:  # else killed before anything was made
            self._remove()

    def _sibling(self, name: str, identifier: str) -> Self:
        """A driver for another domain of the same kind in the same place."""
        facts = LibvirtFacts(uri=self.facts.uri, session=self.facts.session, kind=self.facts.kind)
        host = HostRef(name, identifier, self.host.folder)
        made = type(self)(host, replace(self.config, ip=""), facts, report=self.report)
        made.facts = replace(facts, mac=network.mac(identifier, "nic"))
        return made

    def _clear(self, name: str) -> None:
        """Remove what a killed ``save_warm`` left under that name. Its caller is the only one."""
        with suppress(module().libvirtError):
            left = self._connect().lookupByName(name)
            self._sibling(name, left.UUIDString()).remove()

    def _remove(self, keep: str = "") -> None:
        """Everything of the machine's but the volume ``keep``."""
        conn = self._connect()
        libvirt = module()
        if (domain := self._domain()) is not None:
            self._end(domain)
        with suppress(libvirt.libvirtError):
            pool = conn.storagePoolLookupByName(self.config.pool)
            storage.delete_all(pool, self._volume(""), keep=keep)
        if not self.facts.session:
            with suppress(libvirt.libvirtError):
                network.release(conn.networkLookupByName(self.config.network), self.facts.mac)

    def _end(self, domain: Any) -> None:
        """Power it off and forget its definition."""
        with doing(f"removing {self.host.name}"):
            if domain.isActive():
                with suppress(module().libvirtError):  # it may end by itself in this moment
                    domain.destroy()
            undefine(domain)

    def settle(self) -> None:
        """Detach the first-boot disks from the definition and, if the guest lets go, from the
        running machine; the secrets' volume is deleted either way."""
        libvirt = module()
        domain = self._domain()
        if domain is not None:
            flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            for target in readonly_targets(xml):
                with doing("detaching a first-boot disk"):
                    domain.detachDeviceFlags(disk_xml(xml, target), flags)
            if domain.isActive():
                self._unplug(domain)
        storage.delete(self._pool(), self._volume("seed"))

    def start(self) -> None:
        domain = self._existing()
        if gone := storage.missing(self._pool(), sources(domain.XMLDesc())):
            raise DriverError(
                f'"{self.host.name}" cannot start: {gone} is gone',
                hint=f"Put the file back, or remove the machine: machine rm {self.host.name}",
            )
        if not self.facts.session:
            network.network(self._connect(), self.config.network)
        if domain.state()[0] == module().VIR_DOMAIN_PAUSED:
            self.resume()
        else:
            self._power_on(domain)

    def stop(self) -> None:
        with doing(f"shutting down {self.host.name}"):
            domain = self._existing()
            if domain.isActive():
                domain.shutdown()

    def kill(self) -> None:
        with doing(f"powering off {self.host.name}"):
            domain = self._existing()
            if domain.isActive():
                domain.destroy()

    def pause(self) -> None:
        with doing(f"pausing {self.host.name}"):
            self._existing().suspend()

    def resume(self) -> None:
        with doing(f"resuming {self.host.name}"):
            self._existing().resume()

    def resize(self, wanted: Size) -> Mapping[str, Any]:
        """The guest's file system grows at its next boot."""
        with doing(f"changing the size of {self.host.name}"):
            resize(self._existing(), wanted.cpus, wanted.memory_mib)
            if wanted.disk_gib is not None:
                storage.grow(self._pool(), self._volume("disk.qcow2"), wanted.disk_gib)
        options = {"cpus": wanted.cpus, "memory": wanted.memory_mib, "disk_size": wanted.disk_gib}
        return {key: value for key, value in options.items() if value is not None}

    def console(self, offset: int = 0) -> tuple[bytes, int]:
        new = storage.content(self._pool(), self._volume("console.log"), offset)
        return new, offset + len(new)

    def explain(self) -> str:
        sighting = self._sight(self._connection())
        kind = "KVM" if self.facts.kind == "kvm" else "emulation"
        return sighting.problem or f"libvirt says: {sighting.state} ({self.facts.uri}, by {kind})"

    @classmethod
    def survey(cls, drivers: Sequence[Self]) -> Mapping[str, Sighting]:
        """One question for each connection."""
        groups: dict[str, list[Self]] = defaultdict(list)
        for driver in drivers:
            groups[driver.facts.uri].append(driver)
        seen: dict[str, Sighting] = {}
        for group in groups.values():
            conn = group[0]._connection()
            states = None
            if not isinstance(conn, str):
                libvirt = module()
                with suppress(libvirt.libvirtError):
                    told = conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
                    states = {
                        domain.UUIDString(): (stats["state.state"], stats["state.reason"])
                        for domain, stats in told
                    }
            for driver in group:
                seen[driver.host.name] = driver._sight(conn, states)
        return seen

    @classmethod
    def usage(cls, drivers: Sequence[Self]) -> Mapping[str, Usage]:
        """One question for each connection, to its computer alone: no guest takes part in it."""
        from machine.drivers.libvirt import usage

        names = {driver.host.id: driver.host.name for driver in drivers}
        found: dict[str, Usage] = {}
        for uri in {driver.facts.uri for driver in drivers if driver.facts.uri}:
            with suppress(MachineError, module().libvirtError):
                told = usage.ask(connection.connect(uri))
                found |= {names[each]: told[each] for each in names.keys() & told.keys()}
        return found

    @classmethod
    def prune(
        cls, drivers: Sequence[Self], keep: frozenset[str], gone: frozenset[str], *, dry_run: bool
    ) -> Mapping[str, int]:
        """Of our default pool and of those that machines have, wherever they are."""
        from machine.drivers.libvirt.prune import unneeded

        places = {(driver.facts.uri, driver.config.pool) for driver in drivers}
        with suppress(MachineError):
            places.add((connection.resolve(""), storage.OURS))
        removed: dict[str, int] = {}
        for uri, name in sorted(places):
            with suppress(MachineError, module().libvirtError):
                conn = connection.connect(uri)
                pool = conn.storagePoolLookupByName(name)
                with _uploads(uri, name):
                    found = unneeded(conn, pool, keep, gone)
                    for each in found if not dry_run else ():
                        storage.delete(pool, each)
                removed |= found
        return removed

    @classmethod
    def findings(cls, store: Path, known_ids: frozenset[str], *, fix: bool) -> Sequence[Finding]:
        from machine.drivers.libvirt import findings

        return findings.findings(store, known_ids, fix=fix)

    def _sight(self, conn: Any, states: Mapping[str, tuple[int, int]] | None = None) -> Sighting:
        """``states``, by domain, are those that a survey was told."""
        if isinstance(conn, str):
            return Sighting(State.UNKNOWN if self.facts.uri else State.MISSING, problem=conn)
        found = self._domain_state() if states is None else states.get(self.host.id)
        if found is None:
            return Sighting(State.MISSING)
        number, reason = found
        state = _STATES.get(number, State.UNKNOWN)
        problem = ""
        if state is State.PAUSED and reason == module().VIR_DOMAIN_PAUSED_IOERROR:
            problem = "paused by a disk error: is the hypervisor's disk full?"
        address = self.address() if state is State.RUNNING and self.facts.address else None
        return Sighting(state, address, problem)

    def _connection(self) -> Any:
        """The connection, or why there is none."""
        if not self.facts.uri:
            return ""
        try:
            return connection.connect(self.facts.uri)
        except MachineError as exc:
            return exc.line

    def _connect(self) -> Any:
        return connection.connect(self.facts.uri)

    def _domain(self) -> Any | None:
        libvirt = module()
        try:
            return self._connect().lookupByUUIDString(self.host.id)
        except libvirt.libvirtError as exc:
            if connection.code(exc) == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise DriverError("libvirt cannot be asked", details=str(exc)) from exc

    def _domain_state(self) -> tuple[int, int] | None:
        """Its number and the reason for it; None for a domain that is not there."""
        domain = self._domain()
        if domain is None:
            return None
        try:
            number, reason = domain.state()
        except module().libvirtError:  # removed in this moment
            return None
        return number, reason

    def _existing(self) -> Any:
        domain = self._domain()
        if domain is None:
            raise DriverError(f'libvirt does not know "{self.host.name}" any more')
        return domain

    def _pool(self) -> Any:
        return storage.pool(self._connect(), self.config.pool, session=self.facts.session)

    def _choose_kind(self, pool: Any) -> str:
        """With or without KVM, found out once. The caller holds ``_uploads``."""
        if not self.facts.kind:
            kind, line = acceleration.choose(self._connect(), pool, self.config.accel)
            if line:
                self.report.warn(line)
            self.save(replace(self.facts, kind=kind))
        return self.facts.kind

    def _start_over(self) -> None:
        """Before a warm start: memory fits only a disk that nothing has written to. A create that
        was killed may have left one that was, or a domain that waits for the rest of its memory;
        one that runs has all of it."""
        domain = self._domain()
        if domain is None or self.state() is State.RUNNING:
            return
        self._end(domain)
        storage.delete(self._pool(), self._volume("disk.qcow2"))

    def _begin(self, domain: Any, warm: Warm | None) -> None:
        """By a boot, or by going on where saved memory was left. Raises libvirtError, WarmRefused."""
        if warm is None:
            domain.create()
            return
        from machine.drivers.libvirt import memory

        libvirt = module()
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        source = warm.folder / memory.FILE
        memory.restore(self._connect(), source, warm.sha256[memory.FILE], xml)

    def _assembly(self, pool: Any) -> Assembly:
        from machine.drivers.libvirt.assembly import Assembly

        return Assembly(self.host, self.config, self.facts, pool, self.report)

    def _volume(self, kind: str) -> str:
        return storage.prefix(self.host.name, self.host.id) + kind

    def _uploads(self) -> Any:
        return _uploads(self.facts.uri, self.config.pool)

    def _power_on(self, domain: Any, warm: Warm | None = None) -> None:
        """Start it if it does not run. Forwarded ports that another program has taken meanwhile are
        exchanged for others; only the start itself can tell."""
        libvirt = module()
        with doing(f"starting {self.host.name}"):
            for attempt in range(1, forward.TRIES):
                try:
                    if not domain.isActive():
                        self._begin(domain, warm)
                    break
                except libvirt.libvirtError as exc:
                    if not forward.taken(exc):
                        raise
                xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
                other = forward.ports(self.host.id, attempt)
                domain = self._connect().defineXML(forward.moved(xml, *other))
            else:
                self._begin(domain, warm)
            if self.facts.forwarded:
                self._note_ports(domain)

    def _note_ports(self, domain: Any) -> None:
        """The definition is what counts, also after a kill between the two."""
        found = forward.read(domain.XMLDesc())
        if found and found != (self.facts.ssh_port, self.facts.engine_port):
            self.save(replace(self.facts, ssh_port=found[0], engine_port=found[1]))

    def _unplug(self, domain: Any) -> None:
        libvirt = module()
        xml = domain.XMLDesc()
        for target in readonly_targets(xml):
            with suppress(libvirt.libvirtError):
                domain.detachDeviceFlags(disk_xml(xml, target), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        with suppress(TimedOut):  # a guest that does not let go loses them at its next start
            wait.until(
                "the guest to let go of its first-boot disks",
                lambda: not readonly_targets(domain.XMLDesc()),
                timeout=10,
            )


def _uploads(uri: str, pool: str) -> Any:
    """One process at a time puts shared files into a pool and begins to use them, or removes
    those that nothing uses."""
    from filelock import FileLock

    cache_root().mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(f"{uri} {pool}".encode()).hexdigest()[:16]
    return FileLock(cache_root() / f".pool-{key}.lock")

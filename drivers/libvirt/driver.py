"""VMs by libvirt: system or session mode, with or without KVM, here or on another computer."""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Final, Self
from xml.etree import ElementTree

from machine import wait
from machine.driver import Driver, Finding, HostRef
from machine.drivers.libvirt import (
    acceleration,
    connection,
    findings,
    forward,
    memory,
    network,
    preflight,
    storage,
)
from machine.drivers.libvirt.config import LibvirtConfig, LibvirtFacts
from machine.drivers.libvirt.connection import doing, module
from machine.drivers.libvirt.domain import (
    Disk,
    DomainContext,
    disk_xml,
    readonly_targets,
    sources,
    targets,
    undefine,
)
from machine.drivers.libvirt.prune import unneeded
from machine.errors import BadOption, DriverError, MachineError, TimedOut, WarmRefused
from machine.model import Address, Can, FirstBoot, Nic, Sighting, State, VmSpec, Warm
from machine.paths import cache_root
from machine.render import render

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


_NOT_WARM: Final = b"machine: not warm"
BOOT_TIMEOUT: Final = 600
"""Seconds, where the user chose none."""


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
    )
    config_type: ClassVar[type[LibvirtConfig]] = LibvirtConfig
    facts_type: ClassVar[type[LibvirtFacts]] = LibvirtFacts

    def memory_available(self) -> int | None:
        uri = connection.resolve(self.facts.uri or self.config.uri)
        return preflight.memory(connection.connect(uri))

    def preflight(self) -> None:
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
                mac=self._mac("nic"),
            )
        )

    def reserve(self, engine_port: int) -> Address:
        """A reservation in the network, or ports of the hypervisor's computer, or both where that
        is another one. Only QEMU's start shows whether ports are free: they may move then."""
        facts = replace(self.facts, engine_port=engine_port)
        if facts.session:
            facts = replace(facts, lan=self._lan_address())
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
            files = self._shared(pool, spec)
            self.reserve(spec.engine_port)
            if spec.warm:
                self._start_over()
            if (domain := self._domain()) is None:
                xml = self._xml(pool, spec, files)
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
        conn = self._connect()
        if connection.is_remote(self.facts.uri):
            raise WarmRefused("the hypervisor is on another computer")
        if self.config.extra_disk:
            raise WarmRefused("it has further disks")
        with self._uploads():
            kind = self._choose_kind(self._pool())
        with doing("asking for its versions"):
            cpu = ElementTree.fromstring(conn.getCapabilities()).find("host/cpu")  # noqa: S314
            return {
                "uri": self.facts.uri,
                "pool": self._pool().UUIDString(),
                "libvirt": str(conn.getLibVersion()),
                "qemu": str(conn.getVersion()),
                "kind": kind,
                "machine": self.config.machine_type,
                "cpu": self._cpu_mode(),
                "host cpu": ""
                if cpu is None or kind == "qemu"
                else ElementTree.tostring(cpu, "unicode"),
                "cpus": str(spec.cpus),
                "memory": str(spec.memory_mib),
                "disk": str(spec.disk_gib),
                "kernel": _digest(spec.image.kernel),
                "initrd": _digest(spec.image.initrd),
                "cmdline": spec.image.cmdline,
            }

    def save_warm(self, spec: VmSpec, folder: Path, marker: bytes) -> Mapping[str, Any]:
        self._clear(f"base-{spec.identity.hostname}")
        builder = self._sibling(f"base-{spec.identity.hostname}", str(uuid.uuid4()))
        try:
            builder.preflight()
            builder.create(spec)
            builder._wait_for_console(marker)
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

    def remove(self) -> None:
        if self.facts.uri:  # else killed before anything was made
            self._remove()

    def _sibling(self, name: str, identifier: str) -> Self:
        """A driver for another domain of the same kind in the same place."""
        facts = LibvirtFacts(uri=self.facts.uri, session=self.facts.session, kind=self.facts.kind)
        host = HostRef(name, identifier, self.host.folder)
        made = type(self)(host, replace(self.config, ip=""), facts, report=self.report)
        made.facts = replace(facts, mac=made._mac("nic"))
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
            with doing(f"removing {self.host.name}"):
                if domain.isActive():
                    with suppress(libvirt.libvirtError):
                        domain.destroy()
                undefine(domain)
        with suppress(libvirt.libvirtError):
            pool = conn.storagePoolLookupByName(self.config.pool)
            storage.delete_all(pool, self._volume(""), keep=keep)
        if not self.facts.session:
            with suppress(libvirt.libvirtError):
                network.release(conn.networkLookupByName(self.config.network), self.facts.mac)

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
    def prune(
        cls, drivers: Sequence[Self], keep: frozenset[str], gone: frozenset[str], *, dry_run: bool
    ) -> Mapping[str, int]:
        """Of our default pool and of those that machines have, wherever they are."""
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
            return f"{exc.brief}: {exc.details}"

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

    def _mac(self, purpose: str) -> str:
        """From the machine's id, in QEMU's range: the same at every call, and after a kill."""
        digest = hashlib.sha256(f"{self.host.id} {purpose}".encode()).hexdigest()
        return f"52:54:00:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"

    def _pool(self) -> Any:
        return storage.pool(self._connect(), self.config.pool, session=self.facts.session)

    def _extra(self) -> list[str]:
        """The further disks' kinds of volume."""
        return [f"data{number}.qcow2" for number, _ in enumerate(self.config.extra_disk, 1)]

    def _choose_kind(self, pool: Any) -> str:
        """With or without KVM, found out once. The caller holds ``_uploads``."""
        if not self.facts.kind:
            kind, line = acceleration.choose(self._connect(), pool, self.config.accel)
            if line:
                self.report.warn(line)
            self.save(replace(self.facts, kind=kind))
        return self.facts.kind

    def _cpu_mode(self) -> str:
        default = "host-passthrough" if self.facts.kind == "kvm" else "maximum"
        return self.config.cpu_mode or default

    def _start_over(self) -> None:
        """Before a warm start: memory fits only a disk that nothing has written to. A create that
        was killed may have left one that was."""
        domain = self._domain()
        if domain is not None and not domain.isActive():
            with doing(f"removing what is left of {self.host.name}"):
                undefine(domain)
            storage.delete(self._pool(), self._volume("disk.qcow2"))

    def _begin(self, domain: Any, warm: Warm | None) -> None:
        """By a boot, or by going on where saved memory was left. Raises libvirtError, WarmRefused."""
        if warm is None:
            domain.create()
            return
        libvirt = module()
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        source = warm.folder / memory.FILE
        memory.restore(self._connect(), source, warm.sha256[memory.FILE], xml)

    def _wait_for_console(self, marker: bytes) -> None:
        """Until the guest has said it there. Raises DriverError when it says that it will not, or
        stops, and TimedOut."""

        def said() -> bool:
            shown, _ = self.console()
            if marker in shown:
                return True
            if _NOT_WARM in shown or self.state() is not State.RUNNING:
                raise DriverError("The machine did not become warm", details=_tail(shown))
            return False

        wait.until(
            "the machine to become warm",
            said,
            timeout=self.config.boot_timeout or BOOT_TIMEOUT,
            last_answer=lambda: _tail(self.console()[0]),
        )

    def _volume(self, kind: str) -> str:
        return storage.prefix(self.host.name, self.host.id) + kind

    def _uploads(self) -> Any:
        return _uploads(self.facts.uri, self.config.pool)

    def _shared(self, pool: Any, spec: VmSpec) -> dict[str, str]:
        image = spec.image
        files = {"disk": (image.disk, image.digest, "qcow2")}
        for key, path in (("kernel", image.kernel), ("initrd", image.initrd)):
            if path is not None:
                files[key] = (path, _digest(path), key)
        for medium in spec.media:
            files[medium.label] = (medium.path, medium.sha256, "tar")

        def tell(done: int, total: int) -> None:
            self.report.progress("vm", done, total)

        return {
            key: storage.shared(pool, f"{storage.SHARED}{digest[:16]}.{ending}", path, digest, tell)
            for key, (path, digest, ending) in files.items()
        }

    def _nics(self) -> list[Nic]:
        """As the guest is to set them up: the way out first."""
        facts = self.facts
        way_in = Nic(self._mac("forward"), *forward.GUEST)
        if facts.session:
            return [way_in, Nic(facts.mac, f"{facts.lan}/16")]
        net = network.network(self._connect(), self.config.network)
        address, gateway = network.static(net, facts.lan)
        if facts.forwarded:
            return [way_in, Nic(facts.mac, address)]
        return [Nic(facts.mac, address, gateway, gateway)]

    def _disks(self, pool: Any, spec: VmSpec, files: Mapping[str, str]) -> list[Disk]:
        from machine import seed

        content, label = seed.first_boot(spec.image.first_boot, spec.identity, self._nics())
        seed_volume = self._volume("seed")
        storage.delete(pool, seed_volume)  # of a create that was killed
        seed_path = storage.upload(
            pool, seed_volume, BytesIO(content).read, len(content), mode="0600"
        )
        base = _saved(pool, spec.warm.facts) if spec.warm else files["disk"]
        root = storage.disk(pool, self._volume("disk.qcow2"), spec.disk_gib, base)
        target = targets()
        disks = [Disk(root, next(target), "qcow2", readonly=False)]
        disks.append(Disk(seed_path, next(target), serial=label))
        for medium in spec.media:
            disks.append(Disk(files[medium.label], next(target), serial=medium.label))
        for kind, size in zip(self._extra(), self.config.extra_disk, strict=True):
            path = storage.disk(pool, self._volume(kind), size)
            serial = kind.partition(".")[0]  # /dev/disk/by-id/virtio-data1
            disks.append(Disk(path, next(target), "qcow2", serial=serial, readonly=False))
        return disks

    def _xml(self, pool: Any, spec: VmSpec, files: Mapping[str, str]) -> str:
        facts = self.facts
        context = DomainContext(
            kind=facts.kind,
            name=self.host.name,
            uuid=self.host.id,
            store=str(self.host.folder.parent.parent),
            memory_mib=spec.memory_mib,
            cpus=spec.cpus,
            arch=spec.image.arch,
            machine_type=self.config.machine_type,
            cpu_mode=self._cpu_mode(),
            kernel=files.get("kernel", ""),
            initrd=files.get("initrd", ""),
            cmdline=spec.image.cmdline,
            disks=tuple(self._disks(pool, spec, files)),
            network="" if facts.session else self.config.network,
            mac=facts.mac,
            forwards=self._forwards(spec.engine_port) if facts.forwarded else "",
            forward_mac=self._mac("forward"),
            lan_mac=facts.mac if facts.session else "",
            console=f"{storage.path_of(pool)}/{self._volume('console.log')}",
            genid=spec.image.first_boot is FirstBoot.IDENTITY,
        )
        return render("libvirt/domain.xml.j2", context)

    def _forwards(self, guest_engine_port: int) -> str:
        facts = self.facts
        bind = "" if connection.is_remote(facts.uri) else "127.0.0.1"
        return forward.rules(bind, facts.ssh_port, facts.engine_port, guest_engine_port)

    def _lan_address(self) -> str:
        """On the socket network that a user's session machines share: from the machine's id."""
        number = int(self.host.id.replace("-", "")[:4], 16) % 65000 + 2
        return f"10.77.{number // 256}.{number % 256}"

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


def _saved(pool: Any, facts: Mapping[str, Any]) -> str:
    """The path of a saved machine's disk, which must be as it was. Raises WarmRefused."""
    found = storage.volume(pool, facts["disk"])
    if found is None:
        raise WarmRefused(f"its disk {facts['disk']} is gone from the pool", spent=True)
    if storage.changed(found) != facts.get("written"):
        raise WarmRefused(f"its disk {facts['disk']} was written to", spent=True)
    return str(found.path())


def _digest(path: Path | None) -> str:
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _tail(console: bytes) -> str:
    return "\n".join(console.decode("utf-8", "replace").splitlines()[-8:])

"""VMs by libvirt: system or session mode, with or without KVM, here or on another computer."""

from __future__ import annotations

import hashlib
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from machine import seed, wait
from machine.driver import Driver, Finding
from machine.drivers.libvirt import acceleration, connection, findings, network, storage
from machine.drivers.libvirt.config import LibvirtConfig, LibvirtFacts
from machine.drivers.libvirt.connection import doing, module
from machine.errors import DriverError, MachineError, PreflightError, TimedOut
from machine.model import Address, Can, Nic, Sighting, State, VmSpec
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


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    target: str
    format: str = "raw"
    cache: str = "none"
    serial: str = ""
    readonly: bool = True


@dataclass(frozen=True, slots=True)
class DomainContext:
    kind: str
    name: str
    uuid: str
    store: str
    memory_mib: int
    cpus: int
    arch: str
    machine_type: str
    cpu_mode: str
    kernel: str
    initrd: str
    cmdline: str
    disks: tuple[Disk, ...]
    mac: str
    lan_mac: str
    network: str
    forwards: str
    console: str


class LibvirtDriver(Driver[LibvirtConfig, LibvirtFacts]):
    name: ClassVar[str] = "libvirt"
    can: ClassVar[Can] = (
        Can.POWER | Can.KILL | Can.PAUSE | Can.CONSOLE | Can.IDENTITY | Can.CLOUD_INIT | Can.MEDIA
    )
    config_type: ClassVar[type[LibvirtConfig]] = LibvirtConfig
    facts_type: ClassVar[type[LibvirtFacts]] = LibvirtFacts

    def preflight(self) -> None:
        uri = connection.resolve(self.facts.uri or self.config.uri)
        conn = connection.connect(uri)
        if self.config.accel not in ("auto", "kvm", "tcg"):
            raise PreflightError(f"--libvirt-accel is {self.config.accel!r}: auto, kvm or tcg")
        session = connection.is_session(uri)
        if self.config.ip:
            if session:
                raise PreflightError(
                    "--libvirt-ip needs system mode; in session mode a machine is at 127.0.0.1",
                    hint="--libvirt-uri qemu:///system",
                )
            network.check_address(network.network(conn, self.config.network), self.config.ip)
        with suppress(module().libvirtError):
            found = conn.lookupByName(self.host.name)
            if found.UUIDString() != self.host.id:
                raise PreflightError(
                    f'libvirt has another domain called "{self.host.name}" already',
                    hint=f"Choose another name, or look at it: virsh -c {uri} dominfo {self.host.name}",
                )
        self.save(replace(self.facts, uri=uri, session=session, mac=self._mac("nic")))

    def create(self, spec: VmSpec) -> None:
        conn = self._connect()
        pool = storage.pool(conn, self.config.pool, session=self.facts.session)
        with self._uploads():
            if not self.facts.kind:
                kind, line = acceleration.choose(conn, pool, self.config.accel)
                if line:
                    self.report.warn(line)
                self.save(replace(self.facts, kind=kind))
            files = self._shared(pool, spec)
        self._find_address(conn)
        if (domain := self._domain()) is None:
            xml = self._xml(pool, spec, files)
            with doing(f"defining {self.host.name}"):
                domain = conn.defineXML(xml)
        with doing(f"starting {self.host.name}"):
            if not domain.isActive():
                domain.create()

    def state(self) -> State:
        return self._sight(self._connection()).state

    def address(self) -> Address:
        facts = self.facts
        if not facts.address:
            raise DriverError(f'"{self.host.name}" has no address yet')
        return Address(facts.address, facts.ssh_port, facts.engine_port)

    def remove(self) -> None:
        if not self.facts.uri:
            return  # killed before anything was made
        conn = self._connect()
        libvirt = module()
        if (domain := self._domain()) is not None:
            with doing(f"removing {self.host.name}"):
                if domain.isActive():
                    with suppress(libvirt.libvirtError):
                        domain.destroy()
                domain.undefineFlags(
                    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                )
        with suppress(libvirt.libvirtError):
            pool = conn.storagePoolLookupByName(self.config.pool)
            with suppress(libvirt.libvirtError):
                pool.refresh()  # the console log became a volume without our doing
            for kind in ("disk.qcow2", "seed", "console.log"):
                storage.delete(pool, self._volume(kind))
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
            for target in _readonly_targets(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)):
                with doing("detaching a first-boot disk"):
                    domain.detachDeviceFlags(_disk_xml(domain, target, inactive=True), flags)
            if domain.isActive():
                self._unplug(domain)
        pool = storage.pool(self._connect(), self.config.pool, session=self.facts.session)
        storage.delete(pool, self._volume("seed"))

    def start(self) -> None:
        domain = self._existing()
        if self.facts.session:
            domain = self._repick_ports(domain)
        else:
            network.network(self._connect(), self.config.network)
        with doing(f"starting {self.host.name}"):
            if domain.state()[0] == module().VIR_DOMAIN_PAUSED:
                domain.resume()
            elif not domain.isActive():
                domain.create()

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
        pool = storage.pool(self._connect(), self.config.pool, session=self.facts.session)
        new = storage.content(pool, self._volume("console.log"), offset)
        return new, offset + len(new)

    def explain(self) -> str:
        sighting = self._sight(self._connection())
        kind = "KVM" if self.facts.kind == "kvm" else "emulation"
        return sighting.problem or f"libvirt says: {sighting.state} ({self.facts.uri}, by {kind})"

    @classmethod
    def survey(cls, drivers: Sequence[Self]) -> Mapping[str, Sighting]:
        """One list of domains for each connection."""
        groups: dict[str, list[Self]] = defaultdict(list)
        for driver in drivers:
            groups[driver.facts.uri].append(driver)
        seen: dict[str, Sighting] = {}
        for group in groups.values():
            conn = group[0]._connection()
            domains = None
            if not isinstance(conn, str):
                with suppress(module().libvirtError):
                    domains = {each.UUIDString(): each for each in conn.listAllDomains()}
            for driver in group:
                seen[driver.host.name] = driver._sight(conn, domains)
        return seen

    @classmethod
    def findings(cls, known_ids: frozenset[str], *, fix: bool) -> Sequence[Finding]:
        return findings.findings(known_ids, fix=fix)

    def _sight(self, conn: Any, domains: Mapping[str, Any] | None = None) -> Sighting:
        if isinstance(conn, str):
            return Sighting(State.UNKNOWN if self.facts.uri else State.MISSING, problem=conn)
        domain = self._domain() if domains is None else domains.get(self.host.id)
        if domain is None:
            return Sighting(State.MISSING)
        try:
            number, reason = domain.state()
        except module().libvirtError:
            return Sighting(State.MISSING)
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

    def _existing(self) -> Any:
        domain = self._domain()
        if domain is None:
            raise DriverError(f'libvirt does not know "{self.host.name}" any more')
        return domain

    def _mac(self, purpose: str) -> str:
        """From the machine's id, in QEMU's range: the same at every call, and after a kill."""
        digest = hashlib.sha256(f"{self.host.id} {purpose}".encode()).hexdigest()
        return f"52:54:00:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"

    def _volume(self, kind: str) -> str:
        return f"machine-{self.host.name}-{self.host.id[:8]}-{kind}"

    def _uploads(self) -> Any:
        """One process at a time puts the shared files into a pool."""
        from filelock import FileLock

        cache_root().mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256(f"{self.facts.uri} {self.config.pool}".encode()).hexdigest()[:16]
        return FileLock(cache_root() / f".pool-{key}.lock")

    def _shared(self, pool: Any, spec: VmSpec) -> dict[str, str]:
        image = spec.image
        files: dict[str, tuple[str, Path, str]] = {
            "disk": (f"machine-base-{image.digest[:16]}.qcow2", image.disk, "qcow2")
        }
        for key, path in (("kernel", image.kernel), ("initrd", image.initrd)):
            if path is not None:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                files[key] = (f"machine-base-{digest}.{key}", path, "raw")
        for medium in spec.media:
            name = f"machine-base-{medium.sha256[:16]}.tar"
            files[medium.label] = (name, medium.path, "raw")

        def tell(done: int, total: int) -> None:
            self.report.progress("vm", done, total)

        return {
            key: storage.shared(pool, name, path, fmt, tell)
            for key, (name, path, fmt) in files.items()
        }

    def _find_address(self, conn: Any) -> None:
        """Known before the boot: a reservation, or two free ports of the loopback address."""
        if self.facts.session:
            if self.facts.address:
                return
            ssh_port, engine_port = _free_ports(2)
            self.save(
                replace(self.facts, address="127.0.0.1", ssh_port=ssh_port, engine_port=engine_port)
            )
        else:
            net = network.network(conn, self.config.network)
            address = network.reserve(net, self.host.name, self.facts.mac, self.config.ip)
            self.save(replace(self.facts, address=address))

    def _xml(self, pool: Any, spec: VmSpec, files: Mapping[str, str]) -> str:
        if self.facts.session:
            nics = [Nic(self.facts.mac), Nic(self._mac("lan"), self._lan_address())]
        else:
            net = network.network(self._connect(), self.config.network)
            nics = [Nic(self.facts.mac, *network.static(net, self.facts.address))]
        content, label = seed.first_boot(spec.image.first_boot, spec.identity, nics)
        storage.delete(pool, self._volume("seed"))  # of a create that was killed
        seed_path = storage.upload(
            pool,
            self._volume("seed"),
            _reader(content),
            len(content),
            "raw",
            lambda done, total: None,
            mode="0600",
        )
        disk = storage.overlay(pool, self._volume("disk.qcow2"), files["disk"], spec.disk_gib)
        disks = [Disk(disk, "vda", "qcow2", readonly=False), Disk(seed_path, "vdb", serial=label)]
        for letter, medium in zip("cdefgh", spec.media, strict=False):
            disks.append(Disk(files[medium.label], f"vd{letter}", serial=medium.label))
        cpu_mode = self.config.cpu_mode or (
            "host-passthrough" if self.facts.kind == "kvm" else "maximum"
        )
        context = DomainContext(
            kind=self.facts.kind,
            name=self.host.name,
            uuid=self.host.id,
            store=str(self.host.folder.parent.parent),
            memory_mib=spec.memory_mib,
            cpus=spec.cpus,
            arch=spec.image.arch,
            machine_type=self.config.machine_type,
            cpu_mode=cpu_mode,
            kernel=files.get("kernel", ""),
            initrd=files.get("initrd", ""),
            cmdline=spec.image.cmdline,
            disks=tuple(disks),
            mac=self.facts.mac,
            lan_mac=self._mac("lan"),
            network="" if self.facts.session else self.config.network,
            forwards=_forwards(self.facts) if self.facts.session else "",
            console=f"{storage.path_of(pool)}/{self._volume('console.log')}",
        )
        return render("libvirt/domain.xml.j2", context)

    def _lan_address(self) -> str:
        """On the socket network that a user's session machines share: from the machine's id."""
        number = int(self.host.id.replace("-", "")[:4], 16) % 65000 + 2
        return f"10.77.{number // 256}.{number % 256}/16"

    def _repick_ports(self, domain: Any) -> Any:
        """Forwards of a stopped machine whose ports another program has taken meanwhile."""
        facts = self.facts
        if domain.isActive() or (_is_free(facts.ssh_port) and _is_free(facts.engine_port)):
            return domain
        ssh_port, engine_port = _free_ports(2)
        fresh = replace(facts, ssh_port=ssh_port, engine_port=engine_port)
        xml = domain.XMLDesc(module().VIR_DOMAIN_XML_INACTIVE | module().VIR_DOMAIN_XML_SECURE)
        with doing("moving the forwarded ports"):
            domain = self._connect().defineXML(xml.replace(_forwards(facts), _forwards(fresh)))
        self.save(fresh)
        return domain

    def _unplug(self, domain: Any) -> None:
        libvirt = module()
        for target in _readonly_targets(domain.XMLDesc()):
            with suppress(libvirt.libvirtError):
                domain.detachDeviceFlags(
                    _disk_xml(domain, target, inactive=False), libvirt.VIR_DOMAIN_AFFECT_LIVE
                )
        with suppress(TimedOut):  # a guest that does not let go loses them at its next start
            wait.until(
                "the guest to let go of its first-boot disks",
                lambda: not _readonly_targets(domain.XMLDesc()),
                timeout=10,
            )


def _reader(content: bytes) -> Any:
    from io import BytesIO

    return BytesIO(content).read


def _readonly_targets(xml: str) -> list[str]:
    from xml.etree import ElementTree

    return [
        str(target.get("dev"))
        for disk in ElementTree.fromstring(xml).iterfind("devices/disk")  # noqa: S314
        if disk.find("readonly") is not None and (target := disk.find("target")) is not None
    ]


def _disk_xml(domain: Any, target: str, *, inactive: bool) -> str:
    from xml.etree import ElementTree

    xml = domain.XMLDesc(module().VIR_DOMAIN_XML_INACTIVE if inactive else 0)
    for disk in ElementTree.fromstring(xml).iterfind("devices/disk"):  # noqa: S314
        found = disk.find("target")
        if found is not None and found.get("dev") == target:
            return ElementTree.tostring(disk, encoding="unicode")
    raise DriverError(f"The disk {target} is gone")


def _forwards(facts: LibvirtFacts) -> str:
    return f"hostfwd=tcp:127.0.0.1:{facts.ssh_port}-:22,hostfwd=tcp:127.0.0.1:{facts.engine_port}-:2376"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""From what a machine is to be, to its volumes and its domain's XML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from machine.download import Digest
from machine.driver import HostRef
from machine.drivers.libvirt import connection, forward, network, storage
from machine.drivers.libvirt.config import LibvirtConfig, LibvirtFacts
from machine.drivers.libvirt.domain import Disk, DomainContext, targets
from machine.errors import WarmRefused
from machine.events import Reporter
from machine.model import FirstBoot, Nic, VmSpec
from machine.render import render


@dataclass(frozen=True, slots=True)
class Assembly:
    """One machine's parts, in the pool ``pool``."""

    host: HostRef
    config: LibvirtConfig
    facts: LibvirtFacts
    pool: Any
    report: Reporter

    @property
    def cpu_mode(self) -> str:
        default = "host-passthrough" if self.facts.kind == "kvm" else "maximum"
        return self.config.cpu_mode or default

    def share(self, spec: VmSpec) -> dict[str, str]:
        """Bring the files that machines have in common into the pool; answers their paths there.
        One process at a time."""
        image = spec.booted
        files = {"disk": (image.disk, image.digest, "qcow2")}
        for key, path in (("kernel", image.kernel), ("initrd", image.initrd)):
            if path is not None:
                files[key] = (path, digest(path), key)
        for medium in spec.media:
            files[medium.label] = (medium.path, medium.sha256, "tar")

        def tell(done: int, total: int) -> None:
            self.report.progress("vm", done, total)

        return {
            key: storage.shared(
                self.pool, f"{storage.SHARED}{name[:16]}.{ending}", path, name, tell
            )
            for key, (path, name, ending) in files.items()
        }

    def xml(self, spec: VmSpec, files: Mapping[str, str]) -> str:
        """The domain's definition, when its address is known; makes its volumes."""
        facts = self.facts
        context = DomainContext(
            kind=facts.kind,
            name=self.host.name,
            uuid=self.host.id,
            store=str(self.host.folder.parent.parent),
            memory_mib=spec.memory_mib,
            cpus=spec.cpus,
            arch=spec.booted.arch,
            machine_type=self.config.machine_type,
            cpu_mode=self.cpu_mode,
            kernel=files.get("kernel", ""),
            initrd=files.get("initrd", ""),
            cmdline=spec.booted.cmdline,
            disks=tuple(self._disks(spec, files)),
            network="" if facts.session else self.config.network,
            mac=facts.mac,
            forwards=self._forwards(spec.engine_port) if facts.forwarded else "",
            forward_mac=network.mac(self.host.id, "forward"),
            lan_mac=facts.mac if facts.session else "",
            console=f"{storage.path_of(self.pool)}/{self._volume('console.log')}",
            genid=spec.booted.first_boot is FirstBoot.IDENTITY,
        )
        return render("libvirt/domain.xml.j2", context)

    def _disks(self, spec: VmSpec, files: Mapping[str, str]) -> list[Disk]:
        from machine import seed

        pool = self.pool
        content, label = seed.first_boot(spec.booted.first_boot, spec.identity, self._nics())
        storage.delete(pool, self._volume("seed"))  # of a create that was killed
        seed_path = storage.upload(
            pool, self._volume("seed"), BytesIO(content).read, len(content), mode="0600"
        )
        base = _saved(pool, spec.warm.facts) if spec.warm else files["disk"]
        root = storage.disk(pool, self._volume("disk.qcow2"), spec.disk_gib, base)
        target = targets()
        disks = [Disk(root, next(target), "qcow2", readonly=False)]
        disks.append(Disk(seed_path, next(target), serial=label))
        for medium in spec.media:
            disks.append(Disk(files[medium.label], next(target), serial=medium.label))
        for number, size in enumerate(self.config.extra_disk, 1):
            path = storage.disk(pool, self._volume(f"data{number}.qcow2"), size)
            serial = f"data{number}"  # /dev/disk/by-id/virtio-data1
            disks.append(Disk(path, next(target), "qcow2", serial=serial, readonly=False))
        return disks

    def _nics(self) -> list[Nic]:
        """As the guest is to set them up: the way out first."""
        facts = self.facts
        way_in = Nic(network.mac(self.host.id, "forward"), *forward.GUEST)
        if facts.session:
            return [way_in, Nic(facts.mac, f"{facts.lan}/16")]
        net = network.network(connection.connect(facts.uri), self.config.network)
        address, gateway = network.static(net, facts.lan)
        if facts.forwarded:
            return [way_in, Nic(facts.mac, address)]
        return [Nic(facts.mac, address, gateway, gateway)]

    def _forwards(self, guest_engine_port: int) -> str:
        facts = self.facts
        bind = "" if connection.is_remote(facts.uri) else "127.0.0.1"
        return forward.rules(bind, facts.ssh_port, facts.engine_port, guest_engine_port)

    def _volume(self, kind: str) -> str:
        return storage.prefix(self.host.name, self.host.id) + kind


def digest(path: Path | None) -> str:
    return "" if path is None else Digest.of(path, "sha256").hex


def _saved(pool: Any, facts: Mapping[str, Any]) -> str:
    """The path of a saved machine's disk, which must be as it was. Raises WarmRefused."""
    found = storage.volume(pool, facts["disk"])
    if found is None:
        raise WarmRefused(f"its disk {facts['disk']} is gone from the pool", spent=True)
    if storage.changed(found) != facts.get("written"):
        raise WarmRefused(f"its disk {facts['disk']} was written to", spent=True)
    return str(found.path())

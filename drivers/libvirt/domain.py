"""A machine's domain: what its XML is made from, and the parts of it that go after the first boot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any
from xml.etree import ElementTree

from machine.drivers.libvirt.connection import module
from machine.errors import DriverError


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
    """Everything that ``libvirt/domain.xml.j2`` names. ``network`` is the libvirt network of a card
    with ``mac``; ``forwards`` are the rules of a card that QEMU runs itself, with ``forward_mac``;
    ``lan_mac`` is a card on the socket network of a user's session machines. "" leaves a card out.
    """

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
    network: str
    mac: str
    forwards: str
    forward_mac: str
    lan_mac: str
    console: str
    genid: bool  # tells the guest when it was copied, so that it draws new random numbers


def undefine(domain: Any) -> None:
    """Forget a domain that is off, with everything that libvirt itself keeps for it."""
    libvirt = module()
    domain.undefineFlags(
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )


def resize(domain: Any, cpus: int | None, memory_mib: int | None) -> None:
    """Of the definition of a domain that is off. The most that there can be comes first: libvirt
    lowers what there is with it, and raises nothing over it. Raises libvirtError."""
    libvirt = module()
    now = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if cpus is not None:
        domain.setVcpusFlags(cpus, now | libvirt.VIR_DOMAIN_VCPU_MAXIMUM)
        domain.setVcpusFlags(cpus, now)
    if memory_mib is not None:
        domain.setMemoryFlags(memory_mib * 1024, now | libvirt.VIR_DOMAIN_MEM_MAXIMUM)
        domain.setMemoryFlags(memory_mib * 1024, now)


def mark(xml: str) -> tuple[str, str]:
    """The id of the machine that a domain is, and the store that made it; empty for others'."""
    found = ElementTree.fromstring(xml).find("metadata/{urn:machine-vm:1}machine")  # noqa: S314
    return ("", "") if found is None else (found.get("id", ""), found.get("store", ""))


def sources(xml: str) -> Iterator[str]:
    """What a domain reads from the hypervisor's storage."""
    root = ElementTree.fromstring(xml)  # noqa: S314 - libvirt's own
    for path in ("os/kernel", "os/initrd"):
        if found := root.findtext(path):
            yield found
    for source in root.iterfind("devices/disk/source"):
        if found := source.get("file"):
            yield found


def macs(xml: str) -> list[str]:
    """The addresses of the cards that libvirt knows."""
    found = ElementTree.fromstring(xml).iterfind("devices/interface/mac")  # noqa: S314
    return [str(each.get("address")) for each in found]


def targets() -> Iterator[str]:
    """virtio's names, in order: vda, vdb, ..."""
    return (f"vd{letter}" for letter in ascii_lowercase)


def readonly_targets(xml: str) -> list[str]:
    """The first-boot disks that a definition still has."""
    return [target for target, disk in _disks(xml) if disk.find("readonly") is not None]


def disk_xml(xml: str, target: str) -> str:
    """One disk's element, as detaching it wants to see it."""
    for name, disk in _disks(xml):
        if name == target:
            return ElementTree.tostring(disk, encoding="unicode")
    raise DriverError(f"The disk {target} is gone")


def _disks(xml: str) -> Iterator[tuple[str, Any]]:
    for disk in ElementTree.fromstring(xml).iterfind("devices/disk"):  # noqa: S314 - libvirt's own
        target = disk.find("target")
        if target is not None:
            yield str(target.get("dev")), disk

"""What a user may choose for a libvirt machine, and what a create learns."""

from __future__ import annotations

from dataclasses import dataclass

from machine.flags import option


@dataclass(frozen=True, slots=True)
class LibvirtConfig:
    uri: str = option(
        "",
        "connection URI, also of another computer (qemu+ssh://HOST/system); "
        "default: qemu:///system if it answers, else qemu:///session",
    )
    network: str = option("machine", "network of system mode; the default one is made when needed")
    ip: str = option("", "fixed address in that network; default: the next free one")
    memory: int | None = option(None, "memory", metavar="MIB", low=256)
    cpus: int | None = option(None, "processors", low=1, high=255)
    disk_size: int | None = option(None, "disk", metavar="GIB", low=4)
    extra_disk: tuple[int, ...] = option(
        (), "further, empty disk; repeat it for more", metavar="GIB", low=1
    )
    pool: str = option("machine", "storage pool; the default one is made when needed")
    machine_type: str = option("q35", "QEMU machine type")
    cpu_mode: str = option(
        "",
        "libvirt CPU mode; default: host-passthrough, or maximum without KVM",
        choices=("host-passthrough", "host-model", "maximum"),
    )
    accel: str = option("auto", "acceleration", choices=("auto", "kvm", "tcg"))
    boot_timeout: int | None = option(None, "longest boot", metavar="SECONDS", low=1)


@dataclass(frozen=True, slots=True)
class LibvirtFacts:
    uri: str = ""
    session: bool = False  # the user's own daemon: no network and no pool of the computer's
    forwarded: bool = False  # reached by ports of the hypervisor's computer
    kind: str = ""  # domain type: kvm or qemu
    mac: str = ""
    address: str = ""  # of the guest, or of the hypervisor's computer when forwarded
    lan: str = ""  # where machines of the same hypervisor reach it
    ssh_port: int = 22
    engine_port: int = 2376

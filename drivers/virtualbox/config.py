"""What a user may choose for a VirtualBox machine (docker-machine's flags), and what a create learns."""

from __future__ import annotations

from dataclasses import dataclass

from machine.flags import option

NIC_TYPES = ("virtio", "Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM")
IGNORED = {
    "--virtualbox-boot2docker-url URL": "machines start from images of machine (machine image ls)",
    "--virtualbox-import-boot2docker-vm NAME": "machines start from images of machine "
    "(machine image ls)",
    "--virtualbox-hostonly-no-dhcp": "no DHCP server is made: addresses are static",
    "--virtualbox-no-share": "nothing is shared unless --virtualbox-share-folder asks for it",
}


@dataclass(frozen=True, slots=True)
class VirtualboxConfig:
    memory: int | None = option(
        None, "memory", metavar="MB", low=256, env=("VIRTUALBOX_MEMORY_SIZE",)
    )
    cpu_count: int | None = option(
        None, "processors; -1: all there are", low=-1, high=64, env=("VIRTUALBOX_CPU_COUNT",)
    )
    disk_size: int | None = option(
        None, "disk, in whole GiB at last", metavar="MB", low=4096, env=("VIRTUALBOX_DISK_SIZE",)
    )
    network: str = option(
        "auto",
        "how machines reach each other: a host-only network if one can be made, else an internal one",
        choices=("auto", "hostonly", "internal", "none"),
    )
    hostonly_cidr: str = option(
        "192.168.59.1/24",
        "this computer's address in the host-only network",
        metavar="CIDR",
        env=("VIRTUALBOX_HOSTONLY_CIDR",),
    )
    hostonly_nictype: str = option(
        "virtio",
        "card in the network of machines",
        choices=NIC_TYPES,
        env=("VIRTUALBOX_HOSTONLY_NIC_TYPE",),
    )
    hostonly_nicpromisc: str = option(
        "deny",
        "what that card may overhear",
        choices=("deny", "allow-vms", "allow-all"),
        env=("VIRTUALBOX_HOSTONLY_NIC_PROMISC",),
    )
    nat_nictype: str = option(
        "virtio", "card to the outside", choices=NIC_TYPES, env=("VIRTUALBOX_NAT_NICTYPE",)
    )
    host_dns_resolver: bool = option(
        default=False,
        help="names are resolved by this computer's resolver",
        env=("VIRTUALBOX_HOST_DNS_RESOLVER",),
    )
    no_dns_proxy: bool = option(
        default=False,
        help="the guest asks this computer's name servers itself",
        env=("VIRTUALBOX_NO_DNS_PROXY",),
    )
    share_folder: tuple[str, ...] = option(
        (),
        "folder that a guest with Guest Additions may mount; repeat it for more",
        metavar="FOLDER:NAME",
        env=("VIRTUALBOX_SHARE_FOLDER",),
    )
    ui_type: str = option(
        "headless",
        "what of VirtualBox is shown",
        choices=("headless", "gui", "sdl", "separate"),
        env=("VIRTUALBOX_UI_TYPE",),
    )
    no_vtx_check: bool = option(
        default=False,
        help="do not look whether the processor's virtualization can be used",
        env=("VIRTUALBOX_NO_VTX_CHECK",),
    )
    boot_timeout: int | None = option(None, "longest boot", metavar="SECONDS", low=1)


@dataclass(frozen=True, slots=True)
class VirtualboxFacts:
    ssh_port: int = 0  # on loopback; 0 before they were chosen
    engine_port: int = 0
    guest_engine_port: int = 2376
    network: str = ""  # hostonly, hostonlynet, intnet, none; "" before it was chosen
    adapter: str = ""  # its name: vboxnet0
    lan: str = ""  # address there, with its prefix length

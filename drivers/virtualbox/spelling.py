"""How versions of VirtualBox differ in what they are told, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from machine.drivers.virtualbox.output import Version

OLDEST: Final = (6, 1)
NEWEST: Final = (7, 2)
"""The versions whose tables these are; a newer one is spoken to as the newest."""

_MODIFYVM_7: Final = {
    "nic_type": "--nic-type",
    "nat_pf": "--nat-pf",
    "nat_dns_proxy": "--nat-dns-proxy",
    "nat_dns_host_resolver": "--nat-dns-host-resolver",
    "nic_promisc": "--nic-promisc",
    "mac_address": "--mac-address",
    "host_only_adapter": "--host-only-adapter",
    "rtc_use_utc": "--rtc-use-utc",
    "audio": "--audio-driver",
    "uart_mode": "--uart-mode",
}
_MODIFYVM_6: Final = {
    "nic_type": "--nictype",
    "nat_pf": "--natpf",
    "nat_dns_proxy": "--natdnsproxy",
    "nat_dns_host_resolver": "--natdnshostresolver",
    "nic_promisc": "--nicpromisc",
    "mac_address": "--macaddress",
    "host_only_adapter": "--hostonlyadapter",
    "rtc_use_utc": "--rtcuseutc",
    "audio": "--audio",
    "uart_mode": "--uartmode",
}
MODIFYVM: Final[Mapping[tuple[int, int], Mapping[str, str]]] = {
    (6, 1): _MODIFYVM_6,  # user manual 6.1, 8.8: no dashes
    (7, 0): _MODIFYVM_7,  # user manual 7.0, 8.10
    (7, 1): _MODIFYVM_7,
    (7, 2): _MODIFYVM_7,  # seen; it takes the older ones too
}
NETWORKS_BY_NAME: Final = (7, 0)
"""macOS since then has host-only networks instead of host-only adapters (user manual 7.0, 6.7)."""
RANGES_SINCE: Final = Version(6, 1, 28)
"""Since then host-only addresses have to be in 192.168.56.0/21 or in /etc/vbox/networks.conf."""


def of(version: Version) -> Mapping[str, str]:
    """The newest table that is not newer than the version."""
    return MODIFYVM[max(key for key in MODIFYVM if key <= version[:2])]

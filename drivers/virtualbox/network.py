"""How a machine is reached: ports on loopback, and a network that machines share."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machine import derived
from machine.drivers.virtualbox import spelling
from machine.drivers.virtualbox.output import Version
from machine.drivers.virtualbox.vboxmanage import VBoxFailed, VBoxManage
from machine.errors import BadOption, DriverError, PreflightError

OURS: Final = "machine"
"""The internal network, and macOS's host-only network."""
GUEST: Final = "10.0.2.15"
GUEST_NAT: Final = (f"{GUEST}/24", "10.0.2.2", "10.0.2.3")
"""Address, gateway and name server (the DNS proxy) of a first card on NAT (user manual, 9.8)."""
FIRST: Final = 26000
PAIRS: Final = 3000
"""Two neighbouring ports each, below Linux's own choice for outgoing connections (32768 on)."""
TRIES: Final = 50
RANGES: Final = Path("/etc/vbox/networks.conf")
ALLOWED: Final = ipaddress.IPv4Network("192.168.56.0/21")
"""Host-only addresses that VirtualBox allows on Linux and macOS without that file (manual, 6.7)."""
_LOWEST, _HIGHEST = 2, 99
"""Last numbers of our static addresses: from 100 on are those of DHCP servers that others made."""


@dataclass(frozen=True, slots=True)
class Lan:
    """The second network, and a machine's address in it; ``name`` is an adapter's or a network's."""

    kind: str
    name: str = ""
    address: str = ""


def mac(host_id: str, purpose: str) -> str:
    """From a machine's id, in VirtualBox's range."""
    return derived.mac("08:00:27", host_id, purpose)


def free_ports(host_id: str) -> tuple[int, int]:
    """A pair of ports on loopback that nobody listens at now. VirtualBox starts a machine whose
    forward has failed, and says so in its log alone: hence they are tried before."""
    for attempt in range(TRIES):
        pair = derived.ports(FIRST, PAIRS, host_id, attempt)
        if all(map(free, pair)):
            return pair
    raise DriverError(
        f"No two free ports were found on 127.0.0.1 ({FIRST} to {FIRST + 2 * PAIRS})",
        hint="ss -ltn   shows who listens",
    )


def free(port: int) -> bool:
    with socket.socket() as tried:
        if sys.platform != "win32":  # where it would allow a port that is listened at
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def cidr(text: str) -> ipaddress.IPv4Interface:
    """Raises BadOption."""
    try:
        found = ipaddress.IPv4Interface(text)
        if found.network.prefixlen > 29 or found.ip == found.network.network_address:
            raise ValueError
    except ValueError:
        raise BadOption(
            f"--virtualbox-hostonly-cidr is {text!r}, and must be an address with its network's length",
            hint="For example: --virtualbox-hostonly-cidr 192.168.59.1/24",
        ) from None
    return found


def check(vbox: VBoxManage, wanted: ipaddress.IPv4Interface) -> None:
    """Raises PreflightError for a host-only network that cannot be here."""
    allowed = RANGES.read_text() if RANGES.is_file() else None
    check_range(wanted, vbox.version, allowed)
    check_collision(wanted, vbox.list("bridgedifs"))


def check_range(wanted: ipaddress.IPv4Interface, version: Version, allowed: str | None) -> None:
    """Raises PreflightError for a network that VirtualBox would refuse. ``allowed`` is the content
    of networks.conf, None where there is no such file."""
    if sys.platform == "win32" or version < spelling.RANGES_SINCE:
        return
    ranges = [ALLOWED] if allowed is None else list(_ranges(allowed))
    if any(wanted.network.subnet_of(each) for each in ranges):
        return
    listed = ", ".join(str(each) for each in ranges) or "none"
    raise PreflightError(
        f"VirtualBox allows no host-only network {wanted.network} here (allowed: {listed})",
        details=f"Since 6.1.28 it keeps to 192.168.56.0/21, unless {RANGES} names other networks",
        hint=f"sudo mkdir -p {RANGES.parent} && echo '* {wanted.network}' | sudo tee -a {RANGES}\n"
        "or choose another: --virtualbox-hostonly-cidr 192.168.59.1/24",
    )


def _ranges(text: str) -> Iterable[ipaddress.IPv4Network]:
    """Lines that begin with an asterisk name ranges; the rest are comments (user manual, 6.7)."""
    for line in text.splitlines():
        if line.startswith("*"):
            for word in line[1:].split():
                if ":" not in word:
                    yield ipaddress.IPv4Network(word, strict=False)


def check_collision(wanted: ipaddress.IPv4Interface, bridged: Sequence[dict[str, str]]) -> None:
    """Raises PreflightError where another interface of this computer (``list bridgedifs``) is in
    the same network."""
    for each in bridged:
        name, address = each.get("Name", ""), each.get("IPAddress", "")
        if name.startswith("vboxnet") or "VirtualBox" in name or not address:
            continue
        other = ipaddress.IPv4Interface(f"{address}/{each.get('NetworkMask') or '32'}")
        if not other.ip.is_unspecified and wanted.network.overlaps(other.network):
            raise PreflightError(
                f"The host-only network {wanted.network} would collide with {name} ({other})",
                hint="Choose another: --virtualbox-hostonly-cidr 192.168.60.1/24",
            )


def internal(host_id: str) -> Lan:
    """Without anything on this computer. The address comes from the machine's id, out of 65000."""
    number = int(host_id.replace("-", "")[:4], 16) % 65000 + 2
    return Lan("intnet", OURS, f"10.77.{number // 256}.{number % 256}/16")


def host_only(vbox: VBoxManage, wanted: ipaddress.IPv4Interface, taken: set[str]) -> Lan:
    """An adapter (or macOS's network) with this computer's address, made when it is missing. The
    caller holds a lock, and knows whose addresses are ``taken``. Raises VBoxFailed."""
    address = _free_address(wanted, taken)
    if sys.platform == "darwin" and vbox.version[:2] >= spelling.NETWORKS_BY_NAME:
        name = _network(vbox, wanted)
        return Lan("hostonlynet", name, address)
    for each in vbox.list("hostonlyifs"):
        if each.get("IPAddress") == str(wanted.ip) and each.get("NetworkMask") == str(
            wanted.netmask
        ):
            return Lan("hostonly", each["Name"], address)
    name = vbox.make_adapter()
    try:
        vbox.set_adapter(name, str(wanted.ip), str(wanted.netmask))
    except VBoxFailed:
        vbox.remove_adapter(name)
        raise
    return Lan("hostonly", name, address)


def _network(vbox: VBoxManage, wanted: ipaddress.IPv4Interface) -> str:
    """Its lowest address is this computer's (user manual 7.0, 6.7)."""
    for each in vbox.list("hostonlynets"):
        if each.get("LowerIP") == str(wanted.ip):
            return each["Name"]
    highest = wanted.network.broadcast_address - 1
    vbox.make_network(OURS, str(wanted.netmask), str(wanted.ip), str(highest))
    return OURS


def _free_address(wanted: ipaddress.IPv4Interface, taken: set[str]) -> str:
    net = wanted.network
    for number in range(_LOWEST, min(_HIGHEST, net.num_addresses - 2) + 1):
        address = net.network_address + number
        text = f"{address}/{net.prefixlen}"
        if address != wanted.ip and text not in taken:
            return text
    raise DriverError(
        f"No address is free in the host-only network {net}",
        hint="Remove machines, or choose another network: --virtualbox-hostonly-cidr",
    )


def card(lan: Lan) -> list[tuple[str, str]]:
    """The second card's connection, as VBoxManage.modify takes it."""
    named = {
        "hostonly": "host_only_adapter2",
        "hostonlynet": "host-only-net2",
        "intnet": "intnet2",
    }
    return [("nic2", lan.kind), (named[lan.kind], lan.name)]

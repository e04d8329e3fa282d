"""Our NAT network, and the addresses in it: reserved before the boot, kept over restarts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

from machine import derived
from machine.drivers.libvirt.connection import doing, module
from machine.drivers.libvirt.escape import quoteattr
from machine.errors import BadOption, DriverError, PreflightError
from machine.render import render

OURS: Final = "machine"
SUBNETS: Final = tuple(
    ipaddress.ip_network(f"192.168.{third}.0/24") for third in (141, 142, 151, 152, 161, 171, 181)
)
"""Tried in this order; rarely used by routers, hypervisors or VPNs."""


def mac(host_id: str, purpose: str) -> str:
    """From a machine's id, in QEMU's range."""
    return derived.mac("52:54:00", host_id, purpose)


def lan_address(host_id: str) -> str:
    """On the socket network that a user's session machines share: from the machine's id."""
    number = int(host_id.replace("-", "")[:4], 16) % 65000 + 2
    return f"10.77.{number // 256}.{number % 256}"


@dataclass(frozen=True, slots=True)
class NetworkContext:
    name: str
    bridge: str
    gateway: str
    netmask: str
    first: str
    last: str


def network(conn: Any, name: str) -> Any:
    """The network of that name, active; ours is made when it is missing."""
    libvirt = module()
    try:
        found = conn.networkLookupByName(name)
    except libvirt.libvirtError as exc:
        if name != OURS:
            raise DriverError(
                f'There is no network "{name}"',
                hint="virsh net-list --all shows them; leave --libvirt-network out for our own",
            ) from exc
        return _make(conn)
    if not found.isActive():
        with doing(f"starting the network {name}"):
            found.create()
    return found


def _make(conn: Any) -> Any:
    """libvirt itself refuses a subnet that an interface of its computer has: then the next one."""
    libvirt = module()
    refusals = []
    for subnet in SUBNETS:
        if any(subnet.overlaps(each) for each in _used(conn)):
            continue
        hosts = list(subnet.hosts())
        context = NetworkContext(
            OURS, "machine0", str(hosts[0]), str(subnet.netmask), str(hosts[199]), str(hosts[-1])
        )
        try:
            made = conn.networkDefineXML(render("libvirt/network.xml.j2", context))
            made.create()
            made.setAutostart(1)
        except libvirt.libvirtError as exc:
            try:
                found = conn.networkLookupByName(OURS)
            except libvirt.libvirtError:
                found = None
            if found is not None and found.isActive():  # another process made it meanwhile
                return found
            if found is not None:
                found.undefine()
            refusals.append(f"{subnet}: {exc}")
            continue
        return made
    raise DriverError(
        "No subnet could be found for the network of our machines",
        details="\n".join(refusals),
        hint="Name a network of your own: --libvirt-network NAME",
    )


def _used(conn: Any) -> list[ipaddress.IPv4Network]:
    return [found for each in conn.listAllNetworks() for found in [_subnet(each)] if found]


def _subnet(net: Any) -> ipaddress.IPv4Network | None:
    ip = ElementTree.fromstring(net.XMLDesc()).find("ip")  # noqa: S314 - libvirt's own XML
    if ip is None or ip.get("address") is None:
        return None
    mask = ip.get("netmask") or ip.get("prefix") or "24"
    return ipaddress.IPv4Network(f"{ip.get('address')}/{mask}", strict=False)


def check_address(net: Any, wanted: str) -> None:
    """Raises BadOption for what is no address of the network, PreflightError for one in use."""
    subnet = _subnet(net)
    try:
        address = ipaddress.IPv4Address(wanted)
    except ValueError:
        raise BadOption(f"--libvirt-ip is {wanted!r}, and must be an IPv4 address") from None
    if subnet is None or address not in subnet or address in _reserved_for_all(net, subnet):
        raise BadOption(
            f"--libvirt-ip {wanted} is no host address of the network {net.name()} ({subnet})",
            hint=f"For example: --libvirt-ip {list(subnet.hosts())[9]}" if subnet else "",
        )
    taken = _reservations(net).get(wanted)
    if taken:
        raise PreflightError(f"The address {wanted} is taken by {taken}")


def reserve(net: Any, name: str, mac: str, wanted: str) -> str:
    """An address for that MAC from now on. libvirt refuses a second entry for the same address,
    so two processes never get the same one. Twice is fine."""
    libvirt = module()
    for host in _hosts(net):
        if host.get("mac") == mac:
            return str(host.get("ip"))
    subnet = _subnet(net)
    if subnet is None:
        raise DriverError(f"The network {net.name()} hands out no addresses (no <ip>)")
    candidates = [wanted] if wanted else [str(each) for each in list(subnet.hosts())[1:199]]
    refusal = ""
    for address in candidates:
        if address in _reservations(net) and not wanted:
            continue
        try:
            _update(net, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, name, mac, address)
        except libvirt.libvirtError as exc:
            refusal = str(exc)
            continue
        return address
    raise DriverError(f"No address is free in the network {net.name()}", details=refusal)


def static(net: Any, address: str) -> tuple[str, str]:
    """The address with its prefix length, and the gateway. A guest sets its address by itself:
    dnsmasq does not hand a reserved one out while a removed machine's lease on it lasts (an hour),
    and nothing has to wait for DHCP."""
    subnet = _subnet(net)
    ip = ElementTree.fromstring(net.XMLDesc()).find("ip")  # noqa: S314 - libvirt's own XML
    if subnet is None or ip is None:
        raise DriverError(f"The network {net.name()} has no subnet of its own (no <ip>)")
    return f"{address}/{subnet.prefixlen}", str(ip.get("address"))


def release(net: Any, mac: str) -> None:
    """Twice is fine."""
    libvirt = module()
    for host in _hosts(net):
        if host.get("mac") == mac:
            with doing("releasing an address"):
                _update(
                    net,
                    libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE,
                    str(host.get("name")),
                    mac,
                    str(host.get("ip")),
                )


def _update(net: Any, verb: int, name: str, mac: str, address: str) -> None:
    libvirt = module()
    xml = f"<host mac={quoteattr(mac)} name={quoteattr(name)} ip={quoteattr(address)}/>"
    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    if net.name() != OURS:  # whose DHCP range leaves these addresses out
        flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE  # 0.3 s: all its firewall rules anew
    net.update(verb, libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, xml, flags)


def _reservations(net: Any) -> dict[str, str]:
    return {str(host.get("ip")): str(host.get("name") or host.get("mac")) for host in _hosts(net)}


def _hosts(net: Any) -> Iterator[ElementTree.Element]:
    """The reservations of its definition, which outlives a restart."""
    libvirt = module()
    try:
        xml = net.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)
    except libvirt.libvirtError:  # libvirt's test driver has one definition only
        xml = net.XMLDesc()
    return ElementTree.fromstring(xml).iterfind("ip/dhcp/host")  # noqa: S314 - libvirt's own XML


def _reserved_for_all(net: Any, subnet: ipaddress.IPv4Network) -> set[ipaddress.IPv4Address]:
    ip = ElementTree.fromstring(net.XMLDesc()).find("ip")  # noqa: S314
    gateway = ip.get("address") if ip is not None else None
    ends = {subnet.network_address, subnet.broadcast_address}
    return ends | ({ipaddress.IPv4Address(gateway)} if gateway else set())

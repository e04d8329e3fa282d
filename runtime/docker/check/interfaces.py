"""What the kernel says of interfaces, addresses and routes, read from /sys and /proc."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

ASK: Final = """
links() {
    for link in "$1"/sys/class/net/*; do
        [ -e "$link/ifindex" ] || continue
        master=-
        if [ -e "$link/master" ]; then master=$(basename "$(readlink "$link/master")"); fi
        kind=-
        if [ -d "$link/bridge" ]; then kind=bridge; fi
        echo "$(basename "$link") $(cat "$link/ifindex") $(cat "$link/iflink") $master $kind"
    done
}
echo "== container links"
links "/proc/$pid/root"
echo "== container addresses"
cat "/proc/$pid/net/fib_trie"
echo "== container routes"
cat "/proc/$pid/net/route"
echo "== host links"
links ""
echo "== host addresses"
cat /proc/1/net/fib_trie
"""
"""Needs $pid. A container's /sys shows its own network namespace, whoever reads it."""
LOCAL: Final = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    index: int
    peer: int  # the index of a veth's other end, in that end's namespace; its own for others
    master: str  # the bridge that it is a port of
    is_bridge: bool


def links(text: str) -> list[Link]:
    found = []
    for line in text.splitlines():
        name, index, peer, master, kind = line.split()
        found.append(Link(name, int(index), int(peer), master.strip("-"), kind == "bridge"))
    return found


def addresses(fib_trie: str) -> list[str]:
    """The IPv4 addresses of a namespace: each is in the table once as a host that is local."""
    found = dict.fromkeys(LOCAL.findall(fib_trie))
    return [each for each in found if not ipaddress.ip_address(each).is_loopback]


def default_route(route: str) -> tuple[str, str] | None:
    """Gateway and interface. /proc/net/route has addresses as the numbers that the kernel's memory
    has, in hexadecimal; all computers that we know have the lowest byte first."""
    for line in route.splitlines()[1:]:
        name, destination, gateway, flags, _, _, _, mask, *_ = line.split()
        if (destination, mask) == ("00000000", "00000000") and int(flags, 16) & 2:  # RTF_GATEWAY
            return str(ipaddress.IPv4Address(bytes.fromhex(gateway)[::-1])), name
    return None

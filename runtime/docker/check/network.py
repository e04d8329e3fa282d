"""A container's way out: the veth pair, its bridge, the address and the default route; and names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from machine.model import Verdict
from machine.runtime.docker.check import interfaces
from machine.runtime.docker.check.interfaces import Link
from machine.runtime.docker.check.lesson import PID, Lesson, sections

VETH: Final = Lesson(
    "veth pair",
    "Two interfaces that are the ends of one cable: what goes into one comes out of the other. One "
    "end is in the container and is called eth0 there, the other is on the host. Each says the "
    "number of the other one (iflink).",
    (
        "sudo docker exec CONTAINER cat /sys/class/net/eth0/iflink",
        "grep . /sys/class/net/*/ifindex   # the one with that number",
    ),
)
BRIDGE: Final = Lesson(
    "bridge",
    "A switch in the kernel: the host's ends of all containers of a network are ports of it. "
    "docker0 is that of containers which no other network was given to.",
    (
        "ls /sys/class/net/*/brif   # each bridge, and its ports",
        "readlink /sys/class/net/VETH/master",
    ),
)
ADDRESS: Final = Lesson(
    "address from the pool",
    "The engine takes a subnet out of its pools for every network, and gives each container an "
    "address of it that no other one has.",
    (
        "sudo docker network inspect -f '{{json .IPAM.Config}}' NETWORK",
        PID,
        "sudo cat /proc/$pid/net/fib_trie   # addresses are those with: host LOCAL",
    ),
)
ROUTE: Final = Lesson(
    "default route",
    "What is for nobody in the container's own subnet goes to the bridge's address on the host, "
    "which passes it on under its own address (NAT).",
    (PID, "sudo cat /proc/$pid/net/route   # hexadecimal, the lowest byte first"),
)
NAMES: Final = Lesson(
    "DNS between containers",
    "In a network that a user made, the engine answers at 127.0.0.11 in every container: the name "
    "of another container of that network is its address. The default network has no such names.",
    (
        "sudo docker exec CONTAINER cat /etc/resolv.conf",
        "sudo docker exec CONTAINER getent hosts OTHER",
    ),
)


@dataclass(frozen=True, slots=True)
class Promise:
    """What the engine says of a container's network."""

    address: str
    gateway: str


def promised(inspected: Mapping[str, object]) -> Promise:
    """Of one entry under NetworkSettings.Networks of an inspected container."""
    return Promise(str(inspected["IPAddress"]), str(inspected["Gateway"]))


def judge(text: str, pool: str, promise: Promise) -> Iterator[Verdict]:
    """``text`` is what ``interfaces.ASK`` printed; ``pool`` the subnet that the network has."""
    found = sections(text)
    inside = [each for each in interfaces.links(found["container links"]) if each.name != "lo"]
    outside = interfaces.links(found["host links"])
    pairs = [
        (own, other)
        for own in inside
        for other in outside
        if own.peer == other.index and other.peer == own.index and own.peer != own.index
    ]
    yield _veth(pairs, inside)
    ports = [other for _, other in pairs if other.master]
    bridge = next((link for link in outside if ports and link.name == ports[0].master), None)
    yield _bridge(ports, bridge)
    yield _address(interfaces.addresses(found["container addresses"]), pool, promise)
    yield _route(
        interfaces.default_route(found["container routes"]),
        interfaces.addresses(found["host addresses"]),
        promise,
    )


def _veth(pairs: list[tuple[Link, Link]], inside: list[Link]) -> Verdict:
    if not pairs:
        seen = (f"in the container: {each.name}, number {each.index}" for each in inside)
        return VETH.failed("no interface of the container has its other end here", *seen)
    own, other = pairs[0]
    return VETH.ok(
        f"{own.name} in the container and {other.name} on the host are one cable",
        f"container: {own.name} is number {own.index}, its other end {own.peer}",
        f"host: {other.name} is number {other.index}, its other end {other.peer}",
    )


def _bridge(ports: list[Link], bridge: Link | None) -> Verdict:
    if not ports:
        return BRIDGE.failed("the host's end is in no bridge")
    port = ports[0]
    seen = f"/sys/class/net/{port.name}/master is {port.master}"
    if bridge is None or not bridge.is_bridge:
        return BRIDGE.failed(f"{port.name} belongs to {port.master}, no bridge", seen)
    kind = f"/sys/class/net/{bridge.name}/bridge is there"
    return BRIDGE.ok(f"{port.name} is a port of {bridge.name}", seen, kind)


def _address(own: list[str], pool: str, promise: Promise) -> Verdict:
    evidence = (f"the network's subnet is {pool}", f"in the container: {', '.join(own) or 'none'}")
    if promise.address not in own:
        text = f"the container has not the address that the engine gave it, {promise.address}"
        return ADDRESS.failed(text, *evidence)
    if ipaddress.ip_address(promise.address) not in ipaddress.ip_network(pool):
        return ADDRESS.failed(f"{promise.address} is not in {pool}", *evidence)
    return ADDRESS.ok(f"{promise.address} is in {pool}", *evidence)


def _route(route: tuple[str, str] | None, hosts: list[str], promise: Promise) -> Verdict:
    if route is None:
        return ROUTE.failed("the container has none")
    gateway, link = route
    evidence = (
        f"default via {gateway} by {link}; the engine says {promise.gateway}",
        f"the host has {', '.join(hosts)}",
    )
    if gateway != promise.gateway or gateway not in hosts:
        text = f"it goes to {gateway}, which is not the bridge's address on the host"
        return ROUTE.failed(text, *evidence)
    return ROUTE.ok(f"by {link} to {gateway}, the bridge's address", *evidence)


def answered(seconds: int) -> str:
    """Part of a script: wait until the container has written what it was asked for."""
    return f"""tries=0
while [ ! -e "$answer" ] && [ $tries -lt {10 * seconds} ]; do
    sleep 0.1
    tries=$((tries + 1))
done
"""


def ask_name(name: str) -> str:
    """A script that has the container of $pid look a name up: by the C library, or by busybox."""
    return f"""
tasks=/proc/$pid/root/tasks answer=/proc/$pid/root/answer
rm -f "$answer"
echo '{{ getent hosts {name} || nslookup {name}; }} >/asked 2>&1; mv /asked /answer' > "$tasks"
{answered(30)}echo "== resolver"
grep nameserver "/proc/$pid/root/etc/resolv.conf" || true
echo "== answer"
cat "$answer"
"""


def judge_name(text: str, name: str, address: str) -> Verdict:
    """``text`` is what the script of ``ask_name`` printed."""
    found = sections(text)
    evidence = (*found["resolver"].splitlines(), *found["answer"].splitlines())
    if address in found["answer"].split():
        return NAMES.ok(f"{name} is {address} in another container", *evidence)
    return NAMES.failed(f"{name} is not known as {address} in another one", *evidence)

"""Ports that QEMU itself forwards to a guest: the way in where its network cannot be reached."""

from __future__ import annotations

import re
from typing import Final

from machine import derived

FIRST: Final = 20000
PAIRS: Final = 6000
"""Two neighbouring ports each, all below Linux's own choice for outgoing connections (32768 on)."""
GUEST: Final = ("10.0.2.15/24", "10.0.2.2", "10.0.2.3")
"""Address, gateway and name server of a guest on QEMU's user network, where its forwards lead (QEMU's
documentation of ``-netdev user``). Its DHCP gives a second guest of the same memory another address."""
TRIES: Final = 8
REFUSED: Final = "Could not set up host forwarding rule"
"""QEMU 7.2's words when a port is taken; it ends then."""
_RULES: Final = re.compile(r"hostfwd=tcp:([^:]*):(\d+)-:22,hostfwd=tcp:[^:]*:(\d+)-:(\d+)")


def rules(bind: str, ssh_port: int, engine_port: int, guest_engine_port: int) -> str:
    """For QEMU's ``-netdev user``. ``bind`` is an address of the hypervisor's computer; "" is all
    of them."""
    return (
        f"hostfwd=tcp:{bind}:{ssh_port}-:22,hostfwd=tcp:{bind}:{engine_port}-:{guest_engine_port}"
    )


def ports(host_id: str, attempt: int = 0) -> tuple[int, int]:
    """A machine's pair of ports: the same at every call, another one for each attempt. Nobody is
    asked whether they are free: only QEMU's own start can tell, here and on another computer."""
    return derived.ports(FIRST, PAIRS, host_id, attempt)


def taken(exc: BaseException) -> bool:
    """Whether a start failed because another program has one of the ports."""
    return REFUSED in str(exc)


def read(xml: str) -> tuple[int, int] | None:
    """The pair that a domain's definition forwards; None where it forwards nothing."""
    match = _RULES.search(xml)
    return (int(match[2]), int(match[3])) if match else None


def moved(xml: str, ssh_port: int, engine_port: int) -> str:
    """The definition with another pair."""
    return _RULES.sub(
        lambda match: rules(match[1], ssh_port, engine_port, int(match[4])), xml, count=1
    )

"""What running domains take of the computer that they are on, as libvirt counts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machine.drivers.libvirt.connection import module
from machine.model import Amount, Usage


def ask(conn: Any) -> Mapping[str, Usage]:
    """By UUID, in one call. A domain that is busy with something else tells what needs no wait."""
    libvirt = module()
    stats = (
        libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
        | libvirt.VIR_DOMAIN_STATS_VCPU
        | libvirt.VIR_DOMAIN_STATS_BALLOON
        | libvirt.VIR_DOMAIN_STATS_BLOCK
    )
    which = (
        libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    )
    return {
        domain.UUIDString(): read(told) for domain, told in conn.getAllDomainStats(stats, which)
    }


def read(told: Mapping[str, Any]) -> Usage:
    """The keys of virConnectGetAllDomainStats: nanoseconds, KiB of memory, bytes of disks. Memory is
    what is resident of the whole QEMU (our guests have no balloon that would say more); a disk's
    allocation is of the machine's own file, without the base that it shares."""
    nanoseconds, resident = _time(told), told.get("balloon.rss")
    size = told.get("balloon.maximum")
    return Usage(
        cpu_seconds=None if nanoseconds is None else nanoseconds / 1e9,
        cpus=told.get("vcpu.current"),
        memory=None if resident is None else Amount(resident << 10, size and size << 10),
        disk=_disks(told),
    )


def _time(told: Mapping[str, Any]) -> int | None:
    """Of the whole QEMU, which libvirt may have to read from a control group that is not there; else
    of its processors' threads."""
    parts = [
        told[key] for at in range(told.get("vcpu.maximum", 0)) if (key := f"vcpu.{at}.time") in told
    ]
    whole: int | None = told.get("cpu.time")
    return sum(parts) if whole is None and parts else whole


def _disks(told: Mapping[str, Any]) -> Amount | None:
    numbers = range(told.get("block.count", 0))
    used = [told[key] for at in numbers if (key := f"block.{at}.allocation") in told]
    sizes = [told.get(f"block.{at}.capacity", 0) for at in numbers]
    return Amount(sum(used), sum(sizes)) if used else None

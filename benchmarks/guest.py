"""Where a guest's own boot spends its time, as its systemd has it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.e2e.testbed import SystemBed

SLOWEST = 6


@dataclass(frozen=True, slots=True)
class GuestBoot:
    """Seconds since the guest's kernel began."""

    userspace: float  # the kernel and the initramfs are done
    ssh: float  # sshd is up
    engine: float
    finished: float
    slowest: tuple[tuple[str, str], ...]  # units, and systemd's words for their time


def boot(bed: SystemBed, name: str) -> GuestBoot:
    """Of a running machine; waits until its boot has come to its end."""

    def ask(command: str) -> str:
        return bed.machine("ssh", name, command).stdout

    def since_start(what: str) -> float:
        return int(ask(f"systemctl show --value -p {what}")) / 1e6

    ask("systemctl is-system-running --wait")
    blamed = re.findall(r"^\s*(\S.*?)\s+(\S+)$", ask("systemd-analyze --no-pager blame"), re.M)
    return GuestBoot(
        userspace=since_start("UserspaceTimestampMonotonic"),
        ssh=since_start("ActiveEnterTimestampMonotonic ssh"),
        engine=since_start("ActiveEnterTimestampMonotonic docker"),
        finished=since_start("FinishTimestampMonotonic"),
        slowest=tuple((unit, took) for took, unit in blamed[:SLOWEST]),
    )

"""What is in use on a host, said by itself: for a screen that asks again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from machine.host import Host
from machine.model import Amount, Usage

SCRIPT: Final = "cat /proc/stat /proc/meminfo; df -Pk /\n"
TICKS: Final = 100
"""Of /proc/stat in a second: USER_HZ, which Linux keeps at 100 on x86 and ARM (proc(5))."""


def usages(host: Host) -> Iterator[Usage]:
    """An answer whenever the next is asked for, over one login. Raises what ``Host.guest`` does."""
    with host.guest(timeout=5) as guest:
        while True:
            yield parsed(guest.script(SCRIPT, timeout=5).stdout)


def parsed(text: str) -> Usage:
    """Of ``SCRIPT``. A processor that waits for a disk is idle; memory that the kernel would give
    back is free."""
    cpus, busy = 0, None
    memory: dict[str, int] = {}
    disk = None
    for words in map(str.split, text.splitlines()):
        if words[:1] == ["cpu"]:
            user, nice, system, _, _, *others = map(int, words[1:9])
            busy = (user + nice + system + sum(others)) / TICKS
        elif words and words[0].startswith("cpu"):
            cpus += 1
        elif len(words) == 3 and words[0] in ("MemTotal:", "MemAvailable:"):
            memory[words[0]] = int(words[1]) << 10
        elif len(words) == 6 and words[5] == "/" and words[1].isdigit():
            disk = Amount(int(words[2]) << 10, int(words[1]) << 10)
    return Usage(busy, cpus or None, _taken(memory), disk)


def _taken(memory: dict[str, int]) -> Amount | None:
    if len(memory) < 2:
        return None
    return Amount(memory["MemTotal:"] - memory["MemAvailable:"], memory["MemTotal:"])

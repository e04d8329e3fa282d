"""What a machine costs that runs: a command on it, its disk and memory, and its removal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.clock import Row, medians, row, shown
from machine.drivers.libvirt.storage import SYSTEM_PATH
from tests.e2e.testbed import SystemBed

LOGINS, REMOVALS = 7, 2
"""How often each is measured."""
LOGIN, DISK_MB, REMOVE = 1.5, 100.0, 2.0
"""Targets: times what each is compared with, and MB."""


def tool(bed: SystemBed, *words: str) -> str:
    """What the tool prints."""
    done = bed.machine(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def remove(bed: SystemBed, name: str) -> None:
    tool(bed, "rm", "-y", name)


def commands(bed: SystemBed, name: str) -> list[Row]:
    """Of a machine that has an ``ssh_config``."""
    config = str(bed.store / "machines" / name / "ssh_config")
    base, ours = "the ssh program with the same key", "machine ssh NAME true"
    took = medians(
        {
            base: lambda: bed.run("ssh", "-F", config, name, "true"),
            ours: lambda: tool(bed, "ssh", name, "true"),
        },
        LOGINS,
    )
    return [row(base, took[base]), row(ours, took[ours], took[base], LOGIN)]


def own_bytes(bed: SystemBed) -> int:
    """What the volumes of the only machine that there is take on the disk."""
    pool = bed.folder / "lib" / Path(SYSTEM_PATH).relative_to("/var/lib/libvirt")
    own = (each for each in pool.glob("machine-*") if not each.name.startswith("machine-base-"))
    return sum(each.stat().st_blocks * 512 for each in own)


def sizes(bed: SystemBed, made: int) -> list[Row]:
    """Of the only machine that there is; ``made`` are its own bytes when it had just been made."""
    rows = [
        shown(
            Row("disk of a new machine, before its first write", made / 1e6, "MB", None, DISK_MB)
        ),
        shown(Row("disk of its own, when its engine answers", own_bytes(bed) / 1e6, "MB")),
    ]
    for number in bed.processes():
        status = Path(f"/proc/{number}/status").read_text()
        if "qemu-system" in status.splitlines()[0]:
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            rows.append(shown(Row("memory of its QEMU", int(resident.split()[1]) / 1024, "MiB")))
    return rows


def removals(bed: SystemBed, names: Sequence[str]) -> list[Row]:
    """Of running machines that are alike, in turn."""

    def by_virsh(name: str) -> None:
        volume = ("vol-delete", "--pool", "machine", volumes[name])
        for words in (("destroy", name), ("undefine", name), volume):
            done = bed.run("virsh", *words)
            assert done.returncode == 0, done.stderr

    listed = bed.run("virsh", "vol-list", "machine").stdout.split()
    volumes = {
        name: next(v for v in listed if v.startswith(f"machine-{name}-") and v.endswith(".qcow2"))
        for name in names
    }
    left = iter(names)
    base, ours = "virsh destroy, undefine, vol-delete", "machine rm"
    took = medians(
        {base: lambda: by_virsh(next(left)), ours: lambda: remove(bed, next(left))}, REMOVALS
    )
    return [row(base, took[base]), row(ours, took[ours], took[base], REMOVE)]

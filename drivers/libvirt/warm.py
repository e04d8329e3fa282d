"""Machines that are booted for their memory: what it depends on, and when it can be saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from machine import wait
from machine.drivers.libvirt import connection
from machine.drivers.libvirt.assembly import Assembly, digest
from machine.drivers.libvirt.connection import doing
from machine.errors import DriverError, WarmRefused
from machine.model import State, VmSpec
from machine.paths import cache_root

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from machine.drivers.libvirt.driver import LibvirtDriver

PREFIX: Final = "base-warm-"
"""What the names of such domains begin with."""
REFUSED: Final = b"machine: not warm"
"""What the guest says on its console instead of the marker (templates/warm/warm.sh)."""
BOOT_TIMEOUT: Final = 600
"""Seconds, where the user chose none."""


def being_made(name: str) -> BaseFileLock:
    """Held as long as the domain of that name is booted for its memory: what is there while
    nobody holds it, a kill has left."""
    from filelock import FileLock

    return FileLock(cache_root() / f".{name}.lock")


def at_work(name: str) -> bool:
    """Whether a domain is being booted for its memory just now, by this user."""
    from filelock import Timeout

    if not name.startswith(PREFIX):
        return False
    try:
        with being_made(name).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def check(assembly: Assembly) -> None:
    """Raises WarmRefused for a machine that cannot start from memory, whatever there is of it."""
    if connection.is_remote(assembly.facts.uri):
        raise WarmRefused("the hypervisor is on another computer")
    if assembly.config.extra_disk:
        raise WarmRefused("it has further disks")


def inputs(assembly: Assembly, spec: VmSpec) -> dict[str, str]:
    """Everything that QEMU's stream is tied to, and what the guest saw of its devices."""
    conn, kind = connection.connect(assembly.facts.uri), assembly.facts.kind
    with doing("asking for its versions"):
        cpu = ElementTree.fromstring(conn.getCapabilities()).find("host/cpu")  # noqa: S314
        of_host = ElementTree.tostring(cpu, "unicode") if cpu is not None and kind == "kvm" else ""
        return {
            "uri": assembly.facts.uri,
            "pool": assembly.pool.UUIDString(),
            "libvirt": str(conn.getLibVersion()),
            "qemu": str(conn.getVersion()),
            "kind": kind,
            "machine": assembly.config.machine_type,
            "cpu": assembly.cpu_mode,
            "host cpu": of_host,
            "cpus": str(spec.cpus),
            "memory": str(spec.memory_mib),
            "disk": str(spec.disk_gib),
            "kernel": digest(spec.booted.kernel),
            "initrd": digest(spec.booted.initrd),
            "cmdline": spec.booted.cmdline,
        }


def wait_for(driver: LibvirtDriver, marker: bytes, timeout: int | None) -> None:
    """Until the guest has said it on its console. Raises DriverError when it says that it will
    not, or stops, and TimedOut."""

    def said() -> bool:
        shown, _ = driver.console()
        if marker in shown:
            return True
        if REFUSED in shown or driver.state() is not State.RUNNING:
            raise DriverError("The machine did not become warm", details=_tail(shown))
        return False

    wait.until(
        "the machine to become warm",
        said,
        timeout=timeout or BOOT_TIMEOUT,
        last_answer=lambda: _tail(driver.console()[0]),
    )


def _tail(console: bytes) -> str:
    return "\n".join(console.decode("utf-8", "replace").splitlines()[-8:])

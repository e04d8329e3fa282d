"""Whether KVM really runs code here: /dev/kvm may open, and guests still die under it."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from machine import wait
from machine.drivers.libvirt import storage
from machine.drivers.libvirt.connection import module
from machine.drivers.libvirt.escape import escape
from machine.errors import PreflightError, TimedOut
from machine.paths import cache_root

# A boot sector that switches the computer off: ACPI's PM1a control register lies at 0x604 on a q35
# whose firmware is SeaBIOS; 0x2000 is SLP_EN with sleep type 0, which QEMU maps to S5.
#   BA 04 06  mov dx,0x604     B8 00 20  mov ax,0x2000     EF  out dx,ax     F4  hlt     EB FD  jmp
BOOT_SECTOR: Final = bytes.fromhex("BA0406 B80020 EF F4 EBFD").ljust(510, b"\0") + b"\x55\xaa"
LIMIT: Final = 5.0
"""Seconds for a working KVM to get there: about 1 is SeaBIOS. It took 2 s under emulation."""


def choose(conn: Any, pool: Any, wanted: str) -> tuple[str, str]:
    """The domain type ("kvm" or "qemu"), and one line to say when KVM had to be passed over."""
    if wanted == "tcg":
        return "qemu", ""
    offered = "<domain type='kvm'" in conn.getCapabilities()
    if wanted == "kvm":
        if not offered:
            raise PreflightError(
                "KVM was asked for, and libvirt does not offer it",
                hint="Is /dev/kvm there? sudo usermod -aG kvm $USER, or --libvirt-accel tcg",
            )
        return "kvm", ""
    if not offered:
        return "qemu", "KVM is not available: the VM is emulated, which is several times slower"
    if _remembered(conn, lambda: works(conn, pool, "kvm")):
        return "kvm", ""
    return "qemu", "KVM is here but runs no code (nested?): the VM is emulated, which is slower"


def works(conn: Any, pool: Any, kind: str, limit: float = LIMIT) -> bool:
    """Whether a domain of that type gets as far as switching itself off. Leaves nothing."""
    libvirt = module()
    name = f"machine-probe-{uuid.uuid4().hex[:8]}"
    body = iter((BOOT_SECTOR, b""))
    path = storage.upload(pool, name, lambda size: next(body), len(BOOT_SECTOR))
    cpu = "host-passthrough" if kind == "kvm" else "maximum"
    xml = (
        f"<domain type='{kind}'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        f"<os><type machine='q35'>hvm</type></os><features><acpi/></features><cpu mode='{cpu}'/>"
        f"<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='{escape(path)}'/><target dev='vda' bus='virtio'/></disk>"
        "<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )
    domain = None
    try:
        domain = conn.defineXML(xml)
        domain.create()
        ended = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_CRASHED)
        state = wait.until(
            "the probe",
            lambda: found if (found := domain.state())[0] in ended else None,
            timeout=limit,
        )
        good = [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN]
        return list(state) == good
    except (libvirt.libvirtError, TimedOut):
        return False
    finally:
        if domain is not None:
            with suppress(libvirt.libvirtError):
                domain.destroy()
            with suppress(libvirt.libvirtError):
                domain.undefine()
        storage.delete(pool, name)


def _remembered(conn: Any, probe: Any) -> bool:
    """The verdict, kept per hypervisor, QEMU version and boot of this computer."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = f"{conn.getURI()} {conn.getVersion()} {boot}"
    path = cache_root() / "kvm.json"
    known: dict[str, bool] = {}
    with suppress(OSError, ValueError):
        known = json.loads(path.read_text())
    if known.get(key) is None:
        verdict = bool(probe())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({key: verdict}))
        return verdict
    return known[key]

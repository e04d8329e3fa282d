"""What has to be there before a machine is made, each missing thing with its remedy."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from machine import command
from machine.drivers.virtualbox import network, spelling, trouble
from machine.drivers.virtualbox.config import VirtualboxConfig
from machine.drivers.virtualbox.output import Version
from machine.drivers.virtualbox.vboxmanage import VBoxManage
from machine.errors import BadOption, MachineError, PreflightError

DEVICE: Final = Path("/dev/vboxdrv")
CPU_INFO: Final = Path("/proc/cpuinfo")
_ASKED: Final = "(Get-CimInstance Win32_ComputerSystem).HypervisorPresent"
_SKIP: Final = "   (--virtualbox-no-vtx-check leaves this check out)"


def version(found: Version) -> str:
    """A warning for one that is newer than what is known, or "". Raises PreflightError for one that
    is too old."""
    oldest = ".".join(map(str, spelling.OLDEST))
    if found[:2] < spelling.OLDEST:
        raise PreflightError(
            f"VirtualBox {found} is too old: {oldest} or newer is needed",
            hint="https://www.virtualbox.org/wiki/Downloads",
        )
    if found[:2] > spelling.NEWEST:
        newest = ".".join(map(str, spelling.NEWEST))
        return f"VirtualBox {found} is newer than {newest}, the newest that was tried: going on"
    return ""


def kernel_module(device: Path = DEVICE) -> None:
    """Linux shows its driver as a device, macOS and Windows only when a machine starts. VBoxManage
    itself would say no more than "terminated unexpectedly during startup"."""
    if sys.platform == "linux" and not device.exists():
        raise PreflightError(
            f"VirtualBox's kernel module vboxdrv is not loaded: there is no {device}",
            hint=trouble.LINUX_MODULE,
        )


def processor(cpu_info: Path = CPU_INFO) -> None:
    """Raises PreflightError where the processor's virtualization cannot be used by VirtualBox."""
    if sys.platform == "linux":
        flags = re.search(r"^flags\s*:(.*)$", cpu_info.read_text(), re.M)
        if flags and not {"vmx", "svm"} & set(flags[1].split()):
            raise PreflightError(
                "The processor's virtualization (VT-x, AMD-V) is off, or not passed on to this VM",
                details=f"{cpu_info} has neither vmx nor svm among its flags",
                hint=f"{trouble.FIRMWARE}\n{_SKIP.strip()}",
            )
    elif sys.platform == "win32":
        hyper_v(command.run("powershell", "-NoProfile", "-Command", _ASKED, check=False).stdout)


def hyper_v(answer: str) -> None:
    """``answer`` is whether Windows runs under a hypervisor of its own. VirtualBox would go on by
    Hyper-V's interface, many times slower, or fail (user manual 7.0, 10.20)."""
    if answer.strip() == "True":
        raise PreflightError(
            "This computer runs Hyper-V, which leaves VirtualBox no use of the processor's "
            "virtualization",
            hint=f"{trouble.HYPER_V}\n{_SKIP.strip()}",
        )


def name(vbox: VBoxManage, wanted: str, host_id: str) -> None:
    """Raises PreflightError when a machine that is not this one has the name."""
    for uuid, taken in vbox.vms().items():
        if taken == wanted and uuid != host_id:
            raise PreflightError(
                f'VirtualBox has another machine called "{wanted}" already',
                hint=f"Choose another name, or look at it: VBoxManage showvminfo {uuid}",
            )


def addresses(vbox: VBoxManage, config: VirtualboxConfig) -> None:
    """The host-only network that was asked for; nobody asked for the default one, which a machine can
    do without. Raises PreflightError, BadOption."""
    wanted = network.cidr(config.hostonly_cidr)
    asked = config.network == "hostonly" or config.hostonly_cidr != VirtualboxConfig().hostonly_cidr
    if asked and config.network not in ("internal", "none"):
        network.check(vbox, wanted)


def shares(config: VirtualboxConfig) -> list[tuple[str, str]]:
    """Folder and name of each shared folder; a Windows path has a colon of its own."""
    found = []
    for each in config.share_folder:
        folder, _, label = each.rpartition(":")
        if not folder or not label or not Path(folder).is_dir():
            raise BadOption(
                f"--virtualbox-share-folder is {each!r}, and must be a folder that is there, a colon, "
                "and a name",
                hint="For example: --virtualbox-share-folder /home:hosthome",
            )
        found.append((folder, label))
    return found


def memory(vbox: VBoxManage) -> int | None:
    """MiB; None where VBoxManage does not tell."""
    try:
        told = vbox.host_info().get("Memory available", "")
    except MachineError:
        return None
    found = re.match(r"(\d+) MByte", told)
    return int(found[1]) if found else None

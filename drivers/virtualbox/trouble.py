"""What VirtualBox's own error names mean for a user, and what to type."""

from __future__ import annotations

import re
import sys
from typing import Final

LINUX_MODULE: Final = (
    "Debian, Ubuntu: sudo apt-get install virtualbox-dkms linux-headers-$(uname -r), then "
    "sudo modprobe vboxdrv\n"
    "Oracle's package: sudo /sbin/vboxconfig\n"
    "With Secure Boot the kernel takes signed modules only: mokutil --sb-state"
)
MODULE: Final = {
    "linux": LINUX_MODULE,
    "darwin": "System Settings > Privacy & Security: allow the software of Oracle America, then "
    "restart; if nothing is asked there, install VirtualBox again",
    "win32": "As administrator: sc start vboxsup (before VirtualBox 7: vboxdrv); if there is no "
    "such service, install VirtualBox again",
}
GROUP: Final = {
    "linux": "sudo usermod -aG vboxusers $USER   and log in again",
    "darwin": "Start it as the user who installed VirtualBox, or install it again for all users",
    "win32": "Start it in the session of one user, not as another one or as a service",
}
FIRMWARE: Final = (
    "Turn on VT-x (Intel) or AMD-V (SVM) in the computer's firmware settings; in a VM, let its "
    "hypervisor pass it on (nested virtualization)"
)
HYPER_V: Final = (
    "As administrator: bcdedit /set hypervisorlaunchtype off, and restart; turn off Memory integrity "
    "(Core isolation) too"
)
OTHER_HYPERVISOR: Final = (
    "Stop the VMs of other hypervisors (KVM: sudo modprobe -r kvm_intel kvm_amd)"
)

_KNOWN: Final = (  # iprt/err.h and VBox/err.h; in the order in which they are looked for
    (r"VERR_SUPDRV_NO_RAW_MODE_HYPER_V_ROOT|VERR_NEM_|HVP=0|courtesy of Hyper-V", HYPER_V),
    (r"VERR_VMX_IN_VMX_ROOT_MODE|VERR_SVM_IN_USE", OTHER_HYPERVISOR),
    (r"VERR_VMX_|VERR_SVM_|VT-x is (not|disabled)|AMD-V is (not|disabled)", FIRMWARE),
)
_MODULE: Final = (
    r"VERR_VM_DRIVER_(NOT_INSTALLED|LOAD_ERROR|OPEN_ERROR|VERSION_MISMATCH)|-1908|-1912"
)
_GROUP: Final = r"VERR_VM_DRIVER_NOT_ACCESSIBLE|-1909|VERR_ACCESS_DENIED"


def on(table: dict[str, str], platform: str = sys.platform) -> str:
    """The remedy for a system; Linux's for one that is not named."""
    return table.get(platform, table["linux"])


def hint(said: str, platform: str = sys.platform) -> str:
    """What to type after an error that said this, or "". Other systems than Windows name Hyper-V's
    interface only to say that they have none."""
    known = _KNOWN if platform == "win32" else _KNOWN[1:]
    for pattern, remedy in known:
        if re.search(pattern, said):
            return remedy
    if re.search(_MODULE, said):
        return on(MODULE, platform)
    return on(GROUP, platform) if re.search(_GROUP, said) else ""

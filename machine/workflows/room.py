"""Whether machines that are to be made have room together, told before anything is made."""

from __future__ import annotations

from collections.abc import Sequence

from machine import flags
from machine.errors import MachineError, PreflightError
from machine.host import Host


def check_memory(hosts: Sequence[Host]) -> None:
    """Called before machines are made that have one provider. Raises PreflightError when together
    they would have more memory than there is. A provider that cannot be asked is passed over here:
    the driver's ``preflight`` says why."""
    driver, sizes = hosts[0].driver, [host.block.memory_mib for host in hosts]
    available = _available(hosts[0])
    if available is None or sum(sizes) <= available:
        return
    fit = sum(1 for at in range(len(sizes)) if sum(sorted(sizes)[: at + 1]) <= available)
    alike = len(set(sizes)) == 1
    asked = f"{len(sizes)} x {sizes[0]}" if alike else " + ".join(map(str, sizes))
    options = flags.options(driver.name, driver.config_type)
    flag = next((f"{option.flag} MIB" for option in options if option.key == "memory"), "")
    raise PreflightError(
        f"{asked} MiB of memory are asked for, and {available} MiB are available",
        hint=f"There is room for {fit} of them. Make fewer, or smaller ones"
        f" ({flag or 'by another template'}), or stop others:\n"
        "machine stop NAME\n"
        "To make them all the same, add --overcommit",
    )


def check_resize(host: Host, more_mib: int) -> None:
    """Called before a machine gets more memory. Raises PreflightError when that is not there."""
    available = _available(host)
    if available is not None and more_mib > available:
        raise PreflightError(
            f"{more_mib} MiB of memory are asked for, and {available} MiB are available",
            hint="Ask for less, or stop other machines: machine stop NAME",
        )


def _available(host: Host) -> int | None:
    try:
        return host.driver.memory_available()
    except MachineError:
        return None

"""Whether machines that are to be made have room together, told before anything is made."""

from __future__ import annotations

from collections.abc import Sequence

from machine import flags
from machine.errors import MachineError, PreflightError
from machine.host import Host


def check_memory(hosts: Sequence[Host]) -> None:
    """Called before the machines of one command are made, which are of one kind and have one
    provider. Raises PreflightError when together they would have more memory than there is. A
    provider that cannot be asked is passed over here: the driver's ``preflight`` says why."""
    driver, each = hosts[0].driver, hosts[0].block.memory_mib
    try:
        available = driver.memory_available()
    except MachineError:
        return
    wanted = len(hosts) * each
    if available is None or wanted <= available:
        return
    fit = available // each
    options = flags.options(driver.name, driver.config_type)
    flag = next((f"{option.flag} MIB" for option in options if option.key == "memory"), "")
    raise PreflightError(
        f"{len(hosts)} x {each} MiB of memory are asked for, and {available} MiB are available",
        hint=f"There is room for {fit} of them. Make fewer, or smaller ones"
        f" ({flag or 'by another template'}), or stop others:\n"
        "machine stop NAME\n"
        "To make them all the same, add --overcommit",
    )

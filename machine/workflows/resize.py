"""A machine's size, changed while it is off."""

from __future__ import annotations

import dataclasses
from typing import Final

from machine.errors import BadOption, HostError, Unsupported
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import Can, Size, State
from machine.store import Store
from machine.workflows import departure, power, room

FLAGS: Final = {
    "cpus": ("--cpus", "{} CPUs"),
    "memory_mib": ("--memory", "{} MiB of memory"),
    "disk_gib": ("--disk", "a disk of {} GiB"),
    "kind": ("--size", "{}"),
}
"""The command's words for the parts of a size."""


def resize(
    store: Store, name: str, emit: Emit = ignore, *, wanted: Size, restart: bool = False
) -> None:
    """Change what is not None. With ``restart`` a machine that is on is shut down first, and started
    afterwards. Raises, before anything is done, Unsupported, BadOption for what its driver cannot
    change, PreflightError for memory that there is not, and HostError for a machine that is not
    off, or whose Swarm would lose its quorum."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        parts = _parts(host, wanted)
        state = _ready(host, wanted, restart=restart)
        if state is not State.STOPPED:
            if departure.check(store, [name], stays=True):
                departure.stand_aside(store, host)
            power.shut_down(host)
        try:
            with report.step("resize", f"Changing it to {_words(parts)}"):
                _change(host, wanted)
        finally:
            if restart:
                power.bring_up(host)
                departure.stand_in(store, host)


def _parts(host: Host, wanted: Size) -> dict[str, object]:
    driver = host.driver
    if Can.RESIZE not in driver.can:
        raise Unsupported(f"The {driver.name} driver cannot change a machine's size")
    there = {key: value for key, value in dataclasses.asdict(wanted).items() if value is not None}
    takes = ", ".join(flag for key, (flag, _) in FLAGS.items() if key in driver.resizes)
    if not there:
        raise BadOption("Nothing is to be changed", hint=f"Say what: {takes}")
    if others := [FLAGS[key][0] for key in there if key not in driver.resizes]:
        raise BadOption(
            f"The {driver.name} driver cannot change a machine by {others[0]}",
            hint=f"What it can change: {takes}",
        )
    return there


def _words(parts: dict[str, object]) -> str:
    return ", ".join(FLAGS[key][1].format(value) for key, value in parts.items())


def _ready(host: Host, wanted: Size, *, restart: bool) -> State:
    block = host.block
    host.require_complete()
    if wanted.disk_gib is not None and wanted.disk_gib < block.disk_gib:
        raise BadOption(
            f'The disk of "{host.name}" has {block.disk_gib} GiB, and only grows',
            details="What is cut off a disk may be files of the guest's.",
            hint="For a smaller one create another machine, and copy what it needs: machine scp",
        )
    state = power.known_state(host)
    if state is State.SAVED or (state is not State.STOPPED and not restart):
        first = f"machine start {host.name}\n" if state is State.SAVED else ""
        raise HostError(
            f'"{host.name}" is {state}, and has to be stopped to change its size',
            hint=f"{first}machine stop {host.name}\n"
            "or have it shut down and started again: add --restart",
        )
    if wanted.memory_mib is not None:
        freed = block.memory_mib if state is State.RUNNING else 0
        room.check_resize(host, wanted.memory_mib - freed)
    return state


def _change(host: Host, wanted: Size) -> None:
    """The record is written after it is true: a kill in between, and the same command does the
    rest."""
    options, block = host.driver.resize(wanted), host.block
    block.config.update(options)
    block.cpus = wanted.cpus or block.cpus
    block.memory_mib = wanted.memory_mib or block.memory_mib
    block.disk_gib = wanted.disk_gib or block.disk_gib
    host.save()
    del host.driver  # its config is another one now

"""Ports of this computer that lead to machines: which there are, and until when."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from machine import files, forward
from machine.errors import HostError, PortTaken
from machine.forward import Rule
from machine.host import Host
from machine.paths import control_socket

TRIES: Final = 8
"""Ports that were free a moment ago."""


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """One that was opened. It is open until it is stopped, or its connection is lost."""

    rule: Rule
    control: Path
    owner: int = 0  # the process that it ends with; 0: it lives on

    @property
    def is_open(self) -> bool:
        return forward.is_open(self.control)


def of(identifier: str) -> list[Forward]:
    """Those of a machine, by its id, in the order of their ports. One whose owner was killed is ended
    here."""
    pattern = control_socket(identifier).name + "-*.json"
    found = []
    for path in control_socket(identifier).parent.glob(pattern):
        with suppress(OSError, ValueError, KeyError, TypeError):  # stopped meanwhile, or not ours
            data = json.loads(path.read_text())
            each = Forward(Rule(**data["rule"]), path.with_suffix(""), data["owner"])
            if each.owner and not _lives(each.owner):
                close(each)
            else:
                found.append(each)
    return sorted(found, key=lambda each: each.rule.local)


def open_(host: Host, rule: Rule, *, owner: int = 0) -> Forward:
    """One that is open already is left as it is. ``rule.local`` 0 is any port that is free. Raises
    PortTaken, HostNotRunning, GuestError."""
    host.require_login()
    host.require_running()
    with host.store.lock(host.name, wait=5):
        if rule.local:
            return _open(host, rule, owner)
        for _ in range(TRIES):
            chosen = dataclasses.replace(rule, local=forward.free_port(rule.bind))
            with suppress(PortTaken):
                return _open(host, chosen, owner)
    raise PortTaken(f"Each of {TRIES} ports of {rule.bind}")


def stop(host: Host, ports: Sequence[int]) -> list[Forward]:
    """End those with these ports here, or all of the machine's. Raises HostError for a port that
    leads nowhere; then none is ended."""
    there = {each.rule.local: each for each in of(host.block.id)}
    if strange := [port for port in ports if port not in there]:
        raise HostError(
            f"Port {strange[0]} does not lead to {host.name}",
            hint=f"Those that do: machine forward {host.name}",
        )
    ended = [there[port] for port in ports or there]
    for each in ended:
        close(each)
    return ended


def end(identifier: str) -> None:
    """All of a machine's, by its id. Twice is fine."""
    for each in of(identifier):
        close(each)


def close(opened: Forward) -> None:
    """Twice is fine."""
    forward.close(opened.control)
    _description(opened.control).unlink(missing_ok=True)


def _open(host: Host, rule: Rule, owner: int) -> Forward:
    """What it leads to is written down first: what is not known of could not be ended."""
    wanted = Forward(rule, control_socket(host.block.id, rule.local), owner)
    before = next((each for each in of(host.block.id) if each.control == wanted.control), None)
    if before and before.is_open:
        if before.rule == rule:
            return before
        led = f"It leads to port {before.rule.remote} of {host.name}."
        raise PortTaken(rule.here, details=led)
    description = _description(wanted.control)
    description.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    noted = {"rule": dataclasses.asdict(rule), "owner": owner}
    files.replace(description, json.dumps(noted).encode())
    try:
        forward.open_(wanted.control, host.address(), host.login, rule)
    except BaseException:
        description.unlink(missing_ok=True)
        raise
    return wanted


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _description(control: Path) -> Path:
    return control.with_suffix(".json")

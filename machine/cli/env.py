"""`machine env`: the lines that point a shell's docker client at a machine."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import PurePath
from typing import Annotated

import typer

from machine import registry
from machine.cli import context, output
from machine.errors import MachineError

VARIABLES = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME")
_POSIX = ("sh", "bash", "zsh", "dash", "ksh", "ash")


def env(
    names: context.Name = None,
    shell: Annotated[
        str,
        typer.Option(
            help="shell to write for; default: the one in $SHELL",
            autocompletion=lambda: sorted({*_POSIX, *registry.SHELLS} - {"posix"}),
        ),
    ] = "",
    unset: Annotated[bool, typer.Option("--unset", "-u", help="remove the variables")] = False,
    no_proxy: Annotated[
        bool, typer.Option("--no-proxy", help="add the machine's address to NO_PROXY")
    ] = False,
    swarm: context.Swarm = False,
) -> None:
    """Print the commands that point a shell at a machine."""
    writer = registry.shell(_family(shell) if shell else _detected())
    lines: dict[str, str | None] = {}
    if unset:
        if names:
            raise MachineError("Error: Expected no machine name when the -u flag is present")
        lines = dict.fromkeys(VARIABLES)
    elif swarm:
        context.refuse_swarm(names)
    else:
        host = context.host(context.one(names))
        host.require_running()
        host.ask()
        lines = {**host.client_env(), "DOCKER_MACHINE_NAME": host.name}
        if no_proxy:
            variable = "no_proxy" if "no_proxy" in os.environ else "NO_PROXY"
            lines[variable] = _with_address(os.environ.get(variable, ""), host.address().host)
    for variable, value in lines.items():
        output.value(writer.unset(variable) if value is None else writer.assign(variable, value))
    output.raw(writer.hint(shlex.join(["machine", *sys.argv[1:]])))


def _with_address(known: str, address: str) -> str:
    parts = [part for part in known.split(",") if part]
    return ",".join(parts if address in parts else [*parts, address])


def _detected() -> str:
    """The family of the shell in $SHELL; what is not known there is written as for sh, as
    docker-machine does."""
    family = _family(PurePath(os.environ.get("SHELL", "")).name or "sh")
    if family in registry.SHELLS or family in registry.names("machine.shells", registry.SHELLS):
        return family
    return "posix"


def _family(name: str) -> str:
    """The module that writes for a shell."""
    if name in _POSIX:
        return "posix"
    return {"csh": "tcsh", "pwsh": "powershell"}.get(name, name)

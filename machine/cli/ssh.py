"""`machine ssh`: a terminal by the ssh program, a command by our own connection."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from machine import command
from machine.cli import complete, context


def ssh(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [COMMAND]...", show_default=False, autocompletion=complete.machine
        ),
    ] = None,
) -> None:
    """Log in to a machine, or run a command on it and exit with its code."""
    from machine import ssh as service

    name, *rest = words or [context.one(None)]
    host = context.host(name)
    host.require_running()
    rest = rest[1:] if rest[:1] == ["--"] else rest
    wants_program = not rest or rest[0].startswith("-")
    if wants_program and command.which("ssh"):
        command.replace_process(service.ssh_command(host.address(), host.login, rest))
    # Unbuffered: a thread that still reads would hold the buffer's lock when Python ends, which
    # aborts it (seen with 3.11) after every command that leaves its input alone.
    stdin = io.FileIO(0, closefd=False)
    with host.guest() as guest:
        code = guest.stream(" ".join(rest), stdin, sys.stdout.buffer, sys.stderr.buffer)
    raise typer.Exit(code)

"""`machine scp`: [[USER@]MACHINE:]PATH on either side, as docker-machine has it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from machine.cli import complete, context, output
from machine.errors import UsageError
from machine.host import Host
from machine.transfer import End, GuestSide, LocalSide, copy


def scp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", autocompletion=complete.places)],
    target: Annotated[str, typer.Argument(metavar="TARGET", autocompletion=complete.places)],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="folders too")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="do not name the files")] = False,
) -> None:
    """Copy files between this computer and machines, or between machines."""
    with ExitStack() as stack:
        ends = [_end(each, stack) for each in (source, target)]
        copy(*ends, recursive=recursive, tell=(lambda path: None) if quiet else output.say)


def _end(text: str, stack: ExitStack) -> End:
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name == "localhost":
        return End(LocalSide(), path if colon and name == "localhost" else text, text)
    user, _, machine = name.rpartition("@")
    host = Host.load(context.store(), machine)
    if user and user != host.ssh_user:
        raise UsageError(f"{machine} is logged in to as {host.ssh_user}, not as {user}")
    host.require_running()
    return End(GuestSide(stack.enter_context(host.guest())), path, text)

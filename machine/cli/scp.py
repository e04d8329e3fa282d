"""`machine scp`: [[USER@]MACHINE:]PATH on either side, as docker-machine has it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, NoReturn

import typer

from machine import command
from machine.cli import complete, context, output
from machine.errors import GuestError, MachineError, UsageError
from machine.host import Host
from machine.transfer import End, GuestSide, LocalSide, copy


def scp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", autocompletion=complete.places)],
    target: Annotated[str, typer.Argument(metavar="TARGET", autocompletion=complete.places)],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="folders too")] = False,
    delta: Annotated[
        bool, typer.Option("--delta", "-d", help="only what differs, by the program rsync")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="do not name the files")] = False,
) -> None:
    """Copy files between this computer and machines, or between machines."""
    places = [_place(source), _place(target)]
    if delta:
        _rsync(places, recursive=recursive, quiet=quiet)
    with ExitStack() as stack:
        ends = [
            End(GuestSide(stack.enter_context(host.guest())) if host else LocalSide(), path, text)
            for (host, path), text in zip(places, (source, target), strict=True)
        ]
        copy(*ends, recursive=recursive, tell=(lambda path: None) if quiet else output.say)


def _place(text: str) -> tuple[Host | None, str]:
    """A running machine and a path on it, or None and a path here."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name:
        return None, text
    if name == "localhost":
        return None, path
    user, _, machine = name.rpartition("@")
    host = context.host(machine)
    if user and user != host.login.user:
        raise UsageError(f"{machine} is logged in to as {host.login.user}, not as {user}")
    host.require_running()
    return host, path


def _rsync(places: Sequence[tuple[Host | None, str]], *, recursive: bool, quiet: bool) -> NoReturn:
    """Become rsync, which speaks with its like on the machine over the ssh program."""
    from machine import ssh

    hosts = [host for host, _ in places if host is not None]
    if len(hosts) != 1:
        raise UsageError(
            "-d copies between this computer and one machine", hint="Leave -d out for other copies"
        )
    host = hosts[0]
    for program in ("rsync", "ssh"):
        if command.which(program) is None:
            raise MachineError(
                f"The program {program} is not installed here", hint="Install it, or leave -d out"
            )
    with host.guest() as guest:
        if not guest.run("sh", "-c", "command -v rsync", check=False).ok:
            raise GuestError(
                f"The program rsync is not installed on {host.name}",
                hint="Install it there, or leave -d out",
            )
    *login, there = ssh.ssh_command(host.address(), host.login, ())
    options = ["--times", "--perms", "--copy-links", "--protect-args"]
    options += ["--recursive"] if recursive else []
    options += ["--quiet"] if quiet else ["--progress"]
    paths = [f"{there}:{path}" if place else path for place, path in places]
    command.replace_process(["rsync", *options, "-e", shlex.join(login), "--", *paths])

"""`machine compose`: the user's Docker Compose, as if the machine's engine were here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from machine.cli import complete, context, output, progress
from machine.events import Event, Note, Reporter

if TYPE_CHECKING:
    from machine.host import Host
    from machine.workflows.compose import Composition


def compose(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME [-- ARGUMENT...]", show_default=False, autocompletion=complete.machine
        ),
    ],
    swarm: Annotated[
        bool,
        typer.Option("--swarm", help="the machine's Swarm: a manager runs it, all have the files"),
    ] = False,
    also: Annotated[
        list[Path] | None,
        typer.Option("--sync", metavar="PATH", exists=True, help="send this, too; repeatable"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="PATTERN", help="leave out, as in .dockerignore; repeatable"
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="remove there what was sent, and is gone here")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="send also what was changed there")
    ] = False,
    back: Annotated[
        bool, typer.Option("--back", help="at the end, bring here what was changed there")
    ] = False,
) -> None:
    """Run docker compose against a machine, with the project's mounted files there and its ports
    here."""
    from machine.workflows import compose as workflow

    name, *arguments = words
    paths = tuple(each.expanduser().absolute() for each in also or ())
    wishes = workflow.Wishes(paths, delete=delete, overwrite=overwrite, back=back)
    first, others = workflow.of_swarm(context.store(), name) if swarm else (context.host(name), [])
    work = workflow.plan(first, arguments, tuple(exclude or ()), wishes, others)
    if not work.project.uses_files:
        raise typer.Exit(work.run())
    if not work.host.has_login:
        output.say(f"No login to {name} is known: no file is sent, and no port is opened here")
        raise typer.Exit(work.run())
    for path in work.foreign():
        output.say(f"{path} is the machine's own, not this computer's (--sync {path} sends it)")
    _side_by_side(work.hosts, work.send)
    code = _attended(work)
    if back:
        _side_by_side([work.host], work.fetch)
    raise typer.Exit(code)


def _side_by_side(hosts: list[Host], work: Callable[[Host, Reporter], None]) -> None:
    emit = progress.sink(as_json=False, prefix=len(hosts) > 1)
    progress.run(
        {host.name: partial(work, host, Reporter(emit, host.name)) for host in hosts},
        parallel=context.WAITS,
    )


def _attended(work: Composition) -> int:
    report = Reporter(_notes, work.host.name)
    if not work.project.lasts:
        code = work.run()
        _say_ports(work)
        return code
    with work.forwarded(report), work.watched(report):
        return work.run()


def _say_ports(work: Composition) -> None:
    """Of what goes on when the command has ended."""
    ports = [str(each.port) for each in work.project.ports if each.protocol == "tcp"]
    if ports:
        output.say(f"To have its ports here: machine forward {work.host.name} {' '.join(ports)}")


def _notes(event: Event) -> None:
    match event:
        case Note(_, text, warning):
            output.say(f"{'Warning: ' if warning else ''}{text}")

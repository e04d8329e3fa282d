"""`machine compose`: the user's Docker Compose, as if the machine's engine were here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from machine.cli import complete, context, output, progress
from machine.events import Event, Note, Reporter

if TYPE_CHECKING:
    from machine.workflows.compose import Composition


def compose(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME [-- ARGUMENT...]", show_default=False, autocompletion=complete.machine
        ),
    ],
    also: Annotated[
        list[Path] | None,
        typer.Option("--sync", metavar="PATH", help="send this, too; repeatable"),
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
    host = context.host(name)
    paths = tuple(each.expanduser().absolute() for each in also or ())
    wishes = workflow.Wishes(paths, delete=delete, overwrite=overwrite, back=back)
    work = workflow.plan(host, arguments, tuple(exclude or ()), wishes)
    if not work.project.uses_files:
        raise typer.Exit(work.run())
    for path in work.foreign():
        output.say(f"{path} is the machine's own, not this computer's (--sync {path} sends it)")
    _step(work, "send")
    code = _attended(work)
    if back:
        _step(work, "fetch")
    raise typer.Exit(code)


def _step(work: Composition, what: str) -> None:
    """Sending or fetching, with its progress shown."""
    report = Reporter(progress.sink(as_json=False), work.host.name)
    job = work.send if what == "send" else work.fetch
    progress.run({work.host.name: lambda: job(report)})


def _attended(work: Composition) -> int:
    report = Reporter(_notes, work.host.name)
    if not work.project.lasts:
        code = work.run()
        _say_ports(work)
        return code
    with ExitStack() as stack:
        stack.enter_context(work.forwarded(report))
        stack.enter_context(work.watched(report))
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

"""`machine snapshot`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from machine.cli import complete, context, output, progress
from machine.cli.remove import confirmed

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete.machine)]
Kept = Annotated[str, typer.Argument(metavar="SNAPSHOT")]


@app.command()
def take(name: Name, snapshot: Kept, output_format: context.Output = "text") -> None:
    """Keep a machine's present state; it may run."""
    from machine.workflows import snapshot as workflow

    _run(name, output_format, partial(workflow.take, context.store(), name, snapshot))


@app.command()
def ls(name: Name, output_format: context.Output = "text") -> None:
    """List what was kept of a machine, the oldest first."""
    from machine.workflows import snapshot as workflow

    as_json = context.is_json(output_format)
    kept = workflow.kept(context.store(), name)
    if as_json:
        output.envelope("snapshots", [output.plain(each) for each in kept])
        return
    rows = [
        (each.name, each.created[:16].replace("T", " ") or "-", "*" if each.current else "-")
        for each in kept
    ]
    output.table(("SNAPSHOT", "CREATED", "CURRENT"), rows)


@app.command()
def restore(
    name: Name,
    snapshot: Kept,
    restart: Annotated[
        bool, typer.Option("--restart", help="power it off first, and start it afterwards")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", "--force", "-f", help="do not ask")] = False,
    output_format: context.Output = "text",
) -> None:
    """Return a stopped machine to what was kept. What was written since is lost."""
    from machine.workflows import snapshot as workflow

    context.is_json(output_format)
    store = context.store()
    workflow.check(store, name, snapshot, restart=restart)
    question = f'Everything on "{name}" that is newer than "{snapshot}" is lost. Are you sure?'
    if not yes and not confirmed(question, "-y"):
        return
    _run(name, output_format, partial(workflow.restore, store, name, snapshot, restart=restart))


@app.command()
def rm(name: Name, snapshot: Kept, output_format: context.Output = "text") -> None:
    """Forget a kept state; the machine stays as it is."""
    from machine.workflows import snapshot as workflow

    _run(name, output_format, partial(workflow.remove, context.store(), name, snapshot))


def _run(name: str, output_format: str, work: Callable[..., None]) -> None:
    emit = progress.sink(as_json=context.is_json(output_format))
    progress.run(
        {name: lambda: work(emit)}, left=lambda name: f"Look at it with: machine status {name}"
    )

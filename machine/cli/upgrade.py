"""`machine upgrade`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from machine.cli import complete, context, output, progress
from machine.errors import UsageError

if TYPE_CHECKING:
    from machine.workflows.upgrade import Outcome


def upgrade(
    names: context.Names = None,
    bundle: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE",
            help="another than the newest that fits, an older one too",
            autocompletion=complete.bundles,
        ),
    ] = "",
    engine_opt: Annotated[
        list[str] | None,
        typer.Option("--engine-opt", metavar="KEY=VALUE", help="dockerd option, from now on"),
    ] = None,
    engine_label: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-label", metavar="KEY=VALUE", help="label of the engine, from now on"
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("-y", "--yes", help="do not ask, whatever a restart ends")
    ] = False,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Install a newer engine, and go back to the old one if it does not answer."""
    from machine.workflows import upgrade as workflow

    for label in engine_label or ():
        if "=" not in label:
            raise UsageError(f"--engine-label is {label!r}, and must be KEY=VALUE")
    wanted = context.several(names)
    emit = progress.sink(as_json=context.is_json(output_format), prefix=len(wanted) > 1)
    store = context.store()
    wish = workflow.Wish(bundle, tuple(engine_opt or ()), tuple(engine_label or ()))
    progress.run(
        {name: partial(workflow.upgrade, store, name, emit, wish=wish, yes=yes) for name in wanted},
        parallel=parallel,
        done=lambda name, outcome: output.say(f"{name}: {_told(outcome)}"),
        left=lambda name: f"Go on with: machine upgrade {name}",
    )


def _told(outcome: Outcome) -> str:
    if not outcome.changed:
        return f"already at {outcome.before}"
    if outcome.after == outcome.before:
        return f"changed, and still {outcome.after}"
    return f"{outcome.before} -> {outcome.after}"

"""`machine upgrade`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from machine.cli import complete, context, output, progress

if TYPE_CHECKING:
    from machine.workflows.upgrade import Wish

Bundle = Annotated[
    str,
    typer.Option(
        metavar="BUNDLE",
        help="another than the newest that fits, an older one too",
        autocompletion=complete.bundles,
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--engine-opt", metavar="KEY=VALUE", help="dockerd option, from now on"),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--engine-label", metavar="KEY=VALUE", help="label of the engine, from now on"),
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="do not ask, whatever a restart ends")]


def upgrade(
    names: context.Names = None,
    bundle: Bundle = "",
    options: Options = None,
    labels: Labels = None,
    yes: Yes = False,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Install a newer engine, and go back to the old one if it does not answer.

    Members of a Swarm hand their tasks to others first, and are upgraded one after the other.
    """
    from machine.workflows import rolling
    from machine.workflows import upgrade as workflow

    wish = wished(bundle, options or (), labels or ())
    wanted = context.several(names)
    emit = progress.sink(as_json=context.is_json(output_format), prefix=len(wanted) > 1)
    store = context.store()
    members = {name for name in wanted if store.load(name).ours.swarm}
    progress.run(
        {
            name: partial(
                rolling.one if name in members else workflow.upgrade,
                store,
                name,
                emit,
                wish=wish,
                yes=yes,
            )
            for name in wanted
        },
        parallel=1 if members else parallel,
        done=lambda name, outcome: output.say(f"{name}: {outcome.told}"),
        left=lambda name: f"Go on with: machine upgrade {name}",
    )


def wished(bundle: str, options: Sequence[str], labels: Sequence[str]) -> Wish:
    """Raises UsageError."""
    from machine.workflows.upgrade import Wish

    context.pairs("--engine-label", labels)
    return Wish(bundle, tuple(options), tuple(labels))

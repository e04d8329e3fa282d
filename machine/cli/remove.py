"""`machine rm`."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from machine.cli import complete, context, output, progress
from machine.errors import MachineError, UsageError


def rm(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", show_default=False, autocompletion=complete.machines),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="forget it even if its provider cannot be asked")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="put a host that was there before back as it was")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="do not ask")] = False,
    parallel: context.ParallelWaits = context.WAITS,
    output_format: context.Output = "text",
) -> None:
    """Remove machines and everything made for them."""
    from machine.workflows import departure, remove

    if not names:
        raise MachineError("Error: Expected to get one or more machine names as arguments")
    store = context.store()
    wanted = list(dict.fromkeys(context.expanded(names)))
    known = [name for name in wanted if store.exists(name)]
    # By force it leaves all the same, as well as it can; its Swarm may break by it.
    owing = frozenset(known) if force else departure.check(store, known, stays=False)
    output.say(f"About to remove {', '.join(known)}" if known else "Nothing to remove")
    if known and not (force or yes) and not confirmed("Are you sure?", "-y"):
        return
    emit = progress.sink(as_json=context.is_json(output_format), prefix=len(known) > 1)
    progress.run(  # a name that is not there is an error beside the others'
        {
            name: partial(
                remove.remove,
                store,
                name,
                emit,
                force=force,
                undo=undo,
                depart=name in owing,
            )
            for name in (known if force else wanted)
        },
        parallel=parallel,
        done=lambda name, _: output.say(f"Successfully removed {name}"),
        left=lambda name: f"Go on with: machine rm {name}",
    )


def confirmed(question: str, flag: str) -> bool:
    """Ask on a terminal; elsewhere raise UsageError naming the flag, so that nothing is silently
    left undone."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to answer on", hint=f"Add {flag}")
    output.ask(question)
    return sys.stdin.readline().strip().lower().startswith("y")

"""`machine resize`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from machine.cli import complete, context, progress


def resize(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete.machine)],
    cpus: Annotated[
        int | None, typer.Option("--cpus", metavar="N", min=1, max=255, help="processors")
    ] = None,
    memory: Annotated[
        int | None, typer.Option("--memory", metavar="MIB", min=256, help="memory")
    ] = None,
    disk: Annotated[
        int | None, typer.Option("--disk", metavar="GIB", min=4, help="disk; it only grows")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="TYPE", help="a cloud's own name for a size: t3.large"),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="shut it down first, and start it afterwards")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Change the size of a stopped machine, where its provider can."""
    from machine.model import Size
    from machine.workflows import resize as workflow

    wanted = Size(cpus, memory, disk, size)
    progress.each(
        context.store(),
        [name],
        partial(workflow.resize, wanted=wanted, restart=restart),
        as_json=context.is_json(output_format),
        left=lambda name: f"Look at it with: machine status {name}",
    )

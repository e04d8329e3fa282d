"""`machine push`: a container image onto the engines of machines, without a registry."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from machine.cli import complete, context, output, progress
from machine.errors import UsageError

if TYPE_CHECKING:
    from machine.workflows.push import Pushed


def push(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="a file of docker save's, an OCI layout; with --from a name or id",
            autocompletion=complete.files,
            show_default=False,
        ),
    ],
    names: context.Names = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="MACHINE",
            help="IMAGE is on that machine's engine",
            autocompletion=complete.machines,
        ),
    ] = "",
    swarm: Annotated[
        str,
        typer.Option(
            metavar="MACHINE",
            help="all machines of the Swarm that it is in",
            autocompletion=complete.machines,
        ),
    ] = "",
    tag: Annotated[str, typer.Option(metavar="NAME:TAG", help="what it is called there")] = "",
    only: Annotated[str, typer.Option(metavar="IMAGE", help="of several in an archive")] = "",
    any_platform: Annotated[
        bool, typer.Option("--any-platform", help="also where it is built for another processor")
    ] = False,
    parallel: context.ParallelWaits = context.WAITS,
    output_format: context.Output = "text",
) -> None:
    """Bring an image onto the engines of machines: from a file of docker save's, an OCI layout (a
    folder, or a tar of one), or another machine. Only layers that an engine lacks are sent."""
    from machine.container_image import full_name
    from machine.workflows import push as workflow

    as_json = context.is_json(output_format)
    if source and only:
        raise UsageError("--only is for archives: with --from, IMAGE says which")
    if tag:
        full_name(tag)
    store, wanted = context.store(), _machines(names, swarm)
    emit = progress.sink(as_json=as_json, prefix=len(wanted) > 1)

    def done(name: str, pushed: Pushed) -> None:
        if as_json:
            output.json_line("pushed", dataclasses.asdict(pushed))
        else:
            output.say(f"{name}: {_told(pushed)}")

    offered = (
        workflow.from_machine(store, source, image)
        if source
        else workflow.from_archive(Path(image).expanduser())
    )
    request = workflow.Wanted(tag, only, any_platform)
    with offered as offer:
        progress.run(
            {name: partial(workflow.push, store, name, offer, request, emit) for name in wanted},
            parallel=parallel,
            done=done,
            left=lambda name: f"{name}: the same command sends what it lacks",
        )


def _machines(names: list[str] | None, swarm: str) -> list[str]:
    if not swarm:
        return context.several(names)
    from machine.workflows.swarm import members

    return context.several([*(names or ()), *members(context.store(), swarm)])


def _told(pushed: Pushed) -> str:
    called = f"{', '.join(pushed.names)} is {pushed.image[:19]}"
    if not pushed.bytes_sent:
        return f"{called}, and was there: nothing was sent"
    whole = pushed.layers_sent + pushed.layers_present
    return f"{called}: {pushed.layers_sent} of {whole} layers sent, {_size(pushed.layer_bytes)}"


def _size(number: int) -> str:
    return f"{number / (1 << 20):.1f} MiB" if number >= 1 << 20 else f"{number / 1024:.1f} KiB"

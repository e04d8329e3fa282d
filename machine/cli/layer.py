"""`machine layer`."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Annotated, Any

import typer

from machine.cli import complete, context, output, progress
from machine.cli.create import default_driver
from machine.layers import Layer, LayerCache
from machine.store import Store

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="KEY", autocompletion=complete.layers)]
Refs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY]...", show_default=False, autocompletion=complete.layers),
]


@app.command()
def ls(output_format: context.Output = "text") -> None:
    """List the layers of this computer, and which machines began with them."""
    cache = LayerCache()
    layers, users = cache.all(), _users(context.store())
    if context.is_json(output_format):
        output.envelope("layers", [_data(each, users) for each in layers])
    else:
        heads = ("KEY", "KIND", "WHAT", "MIB", "CREATED", "USED", "MACHINES")
        output.table(heads, [_row(each, users) for each in layers])
    for problem in cache.problems():
        output.say(f"Warning: {problem.brief}: {problem.hint}")


@app.command()
def show(ref: Ref, output_format: context.Output = "json") -> None:
    """Print what a layer was made from and what it is, as JSON."""
    context.is_json(output_format)
    output.envelope("layer", _data(LayerCache().get(ref), _users(context.store())))


@app.command()
def build(
    template: Annotated[
        str, typer.Argument(metavar="[TEMPLATE]", autocompletion=complete.templates)
    ] = "default",
    driver: Annotated[
        str,
        typer.Option(
            "--driver", "-d", help="driver [MACHINE_DRIVER]", autocompletion=complete.drivers
        ),
    ] = "",
    warm: Annotated[
        bool, typer.Option("--warm", help="boot it once too, and keep its memory")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Make the layers that machines of a template begin with; what is there already is kept."""
    from machine import template as templates
    from machine.workflows import create

    as_json = context.is_json(output_format)
    request = create.CreateRequest(
        name="layer-build",
        driver=driver or default_driver(),
        template=templates.find(template),
        warm=warm,
    )
    emit = progress.sink(as_json=as_json)
    keys = progress.run({template: partial(create.prepare, context.store(), request, emit)})
    for key in keys[template]:
        layer = LayerCache().get(key)
        if as_json:
            output.json_line("layer", _data(layer, {}))
        else:
            output.say(f"{layer.kind}: {layer.title}, {layer.size >> 20} MiB")
            output.value(layer.folder.name)


@app.command()
def verify(refs: Refs = None, output_format: context.Output = "text") -> None:
    """Compare layers, or all of them, with their digests."""
    as_json = context.is_json(output_format)
    cache = LayerCache()
    layers = [cache.get(ref) for ref in refs] if refs else cache.all()
    for problem in () if refs else cache.problems():
        raise problem
    for layer in layers:
        cache.verify(layer)
        if as_json:
            output.json_line("verified", {"key": layer.key})
        else:
            output.say(f"{layer.folder.name}: every file is as it was made")


@app.command()
def prune(
    refs: Refs = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="those too that the next create would use")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="only say what would be removed")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Remove layers that a newer one has replaced, or the named ones, and everything shared in the
    hypervisor's storage that no machine needs. What a machine is backed by stays."""
    from machine.workflows import layers

    as_json = context.is_json(output_format)
    pruned = layers.prune(context.store(), refs or (), everything=everything, dry_run=dry_run)
    if as_json:
        output.envelope("pruned", [dataclasses.asdict(each) for each in pruned])
        return
    for each in pruned:
        output.value(f"{each.kind:<8} {each.name}  {each.size >> 20} MiB  {each.title}".rstrip())
    total = sum(each.size for each in pruned) >> 20
    output.say(f"{'Would free' if dry_run else 'Freed'} {total} MiB")


def _users(store: Store) -> dict[str, list[str]]:
    """Names of machines by the key of a layer that they began with."""
    users: dict[str, list[str]] = {}
    for record in store.ours():
        for key in record.ours.layers:
            users.setdefault(key, []).append(record.name)
    return users


def _row(layer: Layer, users: dict[str, list[str]]) -> tuple[str, ...]:
    return (
        layer.folder.name,
        layer.kind,
        layer.title,
        f"{layer.size >> 20}",
        layer.created[:16].replace("T", " "),
        f"{layer.used:%Y-%m-%d %H:%M}" if layer.used else "-",
        " ".join(users.get(layer.key, [])) or "-",
    )


def _data(layer: Layer, users: dict[str, list[str]]) -> dict[str, Any]:
    data = output.plain(layer)
    data["used"] = layer.used.isoformat(timespec="seconds") if layer.used else None
    return {**data, "size": layer.size, "machines": users.get(layer.key, [])}

"""`machine template`."""

from __future__ import annotations

from typing import Annotated

import typer

from machine import template as templates
from machine.cli import complete, context, output
from machine.errors import TemplateError
from machine.images import ImageCache

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="TEMPLATE", autocompletion=complete.templates)]


@app.command()
def ls(output_format: context.Output = "text") -> None:
    """List the templates: the user's own and the shipped ones."""
    found = []
    for name in templates.names():
        try:
            found.append(templates.find(name))
        except TemplateError as exc:
            output.say(f"Warning: {exc.brief}")
    if context.is_json(output_format):
        output.envelope("templates", [output.plain(each) for each in found])
        return
    output.table(
        ("NAME", "IMAGE", "CPUS", "MEMORY MIB", "DISK GIB"),
        [
            (each.name, each.image, str(each.cpus), str(each.memory_mib), str(each.disk_gib))
            for each in found
        ],
    )


@app.command()
def show(ref: Ref) -> None:
    """Print a template with all its bases laid under it, as JSON."""
    output.envelope("template", output.plain(templates.find(ref)))


@app.command()
def validate(ref: Ref) -> None:
    """Check a template, by name or file; the first mistake is named with its line and key."""
    found = templates.find(ref)
    for name in templates.unknown_drivers(found):
        output.say(f"Not checked: [{name}], a driver that is not installed here")
    if found.image not in ImageCache().known():
        output.say(f"Not known here: the image {found.image} (machine image ls --all)")
    output.say(f"{found.path} is valid")

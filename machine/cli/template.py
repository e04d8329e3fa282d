"""`machine template`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from machine import template as templates
from machine.cli import complete, context, output

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
Ref = Annotated[str, typer.Argument(metavar="TEMPLATE", autocompletion=complete.templates)]


@app.command()
def ls(output_format: context.Output = "text") -> None:
    """List the templates: the user's own and the shipped ones."""
    found = [templates.find(name) for name in templates.names()]
    if context.is_json(output_format):
        output.envelope("templates", [_data(each) for each in found])
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
    output.envelope("template", _data(templates.find(ref)))


@app.command()
def validate(ref: Ref) -> None:
    """Check a template, by name or file; the first mistake is named with its line and key."""
    output.say(f"{templates.find(ref).path} is valid")


def _data(template: templates.HostTemplate) -> dict[str, object]:
    data = dataclasses.asdict(template)
    return {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
